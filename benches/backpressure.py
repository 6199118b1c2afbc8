"""Does a writer know how fast its peer really takes the data? The rate that it sees and the rate delivered must agree.

A transport without backpressure reports the speed of its own buffers. Here the writer counts what `write` has accepted
when the last of it was, and the reader what it has read at that moment.
"""

from __future__ import annotations

import asyncio
import time

import burstwire as bw
from benches.harness import BenchError
from benches.report import Report, Table, say

__all__ = ["run"]

MIB = 1 << 20
LIMIT = 0.05
"""The rates may differ by this share: the buffers between writer and reader, and no more."""

CHUNK = 256 * 1024


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    size = (256 if quick else 1024) * MIB
    say(f"backpressure: a stream of {size // MIB:,} MiB")
    accepted, delivered, seconds = asyncio.run(_measure(size))
    difference = 1 - delivered / accepted
    table = Table(
        "Accepted from the writer and delivered to the reader, when the last write returned",
        ["MiB accepted", "MiB delivered", "MB/s reported", "MB/s delivered", "difference, %"],
    )
    table.add(
        accepted // MIB,
        delivered / MIB,
        accepted / seconds / 1e6,
        delivered / seconds / 1e6,
        100 * difference,
    )
    report.add(table)
    report.raw["backpressure"] = {"accepted": accepted, "delivered": delivered, "seconds": seconds}
    report.verdict(
        f"reported and delivered rates differ by less than {LIMIT:.0%} ({difference:.2%})", difference < LIMIT
    )


async def _measure(size: int) -> tuple[int, int, float]:
    """Bytes accepted and bytes delivered at the moment when everything was accepted, and the seconds until then."""
    key = bw.KeyPair.generate()
    async with (
        await bw.bind("127.0.0.1:0", key) as server,
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as client,
    ):
        connection = await client.connect(server.local_address, key.public)
        accepted_side = await anext(aiter(server.incoming()))
        delivered = 0

        async def read() -> None:
            nonlocal delivered
            stream = await anext(aiter(accepted_side.incoming_streams()))
            buffer = bytearray(CHUNK)
            while n := await stream.readinto(buffer):
                delivered += n

        reader = asyncio.create_task(read())
        stream = await connection.open_stream()
        chunk = bytes(CHUNK)
        start = time.perf_counter()
        for _ in range(size // CHUNK):
            await stream.write(chunk)
        seconds = time.perf_counter() - start
        seen = delivered
        await stream.finish()
        await reader
        if delivered != size:
            raise BenchError(f"{delivered:,} of {size:,} bytes arrived")
        return size, seen, seconds
