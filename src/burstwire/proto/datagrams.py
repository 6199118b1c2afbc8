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
    """

    __slots__ = ("_limit", "incoming", "incoming_dropped", "outgoing", "outgoing_dropped")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.incoming: deque[bytes] = NOTHING
        self.outgoing: deque[bytes] = NOTHING
        self.incoming_dropped = 0
        self.outgoing_dropped = 0

    def put(self, data: bytes) -> None:
        """Queues a datagram to be sent."""
        if self.outgoing is NOTHING:
            self.outgoing = deque()
        if len(self.outgoing) >= self._limit:
            self.outgoing.popleft()
            self.outgoing_dropped += 1
        self.outgoing.append(data)

    def arrived(self, data: bytes) -> None:
        """Queues a datagram for the application."""
        if self.incoming is NOTHING:
            self.incoming = deque()
        if len(self.incoming) >= self._limit:
            self.incoming.popleft()
            self.incoming_dropped += 1
        self.incoming.append(data)
