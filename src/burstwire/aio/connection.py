"""The connection that an application holds: `await` around a sans-IO connection."""

from __future__ import annotations

import os
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from burstwire.aio.address import show
from burstwire.aio.buffers import byte_view
from burstwire.aio.channel import Channel
from burstwire.aio.deadlines import SendLine, Watch, held_up, progress, within
from burstwire.aio.failing import ENDED, fresh
from burstwire.aio.stream import Stream
from burstwire.aio.waiting import WaitLine
from burstwire.core.address import unpack_address
from burstwire.errors import ConnectionLost, LocallyClosed, PeerClosed, TransportError
from burstwire.proto.sending import DEFAULT_URGENCY

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer

    from burstwire.aio.endpoint import Endpoint
    from burstwire.identity import PublicKey
    from burstwire.proto.connection import Connection as Protocol
    from burstwire.proto.streams import Stream as ProtocolStream
    from burstwire.qlog.trace import Trace

__all__ = ["BATCH", "Connection"]

BATCH = 1024
"""Messages that `recv_many` gives at most when it is not told: more gains nothing and holds the loop up."""


class Connection:
    """One connection with one peer: messages, datagrams and streams.

    `Endpoint.connect` and `Endpoint.incoming` make them. It belongs to the event loop of its endpoint; any number of
    tasks may use it, and those that wait for the same thing are served in the order in which they came.

    ``async with conn`` closes it at the end. ``async for message in conn`` gives messages until one of the sides
    closes the connection without an error code; any other end raises.
    """

    __slots__ = (
        "__weakref__",
        "_closers",
        "_closing",
        "_core",
        "_datagrams",
        "_driver",
        "_endpoint",
        "_lost",
        "_openers",
        "_receivers",
        "_refused",
        "_senders",
        "_streams",
        "_waiting",
        "_watch",
    )

    def __init__(self, endpoint: Endpoint, core: Protocol) -> None:
        self._endpoint = endpoint
        self._driver = endpoint._driver
        self._core = core
        self._lost: TransportError | None = None
        self._closing = False
        self._refused = 0
        # Everything below is made when first needed: an idle connection should cost little.
        self._waiting: set[WaitLine] | None = None
        self._watch: Watch | None = None
        self._senders: SendLine | None = None
        self._receivers: WaitLine | None = None
        self._datagrams: WaitLine | None = None
        self._openers: SendLine | None = None
        self._closers: WaitLine | None = None
        self._streams: Channel[Stream] | None = None
        core.user = self

    def __repr__(self) -> str:
        host, port = self.peer_address
        state = "closed" if self._lost is not None else "closing" if self._closing else "open"
        return f"<burstwire.Connection to {self.peer_key} at {host}:{port}, {state}>"

    # getters

    @property
    def peer_key(self) -> PublicKey:
        """Who the peer is: it proved to hold the private key of this."""
        return self._core.peer_key

    @property
    def peer_address(self) -> tuple[str, int]:
        """Where the peer is now, ``(host, port)``; it may move."""
        return unpack_address(self._core.path[:24])

    @property
    def congestion(self) -> str:
        """The name of the congestion controller that this side sends by."""
        return self._core.recovery.controller_name

    def set_congestion(self, name: str) -> None:
        """Send by another congestion controller from now on; the peer need not know, and chooses for itself.

        For connections from `Endpoint.incoming`, and for those that turn from foreground to background. The new
        controller starts with its initial window, as on a new path: none inherits a window that it has not measured.
        Naming the one in use changes nothing.

        Raises:
            ConfigError: there is no such congestion controller.
        """
        self._check()
        self._core.set_congestion(name, self._driver.now())
        self._driver.touch_soon()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; what had arrived can still be received."""
        return self._lost is not None

    def stats(self) -> dict[str, int | float]:
        """Counters and gauges of this connection; they stay readable after its end."""
        return {**self._core.stats(), "streams_refused": self._refused}

    # looking into it

    def trace(self, path: str | os.PathLike[str]) -> Trace:
        """Write a trace of what happens from now on (qlog), for qvis and ``burstwire plot``.

        It ends with the connection, with `Trace.stop`, when the block of ``with conn.trace(path):`` is left, or at
        `Config.qlog_limit` bytes. A connection has one trace: another one ends it, also that of `Config.qlog_dir`.
        While it lasts, each packet costs some microseconds.

        Args:
            path: the file, best with the suffix ``.sqlog``. One that is there is replaced.

        Raises:
            OSError: the file cannot be opened. What goes wrong later ends the trace, and is in `Trace.failure`.
            ConnectionLost: the connection has ended.
        """
        self._check()
        if self._lost is not None:
            raise fresh(self._lost)
        return self._endpoint._tracing.one(self._core, path)

    # messages

    async def send(self, message: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Send one message: reliable, in order. Any contiguous buffer will do; it may be changed afterwards.

        Waits while the peer is slower than this side, then takes the whole message without suspending: cancelled,
        it has sent all or nothing.

        Args:
            message: its bytes.
            timeout: seconds; None waits as long as the peer goes on receiving (see `Config.stall_timeout`).

        Raises:
            MessageTooLarge: the peer takes no message of this size. ConnectionLost: the connection has ended.
            PeerStalled, DeadlineExceeded: nothing of it was sent.
        """
        if _get_running_loop() is not self._driver.loop:
            self._endpoint._refuse_context()
        line = self._senders
        if type(message) is bytes and not line and self._core.add_message(message):
            self._driver.touch()
            return
        data = message if type(message) is bytes else byte_view(message)
        if not line:
            if self._put(data):
                return
            if line is None:
                line = self._new_senders()
        self._guard()
        if timeout is None:
            await line.wait(lambda: self._put(data))
        else:
            await within(timeout, line.wait(lambda: self._put(data)), self._sending, line.reason)

    async def send_many(self, messages: Iterable[ReadableBuffer], *, timeout: float | None = None) -> None:
        """Send messages in order, with nothing of other tasks in between; cheaper than one by one.

        Cancelled while waiting, or given up, the first few are sent whole and the rest not at all. Raises as `send`;
        when one is too large, none is sent.
        """
        self._check()
        pending = [message if type(message) is bytes else byte_view(message) for message in messages]

        def attempt() -> bool | None:
            nonlocal pending
            taken = self._offer(pending)
            if taken:
                pending = pending[taken:]
            return None if pending else True

        line = self._senders
        if not line:
            if attempt():
                return
            if line is None:
                line = self._new_senders()
        self._guard()
        if timeout is None:
            await line.wait(attempt)
        else:
            await within(timeout, line.wait(attempt), self._sending, line.reason)

    async def recv(self, *, timeout: float | None = None) -> bytes:
        """The next message. Every complete message that arrived is handed out before the end of the connection raises.

        Cancelled, it has taken nothing. Raises the subclass of `ConnectionLost` that says how the connection ended, and
        `DeadlineExceeded` after `timeout` seconds; without one it waits until the peer says something.
        """
        if _get_running_loop() is not self._driver.loop:
            self._endpoint._refuse_context()
        line = self._receivers
        if not line:
            core = self._core
            message = core.next_message()
            if message is not None:
                if core.control:  # the peer is owed credit: soon is early enough
                    self._driver.touch_soon()
                return message
            if self._lost is not None:
                raise fresh(self._lost)
            if line is None:
                line = self._receivers = self._new_line()
        if timeout is None:
            return await line.wait(self._next)
        return await within(timeout, line.wait(self._next), self._receiving)

    async def recv_many(self, limit: int = BATCH, *, timeout: float | None = None) -> list[bytes]:
        """The messages that are there, at least one and at most `limit`. Waits and raises as `recv`."""
        self._check()
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")

        def attempt() -> list[bytes] | None:
            messages = self._core.next_messages(limit)
            if messages:
                self._took()
                return messages
            if self._lost is not None:
                raise fresh(self._lost)
            return None

        if self._receivers is None:
            self._receivers = self._new_line()
        if timeout is None:
            return await self._receivers.until(attempt)
        return await within(timeout, self._receivers.until(attempt), self._receiving)

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ConnectionLost as error:
            if _ended_well(error):
                raise StopAsyncIteration from None
            raise

    def _put(self, message: bytes | memoryview) -> bool | None:
        return True if self._offer((message,)) else None

    def _offer(self, messages: Sequence[bytes | memoryview]) -> int:
        if self._lost is not None:
            raise fresh(self._lost)
        try:
            taken = self._core.send_messages(messages)
        except ENDED as error:  # closing, but not closed yet
            raise fresh(error) from error.__cause__
        if taken:
            self._driver.touch()
        return taken

    def _next(self) -> bytes | None:
        core = self._core
        message = core.next_message()
        if message is not None:
            if core.control:  # the peer is owed credit: soon is early enough
                self._driver.touch_soon()
        elif self._lost is not None:
            raise fresh(self._lost)
        return message

    @property
    def message_priority(self) -> int:
        """As `Stream.priority`, for this side's messages: 3 unless set, so that they and streams share equally."""
        return self._core.streams.messages.priority

    @message_priority.setter
    def message_priority(self, priority: int) -> None:
        self._check()
        self._core.streams.messages.priority = priority

    # datagrams

    def send_datagram(self, data: ReadableBuffer) -> None:
        """Send one unreliable datagram now, or drop the oldest one that waits when `Config.max_datagrams` do.

        Raises:
            MessageTooLarge: it does not fit a packet of the path as it is now. ConnectionLost.
        """
        self._check()
        if self._lost is not None:
            raise fresh(self._lost)
        try:
            self._core.send_datagram(data if type(data) is bytes else byte_view(data))
        except ENDED as error:
            raise fresh(error) from error.__cause__
        self._driver.touch()

    async def recv_datagram(self, *, timeout: float | None = None) -> bytes:
        """The next datagram; cancelled, it has taken nothing. Waits and raises as `recv`."""
        self._check()

        def attempt() -> bytes | None:
            data = self._core.next_datagram()
            if data is None and self._lost is not None:
                raise fresh(self._lost)
            return data

        if self._datagrams is None:
            self._datagrams = self._new_line()
        if timeout is None:
            return await self._datagrams.until(attempt)
        return await within(timeout, self._datagrams.until(attempt), self._receiving)

    # streams

    async def open_stream(self, *, priority: int = DEFAULT_URGENCY, timeout: float | None = None) -> Stream:
        """Open a stream; waits while the peer allows no more. The peer learns of it with the first bytes.

        Cancelled, it has opened none.

        Args:
            priority: `Stream.priority` from the start.
            timeout: seconds; None waits as long as the peer goes on ending streams (see `Config.stall_timeout`).

        Raises:
            ConnectionLost, PeerStalled, DeadlineExceeded. ValueError: there is no such priority.
        """
        self._check()

        def attempt() -> Stream | None:
            if self._lost is not None:
                raise fresh(self._lost)
            try:
                core = self._core.open_stream(priority)
            except ENDED as error:
                raise fresh(error) from error.__cause__
            if core is None:
                self._driver.touch_soon()  # STREAMS_BLOCKED
                return None
            return Stream(self, core)

        line = self._openers
        if not line:
            stream = attempt()
            if stream is not None:
                return stream
            if line is None:
                line = self._new_openers()
        self._guard()
        if timeout is None:
            return await line.wait(attempt, again=True)
        return await within(timeout, line.wait(attempt, again=True), self._opening, line.reason)

    def incoming_streams(self) -> AsyncIterator[Stream]:
        """The streams that the peer opens, each to exactly one of those who iterate.

        The iteration ends when one of the sides closes the connection without an error code; any other end raises.
        """
        self._check()
        return self._stream_channel()

    def _stream_channel(self) -> Channel[Stream]:
        if self._streams is None:
            self._streams = Channel(max(1, self._endpoint.config.max_streams))
            if self._lost is not None:
                self._streams.close(None if _ended_well(self._lost) else self._lost)
        return self._streams

    # the end

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Deliver what was accepted, then close; the peer learns `code` and `reason` at once.

        Waits no longer than `Config.close_timeout`; what was not delivered by then is given up. Cancelled, the closing
        goes on without anybody waiting for it. Closing what has ended does nothing.

        Args:
            code: for the peer's application, 0 for "no error".
            reason: words for people, at most a packet of them.
        """
        self._check()
        if self._lost is not None:
            return
        if not self._closing:
            self._core.close(self._driver.now(), code, reason)
            self._driver.touch()
            if self.closed:  # mostly, for nothing was left to be delivered
                return
            self._on_closing()
        handle = self._endpoint._loop.call_later(self._endpoint.config.close_timeout, self._give_up, code, reason)
        try:
            await self.wait_closed()
        finally:
            handle.cancel()

    async def wait_closed(self, *, timeout: float | None = None) -> TransportError:
        """Wait until the connection has ended; returns how: what everything else on it raises from then on.

        Raises `DeadlineExceeded` after `timeout` seconds; without one it waits as long as the connection lives.
        """
        self._check()
        if self._lost is None:
            if self._closers is None:
                self._closers = self._new_line()
            ended = self._closers.until(lambda: self._lost)
            return await ended if timeout is None else await within(timeout, ended, lambda: "the end of " + repr(self))
        return self._lost

    def _give_up(self, code: int, reason: str) -> None:
        if self._lost is None:
            self._core.abort(self._driver.now(), code, reason)
            self._driver.touch()
            self._on_ended(LocallyClosed())

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Connection cannot be pickled or copied: it belongs to the event loop that made it")

    # inside

    def _check(self) -> None:
        """Every public call starts here: the right loop, thread and process, or an error that says so."""
        if _get_running_loop() is not self._driver.loop:
            self._endpoint._refuse_context()

    def _touch(self) -> None:
        self._driver.touch()

    def _took(self) -> None:
        """The application took something, so that the peer may be owed credit: soon is early enough."""
        self._driver.touch_soon()

    def _lines(self) -> set[WaitLine]:
        """The lines in which anybody waits."""
        if self._waiting is None:
            self._waiting = set()
        return self._waiting

    def _new_line(self) -> WaitLine:
        return WaitLine(self._lines())

    def _new_senders(self) -> SendLine:
        half, flow = self._core.streams.messages.sending, self._core.flow
        line = self._senders = SendLine(self._lines(), partial(progress, half, flow), partial(held_up, half, flow))
        return line

    def _new_openers(self) -> SendLine:
        streams = self._core.streams

        def reason() -> str:
            return f"the peer allows {streams.peer_limit:,} streams in all, and those of them that are open do not end"

        line = self._openers = SendLine(self._lines(), lambda: streams.peer_limit, reason)
        return line

    def _guard(self) -> None:
        """Somebody is about to wait for the peer to let this side send."""
        watch = self._watch
        if watch is None:
            seconds = self._endpoint.config.stall_timeout
            if not seconds:
                return
            watch = self._watch = Watch(self._endpoint._loop, seconds, self._lines(), self._peer_words)
        if not watch.active:
            watch.start()

    # what is waited for, in words

    def _peer_words(self) -> str:
        return f"{self.peer_key} at {show(*self.peer_address)}"

    def _sending(self) -> str:
        return f"send to {self._peer_words()}"

    def _receiving(self) -> str:
        return f"receiving from {self._peer_words()}"

    def _opening(self) -> str:
        return f"open_stream to {self._peer_words()}"

    # events

    def _on_messages_readable(self) -> None:
        if self._receivers:
            self._receivers.wake()

    def _on_messages_writable(self) -> None:
        if self._senders:
            self._senders.wake()

    def _on_datagrams_readable(self) -> None:
        if self._datagrams:
            self._datagrams.wake()

    def _on_streams_available(self) -> None:
        if self._openers:
            self._openers.wake()

    def _on_stream_opened(self, core: ProtocolStream) -> None:
        channel = self._stream_channel()
        if channel.closed:
            core.reset()
            core.stop()
            self._driver.touch()
            return
        if len(channel) >= channel.capacity:
            # Some of those that nobody has accepted yet are over (empty, and no answer wanted), so that the peer may
            # open others: these, which may be meant, take the places of those.
            opened = self._core.streams.open
            self._refused += channel._remove(lambda stream: stream.id not in opened)
        if not channel.put_nowait(Stream(self, core)):
            self._refused += 1  # it is over as well, for no more are open at once than fit

    def _on_closing(self) -> None:
        """This side said close: senders need not wait any more, they fail from now on."""
        self._closing = True
        for line in tuple(self._waiting or ()):
            line.wake()

    def _on_ended(self, error: TransportError) -> None:
        if self._lost is not None:
            return
        self._lost = error
        if self._watch is not None:
            self._watch.stop()
        if self._streams is not None:
            self._streams.close(None if _ended_well(error) else error)
        for line in tuple(self._waiting or ()):
            line.wake()


def _ended_well(error: TransportError) -> bool:
    return isinstance(error, LocallyClosed) or (isinstance(error, PeerClosed) and error.code == 0)
