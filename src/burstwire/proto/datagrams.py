"""Unreliable datagrams (RFC 9221): two bounded queues; what does not fit drops the oldest, and is counted."""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["NOTHING", "Datagrams"]

NOTHING: deque[Any] = deque(maxlen=0)
"""The queue of all that never queued anything: an empty deque takes 760 bytes, and most connections need none."""


class Datagrams:
    """The datagrams of one connection.

    Args:
        limit: datagrams that each queue holds.
        most: bytes that each queue holds; a single datagram may be larger.
    """

    __slots__ = (
        "_incoming_bytes",
        "_limit",
        "_most",
        "_outgoing_bytes",
        "_told",
        "incoming",
        "incoming_dropped",
        "outgoing",
        "outgoing_dropped",
    )

    def __init__(self, limit: int, most: int) -> None:
        self._limit = limit
        self._most = most
        self._told = False
        """Whether the application knows that there is something to take."""
        self.incoming: deque[bytes] = NOTHING
        self.outgoing: deque[bytes] = NOTHING
        self._incoming_bytes = 0
        self._outgoing_bytes = 0
        self.incoming_dropped = 0
        self.outgoing_dropped = 0

    def put(self, data: bytes) -> None:
        """Queues a datagram to be sent."""
        if self.outgoing is NOTHING:
            self.outgoing = deque()
        self.outgoing.append(data)
        self._outgoing_bytes += len(data)
        while len(self.outgoing) > self._limit or (self._outgoing_bytes > self._most and len(self.outgoing) > 1):
            self.sent()
            self.outgoing_dropped += 1

    def sent(self) -> None:
        """Takes the oldest out that waits to be sent."""
        self._outgoing_bytes -= len(self.outgoing.popleft())

    def arrived(self, data: bytes) -> bool:
        """Queues a datagram for the application; returns whether it is to be told."""
        if self.incoming is NOTHING:
            self.incoming = deque()
        self.incoming.append(data)
        self._incoming_bytes += len(data)
        while len(self.incoming) > self._limit or (self._incoming_bytes > self._most and len(self.incoming) > 1):
            self._incoming_bytes -= len(self.incoming.popleft())
            self.incoming_dropped += 1
        told, self._told = self._told, True
        return not told

    def take(self) -> bytes | None:
        """The oldest datagram that arrived, or None. Whoever takes one takes all, or asks again before it waits."""
        self._told = False
        if not self.incoming:
            return None
        data = self.incoming.popleft()
        self._incoming_bytes -= len(data)
        return data
