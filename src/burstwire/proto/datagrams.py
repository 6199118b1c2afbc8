"""Unreliable datagrams (RFC 9221): two bounded queues; what does not fit drops the oldest, and is counted."""

from __future__ import annotations

from collections import deque

__all__ = ["Datagrams"]


class Datagrams:
    """The datagrams of one connection.

    Args:
        limit: datagrams that each queue holds.
    """

    __slots__ = ("_limit", "incoming", "incoming_dropped", "outgoing", "outgoing_dropped")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.incoming: deque[bytes] = deque()
        self.outgoing: deque[bytes] = deque()
        self.incoming_dropped = 0
        self.outgoing_dropped = 0

    def put(self, data: bytes) -> None:
        """Queues a datagram to be sent."""
        if len(self.outgoing) >= self._limit:
            self.outgoing.popleft()
            self.outgoing_dropped += 1
        self.outgoing.append(data)

    def arrived(self, data: bytes) -> None:
        """Queues a datagram for the application."""
        if len(self.incoming) >= self._limit:
            self.incoming.popleft()
            self.incoming_dropped += 1
        self.incoming.append(data)
