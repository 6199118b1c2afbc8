"""BBR's model of a path: what it delivers, how far away the other end is, and what it lost of late.

Sections are those of draft-ietf-ccwg-bbr, as are names; rates are bytes per second, volumes bytes, times seconds.
The model takes samples and answers questions. When to probe for what is decided in `bbr.py`.
"""

from __future__ import annotations

from math import inf, sqrt

from burstwire.proto.congestion.delivery import DeliverySampler

__all__ = ["BETA", "LOSS_THRESHOLD", "PACING_MARGIN", "PathModel", "WindowedMax", "tolerable"]

LOSS_THRESHOLD = 0.02
"""BBR.LossThresh: the share of a round trip's data that may be lost (§2.8)."""

DEVIATIONS = 1.5
"""Standard deviations by which losses must exceed that share to be more than chance. Measured in the simulator: with 1
a path of 100 ms that loses 1 % is used to 86 %, with 2 a flow that was there first does not yield to others."""

BETA = 0.7
"""BBR.Beta: what a round trip with losses leaves of the short-term bounds at least (§2.8)."""

HEADROOM = 0.15
"""BBR.Headroom: the share of the long-term bound that is left to others (§2.8)."""

FULL_BW_GROWTH = 1.25
FULL_BW_ROUNDS = 3
"""The pipe is full when the rate has not grown by a quarter in three round trips (§5.3.1.2)."""

QUEUED = 1.1
"""Shares of `min_rtt` above which the least round trip of a whole one means that a queue stands."""

EXTRA_ACKED_ROUNDS = 10
"""BBR.ExtraAckedFilterLen (§2.12)."""

MIN_RTT_WINDOW = 10.0
"""BBR.MinRTTFilterLen: seconds (§2.16.1)."""

PACING_MARGIN = 0.01
"""BBR.PacingMarginPercent: so much slower than the path, so that queues drain (§2.5)."""

PROBE_RTT_INTERVAL = 5.0
"""BBR.ProbeRTTInterval: seconds (§2.16.2)."""


def tolerable(sent: float, mtu: int) -> float:
    """Bytes that may be lost of so many bytes sent: no more than chance makes of BBR.LossThresh, and one packet.

    Differs: the draft compares with the bare share, so that one lost packet of 49 is too much. A path that loses one
    in a hundred by chance would hardly let a probe end otherwise. Some standard deviations of the number of packets are
    added; where a queue overflows, a fifth of a round trip is lost, and that is beyond any chance.
    """
    expected = LOSS_THRESHOLD * sent / mtu
    return max(expected + DEVIATIONS * sqrt(expected), 1.0) * mtu


