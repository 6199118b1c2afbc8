"""Once a transfer is under way it allocates nothing that stays: what it needs was there, and is used again."""

from __future__ import annotations

import asyncio
import gc
import sys
from array import array

from linked import linked
from support.loops import Run

from burstwire import Config
from burstwire.proto.ranges import MAX_RECEIVED_RANGES

CHUNK = 256 * 1024
SIZE = 640 * CHUNK
"""160 MiB: 144,000 packets of 1,200 bytes, in 2,680 trains and several hundred flights."""

LIMIT = 500
"""Allocated blocks. The count moves with what is in flight, by some two hundred; one object kept for each flight makes
it a thousand."""


TUPLES = 2000
"""Freed tuples of each length below 20 that CPython keeps for later, and counts as allocated."""


def _fill_free_lists() -> None:
    """A burst, as a busy machine makes them, would fill them at any moment and look like something that stays."""
    for length in range(1, 20):
        kept = [(*range(length),) for _ in range(TUPLES)]
        del kept


async def _transfer(config: Config) -> tuple[array[int], dict[str, int]]:
    """Blocks allocated after each chunk that was read, and the sender's counters at the end."""
    blocks = array("q", bytes(8 * 2 * (SIZE // CHUNK)))
    seen = 0
    async with linked(config) as link:
        here, there = await link.stream()

        async def write() -> None:
            chunk = bytes(CHUNK)
            for _ in range(SIZE // CHUNK):
                await here.write(chunk)
            await here.finish()

        writing = asyncio.create_task(write())
        buffer = bytearray(CHUNK)
        got, look_at = 0, CHUNK
        while n := await there.readinto(buffer):
            got += n
            if got >= look_at:
                blocks[seen] = sys.getallocatedblocks()
                seen += 1
                look_at += CHUNK
        await writing
        assert got == SIZE
        assert link.a.stats()["ring_leased"] == link.b.stats()["ring_leased"] == 0
        return blocks[:seen], link.here.stats()


def test_a_transfer_allocates_nothing_that_stays(run: Run, config: Config) -> None:
    async def main() -> None:
        # Garbage of cycles would be counted until it is collected, at any moment: so it is never collected here,
        # and a bulk path that made any would be found out.
        gc.collect()
        _fill_free_lists()
        gc.disable()
        try:
            blocks, counted = await _transfer(config.replace(max_datagram_size=1200))
        finally:
            gc.enable()
        assert counted["packets_sent"] > SIZE // 1200
        quarter = len(blocks) // 4
        first, last = min(blocks[quarter : 2 * quarter]), min(blocks[-quarter:])
        # Each lost packet leaves a hole in the numbers that arrived, two integers, for at most so many holes.
        holes = 2 * min(MAX_RECEIVED_RANGES, int(counted["packets_lost"]))
        assert last - first < LIMIT + holes, f"{last - first:,} blocks more than at the start, of {first:,}"

    run(main)
