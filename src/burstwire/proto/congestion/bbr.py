"""BBRv3 (draft-ietf-ccwg-bbr): send at the rate at which the path delivers, with just what fills it in flight.

Sections without a document are those of the draft, as are names. `DeliverySampler` measures, `PathModel` says what the
path is like, `StateMachine` when to probe for what, `Control` at which rate and with which window; this file puts them
behind the interface of all controllers, and reacts to losses.

The draft's events for single packets come as batches: one sample for an ACK frame, one call for a loss detection with
the runs of packets that it gave up. Losses are told after the acknowledgements of the same frame, not before them.
What is not as in the draft, and why, says a comment with the word "differs" at its place.
"""

from __future__ import annotations

from math import inf

from burstwire.proto.congestion.base import minimum_window
from burstwire.proto.congestion.bbr_control import PROBE_BW, State
from burstwire.proto.congestion.bbr_model import LOSS_THRESHOLD, tolerable
from burstwire.proto.congestion.bbr_states import StateMachine
from burstwire.proto.congestion.delivery import LostRun
from burstwire.proto.rtt import Rtt

__all__ = ["Bbr", "State"]

ACCELERATING = (State.STARTUP, State.REFILL, State.UP)
"""IsProbingBW: states in which losses are what is looked for (§5.3.3.9)."""

LEAST_RTT = 1e-6
"""Seconds that a round trip is taken for at least, where time stands still."""


