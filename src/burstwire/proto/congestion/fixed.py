"""A fixed rate that gives way when it does harm.

For links whose capacity is known and reserved. Not specified anywhere; this is what it does:

* It sends at `Config.fixed_rate`, whatever single losses, marks and round trips say. Random loss costs nothing but
  the repetition.
* Loss that is high *and* persistent means that the rate is more than the path or the receiver takes: the rate then
  falls by three tenths for every interval in which that is still so, down to two packets a round trip. An interval is
  at least a round trip of what was sent since the one before. ECN marks count like high loss, and so does any loss
  while a queue stands: then somebody else wants a part of the link and cannot get it. A rate that just fills the link
  would otherwise starve every TCP beside it, at a loss of one packet in a hundred.
* It comes back linearly, in `RECOVERY_TIME` from nothing to the whole rate, while loss is low. So whoever shares
  the bottleneck has what was given up for seconds, not for a round trip.
* No more than two round trips' worth is in flight, so that a peer that falls silent is sent that much, and then the
  backed-off probes of RFC 9002 §6.2 and nothing else. Persistent congestion (RFC 9002 §7.6) starts over at the least
  rate, which then doubles each round trip until something is lost or marked, as in slow start: the path was gone, not
  crowded.

Others beside it get something, not an even share: on shared paths choose another controller.
"""

from __future__ import annotations

from math import inf

from burstwire.config import FIXED_RATE
from burstwire.proto.congestion.base import MAX_WINDOW, initial_window, minimum_window
from burstwire.proto.rtt import Rtt

__all__ = ["Fixed"]

HIGH_LOSS = 0.02
"""The share of bytes lost that is too much: what BBR tolerates (draft-ietf-ccwg-bbr, LossThresh); radio links lose less
once their own repetition is done."""

LOW_LOSS = 0.01
"""The share below which the rate may rise again; between the two it stays, or it would swing."""

STANDING_QUEUE = 0.02
STANDING_SHARE = 1 / 4
"""A queue stands when no round trip of an interval came within so many seconds, and so much of the least round trip
known, of that: jitter and bursts leave some that do."""

PERSISTENT_INTERVALS = 3
"""Intervals in a row with high loss before the rate falls: the overflow of a queue that somebody else filled lasts for
one or two."""

DECREASE = 0.7
"""What a reduction leaves of the rate."""

RECOVERY_TIME = 30.0
"""Seconds from no rate at all to the whole of it."""

SAMPLE_PACKETS = 100
"""Packets on which an interval is judged at least: of fewer, two lost ones would be an accident."""

SAMPLE_LOSSES = 5
"""Lost packets that are enough to judge earlier; below `SAMPLE_PACKETS` they are far above `HIGH_LOSS`."""

WINDOW_RTTS = 2
"""Round trips' worth of the rate that may be in flight."""


