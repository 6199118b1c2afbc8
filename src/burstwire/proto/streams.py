"""A bidirectional stream (RFC 9000 §2, §3): a sending and a receiving half, and the calls of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from burstwire.errors import StreamReset
from burstwire.proto.receiving import RecvHalf
from burstwire.proto.sending import SendHalf

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["LOWEST_PRIORITY", "MESSAGE_STREAM", "Stream", "check_priority"]

MESSAGE_STREAM = 0
"""The stream that carries the messages; it is open from the start and outside MAX_STREAMS."""


LOWEST_PRIORITY = 7
"""RFC 9218 §4.1."""


def check_priority(priority: int) -> None:
    """Raises ValueError unless it is one of RFC 9218 §4.1."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= LOWEST_PRIORITY:
        raise ValueError(f"priority is {priority!r}; it must be from 0 (first) to {LOWEST_PRIORITY} (last)")


class Stream:
    """Ordered, reliable bytes in both directions.

    Attributes:
        id: RFC 9000 §2.1: the lowest bit says who opened it (0 the initiator of the connection, 1 the responder).
        connection: the one that it belongs to.
        user: free for the driver.
        sending: the half towards the peer.
        receiving: the half from the peer.
    """

    __slots__ = ("connection", "id", "receiving", "sending", "user")

    def __init__(self, connection: Connection, stream_id: int, *, send_buffer: int, window: int, max_data: int) -> None:
        self.id = stream_id
        self.connection = connection
        self.user: Any = None
        self.sending = SendHalf(self, send_buffer, max_data)
        self.receiving = RecvHalf(self, window)

    def __repr__(self) -> str:
        return f"<Stream {self.id} of {self.connection!r}>"

    # getters

    @property
    def readable(self) -> int:
        """Bytes that `read` would give at once."""
        return self.receiving.readable

    @property
    def at_end(self) -> bool:
        """Whether everything that the peer sent was read."""
        return self.receiving.at_end

    @property
    def all_acked(self) -> bool:
        """Whether the peer acknowledged everything that was accepted, the end included if there is one."""
        return self.sending.all_acked

    @property
    def room(self) -> int:
        """Bytes that `write` would take at once."""
        return self.sending.room

    @property
    def priority(self) -> int:
        """Which streams of this side are sent first, from 0 to 7, 3 unless set; see docs/protocol.md."""
        return self.sending.urgency

    # mutators

    @priority.setter
    def priority(self, priority: int) -> None:
        check_priority(priority)
        self.connection.set_urgency(self.sending, priority)

    def write(self, data: memoryview) -> int:
        """Accepts bytes to be sent.

        Returns:
            how many were taken from the front of `data`: 0 when full; `StreamWritable` follows unless all were taken.

        Raises:
            StreamStopped: the peer wants no more. StreamFinished: after `finish` or `reset`.
            TransportError: the connection has ended.
        """
        connection = self.connection
        if connection.error is not None:
            raise connection.error
        half = self.sending
        half.check_writable()
        size = len(data)
        taken = min(size, half.room)
        if taken < size:
            half.blocked = half.wants_room = True
        else:
            half.blocked = False
        if taken:
            half.accept(data[:taken])
            connection.wants_to_send(half)
        return taken

    def finish(self) -> None:
        """Ends this direction after what was accepted; the other direction goes on. Raises like `write` once reset."""
        connection = self.connection
        if connection.error is not None:
            raise connection.error
        half = self.sending
        if half.fin_offset is not None:
            return
        half.check_writable()
        half.blocked = False
        half.finish()
        connection.wants_to_send(half)

    def reset(self, code: int = 0) -> None:
        """Abandons this direction: what was not acknowledged may never arrive, the peer gets `StreamReset(code)`."""
        if self.connection.error is None and self.sending.reset(code):
            self.connection.stream_was_reset(self)

    def stop(self, code: int = 0) -> None:
        """Asks the peer to send no more; what is unread is dropped, the peer gets `StreamStopped(code)`."""
        half = self.receiving
        if self.connection.error is None and half.stop_code is None and not half.end_read:
            half.stop_code = code
            self.connection.stream_was_stopped(self)

    def read(self, n: int) -> bytes | None:
        """Takes up to `n` bytes.

        Returns:
            None when nothing is there yet, `b""` at the end of the stream (or for n = 0).

        Raises:
            StreamReset: the peer abandoned it. TransportError: the connection ended before the stream did.
        """
        half = self.receiving
        if half.readable:
            data = half.read(n)
            self.connection.stream_was_read(self, len(data))
            return data
        return b"" if self._nothing_left() else None

    def readinto(self, buffer: memoryview) -> int | None:
        """Fills the front of `buffer`; returns how many bytes, 0 at the end, None when nothing is there yet.

        Raises like `read`.
        """
        half = self.receiving
        if half.readable:
            n = half.readinto(buffer)
            self.connection.stream_was_read(self, n)
            return n
        return 0 if self._nothing_left() else None

    def _nothing_left(self) -> bool:
        half = self.receiving
        half.announced = False
        if half.at_end or half.stop_code is not None or half.reset_code is not None:
            if not half.end_read:
                half.end_read = True
                self.connection.stream_ended(self)
            if half.reset_code is not None and half.stop_code is None:
                raise StreamReset(half.reset_code)
            return True
        if self.connection.error is not None:
            raise self.connection.error
        return False
