"""Endpoints on the loopback interface, connected, and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from burstwire import Config, Connection, Endpoint, KeyPair, Stream, bind

__all__ = ["KEYS", "LOCALHOST", "Link", "deaf", "endpoints", "linked"]

LOCALHOST = "127.0.0.1:0"

KEYS = [KeyPair.generate() for _ in range(3)]
"""Made once: what is tested here does not depend on them."""


@asynccontextmanager
async def endpoints(config: Config, count: int = 2, address: str = LOCALHOST) -> AsyncIterator[list[Endpoint]]:
    """So many endpoints with the keys of `KEYS`; nothing of them is left afterwards."""
    made: list[Endpoint] = []
    async with AsyncExitStack() as stack:
        for key in KEYS[:count]:
            made.append(await stack.enter_async_context(await bind(address, key, config=config)))
        yield made
    for endpoint in made:
        assert endpoint.closed
        assert endpoint.stats()["ring_leased"] == 0
        assert not endpoint._driver.protocol.connections


@dataclass
class Link:
    """Two endpoints with one connection between them."""

    a: Endpoint
    b: Endpoint
    here: Connection
    there: Connection

    async def stream(self, first: bytes = b"!") -> tuple[Stream, Stream]:
        """A stream opened by `here`, and the peer's end of it; `first` was sent and read."""
        here = await self.here.open_stream()
        await here.write(first)
        there = await anext(self.there.incoming_streams())
        assert await there.read(len(first)) == first
        return here, there


@asynccontextmanager
async def linked(config: Config, peer: Config | None = None) -> AsyncIterator[Link]:
    """`here` connected to `there`."""
    async with (
        await bind(LOCALHOST, KEYS[0], config=config) as a,
        await bind(LOCALHOST, KEYS[1], config=peer or config) as b,
    ):
        here = await a.connect(b.local_address, KEYS[1].public)
        yield Link(a, b, here, await anext(b.incoming()))


@contextmanager
def deaf(endpoint: Endpoint) -> Iterator[None]:
    """The endpoint hears nothing meanwhile: its peers cannot tell it from one that vanished."""
    loop, driver = asyncio.get_running_loop(), endpoint._driver
    loop.remove_reader(driver.socket.fileno())
    yield
    if not driver.stopped:
        loop.add_reader(driver.socket.fileno(), driver._on_readable)
