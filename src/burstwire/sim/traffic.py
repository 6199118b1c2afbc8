"""Applications for simulations: they send patterns, check what arrives byte for byte, and can be slow.

Both ends know what a stream must carry from its id and direction alone, so nothing has to be agreed on: what comes
out of order, twice, shifted or altered is an `AssertionError` at the first wrong byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from burstwire.errors import TransportError
from burstwire.proto.connection import Connection
from burstwire.proto.streams import Stream

if TYPE_CHECKING:
    from burstwire.sim.host import SimHost

__all__ = ["Application", "Flow", "Pattern", "Peer"]

PERIOD = 1_048_573
"""Bytes after which a pattern repeats: a prime, so that no ring or window is a multiple of it."""

SPREAD = 654_323
"""Distance of the patterns of two streams in the block that they share."""

CHUNK = 256 * 1024
"""Bytes written or read in one call."""

MESSAGES_AT_ONCE = 256
"""Messages given or taken in one call."""


@cache
def _block() -> memoryview:
    block = Random(PERIOD).randbytes(PERIOD)
    return memoryview(block + block)


class Pattern:
    """Endless bytes that look random and can be told from any other pattern's, and from their own elsewhere.

    Args:
        key: which pattern.
    """

    def __init__(self, key: int) -> None:
        self.key = key
        self._start = key * SPREAD % PERIOD

    def read(self, offset: int, n: int) -> memoryview:
        """`n` bytes (at most `PERIOD`) from `offset` on."""
        at = (self._start + offset) % PERIOD
        return _block()[at : at + n]

    def check(self, offset: int, data: bytes) -> None:
        """Raises `AssertionError` unless `data` (at most `PERIOD` bytes) is what stands at `offset`."""
        expected = self.read(offset, len(data))
        if data != expected:
            wrong = next(i for i in range(len(data)) if data[i] != expected[i])
            raise AssertionError(
                f"pattern {self.key}: byte {offset + wrong:,} is {data[wrong]:#04x}, not {expected[wrong]:#04x} "
                f"(in {len(data):,} bytes from {offset:,} on)"
            )


class Application:
    """What a host does with a connection; every call comes from within the host's turn. This one does nothing.

    Args:
        host: where it runs.
        connection: its connection; the object is `connection.user`.
    """

    def __init__(self, host: SimHost, connection: Connection) -> None:
        self.host = host
        self.connection = connection

    def established(self) -> None:
        """The connection can be used."""

    def ended(self, error: TransportError) -> None:
        """It cannot any more."""

    def stream_opened(self, stream: Stream) -> None:
        """The peer opened a stream."""

    def stream_readable(self, stream: Stream) -> None:
        """A stream has bytes, its end, or a reset."""

    def stream_writable(self, stream: Stream) -> None:
        """A stream has room again, was stopped, or is acknowledged."""

    def streams_available(self) -> None:
        """The peer allows more streams."""

    def messages_readable(self) -> None:
        """There are messages."""

    def messages_writable(self) -> None:
        """There is room for messages again."""

    def datagrams_readable(self) -> None:
        """There are datagrams."""


class Flow:
    """One stream: sends its pattern and checks that of the peer.

    Attributes:
        stream: None until the peer allows it.
        sent: bytes accepted by the stream. received: bytes read and found right.
        at_end: whether the peer's end was read.
        write_error, read_error: what ended a direction before its time, or None.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.stream: Stream | None = None
        self.sent = 0
        self.received = 0
        self.at_end = False
        self.write_error: TransportError | None = None
        self.read_error: TransportError | None = None
        self.paused = peer.paused
        self._total = 0
        self._finish = False

    def __repr__(self) -> str:
        return (
            f"<Flow {self.stream}: sent {self.sent:,} of {self._total:,}, received {self.received:,}"
            f"{' to the end' if self.at_end else ''}, {self.write_error!r}, {self.read_error!r}>"
        )

    @property
    def written(self) -> bool:
        """Whether everything was accepted."""
        return self.sent == self._total

    # mutators

    def send(self, n: int, *, finish: bool = True) -> Flow:
        """Send `n` bytes more, then the end if `finish`."""
        self._total += n
        self._finish = finish
        if self.stream is not None:
            self.writable()
            self.peer.host.poke()
        return self

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self.paused = True

    def resume(self, n: int | None = None) -> None:
        """Read on; given `n`, only about so many bytes, then pause again."""
        self.paused = False
        self.readable(n)
        self.paused = n is not None
        self.peer.host.poke()

    def reset(self, code: int) -> None:
        """Abandon what was sent."""
        if self.stream is not None:
            self._total = self.sent
            self.stream.reset(code)
            self.peer.host.poke()

    def stop(self, code: int) -> None:
        """Want no more."""
        if self.stream is not None:
            self.stream.stop(code)
            self.peer.host.poke()

    # from the peer

    def attach(self, stream: Stream) -> None:
        """Use this stream."""
        self.stream = stream
        initiator = stream.connection.is_initiator
        self._out = Pattern(stream.id * 2 + initiator)
        self._in = Pattern(stream.id * 2 + (not initiator))
        self.writable()

    def writable(self) -> None:
        """Write on."""
        stream = self.stream
        if stream is None or self.write_error is not None:
            return
        try:
            while self.sent < self._total:
                n = min(CHUNK, self._total - self.sent)
                taken = stream.write(self._out.read(self.sent, n))
                self.sent += taken
                if taken < n:
                    return
            if self._finish:
                stream.finish()
        except TransportError as error:
            if self._finish or self.sent < self._total:
                self.write_error = error

    def readable(self, limit: int | None = None) -> None:
        """Read on."""
        stream = self.stream
        if stream is None or self.paused or self.at_end or self.read_error is not None:
            return
        end = None if limit is None else self.received + limit
        try:
            while end is None or self.received < end:
                data = stream.read(CHUNK if end is None else min(CHUNK, end - self.received))
                if data is None:
                    return
                if not data:
                    self.at_end = True
                    return
                self._in.check(self.received, data)
                self.received += len(data)
        except TransportError as error:
            self.read_error = error


