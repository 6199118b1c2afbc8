"""Pacing: a token bucket that spreads a window over its round trip (RFC 9002 §7.7).

The bucket holds a packet and what the rate yields in 2 ms, because event loops wake a millisecond late;
timers are never asked for nearer than 1 ms, and a rate that fills the largest bucket within one is not
limited: on such a path the window is the limit, and a timer could only leave it idle.
"""

from __future__ import annotations

__all__ = ["MAX_BURST", "TIMER", "Pacer"]

TIMER = 0.001
"""Seconds: the nearest timer worth asking for. asyncio fires at least 1.1 ms after any shorter request."""

BUCKET_TIME = 2 * TIMER
"""Seconds of rate that the bucket holds, beside a packet that is being saved up for: one timer, and as much
again for its being late."""

MIN_BURST_PACKETS = 2
"""The bucket holds at least so many packets, or a slow path could never send a second one in a wake-up."""

MAX_BURST = 1 << 20
"""Bytes that leave at once at most: beyond a megabyte, queues overflow and the cache is left."""


class Pacer:
    """Says how many bytes may leave now. What is not paced (ACKs, probes) may be reported too, and is paid
    off.

    The bucket starts with `first_burst` bytes: the initial window may leave at once, although no round-trip
    time is known yet.
    """

    __slots__ = ("_last", "_tokens")

    def __init__(self, now: float, first_burst: int) -> None:
        self._last = now
        self._tokens = float(first_burst)

    def budget(self, now: float, rate: float, mtu: int) -> int:
        """Bytes that may leave now, 0 when that is less than one packet of `mtu` bytes.

        `rate` is in bytes per second, > 0, possibly infinite. A caller may round up to a whole packet or
        train; the excess is held against the next budget.
        """
        if rate * TIMER >= MAX_BURST:
            self._last = now
            self._tokens = MAX_BURST
            return MAX_BURST
        self._refill(now, rate, mtu)
        return int(self._tokens) if self._tokens >= mtu else 0

    def on_sent(self, size: int) -> None:
        """Report `size` bytes that left; no debt grows beyond one largest bucket."""
        tokens = self._tokens - size
        self._tokens = tokens if tokens > -MAX_BURST else -MAX_BURST

    def next_time(self, now: float, rate: float, mtu: int) -> float:
        """When `budget` will allow at least one packet: `now`, or a time at least 1 ms ahead."""
        if self.budget(now, rate, mtu):
            return now
        return now + max(TIMER, (mtu - self._tokens) / rate)

    def _refill(self, now: float, rate: float, mtu: int) -> None:
        size = min(max(MIN_BURST_PACKETS * mtu, mtu + BUCKET_TIME * rate), MAX_BURST)
        if self._tokens < size:
            self._tokens = min(size, self._tokens + (now - self._last) * rate)
        self._last = now
