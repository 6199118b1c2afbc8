"""CUBIC (RFC 9438) with HyStart++ (RFC 9406), in the frame that RFC 9002 §7 sets. § without a number: RFC
9438.

The RFC counts segments, this file bytes: a segment is one packet of the path's MTU. It computes once per ACK
frame, which may acknowledge hundreds of packets: every rule of the form "per ACK" is applied to the sum.

Slow start while `window < ssthresh`; recovery until a packet sent after the last reduction is acknowledged;
congestion avoidance otherwise. An *epoch* is one stretch of congestion avoidance. Its time `t` does not run
while the application limits the sender (§4.2, §5.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from burstwire.proto.congestion.base import MAX_WINDOW, initial_window, minimum_window
from burstwire.proto.congestion.hystart import HyStart
from burstwire.proto.rtt import Rtt

__all__ = ["BETA", "C", "Cubic"]

C = 0.4
"""Segments per second³: how aggressively the window grows (§5.1)."""

BETA = 0.7
"""What a congestion event leaves of the window (§4.6)."""

ALPHA = 3 * (1 - BETA) / (1 + BETA)
"""Segments per round trip by which the Reno-friendly estimate grows, so that it is as fast as Reno (§4.3)."""

SLOW_START_GAIN = 2.0
AVOIDANCE_GAIN = 1.25
"""Pacing rate over window / round trip: above 1, so that pacing never is what limits (RFC 9002 §7.7); slow
start doubles the window each round trip."""

UNPACED_RTT = 0.001
"""Round trips below the shortest timer cannot be paced with timers."""


@dataclass(slots=True)
class _Epoch:
    """One stretch of congestion avoidance; windows in bytes."""

    start_window: float
    """cwnd_epoch."""
    k: float
    """Seconds until the cubic function is back at W_max."""
    w_est: float
    """The window Reno would have (§4.3)."""
    t: float = 0.0
    """Seconds of this epoch in which the window could grow."""


@dataclass(slots=True)
class _Undo:
    """State before the latest reduction (§4.9)."""

    window: float
    ssthresh: float
    w_max: float
    prior: float
    epoch: _Epoch | None
    slow_start: HyStart | None


class Cubic:
    """The default congestion controller; see `CongestionController` for the calls."""

    __slots__ = (
        "_cwnd",
        "_epoch",
        "_events",
        "_idle",
        "_last_ack",
        "_mtu",
        "_prior",
        "_recovery_start",
        "_slow_start",
        "_ssthresh",
        "_undo",
        "_undone",
        "_w_max",
        "window",
    )

    def __init__(self, now: float, mtu: int) -> None:
        self._mtu = mtu
        self._cwnd = float(initial_window(mtu))
        self.window = int(self._cwnd)
        self._ssthresh = inf
        self._w_max = 0.0  # 0: undefined, no congestion event yet or the last one was a time-out
        self._prior = 0.0  # cwnd_prior
        self._epoch: _Epoch | None = None
        self._undo: _Undo | None = None
        self._slow_start: HyStart | None = HyStart(now)  # only of the initial slow start (RFC 9406 §4.3)
        self._recovery_start = -inf
        self._last_ack = now
        self._idle = True
        self._events = 0
        self._undone = 0

    # inputs

    def on_sent(self, now: float, size: int) -> None:
        """A flight left; after silence the time of the epoch runs on from here."""
        if self._idle:
            self._idle = False
            self._last_ack = now

    def on_ack(
        self,
        now: float,
        acked: int,
        in_flight: int,
        rtt: Rtt,
        app_limited: bool,
        largest_sent_time: float,
    ) -> None:
        """Grow the window, unless in recovery (RFC 9002 §7.3.2) or limited by the application (§5.8)."""
        elapsed = now - self._last_ack
        self._last_ack = now
        self._idle = in_flight <= acked
        if self._slow_start is not None:
            self._slow_start.on_ack(now, rtt.latest, largest_sent_time)
        if app_limited or largest_sent_time <= self._recovery_start:
            return
        acked = min(acked, self.window)  # no more than one round trip's worth for one frame
        if self._cwnd < self._ssthresh:
            self._grow_slow_start(acked)
        else:
            self._grow_avoidance(acked, elapsed, rtt.smoothed)
        self._set(self._cwnd)

    def on_loss(self, now: float, lost: int, largest_sent_time: float, persistent: bool) -> None:
        """Reduce the window, once for all losses of a round trip (RFC 9002 §7.3.2)."""
        if largest_sent_time > self._recovery_start:
            undo = self._saved()
            self._reduce(now)
            self._undo = undo
        if persistent:  # RFC 9002 §7.6.2; §4.8: the next epoch starts with K = 0 at its own window
            self._w_max = 0.0
            self._epoch = None
            self._recovery_start = -inf
            self._set(minimum_window(self._mtu))

    def on_ecn(self, now: float, largest_sent_time: float) -> None:
        """Reduce the window as for a loss (§4.6); a mark cannot turn out to be spurious."""
        if largest_sent_time > self._recovery_start:
            self._reduce(now)
            self._undo = None

    def on_spurious_loss(self, now: float) -> None:
        """Take the latest reduction back (§4.9), if the window has not outgrown it meanwhile."""
        undo, self._undo = self._undo, None
        if undo is None or self._cwnd >= undo.window:
            return
        self._ssthresh = undo.ssthresh
        self._w_max = undo.w_max
        self._prior = undo.prior
        self._epoch = undo.epoch
        self._slow_start = undo.slow_start
        self._recovery_start = -inf
        self._last_ack = now
        self._undone += 1
        self._set(undo.window)
        self.on_mtu(self._mtu)  # it may have changed since

    def on_mtu(self, mtu: int) -> None:
        """Count in segments of `mtu` bytes; the window keeps its bytes but for its lower bounds (RFC 9002
        §7.2)."""
        self._mtu = mtu
        least = minimum_window(mtu) if self._ssthresh < inf else initial_window(mtu)
        self._ssthresh = max(self._ssthresh, minimum_window(mtu))
        self._set(max(self._cwnd, least))
        if self._epoch is not None:
            self._epoch.k = self._k(self._epoch.start_window)

    # getters

    def pacing_rate(self, rtt: Rtt) -> float:
        """Bytes per second; infinite on paths whose round trip is below any timer."""
        if rtt.smoothed < UNPACED_RTT:
            return inf
        doubling = self._cwnd < self._ssthresh and not (self._slow_start is not None and self._slow_start.css)
        return (SLOW_START_GAIN if doubling else AVOIDANCE_GAIN) * self._cwnd / rtt.smoothed

    def stats(self) -> dict[str, float]:
        """Window, threshold and W_max in bytes (-1: not yet set), congestion events, and how many were
        undone."""
        return {
            "window": self.window,
            "ssthresh": self._ssthresh if self._ssthresh < inf else -1,
            "w_max": self._w_max or -1,
            "congestion_events": self._events,
            "undone": self._undone,
        }

    @property
    def state(self) -> str:
        """What it does now, for traces; recovery (RFC 9002 §7.3.2) lasts until the first growth after it."""
        if self._cwnd < self._ssthresh:
            return "slow_start"
        return "recovery" if self._epoch is None and self._recovery_start > -inf else "congestion_avoidance"

    # rules

    def _grow_slow_start(self, acked: int) -> None:
        hystart = self._slow_start
        if hystart is not None:
            if hystart.finished:  # §4.10: no loss, so W_max and K come from the window itself
                self._slow_start = None
                self._ssthresh = self._prior = self._cwnd
                return
            acked = hystart.growth(acked)
        self._cwnd = min(self._cwnd + acked, self._ssthresh)

    def _grow_avoidance(self, acked: int, elapsed: float, srtt: float) -> None:
        epoch = self._epoch
        if epoch is None:
            if self._w_max <= self._cwnd:  # §4.8, §4.10: nothing to return to
                self._w_max = self._cwnd
            epoch = self._epoch = _Epoch(self._cwnd, self._k(self._cwnd), self._cwnd)
        else:
            epoch.t += elapsed
        share = acked / self._cwnd
        # §4.3: the estimate of Reno, one segment a round trip once it is back where the last event was
        epoch.w_est += (1.0 if epoch.w_est >= self._prior else ALPHA) * self._mtu * share
        # §4.2, §4.4, §4.5: a round trip ahead on the curve, at least the window, at most half as much again
        target = min(max(self._w_cubic(epoch, epoch.t + srtt), self._cwnd), 1.5 * self._cwnd)
        # Not one or the other by comparing them at t: a frame may stand for a whole round trip of both.
        self._cwnd = max(self._cwnd + (target - self._cwnd) * share, epoch.w_est)

    def _w_cubic(self, epoch: _Epoch, t: float) -> float:
        """Figure 1, in bytes."""
        return C * (t - epoch.k) ** 3 * self._mtu + self._w_max

    def _k(self, start_window: float) -> float:
        """Figure 2: seconds to W_max from the window at the epoch's start."""
        return float((max(0.0, self._w_max - start_window) / self._mtu / C) ** (1 / 3))

    def _reduce(self, now: float) -> None:
        """A congestion event (§4.6). The window never outgrew what was in flight (§5.8), so it stands for
        that."""
        # §4.7 fast convergence: below the last maximum, leave room for the newcomer that caused it
        self._w_max = self._cwnd * (1 + BETA) / 2 if self._cwnd < self._w_max else self._cwnd
        self._prior = self._cwnd
        self._ssthresh = max(self._cwnd * BETA, minimum_window(self._mtu))
        self._recovery_start = now
        self._epoch = None
        self._slow_start = None
        self._events += 1
        self._set(self._ssthresh)

    def _saved(self) -> _Undo:
        return _Undo(self._cwnd, self._ssthresh, self._w_max, self._prior, self._epoch, self._slow_start)

    def _set(self, cwnd: float) -> None:
        self._cwnd = min(cwnd, MAX_WINDOW)
        self.window = int(self._cwnd)
