"""What an `Endpoint` tells its driver, in the order in which it happened.

Events carry no data of the application: they say where to look. One event covers any amount of data,
so there is at most one of a kind for each stream or connection in a wake-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burstwire.errors import TransportError
    from burstwire.proto.connection import Connection
    from burstwire.proto.streams import Stream

__all__ = [
    "ConnectFailed",
    "ConnectionEnded",
    "ConnectionEstablished",
    "DatagramsReadable",
    "Event",
    "MessagesReadable",
    "MessagesWritable",
    "StreamOpened",
    "StreamReadable",
    "StreamWritable",
    "StreamsAvailable",
]


@dataclass(slots=True)
class ConnectionEstablished:
    """A handshake completed.

    Attributes:
        connection: ready for use.
        attempt: what `Endpoint.connect` returned, or None for one that the peer started.
    """

    connection: Connection
    attempt: int | None


@dataclass(slots=True)
class ConnectFailed:
    """An attempt of this side came to nothing.

    Attributes:
        attempt: what `Endpoint.connect` returned.
        error: why, ready to be raised.
    """

    attempt: int
    error: TransportError


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream."""

    connection: Connection
    stream: Stream


@dataclass(slots=True)
class StreamReadable:
    """The stream has bytes, its end, or a reset to be read."""

    stream: Stream


@dataclass(slots=True)
class StreamWritable:
    """The stream has room again after a write was cut short, was stopped, or all its bytes were acknowledged."""

    stream: Stream


@dataclass(slots=True)
class StreamsAvailable:
    """The peer allows more streams to be opened."""

    connection: Connection


@dataclass(slots=True)
class MessagesReadable:
    """At least one whole message is there."""

    connection: Connection


@dataclass(slots=True)
class MessagesWritable:
    """There is room for a message again after one was refused, or every accepted byte was acknowledged."""

    connection: Connection


@dataclass(slots=True)
class DatagramsReadable:
    """At least one datagram is there."""

    connection: Connection


@dataclass(slots=True)
class ConnectionEnded:
    """The connection is over; complete messages and stream data that arrived before can still be read.

    Attributes:
        connection: the one that ended.
        error: what every later operation on it raises.
    """

    connection: Connection
    error: TransportError


Event = (
    ConnectionEstablished
    | ConnectFailed
    | StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamsAvailable
    | MessagesReadable
    | MessagesWritable
    | DatagramsReadable
    | ConnectionEnded
)