class Bbr(StateMachine):
    """The controller; see `CongestionController` for the calls."""

    __slots__ = ("_limited_round", "_undo", "_undone")

    def __init__(self, now: float, mtu: int) -> None:
        super().__init__(now, mtu)
        self._limited_round = -2  # the round trip in which the window was full last
        self._undo: tuple[float, float, float] | None = None
        self._undone = 0

    # inputs

    def on_sent(self, now: float, size: int) -> None:
        """HandleRestartFromIdle (§5.4.1)."""
        if self.sampler.restarted and self.sampler.app_limited:
            self._idle_restart = True
            self.model.restart_aggregation(now)
            if self.state in PROBE_BW:
                self._set_pacing_rate(1.0)
            elif self.state is State.PROBE_RTT:
                self._check_probe_rtt_done(now)

    def on_ack(
        self,
        now: float,
        acked: int,
        in_flight: int,
        rtt: Rtt,
        app_limited: bool,
        largest_sent_time: float,
    ) -> None:
        """UpdateOnACK (§5.2.3)."""
        sample = self.sampler
        model = self.model
        if not self._pacing_rate:
            self._pacing_rate = self._first_rate(rtt)
        if not sample.has_sample:
            return
        if in_flight + self._mtu > self.window:
            self._limited_round = model.round_count
        in_flight -= acked
        model.update_latest(sample)
        model.update_round(sample)
        model.update_max_bw(sample)
        self._is_cwnd_limited = self._limited_round >= model.round_count - 1
        if (  # UpdateCongestionSignals, AdaptLowerBoundsFromCongestion (§5.5.10.3)
            model.loss_round_start
            and self.state not in ACCELERATING
            and model.round_count > self._resumed_round
            and model.lost_too_much(sample, self._mtu)
        ):
            model.lower_bounds(self.window)
        model.update_aggregation(now, sample.newly_acked, self.window)
        model.check_full_bw(sample)
        self._check_startup_done()
        if model.loss_round_start:
            model.is_loss_in_round = False
            self._loss_runs = 0
        self._check_drain_done(now, in_flight)
        self._update_cycle_phase(now, in_flight)
        model.update_min_rtt(now, max(now - largest_sent_time, LEAST_RTT))
        self._check_probe_rtt(now, in_flight)
        model.advance_latest(sample)
        model.bound()
        if largest_sent_time > self._recovery_start > -inf:  # every loss of that round trip is repaired or told
            self._recovery_start = -inf
            self._restore_cwnd()
        self._set_pacing_rate(self.state.pacing_gain)
        self._set_cwnd(sample.newly_acked)

    def on_loss(self, now: float, lost: int, largest_sent_time: float, persistent: bool) -> None:
        """HandleLostPacket (§5.5.10.2) for each run of packets; OnEnterRTO (§5.6.4.4) on persistent congestion."""
        runs, self.sampler.lost_runs = self.sampler.lost_runs, []
        for run in runs:
            self._loss_runs += 1
            self._note_loss(now, run.size)
            # IsInflightTooHigh, with RS.lost and RS.tx_in_flight of the last packet of the run
            if self._is_bw_probe_sample and run.lost + run.size > tolerable(run.in_flight + run.size, self._mtu):
                self._handle_inflight_too_high(now, _inflight_at_loss(run), run.app_limited)
        if persistent:  # RFC 9002 §7.6.2; the window grows again by what is acknowledged
            self._note_loss(now, 0)
            self._recovery_start = -inf
            self._set(minimum_window(self._mtu))

    def on_ecn(self, now: float, largest_sent_time: float) -> None:
        """A mark is congestion as a loss is (§3.7): once a round trip, and nothing takes it back."""
        if largest_sent_time <= self._recovery_start:
            return
        sample = self.sampler
        self._note_loss(now, self.window)  # more than is tolerable
        self._undo = self._undo_state = None
        if self.state is State.STARTUP:
            self._startup_too_high()
        elif self._is_bw_probe_sample:
            self._handle_inflight_too_high(now, sample.tx_in_flight, sample.is_app_limited)
            self._undo_state = None

    def on_spurious_loss(self, now: float) -> None:
        """HandleSpuriousLossDetection (§5.5.11.2)."""
        undo, self._undo = self._undo, None
        if undo is None:
            return
        model = self.model
        self._undone += 1
        self._recovery_start = -inf
        self._restore_cwnd()
        model.is_loss_in_round = False
        model.reset_full_bw()
        model.bw_shortterm = max(model.bw_shortterm, undo[0])
        model.inflight_shortterm = max(model.inflight_shortterm, undo[1])
        model.inflight_longterm = max(model.inflight_longterm, undo[2])
        was, self._undo_state = self._undo_state, None
        if was is State.STARTUP and self.state is not State.STARTUP:
            model.full_bw_reached = False
            if self.state is not State.PROBE_RTT:
                self.state = State.STARTUP
        elif was is State.UP and self.state not in (State.UP, State.PROBE_RTT):
            self._start_refill()
        model.bound()
        self._bound_cwnd()

    # getters

    def stats(self) -> dict[str, float]:
        """The model in bytes, bytes per second and seconds (-1: not known, or no bound), the round trips counted, and
        how many reactions to losses were taken back."""
        model = self.model
        return {
            "window": self.window,
            "pacing_rate": self._pacing_rate,
            "bandwidth": model.bw,
            "max_bandwidth": model.max_bw,
            "min_rtt": _known(model.min_rtt),
            "inflight_longterm": _known(model.inflight_longterm),
            "inflight_shortterm": _known(model.inflight_shortterm),
            "bandwidth_shortterm": _known(model.bw_shortterm),
            "extra_acked": model.extra_acked,
            "rounds": model.round_count,
            "undone": self._undone,
        }

    # inside

    def _note_loss(self, now: float, size: int) -> None:
        """NoteLoss, SaveStateUponLoss (§5.5.11.1)."""
        model = self.model
        model.note_loss(self.sampler, size)
        if self._recovery_start == -inf:
            # Differs: saved once for an episode, as for `OnEnterFastRecovery`, not again for losses of it that are
            # found after a probe was given up: they would have the lowered bounds restored.
            self._save_cwnd()
            self._undo = (model.bw_shortterm, model.inflight_shortterm, model.inflight_longterm)
            self._undo_state = None
            self._recovery_start = now


def _inflight_at_loss(run: LostRun) -> float:
    """InflightAtLoss (§5.5.10.2): how much was in flight when losses crossed the threshold within the run."""
    prefix = (LOSS_THRESHOLD * run.in_flight - run.lost) / (1 - LOSS_THRESHOLD)
    return run.in_flight + max(prefix, 0.0)


def _known(value: float) -> float:
    return value if value < inf else -1.0