class Peer(Application):
    """Sends what it is told to, keeps what arrives.

    Attributes:
        flows: by stream id, those of the peer included.
        messages: what arrived, in order. datagrams: likewise.
        error: how the connection ended, or None.
        paused: whether new streams, and messages, wait for being read (`Flow.resume`, `resume`).
        on_stream: called with the flow of each stream that the peer opens.
    """

    def __init__(self, host: SimHost, connection: Connection) -> None:
        super().__init__(host, connection)
        self.flows: dict[int, Flow] = {}
        self.messages: list[bytes] = []
        self.datagrams: list[bytes] = []
        self.error: TransportError | None = None
        self.paused = False
        self.on_stream: Callable[[Flow], object] | None = None
        self._outgoing: deque[bytes] = deque()
        self._unopened: deque[Flow] = deque()

    # mutators

    def open(self) -> Flow:
        """A stream, as soon as the peer allows it."""
        flow = Flow(self)
        self._unopened.append(flow)
        self.streams_available()
        self.host.poke()
        return flow

    def send_messages(self, messages: Iterable[bytes]) -> None:
        """Send messages as room allows."""
        self._outgoing.extend(messages)
        self.messages_writable()
        self.host.poke()

    def send_datagram(self, data: bytes) -> None:
        """Send an unreliable datagram."""
        self.connection.send_datagram(data)
        self.host.poke()

    def resume(self) -> None:
        """Read messages again, and streams to come."""
        self.paused = False
        self.messages_readable()
        self.host.poke()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection after what was accepted."""
        self.connection.close(self.host.clock.now, code, reason)
        self.host.poke()

    def flow(self, other: Flow) -> Flow:
        """The same stream's flow at this end; only once it was opened here."""
        if other.stream is None:
            raise KeyError("the stream has not been opened yet")
        return self.flows[other.stream.id]

    # from the host

    def ended(self, error: TransportError) -> None:
        """Reads what is left."""
        self.error = error
        self.messages_readable()
        for flow in list(self.flows.values()):
            flow.readable()
            flow.writable()

    def stream_opened(self, stream: Stream) -> None:
        """Keeps it."""
        flow = self.flows[stream.id] = Flow(self)
        flow.attach(stream)
        if self.on_stream is not None:
            self.on_stream(flow)

    def stream_readable(self, stream: Stream) -> None:
        """Checks what came."""
        self.flows[stream.id].readable()

    def stream_writable(self, stream: Stream) -> None:
        """Writes on."""
        self.flows[stream.id].writable()

    def streams_available(self) -> None:
        """Opens what waits."""
        while self._unopened and self.connection.error is None:
            stream = self.connection.open_stream()
            if stream is None:
                return
            flow = self._unopened.popleft()
            self.flows[stream.id] = flow
            flow.attach(stream)

    def messages_readable(self) -> None:
        """Keeps them."""
        while not self.paused and (messages := self.connection.next_messages(MESSAGES_AT_ONCE)):
            self.messages += messages

    def messages_writable(self) -> None:
        """Sends on."""
        outgoing = self._outgoing
        while outgoing and self.connection.error is None:
            batch = list(islice(outgoing, MESSAGES_AT_ONCE))
            taken = self.connection.send_messages(batch)
            for _ in range(taken):
                outgoing.popleft()
            if taken < len(batch):
                return

    def datagrams_readable(self) -> None:
        """Keeps them."""
        while (data := self.connection.next_datagram()) is not None:
            self.datagrams.append(data)
