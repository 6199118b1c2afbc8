"""Both ends of a file's conversation over a stream in memory, for the tests beside this."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from memory_stream import stream_pair

from burstwire.cli.exchange import Exchange
from burstwire.cli.headers import (
    Accept,
    Offer,
)
from burstwire.cli.progress import SilentProgress
from burstwire.cli.receiver import Inbox, Received
from burstwire.cli.sender import Sent, open_source, send_file
from burstwire.errors import PeerClosed

SENDER = b"s" * 32


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(limited())


async def transfer(
    path: Path, inbox: Inbox, *, name: str | None = None, deadline: float = 5, sender: bytes = SENDER
) -> tuple[Sent | Exception, Received | Exception, int]:
    """Both ends; the bytes that the sender's stream carried."""
    near, far = stream_pair()
    with open_source(str(path), name) as source:
        sent, received = await asyncio.gather(
            send_file(Exchange(near, deadline), source, SilentProgress()),
            inbox.receive(Exchange(far, deadline), sender),
            return_exceptions=True,
        )
    assert not isinstance(sent, asyncio.CancelledError)
    return sent, received, near.carried  # type: ignore[return-value]


def leftovers(box: Path) -> list[Path]:
    return [entry for entry in box.iterdir() if entry.name.startswith(".")]


async def interrupted(path: Path, inbox: Inbox, after: int) -> None:
    """Send `after` bytes of the file, then lose the connection."""
    near, far = stream_pair(1 << 14)
    receiving = asyncio.ensure_future(inbox.receive(Exchange(far, 5), SENDER))
    stat = path.stat()
    exchange = Exchange(near, 5)
    await exchange.put(Offer(path.name, stat.st_size, stat.st_mtime_ns, 0o644))
    await exchange.get(Accept)
    await exchange.write(memoryview(path.read_bytes()[:after]))
    while near.carried < after:
        await asyncio.sleep(0.001)
    near.cut()
    with pytest.raises(PeerClosed):
        await receiving
