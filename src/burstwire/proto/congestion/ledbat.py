"""LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus): background traffic that yields to everything else.

§ without a name: version 01 of the draft. What it leaves to LEDBAT is RFC 6817, what both leave to the transport RFC
9002 §7. The draft counts segments, this file bytes: a segment is one packet of the path's MTU.

Round trips are told apart by when packets were sent: one ends with the first ACK of a packet that was sent after it
began. So no delay counts that was caused by a window which has been reduced since.

The queue is measured: a round trip, less what the peer held its acknowledgement back, above the least one known. The
window grows by less than Reno's while the queue is below `TARGET` and shrinks in proportion beyond it, so that a queue
that somebody else fills pushes this flow aside.

Phases::

    initial slow start ──► congestion avoidance ──► slowdown: frozen ──► ramp ─┐
                                   ▲                                           │
                                   └───────────── window == ssthresh ──────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from burstwire.proto.congestion.base import MAX_WINDOW, initial_window, minimum_window
from burstwire.proto.rtt import Rtt

__all__ = ["TARGET", "Ledbat"]

TARGET = 0.060
"""Seconds of queue that are aimed at (§4.5): less than LEDBAT's 100 ms, so that calls beside it stay usable."""

MAX_GAIN_DIVISOR = 16
"""On short paths the window grows at a sixteenth of Reno's pace (§4.2)."""

DECREASE = 1.0
"""The constant of the multiplicative decrease (§4.3)."""

SLOW_START_EXIT = 3 / 4
"""Of the target: a queue beyond it ends the initial slow start (§4.1)."""

SLOWDOWN_RTTS = 2
"""Round trips from the end of slow start to the first slowdown, and round trips that the window is frozen (§4.4)."""

MAX_FREEZE = 4
"""Times the two round trips of §4.4 that a freeze lasts at most, while the queue still falls: see `_thaws`."""

DRAINING = 0.001
"""Seconds by which a delay must be below that of the round trip before to count as falling: timers are no finer."""

DRAINED = TARGET / 16
"""A queue below it is taken for none: what jitter and bursts leave."""

SLOWDOWN_EVERY = 9
"""Times its own duration that pass after a slowdown before the next: at most a tenth of the link is lost (§4.4)."""

LOSS_FACTOR = 0.5
"""What a loss leaves of the window (RFC 6817 §2.4.2)."""

BASE_HISTORY = 10
BASE_PERIOD = 60.0
"""The least round trip of each of ten minutes is kept: routes change (RFC 6817 §2.4.2, BASE_HISTORY)."""

FILTER = 4
"""Samples of which the least counts as the delay of now: jitter is no queue (RFC 6817 §2.4.2, CURRENT_FILTER)."""

SLOW_START_GAIN = 2.0
AVOIDANCE_GAIN = 1.0
"""Pacing rate over window / round trip; RFC 9002 §7.7 has 1.25, so that pacing never limits. A queue smaller than the
target makes flows equal by losses alone, and then by those that hit a flow in proportion to its rate. Packets that the
window lets go arrive when others leave the queue: what overflows is each flow's growth, as much of a small flow as of a
large one. Paced packets arrive at any time. Eight flows, 50 ms, as much queue: Jain's index 0.93 with 1.25, 0.96 so."""

UNPACED_RTT = 0.001
"""Round trips below the shortest timer cannot be paced with timers."""


@dataclass(slots=True)
class _Undo:
    """State before the latest reduction."""

    window: float
    ssthresh: float
    initial: bool
    ramping: bool


