"""BBR's state machine (draft-ietf-ccwg-bbr §5.3).

Startup → Drain → ProbeBW: DOWN → CRUISE → REFILL → UP → DOWN …        any of them → ProbeRTT → CRUISE or Startup
"""

from __future__ import annotations

from enum import Enum
from math import inf

from burstwire.proto.congestion.bbr_control import PROBE_BW, Control, State
from burstwire.proto.congestion.bbr_model import BETA, tolerable

__all__ = ["StateMachine"]

STARTUP_LOSS_RUNS = 6
"""BBRStartupFullLossCnt: separate losses of one round trip that end Startup (§5.3.1.3)."""

PROBE_RTT_DURATION = 0.2
"""BBR.ProbeRTTDuration: seconds (§2.16.2)."""

RENO_ROUNDS = 63
"""Round trips between probes for bandwidth at most, so that Reno keeps its share (§5.3.3.8.3)."""

GROWN = 1.05
"""What a probe for bandwidth must deliver more to be taken for a success, beyond what bursts make of a rate."""

PROBE_WAIT = 2.0
"""Seconds between them at most, and up to one more, drawn by lot (§5.3.3.8.3)."""


class AckPhase(Enum):
    """BBR.ack_phase: what acknowledgements tell about probing for bandwidth (§2.14)."""

    INIT = 0
    REFILLING = 1
    STARTING = 2
    FEEDBACK = 3
    STOPPING = 4


