"""Flow control of a connection (RFC 9000 §4): the sum over all streams, both ways, when to renew credit, and how much.

Windows begin small and double as long as they are what holds the peer back: when a window is consumed within about two
round trips, it is twice as large from the next credit on, up to the limits of `Config`. So memory goes to those who
need it, and a short path needs little. That is decided when a credit frame is written, four times a window at most.

**One stream must not hold all others up.** What lies unread counts against its stream and against the connection, so
enough unread streams would use up the connection's credit. Two rules keep room: the connection's window is at least
twice what any stream's window has grown to, until it has its limit; and all streams together grow by no more than
three quarters of that limit. One quarter is for streams that have not grown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.proto.receiving import NEVER
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.frames import MAX_DATA, MAX_STREAM_DATA

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.receiving import RecvHalf
    from burstwire.proto.streams import Stream

__all__ = ["CREDIT_SHARE", "FlowControl"]

CREDIT_SHARE = 4
"""Credit is renewed when this part of the window was read: rarely enough to cost nothing, early enough not to stall."""

GROWTH_RTTS = 4
"""A window grows when it would be consumed within so many round trips: a peer that it limits takes one to two, and one
that is in slow start sends twice as much in the next."""

LEAST_RTT = 0.005
"""Seconds. What event loops and schedulers add to a short round trip when both sides are busy."""

KEPT_SHARE = 4
"""This part of `Config.connection_window` is kept for streams whose windows have not grown."""


class FlowControl:
    """Credit given and taken.

    Attributes:
        sent: new bytes of all streams that were sent.
        peer_limit: what the peer allows `sent` to become (MAX_DATA).
        received: the sum of the highest offsets of all streams.
        consumed: bytes that the application took, or that were given up.
        local_limit: what the peer may let `received` become.
        told_blocked: the limit for which DATA_BLOCKED was sent last.
        peer_blocked: whether the peer said DATA_BLOCKED and has got no more credit since.
        window: bytes that the peer may be ahead of the application, all streams together.
        grown: bytes by which the windows of the open streams exceed their initial ones.
    """

    __slots__ = (
        "_connection",
        "_tuned_at",
        "_tuned_bytes",
        "consumed",
        "grown",
        "local_limit",
        "peer_blocked",
        "peer_limit",
        "received",
        "sent",
        "told_blocked",
        "window",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.window = connection.config.first_connection_window
        self.grown = 0
        self._tuned_at = NEVER
        self._tuned_bytes = 0
        self.sent = 0
        self.peer_limit = connection.peer_parameters.initial_max_data
        self.received = 0
        self.consumed = 0
        self.local_limit = self.window
        self.told_blocked = -1
        self.peer_blocked = False

    @property
    def allowance(self) -> int:
        """New bytes of streams that may be sent now."""
        return self.peer_limit - self.sent

    def charge(self, grown: int) -> None:
        """Counts bytes that arrived; raises WireError FLOW_CONTROL_ERROR (RFC 9000 §4.1)."""
        if grown:
            self.received += grown
            if self.received > self.local_limit:
                raise WireError(
                    TransportCode.FLOW_CONTROL_ERROR,
                    f"{self.received} bytes of streams exceed MAX_DATA {self.local_limit}",
                )

    def allow(self, limit: int) -> None:
        """MAX_DATA."""
        if limit > self.peer_limit:
            held = self.sent >= self.peer_limit
            self.peer_limit = limit
            if not held:  # then no stream waits for this
                return
            connection = self._connection
            for stream in connection.streams.open.values():
                if stream.sending.pending:
                    connection.wants_to_send(stream.sending)

    def consume(self, stream: Stream, n: int) -> None:
        """`n` bytes of a stream were taken: renew credit once enough of it is used."""
        self.consumed += n
        connection = self._connection
        # To a peer that waits, any credit counts: the application may wait for it too, reading nothing meanwhile.
        share = 1 if self.peer_blocked else self.window // CREDIT_SHARE
        if self.consumed + self.window - self.local_limit >= share:
            connection.ask((MAX_DATA,))
        half = stream.receiving
        # What lies outside of the ring only lowers the credit, so it is looked at only when there would be enough.
        if (
            half.read_offset + half.window - half.max_data >= half.window // CREDIT_SHARE
            and half.final_size is None
            and half.stop_code is None
            and self.stream_credit(stream) - half.max_data >= half.window // CREDIT_SHARE
        ):
            connection.ask((MAX_STREAM_DATA, stream.id))

    def repeat(self, stream_id: int | None) -> None:
        """The peer says that it is blocked: the limits of this moment are sent (again)."""
        connection = self._connection
        connection.credit_messages()
        if stream_id is None:
            self.peer_blocked = True
            connection.ask((MAX_DATA,))
        elif stream_id in connection.streams.open:
            connection.ask((MAX_STREAM_DATA, stream_id))

    def renew(self, now: float) -> int:
        """The limit to be sent in MAX_DATA."""
        taken = self.consumed - self._tuned_bytes
        if taken >= self.window // 2:
            if self._too_small(self.window, taken, now - self._tuned_at):
                self.window = min(2 * self.window, self._connection.config.connection_window)
            self._tuned_at = now
            self._tuned_bytes = self.consumed
        limit = self.consumed + self.window
        if limit > self.local_limit:
            self.local_limit = limit
            self.peer_blocked = False
        return self.local_limit

    def renew_stream(self, stream: Stream, now: float) -> int:
        """The limit to be sent in MAX_STREAM_DATA."""
        half = stream.receiving
        taken = half.read_offset - half.tuned_bytes
        if taken >= half.window // 2:
            if self._too_small(half.window, taken, now - half.tuned_at):
                self._grow(half)
            half.tuned_at = now
            half.tuned_bytes = half.read_offset
        half.max_data = max(half.max_data, self.stream_credit(stream))
        return half.max_data

    def retired(self, half: RecvHalf) -> None:
        """A stream is over: what its window had grown by is for others."""
        self.grown -= half.window - self._connection.config.first_stream_window

    def stream_credit(self, stream: Stream) -> int:
        """The stream offset up to which the peer may send by what was read."""
        connection = self._connection
        held = connection.reader.ready_bytes if stream is connection.streams.messages else 0
        return stream.receiving.read_offset - held + stream.receiving.window

    def _too_small(self, window: int, taken: int, seconds: float) -> bool:
        """Whether a window of which `taken` bytes were consumed in so many seconds holds the peer back."""
        round_trip = self._connection.recovery.rtt.smoothed
        if round_trip < LEAST_RTT:
            round_trip = LEAST_RTT
        return seconds * window < GROWTH_RTTS * round_trip * taken

    def _grow(self, half: RecvHalf) -> None:
        """Doubles a stream's window, as far as that leaves others their part of the connection's."""
        connection = self._connection
        config = connection.config
        most = config.connection_window
        step = min(half.window, config.stream_window - half.window, most - most // KEPT_SHARE - self.grown)
        if step <= 0:
            return
        half.window += step
        self.grown += step
        window = self.window
        while window < 2 * (config.first_stream_window + self.grown) and window < most:
            window *= 2
        if window > self.window:
            self.window = min(window, most)
            connection.ask((MAX_DATA,))
