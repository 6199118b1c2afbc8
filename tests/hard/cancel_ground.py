"""What the scenarios of cancellation stand on: small buffers, what fills them, and whether all still works."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from support.stepping import Cut

from burstwire import Config, Connection, DeadlineExceeded

__all__ = ["CONFIG", "DATA", "Limit", "Scenario", "full", "still_works"]

CONFIG = Config(send_buffer=16384, stream_window=16384, connection_window=16384, max_streams=2, close_timeout=30.0)
"""Buffers that a few writes fill, so that there is something to wait for."""

DATA = random.Random(3).randbytes(40_000)
"""More than two windows."""

Limit = dict[str, float]

Scenario = Callable[[Any, Cut, Limit], Awaitable[None]]


async def still_works(here: Connection, there: Connection) -> None:
    """A message each way and a stream."""
    await here.send(b"ping")
    assert await there.recv() == b"ping"
    await there.send(b"pong")
    assert await here.recv() == b"pong"
    async with await here.open_stream() as stream:
        await stream.write(b"echo")
        await stream.finish()
        async with await anext(there.incoming_streams()) as other:
            assert [chunk async for chunk in other] == [b"echo"]


async def full(connection: Connection) -> list[bytes]:
    """Sends until the peer takes no more; what was sent."""
    sent: list[bytes] = []
    refused = 0
    while refused < 3:  # one may only be too early for the peer's next credit
        message = b"%d" % len(sent) + bytes(4000)
        try:
            await connection.send(message, timeout=0)
        except DeadlineExceeded:
            refused += 1
            await asyncio.sleep(0.001)
        else:
            refused = 0
            sent.append(message)
    return sent
