"""The streams of a connection: who may open which, and when one is over (RFC 9000 §2.1, §3, §4.6).

Ids are those of RFC 9000 §2.1 for bidirectional streams: the initiator opens 0, 4, 8 …, the responder 1, 5, 9 ….
Stream 0 carries the messages, is open from the start and outside MAX_STREAMS; so the initiator's first own stream
is 4, and counts as its first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.proto.events import StreamOpened, StreamsAvailable
from burstwire.proto.flow import CREDIT_SHARE
from burstwire.proto.streams import MESSAGE_STREAM, Stream
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.frames import MAX_STREAMS_BIDI, STREAMS_BLOCKED_BIDI

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["StreamTable"]


class StreamTable:
    """The open streams of one connection.

    Attributes:
        open: by id.
        messages: stream 0.
        local_limit: how many streams the peer may open in all (MAX_STREAMS as last raised).
        peer_limit: how many this side may open in all.
        waiting: whether the application wants a stream and the peer's limit forbids it.
    """

    __slots__ = (
        "_closed_by_peer",
        "_connection",
        "_opened_by_peer",
        "_opened_here",
        "local_limit",
        "messages",
        "open",
        "peer_limit",
        "waiting",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.open: dict[int, Stream] = {}
        self._opened_here = 0
        self._opened_by_peer = 0
        self._closed_by_peer = 0
        self.peer_limit = connection.peer_parameters.initial_max_streams_bidi
        self.local_limit = connection.config.max_streams
        self.waiting = False
        self.messages = self._make(MESSAGE_STREAM, here=connection.is_initiator)

    def __len__(self) -> int:
        """Open streams without the one that carries the messages."""
        return len(self.open) - 1

    # the application's call

    def add(self) -> Stream | None:
        """A new stream of this side, or None when the peer allows no more now."""
        connection = self._connection
        if self._opened_here >= self.peer_limit:
            if not self.waiting:
                self.waiting = True
                connection.ask((STREAMS_BLOCKED_BIDI, self.peer_limit))
            return None
        self._opened_here += 1
        number = self._opened_here if connection.is_initiator else self._opened_here - 1
        return self._make(number * 4 + (not connection.is_initiator), here=True)

    # inputs

    def find(self, stream_id: int) -> Stream | None:
        """The stream of an incoming frame, opened if the peer may do so; None for one that is over.

        Raises:
            WireError: STREAM_LIMIT_ERROR or STREAM_STATE_ERROR (RFC 9000 §19.8, §4.6).
        """
        stream = self.open.get(stream_id)
        if stream is not None:
            return stream
        if stream_id & 2:
            raise WireError(TransportCode.STREAM_LIMIT_ERROR, f"stream {stream_id} is unidirectional; none are allowed")
        by_responder = stream_id & 1
        count = (stream_id >> 2) + by_responder  # from 1 for both: the initiator's stream 0 does not count
        connection = self._connection
        if bool(by_responder) != connection.is_initiator:
            if count > self._opened_here:
                raise WireError(TransportCode.STREAM_STATE_ERROR, f"stream {stream_id} was not opened by this side")
            return None
        if count <= self._opened_by_peer:
            return None
        if count > self.local_limit:
            raise WireError(
                TransportCode.STREAM_LIMIT_ERROR, f"stream {stream_id} exceeds MAX_STREAMS {self.local_limit}"
            )
        while self._opened_by_peer < count:  # opening one opens all below (RFC 9000 §3.2)
            self._opened_by_peer += 1
            stream = self._make((self._opened_by_peer - by_responder) * 4 + by_responder, here=False)
            connection.inbound.opened_streams += 1
            connection.emit(StreamOpened(connection, stream))
        return stream

    def allow(self, limit: int) -> None:
        """MAX_STREAMS."""
        if limit > self.peer_limit:
            self.peer_limit = limit
            if self.waiting:
                self.waiting = False
                self._connection.emit(StreamsAvailable(self._connection))

    def retire(self, stream: Stream) -> None:
        """Forgets a stream if it is finished in both directions, and lets the peer open another one in time."""
        if not (stream.sending.finished and stream.receiving.finished) or stream is self.messages:
            return
        if self.open.get(stream.id) is not stream:
            return
        del self.open[stream.id]
        connection = self._connection
        connection.flow.retired(stream.receiving)
        if bool(stream.id & 1) == connection.is_initiator:
            self._closed_by_peer += 1
            allowed = connection.config.max_streams
            limit = allowed + self._closed_by_peer
            if limit - self.local_limit >= max(1, allowed // CREDIT_SHARE):
                self.local_limit = limit
                connection.ask((MAX_STREAMS_BIDI,))

    # inside

    def _make(self, stream_id: int, *, here: bool) -> Stream:
        connection = self._connection
        peer = connection.peer_parameters
        config = connection.config
        stream = Stream(
            connection,
            stream_id,
            send_buffer=config.send_buffer,
            window=config.first_stream_window,
            max_data=peer.initial_max_stream_data_bidi_remote if here else peer.initial_max_stream_data_bidi_local,
        )
        self.open[stream_id] = stream
        return stream
