"""A bottleneck: one queue before one link, shared by all directions whose `Link` names it.

Datagrams enter in the order of time and leave in the order of entering, so that when each leaves is known as soon as
it enters, and whether CoDel drops it, too: nothing has to be called later. What a rate that changes does to datagrams
that wait already is exact, because its steps are known from the start.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from burstwire.errors import ConfigError
from burstwire.sim.codel import INTERVAL, TARGET, CoDel
from burstwire.sim.steps import Steps

__all__ = ["Bottleneck", "Usage"]

CE = 3
"""The ECN codepoint "congestion experienced"; a packet that says 1 or 2 may be turned into it (RFC 3168 §5)."""

DISCIPLINES = ("tail", "codel")


@dataclass
class Usage:
    """What went through a bottleneck between two times, or since the start.

    Attributes:
        start, end: seconds.
        carried: bytes that entered it and were not dropped, by the address that sent them.
        dropped: datagrams, likewise.
        marked: datagrams marked CE.
        waited: byte-seconds spent in the queue: their mean over time is the mean queue, by Little's law.
        longest: the longest wait of a datagram in seconds.
        capacity: bytes that could have left.
        backlog: bytes that waited at the start less those at the end: they left, but had entered before.
    """

    start: float
    end: float
    carried: Counter[bytes] = field(default_factory=Counter)
    dropped: Counter[bytes] = field(default_factory=Counter)
    marked: int = 0
    waited: float = 0.0
    longest: float = 0.0
    capacity: float = 0.0
    backlog: float = 0.0

    @property
    def use(self) -> float:
        """The share of the capacity that was used."""
        return (self.carried.total() + self.backlog) / self.capacity if self.capacity else 0.0

    @property
    def mean_queue(self) -> float:
        """Bytes waiting, in the mean over time."""
        return self.waited / (self.end - self.start) if self.end > self.start else 0.0


class Bottleneck:
    """Raises `ConfigError` for values out of range.

    Args:
        rate: bytes per second; with `Steps`, seconds of the clock.
        queue: bytes that may wait; what comes beyond is dropped (drop-tail), with CoDel, too.
        discipline: "tail" or "codel".
        mark: bytes waiting from which on ECN-capable datagrams are marked CE ("tail"); None for never.
        ecn: whether CoDel marks ECN-capable datagrams instead of dropping them (RFC 8289 §3.2.1).
        target, interval: CoDel's, in seconds.

    Attributes:
        usage: since the start, or since `measure`.
    """

    def __init__(
        self,
        rate: float | Steps,
        queue: int = 256 * 1024,
        *,
        discipline: str = "tail",
        mark: int | None = None,
        ecn: bool = True,
        target: float = TARGET,
        interval: float = INTERVAL,
    ) -> None:
        least = rate.least if isinstance(rate, Steps) else rate
        if not 1 <= least <= 1e15:
            raise ConfigError(f"rate of a bottleneck is {rate!r}; it must be from 1 to 1e15 bytes a second")
        if queue < 1:
            raise ConfigError(f"queue of a bottleneck is {queue!r}; it must be at least 1 byte")
        if discipline not in DISCIPLINES:
            raise ConfigError(f"discipline is {discipline!r}; choose one of {', '.join(DISCIPLINES)}")
        self.rate = rate
        self.queue = queue
        self.mark = mark
        self.discipline = discipline
        self._codel = CoDel(target, interval) if discipline == "codel" else None
        self._ecn = ecn
        self._free_at = 0.0
        """When everything that has entered will have left."""
        self.usage = Usage(0.0, 0.0)

    def __repr__(self) -> str:
        return f"Bottleneck({self.rate!r}, {self.queue}, discipline={self.discipline!r}, mark={self.mark!r})"

    # getters

    def waiting(self, now: float) -> float:
        """Bytes in the queue."""
        if now >= self._free_at:
            return 0.0
        rate = self.rate
        return rate.passed(now, self._free_at) if isinstance(rate, Steps) else (self._free_at - now) * rate

    # mutators

    def measure(self, now: float) -> Usage:
        """Begin to measure anew; returns what was measured until now."""
        usage = self.usage
        usage.end = now
        rate = self.rate
        usage.capacity = rate.passed(usage.start, now) if isinstance(rate, Steps) else rate * (now - usage.start)
        waiting = self.waiting(now)
        usage.backlog -= waiting
        self.usage = Usage(now, now, backlog=waiting)
        return usage

    def enter(self, now: float, size: int, ecn: int, source: bytes) -> tuple[float, int] | None:
        """A datagram of `size` bytes enters at `now`.

        Returns:
            when it has left and its ECN codepoint; None when it was dropped.
        """
        usage = self.usage
        rate = self.rate
        begin = self._free_at
        if begin <= now:
            begin = now
            waited = 0.0
        else:
            waited = begin - now
            backlog = rate.passed(now, begin) if isinstance(rate, Steps) else waited * rate
            if backlog + size > self.queue:
                usage.dropped[source] += 1
                return None
            if self.mark is not None and backlog >= self.mark and ecn in (1, 2):
                usage.marked += 1
                ecn = CE
        codel = self._codel
        if codel is not None and codel.too_long(begin, waited):
            if self._ecn and ecn in (1, 2):
                usage.marked += 1
                ecn = CE
            else:
                usage.dropped[source] += 1
                return None
        usage.carried[source] += size
        usage.waited += waited * size
        if waited > usage.longest:
            usage.longest = waited
        self._free_at = begin = rate.passing(begin, size) if isinstance(rate, Steps) else begin + size / rate
        return begin, ecn