class Fixed:
    """See `CongestionController` for the calls.

    Args:
        now: the time in seconds.
        mtu: bytes of a packet.
        rate: bytes per second.
    """

    __slots__ = (
        "_acked",
        "_base_rtt",
        "_before",
        "_events",
        "_full",
        "_high",
        "_least_rtt",
        "_lost",
        "_marked",
        "_mtu",
        "_rate",
        "_restarting",
        "_since",
        "_srtt",
        "_undone",
        "window",
    )

    def __init__(self, now: float, mtu: int, rate: float = FIXED_RATE) -> None:
        self._mtu = mtu
        self._full = self._rate = float(rate)
        self._srtt = self._base_rtt = 0.0
        self._since = now
        """When the interval began: it judges what was sent after that."""
        self._acked = self._lost = 0
        self._marked = False
        self._least_rtt = inf
        self._high = 0
        """Intervals in a row with high loss."""
        self._restarting = False
        """Whether the rate doubles each round trip, after persistent congestion."""
        self._before: float | None = None
        """The rate before the latest reduction."""
        self._events = 0
        self._undone = 0
        self.window = initial_window(mtu)

    # inputs

    def on_sent(self, now: float, size: int) -> None:
        """Nothing depends on when packets leave."""

    def on_ack(
        self,
        now: float,
        acked: int,
        in_flight: int,
        rtt: Rtt,
        app_limited: bool,
        largest_sent_time: float,
    ) -> None:
        """Count, and judge the interval when there is enough to judge it by."""
        self._srtt = rtt.smoothed
        if largest_sent_time >= self._since:
            self._acked += acked
            self._least_rtt = min(self._least_rtt, rtt.adjusted)
            self._base_rtt = rtt.minimum
            self._judge(now, largest_sent_time, app_limited)
        self._set()

    def on_loss(self, now: float, lost: int, largest_sent_time: float, persistent: bool) -> None:
        """Count; what was sent before the rate fell says nothing about the rate of now."""
        if largest_sent_time >= self._since:
            self._lost += lost
            self._judge(now, largest_sent_time, True)
        if persistent:
            self._before = None
            self._rate = self._least()
            self._restarting = True
            self._events += 1
            self._begin(now)
        self._set()

    def on_ecn(self, now: float, largest_sent_time: float) -> None:
        """A mark counts as high loss in its interval."""
        if largest_sent_time >= self._since:
            self._marked = True

    def on_spurious_loss(self, now: float) -> None:
        """It was reordering: the losses counted so far mean nothing, nor does a reduction that came of them."""
        if self._before is not None:
            self._rate = max(self._rate, self._before)
            self._before = None
            self._undone += 1
        self._high = 0
        self._begin(now)
        self._set()

    def on_mtu(self, mtu: int) -> None:
        """The rate is in bytes; only its least value changes."""
        self._mtu = mtu
        self.window = max(self.window, initial_window(mtu))  # until a round trip is known
        self._set()

    # getters

    def pacing_rate(self, rtt: Rtt) -> float:
        """Bytes per second; also on paths that other controllers do not pace, for the rate is the promise."""
        return self._rate

    def stats(self) -> dict[str, float]:
        """The window in bytes, the rate of now and the configured one in bytes per second, reductions, and how many of
        them were undone."""
        return {
            "window": self.window,
            "rate": self._rate,
            "rate_configured": self._full,
            "congestion_events": self._events,
            "undone": self._undone,
        }

    # rules

    def _judge(self, now: float, largest_sent_time: float, app_limited: bool) -> None:
        if self._restarting:
            self._restarting = not (self._lost or self._marked) and self._rate < self._full
            if self._restarting:
                if largest_sent_time - self._since >= self._srtt and not app_limited:
                    self._rate = min(2 * self._rate, self._full)
                    self._begin(now)
                return
        total = self._acked + self._lost
        enough = total >= SAMPLE_PACKETS * self._mtu or self._lost >= SAMPLE_LOSSES * self._mtu
        if not enough or largest_sent_time - self._since < self._srtt:
            return
        share = self._lost / total
        standing = self._least_rtt > self._base_rtt + max(STANDING_QUEUE, STANDING_SHARE * self._base_rtt)
        if share > HIGH_LOSS or self._marked or (standing and self._lost):
            self._high += 1
            if self._high >= PERSISTENT_INTERVALS:
                self._before = self._rate
                self._rate = max(self._rate * DECREASE, self._least())
                self._events += 1
        else:
            self._high = 0
            if share <= LOW_LOSS and not app_limited:
                self._rate = min(self._rate + self._full * (now - self._since) / RECOVERY_TIME, self._full)
        self._begin(now)

    def _begin(self, now: float) -> None:
        """A new interval."""
        self._since = now
        self._acked = self._lost = 0
        self._marked = False
        self._least_rtt = inf

    def _least(self) -> float:
        """Two packets a round trip, as the least window of other controllers (RFC 9002 §7.2)."""
        return min(self._full, minimum_window(self._mtu) / self._srtt if self._srtt else inf)

    def _set(self) -> None:
        srtt = self._srtt
        if srtt:
            self.window = int(min(max(WINDOW_RTTS * self._rate * srtt, minimum_window(self._mtu)), MAX_WINDOW))
