"""Flow control of a connection (RFC 9000 §4): the sum over all streams, both ways, and when to renew credit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.frames import MAX_DATA, MAX_STREAM_DATA

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.streams import Stream

__all__ = ["CREDIT_SHARE", "FlowControl"]

CREDIT_SHARE = 4
"""Credit is renewed when this part of the window was read: rarely enough to cost nothing, early enough not to stall."""


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
    """

    __slots__ = (
        "_connection",
        "_window",
        "consumed",
        "local_limit",
        "peer_blocked",
        "peer_limit",
        "received",
        "sent",
        "told_blocked",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._window = connection.config.connection_window
        self.sent = 0
        self.peer_limit = connection.peer_parameters.initial_max_data
        self.received = 0
        self.consumed = 0
        self.local_limit = self._window
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
            self.peer_limit = limit
            connection = self._connection
            for stream in connection.streams.open.values():
                if stream.sending.pending:
                    connection.wants_to_send(stream.sending)

    def consume(self, stream: Stream, n: int) -> None:
        """`n` bytes of a stream were taken: renew credit once enough of it is used."""
        self.consumed += n
        connection = self._connection
        # To a peer that waits, any credit counts: the application may wait for it too, reading nothing meanwhile.
        share = 1 if self.peer_blocked else self._window // CREDIT_SHARE
        if self.consumed + self._window - self.local_limit >= share:
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

    def renew(self) -> int:
        """The limit to be sent in MAX_DATA."""
        limit = self.consumed + self._window
        if limit > self.local_limit:
            self.local_limit = limit
            self.peer_blocked = False
        return self.local_limit

    def renew_stream(self, stream: Stream) -> int:
        """The limit to be sent in MAX_STREAM_DATA."""
        half = stream.receiving
        half.max_data = max(half.max_data, self.stream_credit(stream))
        return half.max_data

    def stream_credit(self, stream: Stream) -> int:
        """The stream offset up to which the peer may send by what was read."""
        connection = self._connection
        held = connection.reader.ready_bytes if stream is connection.streams.messages else 0
        return stream.receiving.read_offset - held + stream.receiving.window
