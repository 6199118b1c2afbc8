"""What is cancelled at every suspension: each scenario runs calls in `cut`, and then checks what they promise.

A scenario gets a connection between two endpoints (`Link`), or two endpoints, and `limit`: nothing, or a timeout that
never comes, for a wait within a timeout is another piece of code.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest import mock

from linked import KEYS, LOCALHOST, Link, deaf
from support.loops import settled, turns
from support.stepping import Cut

from burstwire import (
    Config,
    Connection,
    ConnectionLost,
    DeadlineExceeded,
    Endpoint,
    LocallyClosed,
    PeerClosed,
    Stream,
    StreamError,
    StreamReset,
    bind,
)
from burstwire.core.address import pack_address

__all__ = ["CONFIG", "ENDING", "LINKED", "UNLINKED", "Scenario", "still_works"]

CONFIG = Config(send_buffer=16384, stream_window=16384, connection_window=16384, max_streams=2, close_timeout=30.0)
"""Buffers that a few writes fill, so that there is something to wait for."""

DATA = random.Random(3).randbytes(40_000)
"""More than two windows."""

Limit = dict[str, float]


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


# --- messages and datagrams ------------------------------------------------------------------------------------


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


async def until_end(connection: Connection) -> list[bytes]:
    """The messages before the one that says "end"."""
    received = []
    while (message := await connection.recv()) != b"end":
        received.append(message)
    return received


async def send(link: Link, cut: Cut, limit: Limit) -> None:
    before = await full(link.here)
    reading = asyncio.create_task(until_end(link.there))
    message = b"cut" + bytes(3000)

    async def second() -> None:
        await settled(lambda: cut.seen > 0)
        await link.here.send(b"second in line")

    behind = asyncio.create_task(second())
    await cut(link.here.send(message, **limit))
    await behind
    await link.here.send(b"end")
    assert await reading == [*before, *([] if cut.cancelled else [message]), b"second in line"]


async def send_many(link: Link, cut: Cut, limit: Limit) -> None:
    before = await full(link.here)
    reading = asyncio.create_task(until_end(link.there))
    messages = [b"cut %d" % number + bytes(3000) for number in range(12)]
    await cut(link.here.send_many(messages, **limit))
    await link.here.send(b"end")
    received = (await reading)[len(before) :]
    assert received == messages[: len(received)]
    assert cut.cancelled or len(received) == len(messages)


async def _receiving(
    link: Link, cut: Cut, take: Callable[[list[bytes]], Awaitable[None]], say: Callable[[bytes], Awaitable[None]]
) -> None:
    """`take` appends what comes next to a list."""
    sent = [b"%d" % number for number in range(5)]
    received: list[bytes] = []

    async def speak() -> None:
        for message in sent:
            await say(message)
            await turns(2)

    async def listen() -> None:
        while len(received) < len(sent):
            await take(received)

    speaking = asyncio.create_task(speak())
    await cut(listen())
    await listen()
    await speaking
    assert received == sent


async def recv(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(received: list[bytes]) -> None:
        received.append(await link.there.recv(**limit))

    await _receiving(link, cut, take, link.here.send)


async def recv_many(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(received: list[bytes]) -> None:
        received.extend(await link.there.recv_many(2, **limit))

    await _receiving(link, cut, take, link.here.send)


async def iterate_messages(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(received: list[bytes]) -> None:
        async for message in link.there:
            received.append(message)
            return

    await _receiving(link, cut, take, link.here.send)


async def recv_datagram(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(received: list[bytes]) -> None:
        received.append(await link.there.recv_datagram(**limit))

    async def say(data: bytes) -> None:
        link.here.send_datagram(data)

    await _receiving(link, cut, take, say)


async def two_receivers(link: Link, cut: Cut, limit: Limit) -> None:
    """Beside the one that is cut, another one stands in the line, before it or behind it."""
    sent = [b"%d" % number for number in range(6)]
    received: list[bytes] = []

    async def listen(pause: int) -> None:
        await turns(pause)
        while (message := await link.there.recv(**limit)) != b"end":
            received.append(message)

    async def speak() -> None:
        for message in [*sent, b"end", b"end"]:
            await turns(3)
            await link.here.send(message)

    other = asyncio.create_task(listen(1))
    speaking = asyncio.create_task(speak())
    await cut(listen(cut.at % 3))
    if cut.cancelled:
        await listen(0)
    await other
    await speaking
    assert sorted(received) == sent


# --- streams ---------------------------------------------------------------------------------------------------


async def read_all(stream: Stream) -> tuple[bytes, bool]:
    """Everything, and whether it ended with `StreamReset`."""
    received = b""
    try:
        async for chunk in stream:
            received += chunk
    except StreamReset:
        return received, True
    return received, False


async def write(link: Link, cut: Cut, limit: Limit) -> None:
    here, there = await link.stream()
    reading = asyncio.create_task(read_all(there))
    await cut(here.write(DATA, **limit))
    await here.write(b"| afterwards")
    await here.finish()
    received, was_reset = await reading
    before = received.removesuffix(b"| afterwards")
    assert not was_reset
    assert before != received
    assert DATA.startswith(before)
    assert cut.cancelled or before == DATA
    await there.finish()


async def write_and_reset(link: Link, cut: Cut, limit: Limit) -> None:
    here, there = await link.stream()
    reading = asyncio.create_task(read_all(there))
    await cut(here.write(DATA, **limit))
    here.reset(7)
    received, was_reset = await reading
    assert was_reset
    assert DATA.startswith(received)
    await there.finish()
    assert await here.read(1) == b""


async def finish(link: Link, cut: Cut, limit: Limit) -> None:
    """Behind a write that waits, so that it waits itself."""
    here, there = await link.stream()
    writing = asyncio.create_task(here.write(DATA))
    await turns(2)

    async def read_later() -> tuple[bytes, bool]:
        await settled(lambda: cut.seen > 0)
        return await read_all(there)

    reading = asyncio.create_task(read_later())
    await cut(here.finish(**limit))
    await writing
    if cut.cancelled:
        await here.write(b"more")
        await here.finish()
    assert await reading == (DATA + b"more" * cut.cancelled, False)
    await there.finish()


async def _reading(link: Link, cut: Cut, take: Callable[[Stream, bytearray], Awaitable[bool]]) -> None:
    """`take` appends what comes next, False at the end."""
    here, there = await link.stream()
    received = bytearray()

    async def speak() -> None:
        for at in range(0, len(DATA), 8000):
            await here.write(DATA[at : at + 8000])
            await turns(2)
        await here.finish()

    async def listen() -> None:
        while await take(there, received):
            pass

    speaking = asyncio.create_task(speak())
    await cut(listen())
    await listen()
    await speaking
    assert received == DATA
    await there.finish()


async def read(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(stream: Stream, received: bytearray) -> bool:
        chunk = await stream.read(5000, **limit)
        received.extend(chunk)
        return bool(chunk)

    await _reading(link, cut, take)


async def readinto(link: Link, cut: Cut, limit: Limit) -> None:
    buffer = bytearray(5000)

    async def take(stream: Stream, received: bytearray) -> bool:
        n = await stream.readinto(buffer, **limit)
        received.extend(buffer[:n])
        return n > 0

    await _reading(link, cut, take)


async def iterate_stream(link: Link, cut: Cut, limit: Limit) -> None:
    async def take(stream: Stream, received: bytearray) -> bool:
        async for chunk in stream:
            received.extend(chunk)
        return False

    await _reading(link, cut, take)


async def leave_stream(link: Link, cut: Cut, limit: Limit) -> None:
    """`async with stream`: whole, or reset, never a fragment that looks whole; and nothing of it stays."""
    here, there = await link.stream()
    reading = asyncio.create_task(read_all(there))

    async def body() -> None:
        async with here:
            await here.write(DATA, **limit)

    await cut(body())
    received, was_reset = await reading
    assert was_reset == cut.cancelled
    assert DATA.startswith(received)
    assert was_reset or received == DATA
    async with there:
        pass
    await settled(lambda: len(link.here._core.streams.open) == len(link.there._core.streams.open) == 1)


async def leave_stream_behind_a_writer(link: Link, cut: Cut, limit: Limit) -> None:
    """As `leave_stream`, where the end itself has to wait for a write of another task."""
    here, there = await link.stream()
    writing = asyncio.create_task(here.write(DATA))
    await turns(2)

    async def read_later() -> tuple[bytes, bool]:
        await settled(lambda: cut.seen > 0)
        return await read_all(there)

    async def body() -> None:
        async with here:
            pass

    reading = asyncio.create_task(read_later())
    await cut(body())
    await asyncio.wait([writing])
    received, was_reset = await reading
    assert was_reset == cut.cancelled
    assert writing.exception() is None or cut.cancelled  # a write that still waited is told of the reset
    assert was_reset or received == DATA
    async with there:
        pass
    await settled(lambda: len(link.here._core.streams.open) == len(link.there._core.streams.open) == 1)


# --- opening and accepting -------------------------------------------------------------------------------------


async def open_stream(link: Link, cut: Cut, limit: Limit) -> None:
    first, second = [await link.here.open_stream() for _ in range(CONFIG.max_streams)]
    await second.write(b"a later one, so that the peer has both")

    async def end_the_first() -> None:
        await settled(lambda: cut.seen > 0)
        await first.finish()
        async with await anext(link.there.incoming_streams()) as there:
            assert await there.read(1) == b""

    ending = asyncio.create_task(end_the_first())
    third = await cut(link.here.open_stream(**limit))
    await ending
    assert await first.read(1) == b""
    if third is None:
        third = await link.here.open_stream()
    assert third.id == second.id + 4, "the cancelled call opened one"
    await third.write(b"third")
    streams = link.there.incoming_streams()
    for stream in (second, third):
        stream.reset()
        async with await anext(streams) as there:
            assert there.id == stream.id
            assert (await read_all(there))[1]
        assert await stream.read(1) == b""


async def incoming_streams(link: Link, cut: Cut, limit: Limit) -> None:
    opened = []
    accepted: list[Stream] = []

    async def speak() -> None:
        for _ in range(CONFIG.max_streams):
            opened.append(await link.here.open_stream())
            await opened[-1].write(b"!")
            await turns(3)

    async def listen() -> None:
        while len(accepted) < CONFIG.max_streams:
            accepted.append(await anext(link.there.incoming_streams()))

    speaking = asyncio.create_task(speak())
    await cut(listen())
    await listen()
    await speaking
    assert [stream.id for stream in accepted] == [stream.id for stream in opened]
    for here, there in zip(opened, accepted, strict=True):
        async with here, there:
            assert await there.read(10) == b"!"


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


# --- the end ---------------------------------------------------------------------------------------------------


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


Scenario = Callable[[Any, Cut, Limit], Awaitable[None]]

LINKED: dict[str, list[Scenario]] = {
    "messages and datagrams": [send, send_many, recv, recv_many, iterate_messages, recv_datagram, two_receivers],
    "streams": [write, write_and_reset, finish, read, readinto, iterate_stream, leave_stream,
                leave_stream_behind_a_writer],
    "opening streams and accepting them": [open_stream, incoming_streams],
}  # fmt: skip
"""With a connection that still works afterwards."""

ENDING: dict[str, list[Scenario]] = {
    "closing and leaving": [close, close_endpoint, close_endpoint_of_a_silent_peer, wait_closed, leave_everything],
}
"""With a connection."""

UNLINKED: dict[str, list[Scenario]] = {
    "binding, connecting and accepting": [bind_by_name, connect, connect_by_name, connect_by_the_second_address,
                                          incoming],
}  # fmt: skip
"""With two endpoints."""
