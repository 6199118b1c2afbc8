"""Headers and bytes over one stream, with a deadline on every step.

The stream is burstwire's; only what `ByteStream` lists is used, so tests put a pair in memory in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from burstwire.cli.headers import LENGTH, MAX_HEADER, Busy, Header, HeaderError, Refuse, ResetCode, decode, encode
from burstwire.errors import StreamError, TransportError

__all__ = ["ByteStream", "Exchange", "PeerEnded", "Refused", "Stalled", "TransferError", "explain"]

BUSY_INTERVAL = 0.4
"""Seconds between two busy headers: below half of the shortest deadline that the command line takes (1 s)."""

WRITE_PIECE = 64 * 1024
"""Bytes that must find room in the stream within one deadline: 4.4 kB/s keep up with the default 15 s."""

T = TypeVar("T")
H = TypeVar("H", bound=Header)


class ByteStream(Protocol):
    """The part of burstwire's stream that a file transfer uses."""

    async def write(self, data: bytes | bytearray | memoryview) -> Any: ...
    async def readinto(self, buffer: memoryview) -> int: ...
    async def finish(self) -> Any: ...
    def reset(self, code: int) -> Any: ...
    def stop(self, code: int) -> Any: ...


class TransferError(Exception):
    """This file's transfer failed; the message says why. The connection may well go on."""


class Stalled(TransferError):
    """The peer made no progress for the whole deadline."""


class PeerEnded(TransferError):
    """The peer ended its side of the stream where more was due."""


class Refused(TransferError):
    """The peer said no.

    Attributes:
        code: its word for programs.
        reason: its line for people; foreign text.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_WORDS = {
    ResetCode.CANCELLED: "the {who} was interrupted",
    ResetCode.CHANGED: "the file changed while it was being sent",
    ResetCode.REFUSED: "the {who} refused the file",
    ResetCode.BROKEN: "the {who} gave up: it saw a mistake, or no progress",
    ResetCode.SUPERSEDED: "the same file is being sent anew",
}


def explain(error: StreamError, who: str) -> str:
    """Why `who`, "sender" or "receiver", ended the stream, as far as its code says."""
    code = getattr(error, "code", None)
    return _WORDS[ResetCode(code)].format(who=who) if code in set(ResetCode) else str(error)


class Exchange:
    """One file's conversation.

    Args:
        stream: carries it.
        deadline: seconds that any single step may take without progress.

    Attributes:
        label: the file's name once it is known, for messages; foreign text.
    """

    def __init__(self, stream: ByteStream, deadline: float) -> None:
        self.stream = stream
        self.deadline = deadline
        self.label = ""
        self._last_busy = time.monotonic()

    async def put(self, header: Header) -> None:
        """Send one header."""
        await self.write(memoryview(encode(header)))

    async def get(self, *expected: type[H]) -> H:
        """The next header but busy; raises `Refused` for a refusal, `HeaderError` for any other surprise."""
        while True:
            header = await self._next_header()
            if isinstance(header, expected):
                return header
            if isinstance(header, Refuse):
                raise Refused(header.code, header.reason)
            if not isinstance(header, Busy):
                names = " or ".join(kind.__name__.lower() for kind in expected)
                raise HeaderError(f"expected {names}, got {type(header).__name__.lower()}")

    async def write(self, data: memoryview) -> None:
        """Send bytes of the file; returns when the stream took them all."""
        try:
            for start in range(0, len(data), WRITE_PIECE):
                async with asyncio.timeout(self.deadline):
                    await self.stream.write(data[start : start + WRITE_PIECE])
        except TimeoutError as error:
            raise self._stalled(error) from None

    async def readinto(self, buffer: memoryview) -> int:
        """Up to `len(buffer)` bytes of the file; 0 at the end of the stream."""
        try:
            async with asyncio.timeout(self.deadline):
                return await self.stream.readinto(buffer)
        except TimeoutError as error:
            raise self._stalled(error) from None

    async def busy_while(self, work: Awaitable[T]) -> T:
        """The result of `work`, with busy headers for the peer while it takes long."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait((task,), timeout=BUSY_INTERVAL)
                if done:
                    return task.result()
                await self.put(Busy())
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def busy_now_and_then(self) -> None:
        """Say busy if the last time is long enough ago; to be called whenever there was progress."""
        now = time.monotonic()
        if now - self._last_busy >= BUSY_INTERVAL:
            self._last_busy = now
            await self.put(Busy())

    def abandon(self, code: ResetCode) -> None:
        """End both halves of the stream at once."""
        with contextlib.suppress(TransportError):
            self.stream.reset(code)
            self.stream.stop(code)

    async def finish(self) -> None:
        """End this side's half of the stream."""
        try:
            async with asyncio.timeout(self.deadline):
                await self.stream.finish()
        except TimeoutError as error:
            raise self._stalled(error) from None

    async def expect_end(self) -> None:
        """See the peer's half of the stream end: only then is the stream over, and another one may be opened."""
        if await self.readinto(memoryview(bytearray(1))):
            raise HeaderError("the peer says more than it should")

    async def refusal_after(self, stopped: StreamError) -> Exception:
        """Why the peer stopped reading: its refusal if that arrives, else `stopped` in words."""
        try:
            await self.get()
        except Refused as refused:
            return refused
        except (TransferError, HeaderError, StreamError):
            pass
        return TransferError(explain(stopped, "receiver"))

    async def _next_header(self) -> Header:
        (length,) = LENGTH.unpack(await self._exactly(LENGTH.size))
        if not 0 < length <= MAX_HEADER:
            raise HeaderError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
        return decode(await self._exactly(length))

    async def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        filled = 0
        while filled < size:
            count = await self.readinto(view[filled:])
            if count == 0:
                raise PeerEnded("the peer ended the transfer early")
            filled += count
        return data

    def _stalled(self, error: TimeoutError) -> Exception:
        """A deadline of ours in words; the connection's own time-outs are TimeoutErrors too and stay."""
        if type(error) is not TimeoutError:
            return error
        return Stalled(f"no progress for {self.deadline:g} s")
