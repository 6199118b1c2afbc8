"""Binding, connecting and accepting, cancelled at every suspension."""

from __future__ import annotations

import asyncio
from unittest import mock

from cancel_ground import CONFIG, Limit, still_works
from linked import KEYS, LOCALHOST
from support.stepping import Cut

from burstwire import Connection, ConnectionLost, Endpoint, bind
from burstwire.core.address import pack_address

__all__ = ["bind_by_name", "connect", "connect_by_name", "connect_by_the_second_address", "incoming"]


async def no_connection_left(endpoint: Endpoint) -> None:
    """Of a cancelled attempt nothing stays."""
    assert not endpoint._attempts
    assert endpoint.stats()["attempts"] == 0
    assert not [core for core in endpoint._driver.protocol.connections.values() if core.error is None]


async def meet(a: Endpoint, b: Endpoint, here: Connection) -> None:
    """Finds `here` among the connections that came to `b`; the others were given up."""
    await here.send(b"this one")
    async for there in b.incoming():
        try:
            assert await there.recv() == b"this one"
        except ConnectionLost:
            continue
        return await still_works(here, there)


async def _connect(pair: list[Endpoint], cut: Cut, host: str) -> None:
    a, b = pair
    address = (host, b.local_address[1])
    here = await cut(a.connect(address, b.public_key))
    if here is None:
        await no_connection_left(a)
        here = await a.connect(address, b.public_key)
    await meet(a, b, here)


async def connect(pair: list[Endpoint], cut: Cut, limit: Limit) -> None:
    await _connect(pair, cut, "127.0.0.1")


async def connect_by_name(pair: list[Endpoint], cut: Cut, limit: Limit) -> None:
    await _connect(pair, cut, "localhost")


async def connect_by_the_second_address(pair: list[Endpoint], cut: Cut, limit: Limit) -> None:
    """A name whose first address does not answer, so that two attempts are under way."""
    silent = "127.0.0.3"

    async def found(host: str, port: int) -> list[bytes]:
        await asyncio.sleep(0)
        return [pack_address(silent, port), pack_address("127.0.0.1", port)]

    with (
        mock.patch("burstwire.aio.endpoint.resolve", found),
        mock.patch("burstwire.aio.endpoint.NEXT_ADDRESS_AFTER", 0.002),
    ):
        await _connect(pair, cut, "a.name.with.two.addresses")


async def incoming(pair: list[Endpoint], cut: Cut, limit: Limit) -> None:
    a, b = pair
    accepted: list[Connection] = []

    async def listen() -> None:
        while len(accepted) < 2:
            accepted.append(await anext(b.incoming()))

    async def dial(other: Endpoint) -> list[Connection]:
        first = await a.connect(b.local_address, b.public_key)
        return [first, await other.connect(b.local_address, b.public_key)]

    async with await bind(LOCALHOST, KEYS[2], config=CONFIG) as other:
        dialling = asyncio.create_task(dial(other))
        await cut(listen())
        await listen()
        for here, there in zip(await dialling, accepted, strict=True):
            await still_works(here, there)


async def bind_by_name(pair: list[Endpoint], cut: Cut, limit: Limit) -> None:
    endpoint = await cut(bind("localhost:0", KEYS[2], config=CONFIG))
    if endpoint is not None:
        await endpoint.close()