class Ledbat:
    """See `CongestionController` for the calls."""

    __slots__ = (
        "_base",
        "_cwnd",
        "_decreased_at",
        "_decreased_from",
        "_drain_base",
        "_drain_delay",
        "_events",
        "_frozen",
        "_frozen_until",
        "_history",
        "_initial",
        "_mtu",
        "_next_slowdown",
        "_period_end",
        "_queue",
        "_ramping",
        "_recovery_start",
        "_round_start",
        "_samples",
        "_slowdown_start",
        "_slowdowns",
        "_srtt",
        "_ssthresh",
        "_undo",
        "_undone",
        "window",
    )

    def __init__(self, now: float, mtu: int) -> None:
        self._mtu = mtu
        self._cwnd = float(initial_window(mtu))
        self.window = int(self._cwnd)
        self._ssthresh = inf
        self._initial = True
        self._ramping = True  # below ssthresh, on the way to it; the decrease of congestion avoidance comes not back so
        self._history: list[float] = []  # the least delay of each period, the current one last
        self._period_end = -inf
        self._base = inf
        self._samples: list[float] = []
        self._queue = 0.0
        self._srtt = 0.0
        self._next_slowdown = inf
        self._slowdown_start = -1.0  # below 0: none is under way
        self._frozen = False
        self._frozen_until = -inf
        self._drain_base = inf  # the base delay when the window was frozen
        self._drain_delay = inf  # the latest delay seen in a freeze
        self._round_start = now
        self._decreased_at = -inf  # the latest decrease for delay, and the window before it
        self._decreased_from = 0.0
        self._recovery_start = -inf
        self._undo: _Undo | None = None
        self._events = 0
        self._undone = 0
        self._slowdowns = 0

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
        """Measure the queue, then move the window; it grows neither in recovery nor when the application limits it."""
        self._srtt = rtt.smoothed
        self._measure(now, rtt.adjusted)
        if self._slowdown_start < 0 and now >= self._next_slowdown:
            self._begin_slowdown(now)
        round_over = largest_sent_time >= self._round_start
        if round_over:
            self._round_start = now
        if self._frozen and not (round_over and self._thaws(now, rtt.adjusted)):
            return
        held = app_limited or largest_sent_time <= self._recovery_start
        acked = min(acked, self.window)  # no more than one round trip's worth for one frame
        if self._ramping:
            if self._initial and self._queue > SLOW_START_EXIT * TARGET:  # §4.1: only of the initial slow start
                self._leave_slow_start(now)
            elif not held:
                self._set(min(self._cwnd + self.gain * acked, self._ssthresh))
            self._ramping = self._cwnd < self._ssthresh
            if self._slowdown_start >= 0 and not self._ramping:
                self._end_slowdown(now)
        elif round_over:
            self._avoid(now, held)

    def on_loss(self, now: float, lost: int, largest_sent_time: float, persistent: bool) -> None:
        """Halve the window, once for all losses of a round trip (RFC 6817 §2.4.2, RFC 9002 §7.3.2)."""
        if largest_sent_time > self._recovery_start:
            undo = _Undo(self._cwnd, self._ssthresh, self._initial, self._ramping)
            self._reduce(now, largest_sent_time, persistent)
            self._undo = undo
        if persistent:  # RFC 9002 §7.6.2; but what else is found lost of before belongs to the same congestion
            self._recovery_start = self._round_start = now
            self._ramping = True
            self._set(minimum_window(self._mtu))

    def on_ecn(self, now: float, largest_sent_time: float) -> None:
        """A mark counts as a loss (RFC 9002 §7.1)."""
        if largest_sent_time > self._recovery_start:
            self._reduce(now, largest_sent_time)
            self._undo = None

    def on_spurious_loss(self, now: float) -> None:
        """Take the latest reduction back, unless the window has outgrown it or a slowdown holds it."""
        undo, self._undo = self._undo, None
        if undo is None or self._cwnd >= undo.window:
            return
        self._ssthresh = max(undo.ssthresh, minimum_window(self._mtu))
        self._recovery_start = -inf
        self._undone += 1
        if self._slowdown_start < 0:
            self._ramping = undo.ramping
            if undo.initial:
                self._initial = True
                self._next_slowdown = inf
            self._set(max(undo.window, minimum_window(self._mtu)))

    def on_mtu(self, mtu: int) -> None:
        """Count in segments of `mtu` bytes; the window keeps its bytes but for its lower bounds (RFC 9002 §7.2)."""
        self._mtu = mtu
        least = minimum_window(mtu) if self._ssthresh < inf else initial_window(mtu)
        self._ssthresh = max(self._ssthresh, minimum_window(mtu))
        self._set(max(self._cwnd, least))

    # getters

    @property
    def gain(self) -> float:
        """How much slower than Reno the window grows: GAIN = 1 / min(16, ceil(2 · TARGET / base)) (§4.2)."""
        base = self._base
        if base >= 2 * TARGET:
            return 1.0 if base < inf else 1 / MAX_GAIN_DIVISOR
        return 1 / min(MAX_GAIN_DIVISOR, ceil(2 * TARGET / base))

    def pacing_rate(self, rtt: Rtt) -> float:
        """Bytes per second; infinite on paths whose round trip is below any timer."""
        if rtt.smoothed < UNPACED_RTT:
            return inf
        return (SLOW_START_GAIN if self._ramping else AVOIDANCE_GAIN) * self._cwnd / rtt.smoothed

    def stats(self) -> dict[str, float]:
        """Window and threshold in bytes, base delay and queue in seconds (-1: not yet known), slowdowns, congestion
        events, and how many of those were undone."""
        return {
            "window": self.window,
            "ssthresh": self._ssthresh if self._ssthresh < inf else -1,
            "base_delay": self._base if self._base < inf else -1,
            "queue_delay": self._queue,
            "slowdowns": self._slowdowns,
            "congestion_events": self._events,
            "undone": self._undone,
        }

    # rules

    def _measure(self, now: float, delay: float) -> None:
        """The delay of now and the base delay, of round trips instead of one-way delays (§4.5)."""
        history = self._history
        if now >= self._period_end:
            self._period_end = now + BASE_PERIOD
            history.append(delay)
            del history[:-BASE_HISTORY]
            self._base = min(history)
        elif delay < history[-1]:
            history[-1] = delay
            if delay < self._base:
                self._base = delay
        samples = self._samples
        samples.append(delay)
        if len(samples) > FILTER:
            del samples[0]
        self._queue = min(samples) - self._base

    def _avoid(self, now: float, held: bool) -> None:
        """Once a round trip. §4.2 below the target: GAIN segments more; §4.3 beyond it: less in proportion, at most
        half. The next round trip begins after that, so a queue is answered once, not again while it drains: on a long
        path a single overshoot would otherwise cost most of the window."""
        window = self._cwnd
        change = self.gain * self._mtu
        if self._queue > TARGET:
            change = max(change - DECREASE * window * (self._queue / TARGET - 1), -window / 2)
        if change < 0:
            self._decreased_at, self._decreased_from = now, window
        if change < 0 or not held:
            self._set(max(window + change, minimum_window(self._mtu)))

    def _leave_slow_start(self, now: float) -> None:
        """The end of the initial slow start; the initial slowdown follows two round trips later (§4.4)."""
        self._initial = False
        self._ssthresh = self._cwnd
        self._next_slowdown = now + SLOWDOWN_RTTS * self._srtt

    def _begin_slowdown(self, now: float) -> None:
        """§4.4: two packets for two round trips, so that the queue drains and the base delay shows, then back. Flows
        that share a bottleneck see each other's slowdowns and fall into step, which is how a latecomer learns what
        the path is without the queue that it came upon."""
        self._slowdowns += 1
        self._slowdown_start = self._round_start = now
        self._frozen = True
        self._frozen_until = now + SLOWDOWN_RTTS * self._srtt
        self._drain_base = self._base
        self._drain_delay = self._base + self._queue
        if not self._ramping:  # else it is on its way to a window already
            self._ssthresh = max(self._cwnd, minimum_window(self._mtu))
        self._ramping = True
        self._set(minimum_window(self._mtu))

    def _thaws(self, now: float, delay: float) -> bool:
        """Whether the freeze ends with this round trip. §4.4 says after two, which is to let the queue drain. Two are
        enough for a flow that fills it alone; one of eight gives an eighth of the rate free, and 60 ms of queue take
        five round trips. A flow that never sees the path empty keeps a base delay that is too high, and as little as
        a millisecond then gives it several times the share of the others. So the freeze goes on while it has an
        effect: while the delay falls and has not arrived at the base, or the base turns out to be lower yet."""
        before, self._drain_delay = self._drain_delay, delay
        if now < self._frozen_until:
            return False
        limit = self._slowdown_start + MAX_FREEZE * (self._frozen_until - self._slowdown_start)
        standing = delay - self._base > DRAINED or self._base < self._drain_base
        self._frozen = now < limit and standing and delay < before - DRAINING
        return not self._frozen

    def _end_slowdown(self, now: float) -> None:
        self._next_slowdown = now + SLOWDOWN_EVERY * (now - self._slowdown_start)
        self._slowdown_start = -1.0

    def _reduce(self, now: float, largest_sent_time: float, persistent: bool = False) -> None:
        """Half the window, and the end of slow start, on the way back from a slowdown too (RFC 9002 §7.3). Was a packet
        lost from a window that has been decreased for its delay since, half of that one: no round trip takes more."""
        self._events += 1
        self._recovery_start = self._round_start = now
        # Lost while frozen, or in an outage during a slowdown: that tells of the window to go back to, not of this one.
        going_back = self._frozen or (persistent and self._slowdown_start >= 0)
        window = self._ssthresh if going_back else self._cwnd
        before = self._decreased_from if largest_sent_time <= self._decreased_at else window
        window = max(min(window, before * LOSS_FACTOR), minimum_window(self._mtu))
        self._ssthresh = window
        if going_back:
            return
        if self._slowdown_start >= 0:
            self._end_slowdown(now)
        initial = self._initial
        self._set(window)
        self._ramping = False
        if initial:
            self._leave_slow_start(now)

    def _set(self, cwnd: float) -> None:
        self._cwnd = min(cwnd, MAX_WINDOW)
        self.window = int(self._cwnd)
