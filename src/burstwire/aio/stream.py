"""The stream that an application holds: `await` around a sans-IO stream."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from burstwire.aio.buffers import byte_view, writable_view
from burstwire.aio.deadlines import SendLine, held_up, progress, within
from burstwire.aio.failing import ENDED, fresh
from burstwire.errors import StreamError

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer, WriteableBuffer

    from burstwire.aio.connection import Connection
    from burstwire.aio.waiting import WaitLine
    from burstwire.proto.streams import Stream as Protocol

__all__ = ["CHUNK", "Stream"]

CHUNK = 256 * 1024
"""Bytes that iteration gives at most: larger ones gain nothing, and a fresh `bytes` of this size costs little."""


class Stream:
    """Ordered, reliable bytes in both directions; each direction ends on its own.

    Several tasks may read, and several may write: each call is served in turn, and what one `write` writes stays in
    one piece. Whatever was accepted is delivered even if nobody waits for it; closing the connection waits for that.

    ``async with stream`` leaves it finished: what was written is delivered, the peer is told to send no more unless it
    had finished too. Left by an exception, or cancelled while it waits for writes of other tasks to be accepted, the
    stream is reset instead, so that the peer does not mistake a fragment for the whole.

    ``async for chunk in stream`` gives `bytes` of at most `CHUNK` bytes until the peer finished.
    """

    __slots__ = ("_connection", "_core", "_readers", "_writers")

    def __init__(self, connection: Connection, core: Protocol) -> None:
        self._connection = connection
        self._core = core
        self._readers: WaitLine | None = None
        self._writers: SendLine | None = None
        core.user = self

    def __repr__(self) -> str:
        return f"<burstwire.Stream {self._core.id} of {self._connection!r}>"

    # getters

    @property
    def id(self) -> int:
        """The number of the stream; its lowest bit says who opened it (RFC 9000 §2.1)."""
        return self._core.id

    @property
    def connection(self) -> Connection:
        """The connection that it belongs to."""
        return self._connection

    @property
    def at_end(self) -> bool:
        """Whether everything that the peer sent was read, its end included."""
        return self._core.at_end

    @property
    def priority(self) -> int:
        """Which streams of this side are sent first: from 0 to 7, lower ones first, 3 unless set. Set it at any time.

        A stream sends only while no stream with a lower number has anything to send; equal ones share by bytes. It says
        nothing to the peer, which sets the order of what it sends itself. Setting raises ValueError out of range.
        """
        return self._core.priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._connection._check()
        self._core.priority = priority

    # sending

    async def write(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Send bytes; waits until all of them are accepted into the bounded send buffer.

        Any contiguous buffer will do, of any item type; it may be changed once this returns. Cancelled while
        waiting, what was accepted so far is sent and the rest is not: who cancels a write usually resets the stream.

        Args:
            data: the bytes.
            timeout: seconds; None waits as long as the peer goes on reading (see `Config.stall_timeout`).

        Raises:
            StreamStopped: the peer wants no more. StreamFinished: after `finish` or `reset`.
            PeerStalled, DeadlineExceeded: as cancelled. ConnectionLost: the connection has ended; part may have been
            delivered.
        """
        connection = self._connection
        connection._check()
        rest = memoryview(data) if type(data) is bytes else byte_view(data)
        line = self._writers
        if not line:
            taken = self._write(rest)
            if taken == len(rest):
                return
            rest = rest[taken:]
            if line is None:
                line = self._new_writers()

        def attempt() -> bool | None:
            nonlocal rest
            rest = rest[self._write(rest) :]
            return None if rest else True

        connection._guard()
        if timeout is None:
            await line.wait(attempt, again=True)
        else:
            size = memoryview(data).nbytes

            def action() -> str:
                return f"write of {size:,} bytes ({size - len(rest):,} accepted) to {self._words()}"

            await within(timeout, line.wait(attempt, again=True), action, line.reason)

    async def finish(self, *, timeout: float | None = None) -> None:
        """End this direction after what was written; the other direction goes on.

        Returns as soon as the end is accepted (after writes of other tasks that wait); like the data before it, it is
        delivered in the background, and closing the connection waits for that. Twice is once.

        Raises `StreamStopped`, `StreamFinished` (after `reset`), `ConnectionLost`, and, where it waits for writes,
        `PeerStalled` or, after `timeout` seconds, `DeadlineExceeded`.
        """
        self._connection._check()
        line = self._writers
        if not line:
            self._finish()
        elif timeout is None:
            await line.until(self._finish)
        else:
            await within(timeout, line.until(self._finish), lambda: f"finish of {self._words()}", line.reason)

    def reset(self, code: int = 0) -> None:
        """Abandon this direction: what is not delivered yet may never be; the peer's reader gets `StreamReset(code)`.

        Nothing happens on a stream that is finished and delivered, or whose connection has ended.
        """
        self._connection._check()
        self._core.reset(code)
        self._connection._touch()
        if self._writers:
            self._writers.wake()

    def _write(self, data: memoryview) -> int:
        try:
            taken = self._core.write(data)
        except ENDED as error:
            raise fresh(error) from error.__cause__
        if taken:
            self._connection._touch()
        return taken

    def _finish(self) -> bool:
        try:
            self._core.finish()
        except ENDED as error:
            raise fresh(error) from error.__cause__
        self._connection._touch()
        return True

    # receiving

    async def read(self, n: int, *, timeout: float | None = None) -> bytes:
        """Up to `n` bytes, as soon as there are any; ``b""`` once the peer has finished and everything was read.

        Cancelled, it has taken nothing.

        Args:
            n: bytes at most.
            timeout: seconds; None waits until the peer says something or the connection ends.

        Raises:
            StreamReset: the peer abandoned the stream. ConnectionLost: the connection ended before the stream did;
            what had arrived is read first. DeadlineExceeded: nothing came in time. ValueError: `n` is negative.
        """
        self._connection._check()
        if n <= 0:
            if n < 0:
                raise ValueError(f"n is {n}; it must not be negative")
            return b""
        line = self._readers
        if not line:
            data = self._read(n)
            if data is not None:
                return data
            if line is None:
                line = self._readers = self._connection._new_line()
        if timeout is None:
            return await line.wait(lambda: self._read(n))
        return await within(timeout, line.wait(lambda: self._read(n)), self._reading)

    async def readinto(self, buffer: WriteableBuffer, *, timeout: float | None = None) -> int:
        """Fill the front of `buffer` with what is there, waiting for at least one byte; returns how many.

        0 once the peer has finished and everything was read (or for an empty buffer). Raises as `read`, and TypeError
        or ValueError for a buffer that is read-only or not in one piece.
        """
        self._connection._check()
        view = writable_view(buffer)
        if not view:
            return 0
        line = self._readers
        if not line:
            n = self._readinto(view)
            if n is not None:
                return n
            if line is None:
                line = self._readers = self._connection._new_line()
        if timeout is None:
            return await line.wait(lambda: self._readinto(view))
        return await within(timeout, line.wait(lambda: self._readinto(view)), self._reading)

    def stop(self, code: int = 0) -> None:
        """Want no more of this stream: what is unread is dropped, and the peer's writer gets `StreamStopped(code)`.

        Readers get ``b""``. Nothing happens once the end was read, or when the connection has ended.
        """
        self._connection._check()
        self._core.stop(code)
        self._connection._touch()
        if self._readers:
            self._readers.wake()

    def _read(self, n: int) -> bytes | None:
        try:
            data = self._core.read(n)
        except ENDED as error:
            raise fresh(error) from error.__cause__
        if data:
            self._connection._took()
        return data

    def _readinto(self, view: memoryview) -> int | None:
        try:
            n = self._core.readinto(view)
        except ENDED as error:
            raise fresh(error) from error.__cause__
        if n:
            self._connection._took()
        return n

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read(CHUNK)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    # the end

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        finished = False
        try:
            if kind is None:
                # Stopped or lost: the body has been told if it asked, and there is nothing left to do about it here.
                with suppress(StreamError, *ENDED):
                    await self.finish()
                finished = True
        finally:
            if not finished:
                self.reset()
            if self._core.at_end:
                with suppress(StreamError, *ENDED):
                    self._core.read(1)  # so that the protocol knows that the end was seen
            else:
                self.stop()

    def _words(self) -> str:
        return f"stream {self._core.id} of the connection with {self._connection._peer_words()}"

    def _reading(self) -> str:
        return f"read of {self._words()}"

    def _new_writers(self) -> SendLine:
        connection = self._connection
        half, flow = self._core.sending, connection._core.flow
        line = SendLine(connection._lines(), partial(progress, half, flow), partial(held_up, half, flow))
        self._writers = line
        return line

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream cannot be pickled or copied: it belongs to the event loop that made it")

    # events

    def _on_readable(self) -> None:
        if self._readers:
            self._readers.wake()

    def _on_writable(self) -> None:
        if self._writers:
            self._writers.wake()