class StateMachine(Control):
    """Decides on the state, ACK frame by ACK frame."""

    __slots__ = (
        "_ack_phase",
        "_bw_before_up",
        "_bw_probe_wait",
        "_cycle_stamp",
        "_drain_start_round",
        "_idle_restart",
        "_is_bw_probe_sample",
        "_is_cwnd_limited",
        "_loss_runs",
        "_prev_probe_precautionary",
        "_prev_probe_too_high",
        "_probe_rtt_done_stamp",
        "_probe_rtt_round_done",
        "_probe_up_acked",
        "_probe_up_acked_per_inc",
        "_probe_up_rounds",
        "_resumed_round",
        "_undo_state",
    )

    def __init__(self, now: float, mtu: int) -> None:
        super().__init__(now, mtu)
        self._is_cwnd_limited = False
        self._idle_restart = False
        self._undo_state: State | None = None  # what a loss ended, should it turn out to be none
        # probing for bandwidth
        self._ack_phase = AckPhase.INIT
        self._cycle_stamp = now
        self._bw_probe_wait = 0.0
        self._bw_before_up = 0.0
        self._is_bw_probe_sample = False
        self._probe_up_acked = 0.0
        self._probe_up_acked_per_inc = inf
        self._probe_up_rounds = 0
        self._prev_probe_too_high = False
        self._prev_probe_precautionary = False
        # Startup, Drain, ProbeRTT
        self._loss_runs = 0
        self._drain_start_round = 0
        self._probe_rtt_done_stamp = 0.0
        self._probe_rtt_round_done = False
        self._resumed_round = -1

    # Startup

    def _check_startup_done(self) -> None:
        """CheckStartupDone, CheckStartupHighLoss (§5.3.1.3)."""
        sample = self.sampler
        model = self.model
        if (
            self.state is State.STARTUP
            and not model.full_bw_reached
            and model.loss_round_start
            and self._loss_runs >= STARTUP_LOSS_RUNS
            and model.lost_too_much(sample, self._mtu)
        ):
            self._undo_state = State.STARTUP
            self._startup_too_high()
        elif self.state is State.STARTUP and model.full_bw_reached:
            self._enter_drain()

    def _startup_too_high(self) -> None:
        model = self.model
        model.full_bw_now = model.full_bw_reached = True
        bdp = model.bdp()
        model.inflight_longterm = max(bdp if bdp < inf else 0.0, model.inflight_latest, self._min_pipe)
        self._enter_drain()

    def _enter_drain(self) -> None:
        """EnterDrain (§5.3.2)."""
        self.state = State.DRAIN
        self._drain_start_round = self.model.round_count

    def _check_drain_done(self, now: float, in_flight: int) -> None:
        """CheckDrainDone (§5.3.2)."""
        model = self.model
        if self.state is State.DRAIN and (
            in_flight <= self._inflight(1.0, model.bw) or model.round_count > self._drain_start_round + 3
        ):
            self._start_down(now)

    # ProbeBW (§5.3.3.9)

    def _start_down(self, now: float) -> None:
        model = self.model
        model.reset_congestion_signals()
        self._probe_up_acked_per_inc = inf
        # PickProbeWait. A lot is drawn from what no two flows have in common, as no randomness is given.
        lot = hash((now, self.sampler.delivered, model.bw, model.min_rtt))
        model.rounds_since_probe_up = lot & 1
        self._bw_probe_wait = PROBE_WAIT + (lot >> 1 & 0xFFFF) / 0x10000
        self._cycle_stamp = now
        self._ack_phase = AckPhase.STOPPING
        model.start_round(self.sampler)
        self.state = State.DOWN

    def _start_refill(self) -> None:
        self.model.reset_short_term()
        self._probe_up_rounds = 0
        self._probe_up_acked = 0.0
        self._prev_probe_precautionary = False
        self._ack_phase = AckPhase.REFILLING
        self.model.start_round(self.sampler)
        self.state = State.REFILL

    def _start_up(self) -> None:
        self._is_bw_probe_sample = True
        self._bw_before_up = self.model.max_bw
        self._ack_phase = AckPhase.STARTING
        self.model.start_round(self.sampler)
        self.model.reset_full_bw(self.sampler.rate)
        self.state = State.UP
        self._raise_slope()

    def _update_cycle_phase(self, now: float, in_flight: int) -> None:
        """UpdateProbeBWCyclePhase."""
        model = self.model
        if not model.full_bw_reached or self._adapt_long_term():
            return
        if self.state is State.DOWN:
            if self._is_time_to_probe(now):
                self._start_refill()
            elif in_flight <= self._headroom and in_flight <= self._inflight(1.0, model.max_bw):  # IsTimeToCruise
                self.state = State.CRUISE
        elif self.state is State.CRUISE:
            if self._is_time_to_probe(now):
                self._start_refill()
        elif self.state is State.REFILL:
            if model.round_start:
                self._start_up()
        elif self.state is State.UP and self._is_time_to_go_down(in_flight):
            self._prev_probe_too_high = False
            self._start_down(now)

    def _is_time_to_probe(self, now: float) -> bool:
        """IsTimeToProbeBW, IsRenoCoexistenceProbeTime (§5.3.3.8.3)."""
        rounds = min(self._target_inflight / self._mtu, RENO_ROUNDS)
        return now > self._cycle_stamp + self._bw_probe_wait or self.model.rounds_since_probe_up >= rounds

    def _is_time_to_go_down(self, in_flight: int) -> bool:
        model = self.model
        # §5.3.3.6. In flight were also the packets that this frame acknowledged, and the next whole one has no room.
        if self._prev_probe_too_high and in_flight + self.sampler.newly_acked + self._mtu > model.inflight_longterm:
            self._prev_probe_precautionary = True
            return True
        if self._is_cwnd_limited and self._cwnd >= model.inflight_longterm:
            model.reset_full_bw(self.sampler.rate)  # the bound limits, not the path
            return False
        return model.full_bw_now

    def _adapt_long_term(self) -> bool:
        """AdaptLongTermModel; returns whether it decided on a state."""
        model = self.model
        sample = self.sampler
        if model.round_start:
            if self._ack_phase is AckPhase.STARTING:
                self._ack_phase = AckPhase.FEEDBACK
            elif self._ack_phase is AckPhase.STOPPING:
                self._is_bw_probe_sample = False
                self._ack_phase = AckPhase.INIT
                if self.state in PROBE_BW:
                    if not sample.is_app_limited:
                        model.advance_max_bw()
                    # §5.3.3.6. Differs: if more in flight did not deliver more, it only queued, and to do it again at
                    # once would fill that queue anew.
                    grown = model.max_bw > self._bw_before_up * GROWN
                    if self._prev_probe_precautionary and not self._prev_probe_too_high and grown:
                        self._start_refill()
                        return True
        if sample.lost_since <= tolerable(sample.tx_in_flight, self._mtu) and model.inflight_longterm < inf:
            model.inflight_longterm = max(model.inflight_longterm, sample.tx_in_flight)
            if self.state is State.UP:
                self._probe_upward()
        return False

    def _raise_slope(self) -> None:
        """RaiseInflightLongtermSlope."""
        growth = 1 << self._probe_up_rounds
        self._probe_up_rounds = min(self._probe_up_rounds + 1, 30)
        self._probe_up_acked_per_inc = max(self._cwnd / growth, self._mtu)

    def _probe_upward(self) -> None:
        """ProbeInflightLongtermUpward."""
        model = self.model
        if not self._is_cwnd_limited or self._cwnd < model.inflight_longterm:
            return
        self._probe_up_acked += self.sampler.newly_acked
        if self._probe_up_acked >= self._probe_up_acked_per_inc:
            steps = self._probe_up_acked // self._probe_up_acked_per_inc
            self._probe_up_acked -= steps * self._probe_up_acked_per_inc
            model.inflight_longterm += steps * self._mtu
        if model.round_start:
            self._raise_slope()

    def _handle_inflight_too_high(self, now: float, in_flight: float, app_limited: bool) -> None:
        """HandleInflightTooHigh (§5.5.10.2): once for each probe."""
        self._prev_probe_too_high = True
        self._is_bw_probe_sample = False
        if not app_limited:
            self.model.inflight_longterm = max(in_flight, self._target_inflight * BETA, self._min_pipe)
        if self.state is State.UP:
            self._undo_state = State.UP
            self._start_down(now)

    # ProbeRTT (§5.3.4.3)

    def _check_probe_rtt(self, now: float, in_flight: int) -> None:
        """CheckProbeRTT, HandleProbeRTT."""
        model = self.model
        sample = self.sampler
        if self.state is not State.PROBE_RTT and model.probe_rtt_expired and not self._idle_restart:
            self._save_cwnd()
            self.state = State.PROBE_RTT
            self._probe_rtt_done_stamp = 0.0
            self._ack_phase = AckPhase.STOPPING
            model.start_round(sample)
        if self.state is State.PROBE_RTT:
            sample.mark_app_limited(in_flight)
            if not self._probe_rtt_done_stamp:
                if in_flight <= self._probe_rtt_cwnd:
                    self._probe_rtt_done_stamp = now + PROBE_RTT_DURATION
                    self._probe_rtt_round_done = False
                    model.start_round(sample)
            else:
                if model.round_start:
                    self._probe_rtt_round_done = True
                if self._probe_rtt_round_done:
                    self._check_probe_rtt_done(now)
        self._idle_restart = False

    def _check_probe_rtt_done(self, now: float) -> None:
        """CheckProbeRTTDone, ExitProbeRTT (§5.3.4.4)."""
        if not self._probe_rtt_done_stamp or now <= self._probe_rtt_done_stamp:
            return
        model = self.model
        model.probe_rtt_min_stamp = now
        self._restore_cwnd()
        model.reset_short_term()
        # Differs: the next two round trips still deliver the half window, and a loss in them must not make that last.
        self._resumed_round = model.round_count + 2
        if model.full_bw_reached:
            self._start_down(now)
            self.state = State.CRUISE
        else:
            self.state = State.STARTUP
