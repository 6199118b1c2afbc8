"""How much memory a `Config` lets an endpoint take at the very worst: when every queue, buffer and window is full.

    >>> from burstwire import Config, limits
    >>> limits.worst_case(Config(max_connections=10)).total          # bytes

Nobody ever sees this figure: buffers are made when they are needed, grow by need, and are given back. It is what would
be taken if all peers did their worst at once; it says what to lower where memory is small. Which limit is which, and
what happens when one is reached, is docs/limits.md.

What the application does is counted apart: `send_buffer` is filled by whoever writes, and streams that this side opens
have buffers, too. What applications keep of what they were given is their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from burstwire.proto.answers import MAX_LIMITED_ADDRESSES
from burstwire.proto.endpoint import MAX_RESETS
from burstwire.proto.messages import MAX_READY
from burstwire.proto.path import MAX_WAITING
from burstwire.proto.ranges import MAX_RECEIVED_RANGES
from burstwire.proto.receiving import BYTES_A_PIECE, FEW_PIECES, FIRST_RING
from burstwire.proto.roster import MAX_GONE
from burstwire.proto.toll import MAX_ACCOUNTS

if TYPE_CHECKING:
    from burstwire.config import Config

__all__ = ["Limits", "worst_case"]

SLOT = 65536
"""Bytes of a slot (`BufferRing`)."""

OBJECT = 64
"""Bytes that a small object of Python takes in a list or deque, with its place there."""

CONNECTION = 24 * 1024
"""Bytes of a connection with everything that is there from the start: objects, keys, a timer."""

STREAM = 2 * 1024
"""Bytes of a stream's objects, those of the driver included."""

PIECE = 80
"""Bytes of a piece of a stream that lies behind a hole."""

RECORD = 640
"""Bytes of a record of what is in flight, with the control frames that one mostly has."""

HALF_OPEN = 6 * 1024
"""Bytes of a handshake that was answered and not confirmed: its secrets, the answer, what the peer said."""

CONTROL_FRAMES = 5
"""Control frames that may wait for each stream."""

HANDSHAKES_WAITING = 1 << 20
"""Bytes of what handshakes keep whatever `Config` says: mostly what is to be sent."""


@dataclass(frozen=True)
class Limits:
    """The most that there can be, in bytes.

    Attributes:
        connection: what a peer can have a single connection hold, by what it is.
        application: what the application's own writes can have it hold, by what it is.
        endpoint: what there is once, by what it is.
        connections: how many connections there may be.
    """

    connection: dict[str, int]
    application: dict[str, int]
    endpoint: dict[str, int]
    connections: int

    @property
    def per_connection(self) -> int:
        """What a peer can have one connection hold."""
        return sum(self.connection.values())

    @property
    def total(self) -> int:
        """All of it, of the endpoint and of as many connections as there may be; without what applications write."""
        return sum(self.endpoint.values()) + self.connections * self.per_connection

    def __str__(self) -> str:
        rows = [("endpoint", self.endpoint), ("each connection", self.connection), ("application", self.application)]
        lines = [f"{name}: {what}: {size:,} bytes" for name, part in rows for what, size in part.items()]
        return "\n".join([*lines, f"{self.connections:,} connections: {self.total:,} bytes"])


def worst_case(config: Config) -> Limits:
    """What a configuration allows."""
    streams = config.max_streams + 1  # the messages' is one more
    window = _ring(config.stream_window)
    pieces = FEW_PIECES + config.stream_window // BYTES_A_PIECE
    connection = {
        "objects": CONNECTION + streams * STREAM,
        # Rings are powers of two: less than twice what lies in them; one is as large as its stream's window at most.
        "stream data": min(streams * window, 2 * config.connection_window) + streams * FIRST_RING,
        "pieces behind holes": min(streams * pieces, config.connection_window // 2) * PIECE,
        "the message in assembly": config.max_message_size,
        "small messages ready": MAX_READY * OBJECT + config.stream_window,
        "datagrams received": _datagrams(config),
        "ranges of packet numbers": MAX_RECEIVED_RANGES * OBJECT,
        "control frames waiting": (streams * CONTROL_FRAMES + MAX_WAITING) * 4 * OBJECT,
    }
    application = {
        "stream data not acknowledged, for each stream": _ring(config.send_buffer),
        "datagrams to be sent": _datagrams(config),
        "records of what is in flight": config.max_sent_records * RECORD,
    }
    slots = config.receive_slots + config.send_slots
    endpoint = {
        "slots": slots * SLOT,
        "half-open handshakes": config.max_half_open * HALF_OPEN,
        "handshakes that are known": config.max_known_initiates * 4 * OBJECT,
        "other handshakes": HANDSHAKES_WAITING + MAX_LIMITED_ADDRESSES * 4 * OBJECT,
        "connections that are over": MAX_GONE * 2 * OBJECT,
        "accounts": MAX_ACCOUNTS * 4 * OBJECT,
        "resets": MAX_RESETS * 4 * OBJECT,
        "connections not accepted yet": config.accept_backlog * OBJECT,
        "the kernel's buffers": config.socket_receive_buffer + config.socket_send_buffer,
    }
    return Limits(connection, application, endpoint, config.max_connections)


def _ring(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _datagrams(config: Config) -> int:
    """One that is larger than all of them may be is kept alone."""
    return max(config.datagram_buffer, SLOT) + config.max_datagrams * OBJECT
