"""Sending and receiving messages and datagrams, cancelled at every suspension."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cancel_ground import Limit, full
from linked import Link
from support.loops import settled, turns
from support.stepping import Cut

from burstwire import Connection

__all__ = ["iterate_messages", "recv", "recv_datagram", "recv_many", "send", "send_many", "two_receivers"]


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
