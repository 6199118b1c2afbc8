"""Where the kernel does not segment: destinations whose trains leave datagram by datagram.

Whether a train can leave in one piece is up to the device that it leaves by, so one refusal says nothing about other
destinations; and it may change at any time, when a route, a device or its settings do. So a refusal counts for its
destination, which is an IP address with its scope, as routes have no ports, and only for a while: then the next train
there is offered in one piece again. If that is refused too, no byte is lost (csrc/send.c sends the same datagrams one
by one), and the destination is left alone for twice as long.

Sans-IO; there is no timer, for nothing needs to happen at the moment when a refusal expires.
"""

from __future__ import annotations

__all__ = ["FIRST_RETRY", "LONGEST_RETRY", "Offload"]

FIRST_RETRY = 30.0
"""Seconds until a destination gets another try. One costs a system call or two; to miss that GSO works again costs most
of the throughput."""

LONGEST_RETRY = 3600.0
"""Seconds between tries at most."""


class Offload:
    """The destinations that the kernel refused to segment for.

    Args:
        limit: how many are remembered; the one refused longest ago is forgotten beyond, which costs a refusal.

    Attributes:
        avoided: destinations that get no trains in one piece now, and until when, in seconds.
        counts: `gso_refusals` (trains refused), `gso_retries` (times that a destination got another try),
            `gso_forgotten` (destinations dropped because of `limit`).
    """

    __slots__ = ("_due", "_pauses", "avoided", "counts", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.avoided: dict[bytes, float] = {}
        self.counts = {"gso_refusals": 0, "gso_retries": 0, "gso_forgotten": 0}
        self._pauses: dict[bytes, tuple[float, float]] = {}
        """How long each destination was left alone the last time, and when that was over; oldest refusal first."""
        self._due = 0.0
        """When the first of `avoided` is over."""

    @staticmethod
    def destination(path: bytes) -> bytes:
        """Scope and IP address of the remote end of a path."""
        return path[4:24]

    def avoids(self, path: bytes) -> bool:
        """Whether a train for this path should leave datagram by datagram."""
        return path[4:24] in self.avoided

    def refused(self, path: bytes, now: float) -> None:
        """The kernel would not segment a train for this path."""
        self.counts["gso_refusals"] += 1
        key = path[4:24]
        if key in self.avoided:  # several trains of one flight
            return
        pause, until = self._pauses.pop(key, (0.0, 0.0))
        # Refused soon after it was tried again: it lasts. Long after: it worked in between.
        pause = min(2 * pause, LONGEST_RETRY) if pause and now < until + pause else FIRST_RETRY
        while len(self._pauses) >= self.limit:
            oldest = next(iter(self._pauses))
            del self._pauses[oldest]
            self.avoided.pop(oldest, None)
            self.counts["gso_forgotten"] += 1
        until = now + pause
        self._pauses[key] = pause, until
        self._due = min(self._due, until) if self.avoided else until
        self.avoided[key] = until

    def expire(self, now: float) -> None:
        """Lets those have another try whose time is over."""
        if now < self._due:
            return
        for key in [key for key, until in self.avoided.items() if until <= now]:
            del self.avoided[key]
            self.counts["gso_retries"] += 1
        self._due = min(self.avoided.values(), default=0.0)

    def stats(self) -> dict[str, int]:
        """`counts`, and `gso_avoided`: destinations that get none now."""
        return {**self.counts, "gso_avoided": len(self.avoided)}
