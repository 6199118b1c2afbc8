"""Endpoints of this process in network namespaces that a shaped link joins; see `benches.shaped` for the link."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from benches.shaped import Namespace, missing

from burstwire import Config, Connection, Endpoint, KeyPair, Stream, bind

__all__ = ["Ends", "connected", "payload", "receive", "send", "shaped"]

KEYS = [KeyPair.generate() for _ in range(2)]

_WHY_NOT = missing("nft")

shaped = pytest.mark.skipif(bool(_WHY_NOT) and not os.environ.get("CI"), reason=f"shaped links: {_WHY_NOT}")
"""Marks tests that need shaped links. Where CI is set they are never skipped: what lacks there makes them fail."""

READ = 1 << 16


@dataclass
class Ends:
    """`here` and `there`: two connected endpoints and a stream between them, opened by `here`."""

    a: Endpoint
    b: Endpoint
    here: Connection
    there: Connection
    up: Stream
    down: Stream

    def count(self, name: str) -> int:
        """One of the counters of both sides' connections together."""
        return int(self.here.stats()[name] + self.there.stats()[name])


@asynccontextmanager
async def connected(
    client: Namespace, server: Namespace, address: str, config: Config | None = None
) -> AsyncIterator[Ends]:
    """`here` on the host `client`, connected to `there` on the host `server`, which has this address."""
    config = config or Config()
    with client.inside():
        a = await bind(("::" if ":" in address else "0.0.0.0", 0), KEYS[0], config=config)
    with server.inside():
        b = await bind((address, 0), KEYS[1], config=config)
    async with a, b:
        here = await a.connect((address, b.local_address[1]), KEYS[1].public)
        there = await anext(b.incoming())
        up = await here.open_stream()
        await up.write(b"!")
        down = await anext(there.incoming_streams())
        assert await down.read(1) == b"!"
        yield Ends(a, b, here, there, up, down)


def payload(size: int) -> bytes:
    """So many bytes that repeat nowhere."""
    return random.Random(11).randbytes(size)


async def send(stream: Stream, data: bytes) -> None:
    """All of it, and the end."""
    await stream.write(data)
    await stream.finish()


async def receive(
    stream: Stream, after: int = 0, then: Callable[[], Any] | None = None, watch: Callable[[], None] | None = None
) -> str:
    """The hash of everything up to the end. `then` is called once, after `after` bytes; `watch` after every read."""
    digest = hashlib.sha256()
    buffer = bytearray(READ)
    received = 0
    while count := await stream.readinto(buffer):
        digest.update(memoryview(buffer)[:count])
        received += count
        if then is not None and received >= after:
            call, then = then, None
            call()
        if watch is not None:
            watch()
        await asyncio.sleep(0)
    return digest.hexdigest()
