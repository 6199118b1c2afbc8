"""What a transport has to offer, so that every one of them does the same work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

__all__ = ["READ", "Handler", "Link", "Peer", "Sink", "StreamLink"]

READ = 256 * 1024
"""Bytes asked for by one read: what asyncio's TLS takes from the socket at a time, so nobody gains by larger ones."""

Sink = Callable[[Any, int], None]
"""Takes one chunk of a bulk transfer (any buffer, and how many bytes of it count)."""


class Link(ABC):
    """One connection, seen from either side. Messages and bulk do not overlap."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """One message, reliable and in order, handed over as this transport's users would."""

    @abstractmethod
    async def recv(self) -> bytes:
        """The next message."""

    async def send_many(self, messages: list[bytes]) -> None:
        """Many messages, by whatever this transport has for many."""
        for message in messages:
            await self.send(message)

    async def recv_many(self) -> list[bytes]:
        """At least one message, by whatever this transport has for many."""
        return [await self.recv()]

    @abstractmethod
    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        """Send all blocks as one stream."""

    @abstractmethod
    async def read_bulk(self, size: int, sink: Sink) -> None:
        """Receive `size` bytes of such a stream."""

    @abstractmethod
    async def close(self) -> None:
        """Close politely."""


Handler = Callable[[Link], Awaitable[None]]


class Peer(ABC):
    """One transport in one process."""

    name = ""
    both_authenticated = False
    """Whether a handshake proves both sides to each other, or the server to the client only."""

    def __init__(self, options: Namespace) -> None:
        self.options = options

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        """Add the options of this transport; most have none."""
        del parser

    @abstractmethod
    async def serve(self, handler: Handler) -> dict[str, Any]:
        """Listen on loopback and call `handler` for each connection; returns what `connect` needs, as JSON."""

    @abstractmethod
    async def connect(self, info: dict[str, Any]) -> Link:
        """Connect to what `serve` returned in the other process."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything."""

    @classmethod
    def authenticates(cls) -> str:
        """Who is proven by a handshake, in words for a table."""
        return "both sides" if cls.both_authenticated else "the server"

    def about(self) -> dict[str, Any]:
        """What belongs beside a figure: back ends, versions, granted buffers."""
        return {}

    def counters(self) -> dict[str, float]:
        """Counters that only grow; what a task added to them is reported with it."""
        return {}


class StreamLink(Link):
    """A link over asyncio's stream pair: messages carry a length of four bytes.

    Messages are cut out of whatever one read brought, which is some times faster than two `readexactly` a message.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._messages: deque[bytes] = deque()
        self._rest = b""

    async def send(self, message: bytes) -> None:
        self.writer.write(len(message).to_bytes(4, "big") + message)
        await self._drain(len(message) + 4)

    async def send_many(self, messages: list[bytes]) -> None:
        data = b"".join([len(message).to_bytes(4, "big") + message for message in messages])
        self.writer.write(data)
        await self._drain(len(data))

    async def recv(self) -> bytes:
        while not self._messages:
            await self._fill()
        return self._messages.popleft()

    async def recv_many(self) -> list[bytes]:
        while not self._messages:
            await self._fill()
        messages = list(self._messages)
        self._messages.clear()
        return messages

    async def _drain(self, size: int) -> None:
        """After `size` bytes were written: what keeps a writer from running ahead, as users of this library do it."""
        del size
        await self.writer.drain()

    async def _fill(self) -> None:
        data = await self.reader.read(READ)
        if not data:
            raise ConnectionError("the peer closed the connection")
        data = self._rest + data if self._rest else data
        at = 0
        while at + 4 <= len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            self._messages.append(data[at + 4 : end])
            at = end
        self._rest = data[at:]

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            self.writer.write(block)
            await self._drain(len(block))

    async def read_bulk(self, size: int, sink: Sink) -> None:
        if self._rest or self._messages:
            raise RuntimeError("bulk bytes were taken for messages")
        while size:
            data = await self.reader.read(min(READ, size))
            if not data:
                raise ConnectionError(f"the peer closed the connection {size:,} bytes too early")
            sink(data, len(data))
            size -= len(data)

    async def close(self) -> None:
        self.writer.close()
