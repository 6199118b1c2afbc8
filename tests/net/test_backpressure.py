"""A peer that is slow slows the writer down, and memory stays bounded (what is accepted is what is delivered)."""

from __future__ import annotations

import asyncio
import mmap
import os

import pytest
from linked import Link, linked
from support.loops import Run, settled, turns

from burstwire import Config, Stream, StreamFinished

MIB = 1 << 20
SLACK = 16 * MIB
"""What the process may grow by beyond the windows: allocators, rings, the test itself."""


def resident() -> int:
    """Bytes of memory that this process occupies."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")


async def until_full(here: Stream, there: Stream) -> None:
    """Until the peer has been sent all that it allows, and the writer waits for room."""
    receiving = there._core.receiving
    await settled(lambda: receiving.ready == receiving.max_data and bool(here._writers))


@needs_proc
def test_a_gibibyte_to_a_peer_that_does_not_read_blocks_in_bounded_memory(run: Run, config: Config) -> None:
    """Both ends live in this process, so what they may hold together counts: send buffer and receive window."""
    data = bytes(1 << 30)  # never touched: the kernel shows one page of zeros throughout

    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            before = resident()
            writing = asyncio.create_task(here.write(data))
            await until_full(here, there)
            await turns(1000)
            assert not writing.done()
            assert resident() - before <= config.send_buffer + config.stream_window + SLACK

            buffer = bytearray(MIB)
            left = 64 * MIB
            while left > 0:  # it goes on as soon as the peer reads, and in the same bounds
                left -= await there.readinto(buffer)
            assert not writing.done()
            assert resident() - before <= config.send_buffer + config.stream_window + SLACK
            writing.cancel()
            await asyncio.wait([writing])
            here.reset()

    run(main)


@needs_proc
def test_messages_to_a_peer_that_does_not_receive_block_in_bounded_memory(run: Run, config: Config) -> None:
    message = bytes(100_000)

    async def main() -> None:
        async with linked(config) as link:
            before = resident()
            accepted = 0

            async def send() -> None:
                nonlocal accepted
                while True:
                    await link.here.send(message)
                    accepted += 1

            sending = asyncio.create_task(send())
            await settled(lambda: bool(link.here._senders) and link.here.stats()["bytes_in_flight"] == 0)
            await turns(1000)
            bound = config.send_buffer + config.stream_window
            # A message is taken whole when there is any room, and the one in assembly may stand outside the window.
            assert accepted * len(message) <= bound + 2 * len(message)
            assert resident() - before <= bound + SLACK
            sending.cancel()
            await asyncio.wait([sending])
            for _ in range(accepted):
                assert len(await link.there.recv()) == len(message)

    run(main)


def test_what_was_accepted_and_what_was_delivered_differ_by_the_buffers_at_most(run: Run, config: Config) -> None:
    """`write` returning is no promise of delivery, but a bound on it, at every moment of a transfer."""

    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            piece = bytes(300_000)
            accepted = 0
            total = 200 * len(piece)

            async def write() -> None:
                nonlocal accepted
                while accepted < total:
                    await here.write(piece)
                    accepted += len(piece)
                await here.finish()

            writing = asyncio.create_task(write())
            buffer = bytearray(MIB)
            delivered = most = 0
            while count := await there.readinto(buffer):
                delivered += count
                most = max(most, accepted - delivered)
            await writing
            assert delivered == accepted == total
            assert most <= config.send_buffer + config.stream_window
            assert most < 0.12 * total  # so that the rates of the two sides cannot differ by more over such a transfer

    run(main)


def test_one_stream_that_is_not_read_does_not_stop_the_others(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            stuck, unread = await link.stream()
            writing = asyncio.create_task(stuck.write(bytes(32 * MIB)))
            await until_full(stuck, unread)
            await _carries(link, 16 * MIB)
            await link.here.send(b"nor the messages")
            assert await link.there.recv() == b"nor the messages"
            stuck.reset()
            with pytest.raises(StreamFinished):
                await writing

    run(main)


async def _carries(link: Link, size: int) -> None:
    here, there = await link.stream()
    writing = asyncio.create_task(here.write(bytes(size)))
    buffer = bytearray(MIB)
    while size:
        size -= await there.readinto(buffer)
    await writing


def test_a_stream_abandoned_while_full_gives_its_window_back(run: Run, config: Config) -> None:
    """Whoever gives up: several times the connection's window passes through streams that are then abandoned."""

    async def main() -> None:
        async with linked(config) as link:
            for number in range(8):
                here, there = await link.stream()
                writing = asyncio.create_task(here.write(bytes(32 * MIB)))
                await until_full(here, there)
                if number % 2:
                    here.reset()
                else:
                    there.stop()
                await asyncio.wait([writing])
                assert writing.exception() is not None
            await _carries(link, 16 * MIB)

    run(main)
