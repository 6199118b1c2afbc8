"""CoDel (RFC 8289): a queue is too long when every packet of an interval waited longer than a target.

This is the control law alone; it sees each packet as it leaves the queue, and how long it waited. One thing differs
from the RFC's code: a queue of less than one packet never counts as too long there (§5.4); here what comes after a
packet is not known yet when it is judged. A packet that waits behind no other waits for nothing, which makes the
difference where packets are few: the link is so slow that the target is less than two packets' time on it.
"""

from __future__ import annotations

from math import sqrt

__all__ = ["INTERVAL", "TARGET", "CoDel"]

TARGET = 0.005
"""Seconds that a packet may wait (§4.3): 5 % of the interval."""

INTERVAL = 0.1
"""Seconds: about the longest round trip of the flows (§4.4)."""


class CoDel:
    """The state of one queue; names as in RFC 8289 §5.

    Args:
        target, interval: seconds.
    """

    __slots__ = ("_above_since", "_count", "_dropping", "_interval", "_last_count", "_next", "_target")

    def __init__(self, target: float = TARGET, interval: float = INTERVAL) -> None:
        self._target = target
        self._interval = interval
        self._above_since = 0.0
        """first_above_time: when waiting beyond the target becomes a reason; 0: packets do not wait too long."""
        self._dropping = False
        self._count = 0
        self._last_count = 0
        self._next = 0.0

    def too_long(self, now: float, waited: float) -> bool:
        """Whether the packet that leaves the queue at `now`, after `waited` seconds, is to be dropped or marked."""
        late = self._late(now, waited)
        if self._dropping:
            if not late:
                self._dropping = False
            elif now >= self._next:  # §5.3: the next is dropped sooner, by the square root of how many were
                self._count += 1
                self._next += self._interval / sqrt(self._count)
                return True
            return False
        if not late:
            return False
        # §5.3: begin with the rate that controlled the queue the last time, if that was not long ago
        self._dropping = True
        recent = self._count - self._last_count
        self._count = recent if recent > 1 and now - self._next < 16 * self._interval else 1
        self._last_count = self._count
        self._next = now + self._interval / sqrt(self._count)
        return True

    def _late(self, now: float, waited: float) -> bool:
        """Whether packets have waited too long for a whole interval (§5.4)."""
        if waited < self._target:
            self._above_since = 0.0
            return False
        if not self._above_since:
            self._above_since = now + self._interval
            return False
        return now >= self._above_since
