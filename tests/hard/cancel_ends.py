"""Closing and leaving, cancelled at every suspension."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest import mock

from cancel_ground import CONFIG, DATA, Limit, full
from linked import KEYS, Link, deaf
from support.loops import settled
from support.stepping import Cut

from burstwire import Connection, ConnectionLost, Endpoint, LocallyClosed, PeerClosed, StreamError, bind

__all__ = ["close", "close_endpoint", "close_endpoint_of_a_silent_peer", "leave_everything", "wait_closed"]


async def _closing(link: Link, cut: Cut, close: Callable[[], Any]) -> None:
    """What was accepted arrives, and the code, whatever becomes of who waits for it."""
    before = await full(link.here)
    closing = asyncio.create_task(cut(close()))
    await settled(lambda: cut.seen > 0)
    received: list[bytes] = []
    ended: ConnectionLost | None = None
    while ended is None:
        try:
            received.append(await link.there.recv())
        except ConnectionLost as error:
            ended = error
    await closing
    assert isinstance(ended, PeerClosed)
    assert (ended.code, ended.reason) == (4, "bye")
    assert received == before
    assert isinstance(await link.here.wait_closed(), LocallyClosed)


async def close(link: Link, cut: Cut, limit: Limit) -> None:
    await _closing(link, cut, lambda: link.here.close(4, "bye"))


async def close_endpoint(link: Link, cut: Cut, limit: Limit) -> None:
    await _closing(link, cut, lambda: link.a.close(4, "bye"))
    await settled(lambda: link.a.closed)


async def close_endpoint_of_a_silent_peer(link: Link, cut: Cut, limit: Limit) -> None:
    with mock.patch.object(link.a, "config", CONFIG.replace(close_timeout=0.02)), deaf(link.b):
        await link.here.send(b"never acknowledged")
        await cut(link.a.close())
        assert isinstance(await link.here.wait_closed(), LocallyClosed)
        await settled(lambda: link.a.closed)


async def wait_closed(link: Link, cut: Cut, limit: Limit) -> None:
    async def end() -> None:
        await settled(lambda: cut.seen > 0)
        await link.here.close()

    ending = asyncio.create_task(end())
    await cut(link.there.wait_closed(**limit))
    await ending
    assert isinstance(await link.there.wait_closed(), PeerClosed)


async def leave_everything(link: Link, cut: Cut, limit: Limit) -> None:
    """A life from `bind` to the end of `async with`, in one task; the peer knows nothing of cancelling."""
    made: list[Endpoint] = []

    async def serve(connection: Connection) -> None:
        async with connection:
            first = await connection.recv()
            await connection.send_many([first, b"second", b"third"])
            connection.send_datagram(b"datagram")
            async with await anext(connection.incoming_streams()) as stream:
                await stream.write(b"".join([chunk async for chunk in stream]))
            await connection.wait_closed()

    async def serve_all() -> None:
        async with asyncio.TaskGroup() as group:
            async for connection in link.b.incoming():
                group.create_task(_until_lost(serve(connection)))

    async def life() -> None:
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(await bind("localhost:0", KEYS[2], config=CONFIG))
            made.append(endpoint)
            connection = await stack.enter_async_context(await endpoint.connect(link.b.local_address, KEYS[1].public))
            await connection.send(b"first")
            assert [await connection.recv(), await connection.recv()] == [b"first", b"second"]
            assert await connection.recv_many() == [b"third"]
            assert await connection.recv_datagram() == b"datagram"
            async with await connection.open_stream() as stream:
                await stream.write(DATA)
                await stream.finish()
                assert b"".join([chunk async for chunk in stream]) == DATA

    serving = asyncio.create_task(serve_all())
    await cut(life())
    assert len(made) == 1 or cut.cancelled
    for endpoint in made:
        await settled(lambda endpoint=endpoint: endpoint.closed)
    await settled(lambda: len(link.b._driver.protocol.connections) <= 1 or not cut.cancelled)
    serving.cancel()
    await asyncio.wait([serving])
    assert serving.cancelled()


async def _until_lost(serving: Awaitable[None]) -> None:
    with suppress(ConnectionLost, StreamError, StopAsyncIteration):
        await serving