class WindowedMax:
    """The largest value of the latest so many round trips, exactly."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[int, float]] = []

    def update(self, value: float, at: int, window: int) -> float:
        """Take in a value at round `at` and tell the maximum of the last `window` rounds, this one included."""
        entries = self._entries
        while entries and entries[-1][1] <= value:  # older and not larger: never the maximum again
            entries.pop()
        entries.append((at, value))
        while entries[0][0] <= at - window:
            del entries[0]
        return entries[0][1]


class PathModel:
    """What is known about one path.

    Attributes:
        bw: the rate to send at, before gains: the lesser of `max_bw` and `bw_shortterm`.
        max_bw: the most that was delivered in this and the previous cycle of probing (§5.5.3).
        bw_shortterm, inflight_shortterm: what losses since the last probe suggest; infinite without any.
        inflight_longterm: what was too much in flight when it was tried; infinite until then.
        bw_latest, inflight_latest: the most that was delivered in this round trip.
        min_rtt: the least round trip of the last 10 s; infinite before the first.
        probe_rtt_expired: no lower one, nor an equal one, came for 5 s.
        round_count, round_start: round trips so far; whether the latest ACK began one (§5.5.1).
        rounds_since_probe_up: round trips since the latest probe for bandwidth.
        round_rate: the most that was delivered in the round trip before; infinite if the application limited it.
        is_queued: a queue stood all through the round trip before.
        is_loss_in_round: something was lost in the round trip that `loss_round_start` ends.
        full_bw_now, full_bw_reached: the rate stopped growing since the search began; at any time (§5.3.1.2).
        extra_acked: bytes by which acknowledgements come ahead of the rate, bundled (§5.5.9).
    """

    __slots__ = (
        "_cycle_bw",
        "_extra_acked_delivered",
        "_extra_acked_filter",
        "_extra_acked_start",
        "_full_bw",
        "_full_bw_count",
        "_least_rtt",
        "_loss_delivered",
        "_loss_round_delivered",
        "_lost_in_round",
        "_min_rtt_stamp",
        "_next_round_delivered",
        "_probe_rtt_min_delay",
        "_rate_in_round",
        "bw",
        "bw_latest",
        "bw_shortterm",
        "extra_acked",
        "full_bw_now",
        "full_bw_reached",
        "inflight_latest",
        "inflight_longterm",
        "inflight_shortterm",
        "is_loss_in_round",
        "is_queued",
        "loss_round_start",
        "max_bw",
        "min_rtt",
        "probe_rtt_expired",
        "probe_rtt_min_stamp",
        "round_count",
        "round_rate",
        "round_start",
        "rounds_since_probe_up",
    )

    def __init__(self, now: float) -> None:
        self.bw = 0.0
        self.max_bw = 0.0
        self._cycle_bw = 0.0  # the most of this cycle alone; 0: nothing was measured yet
        self.bw_latest = 0.0
        self.bw_shortterm = inf
        self.inflight_latest = 0.0
        self.inflight_shortterm = inf
        self.inflight_longterm = inf
        self.min_rtt = inf
        self._min_rtt_stamp = now
        self._probe_rtt_min_delay = inf
        self.probe_rtt_min_stamp = now
        self.probe_rtt_expired = False
        self._least_rtt = inf  # of this round trip
        self.is_queued = False
        self.round_count = 0
        self.round_rate = inf
        self._rate_in_round = 0.0
        self.round_start = False
        self.rounds_since_probe_up = 0
        self._next_round_delivered = 0
        self._loss_round_delivered = 0
        self.loss_round_start = False
        self.is_loss_in_round = False
        self._lost_in_round = 0
        self._loss_delivered = 0
        self._full_bw = 0.0
        self._full_bw_count = 0
        self.full_bw_now = False
        self.full_bw_reached = False
        self.extra_acked = 0.0
        self._extra_acked_filter = WindowedMax()
        self._extra_acked_start = now
        self._extra_acked_delivered = 0

    # getters

    def bdp(self, gain: float = 1.0) -> float:
        """BDPMultiple (§5.6.4.2): `gain` times what fills the path without a queue; infinite before a sample."""
        return gain * self.bw * self.min_rtt if self.min_rtt < inf else inf

    def with_headroom(self, mtu: int) -> float:
        """InflightWithHeadroom (§5.3.3.9): the long-term bound less what others may need."""
        if self.inflight_longterm == inf:
            return inf
        return self.inflight_longterm - max(mtu, HEADROOM * self.inflight_longterm)

    # inputs, in the order of §5.2.3

    def update_latest(self, sample: DeliverySampler) -> None:
        """UpdateLatestDeliverySignals (§5.5.10.3)."""
        self.bw_latest = max(self.bw_latest, sample.rate)
        self.inflight_latest = max(self.inflight_latest, sample.span)
        self.loss_round_start = sample.prior_delivered >= self._loss_round_delivered
        if self.loss_round_start:
            self._loss_round_delivered = sample.delivered

    def update_round(self, sample: DeliverySampler) -> None:
        """UpdateRound (§5.5.1): a round trip ends with the first ACK of what was sent after it began."""
        self.round_start = sample.prior_delivered >= self._next_round_delivered
        if self.round_start:
            self.start_round(sample)
            self.round_rate, self._rate_in_round = self._rate_in_round or inf, 0.0
            self.round_count += 1
            self.rounds_since_probe_up += 1

    def update_max_bw(self, sample: DeliverySampler) -> None:
        """UpdateMaxBw (§5.5.5): what the application limited counts only if it is more (§5.5.4).

        Differs: once the pipe is full, rates over two round trips count. Over one, the packets that happen to be
        bundled at its ends are some percent of a short path's content; a maximum finds them all, is beyond the pacing
        margin (§5.6.2), and a queue stands that nothing drains.
        """
        rate = sample.long_rate if self.full_bw_reached else sample.rate
        self._rate_in_round = inf if sample.is_app_limited else max(self._rate_in_round, rate)
        if rate >= self.max_bw or not sample.is_app_limited:
            self.max_bw = max(self.max_bw, rate)
            self._cycle_bw = max(self._cycle_bw, rate)

    def update_aggregation(self, now: float, newly_acked: int, window: int) -> None:
        """UpdateACKAggregation (§5.5.9)."""
        expected = self.bw * (now - self._extra_acked_start)
        if self._extra_acked_delivered <= expected:  # the bundle is over
            self._extra_acked_delivered = 0
            self._extra_acked_start = now
            expected = 0.0
        self._extra_acked_delivered += newly_acked
        extra = min(self._extra_acked_delivered - expected, window)
        rounds = EXTRA_ACKED_ROUNDS if self.full_bw_reached else 1
        self.extra_acked = self._extra_acked_filter.update(extra, self.round_count, rounds)

    def check_full_bw(self, sample: DeliverySampler) -> None:
        """CheckFullBWReached (§5.3.1.2)."""
        if self.full_bw_now or not self.round_start or sample.is_app_limited:
            return
        if sample.rate >= self._full_bw * FULL_BW_GROWTH:
            self.reset_full_bw(sample.rate)
            return
        self._full_bw_count += 1
        self.full_bw_now = self._full_bw_count >= FULL_BW_ROUNDS
        if self.full_bw_now:
            self.full_bw_reached = True

    def update_min_rtt(self, now: float, rtt: float) -> None:
        """UpdateMinRTT (§5.3.4.3); `rtt` is that of the packet sent last among those acknowledged (§5.5.7.1)."""
        if self.round_start:
            self.is_queued = inf > self._least_rtt > QUEUED * self.min_rtt
            self._least_rtt = inf
        self._least_rtt = min(self._least_rtt, rtt)
        self.probe_rtt_expired = now > self.probe_rtt_min_stamp + PROBE_RTT_INTERVAL
        if rtt < self._probe_rtt_min_delay or self.probe_rtt_expired:
            self._probe_rtt_min_delay = rtt
            self.probe_rtt_min_stamp = now
        if self._probe_rtt_min_delay < self.min_rtt or now > self._min_rtt_stamp + MIN_RTT_WINDOW:
            self.min_rtt = self._probe_rtt_min_delay
            self._min_rtt_stamp = self.probe_rtt_min_stamp

    def advance_latest(self, sample: DeliverySampler) -> None:
        """AdvanceLatestDeliverySignals (§5.5.10.3)."""
        if self.loss_round_start:
            self.bw_latest = sample.rate
            self.inflight_latest = sample.span

    def bound(self) -> None:
        """BoundBWForModel (§5.5.10.3)."""
        self.bw = min(self.max_bw, self.bw_shortterm)

    # mutators: what the state machine asks for

    def start_round(self, sample: DeliverySampler) -> None:
        """StartRound (§5.5.1): the next round trip begins with what is sent from now on."""
        self._next_round_delivered = sample.delivered

    def advance_max_bw(self) -> None:
        """AdvanceMaxBwFilter (§5.5.6): a cycle is over, so what was measured before it is forgotten, unless nothing
        was measured in it."""
        self.max_bw = self._cycle_bw or self.max_bw
        self._cycle_bw = 0.0

    def reset_full_bw(self, rate: float = 0.0) -> None:
        """ResetFullBW (§5.3.1.2), with the rate that growth is measured against."""
        self._full_bw = rate
        self._full_bw_count = 0
        self.full_bw_now = False

    def restart_aggregation(self, now: float) -> None:
        """What was idle is no sign of bundling (§5.4.1)."""
        self._extra_acked_start = now
        self._extra_acked_delivered = 0

    def note_loss(self, sample: DeliverySampler, size: int) -> None:
        """NoteLoss (§5.5.10.2) of `size` bytes: the round trip that it begins ends with what is sent after the first
        loss."""
        if not self.is_loss_in_round:
            self._loss_round_delivered = self._loss_delivered = sample.delivered
            self._lost_in_round = 0
        self.is_loss_in_round = True
        self._lost_in_round += size

    def lost_too_much(self, sample: DeliverySampler, mtu: int) -> bool:
        """Whether more was lost in the round trip with losses that ends now than BBR tolerates."""
        lost = self._lost_in_round
        sent = sample.delivered - self._loss_delivered + lost
        return self.is_loss_in_round and lost > tolerable(sent, mtu)

    def lower_bounds(self, window: int) -> None:
        """InitLowerBounds, LossLowerBounds (§5.5.10.3), at the end of a round trip in which too much was lost.

        Differs: the draft lowers the bounds by any loss, by what was lost and by the pacing margin, that is by 2 % a
        round trip on a path that loses 1 %; in the 63 round trips between two probes that leaves a third of the path,
        which is to be used in full (§3.1). For the same reason the rate that is taken for the path's is not lowered by
        our own margin.
        """
        if self.bw_shortterm == inf:  # InitLowerBounds, LossLowerBounds
            self.bw_shortterm = self.max_bw
        if self.inflight_shortterm == inf:
            self.inflight_shortterm = window
        self.bw_shortterm = max(min(self.bw_latest / (1 - PACING_MARGIN), self.bw_shortterm), BETA * self.bw_shortterm)
        self.inflight_shortterm = max(self.inflight_latest, BETA * self.inflight_shortterm)

    def reset_congestion_signals(self) -> None:
        """ResetCongestionSignals (§5.5.10.3)."""
        self.is_loss_in_round = False
        self.bw_latest = 0.0
        self.inflight_latest = 0.0

    def reset_short_term(self) -> None:
        """ResetShortTermModel (§5.5.10.3)."""
        self.bw_shortterm = inf
        self.inflight_shortterm = inf
