"""Streams opened, accepted, written, read and left, cancelled at every suspension."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cancel_ground import CONFIG, DATA, Limit
from linked import Link
from support.loops import settled, turns
from support.stepping import Cut

from burstwire import Stream, StreamReset

__all__ = [
    "finish",
    "incoming_streams",
    "iterate_stream",
    "leave_stream",
    "leave_stream_behind_a_writer",
    "open_stream",
    "read",
    "readinto",
    "write",
    "write_and_reset",
]


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
