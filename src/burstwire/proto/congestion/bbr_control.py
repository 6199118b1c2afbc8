"""What follows from BBR's model and state: pacing rate and window (draft-ietf-ccwg-bbr §5.6)."""

from __future__ import annotations

from enum import Enum
from math import inf

from burstwire.proto.congestion.base import MAX_WINDOW, initial_window, minimum_window
from burstwire.proto.congestion.bbr_model import BETA, PACING_MARGIN, PathModel
from burstwire.proto.congestion.delivery import DeliverySampler
from burstwire.proto.pacing import BUCKET_TIME, MAX_BURST
from burstwire.proto.rtt import Rtt

__all__ = ["PROBE_BW", "Control", "State"]

MIN_PIPE_PACKETS = 4
"""BBR.MinPipeCwnd in packets (§2.8)."""

QUEUED_CRUISE = 0.95
"""Gain of Cruise where a queue stands, in shares of what was delivered: half of what Down drains with."""

UNPACED_RTT = 0.001
"""Round trips below the shortest timer cannot be paced with timers."""


class State(Enum):
    """BBR.state, with its gains for pacing and window (§5.6.1)."""

    STARTUP = ("startup", 2.77, 2.0)
    DRAIN = ("drain", 0.5, 2.0)
    DOWN = ("down", 0.9, 2.0)
    CRUISE = ("cruise", 1.0, 2.0)
    REFILL = ("refill", 1.0, 2.0)
    UP = ("up", 1.25, 2.25)
    PROBE_RTT = ("probe_rtt", 1.0, 0.5)

    def __init__(self, title: str, pacing_gain: float, window_gain: float) -> None:
        self.title = title
        self.pacing_gain = pacing_gain
        self.window_gain = window_gain


PROBE_BW = (State.DOWN, State.CRUISE, State.REFILL, State.UP)
ACCELERATING = (State.STARTUP, State.REFILL, State.UP)


PROBE_BW = (State.DOWN, State.CRUISE, State.REFILL, State.UP)


class Control:
    """Pacing rate and window of a path.

    Attributes:
        sampler: what `Recovery` reports flights, acknowledgements and losses to, each before it calls the controller.
        model: of the path.
        state: where the state machine stands.
        window: bytes allowed in flight.
    """

    __slots__ = (
        "_cwnd",
        "_mtu",
        "_pacing_rate",
        "_prior_cwnd",
        "_recovery_start",
        "model",
        "sampler",
        "state",
        "window",
    )

    def __init__(self, now: float, mtu: int) -> None:
        self.sampler = DeliverySampler(now)
        self.model = PathModel(now)
        self.state = State.STARTUP
        self._mtu = mtu
        self._cwnd = float(initial_window(mtu))
        self.window = int(self._cwnd)
        self._prior_cwnd = 0.0
        self._pacing_rate = 0.0  # 0: no round trip was measured yet
        self._recovery_start = -inf  # when the first of the losses came that are not made good; -inf: there are none

    def on_mtu(self, mtu: int) -> None:
        """Packets have another size: the window keeps its bytes but for its lower bounds (RFC 9002 §7.2)."""
        self._mtu = mtu
        least = minimum_window(mtu) if self.model.full_bw_reached else initial_window(mtu)
        self._set(max(self._cwnd, least))

    def pacing_rate(self, rtt: Rtt) -> float:
        """Bytes per second; infinite on paths whose round trip is below any timer."""
        if rtt.smoothed < UNPACED_RTT:
            return inf
        return self._pacing_rate or self._first_rate(rtt)

    # inside

    def _first_rate(self, rtt: Rtt) -> float:
        """InitPacingRate (§5.6.2): without any sample a millisecond is assumed, so the initial window may just go."""
        measured = rtt.smoothed if rtt.first_sample is not None else UNPACED_RTT
        return State.STARTUP.pacing_gain * initial_window(self._mtu) / measured

    def _set_pacing_rate(self, gain: float) -> None:
        """SetPacingRateWithGain (§5.6.2).

        Differs: in Down and Cruise, where a queue stands, the gain is of what the round trip before delivered. `max_bw`
        is what the flow had while it probed, at the cost of others; of several flows they add up to a fifth more than
        the path, 0.9 of which drains nothing. The queue then stays full, its losses fall on whom they will, and who had
        more keeps more.
        """
        model = self.model
        bw = model.bw
        if model.is_queued and self.state in (State.DOWN, State.CRUISE):
            bw = max(min(bw, model.round_rate), BETA * bw)
            gain = min(gain, QUEUED_CRUISE)
        rate = gain * bw * (1 - PACING_MARGIN)
        if rate > self._pacing_rate or (self.model.full_bw_reached and rate > 0):
            self._pacing_rate = rate

    @property
    def _min_pipe(self) -> int:
        return MIN_PIPE_PACKETS * self._mtu

    @property
    def _headroom(self) -> float:
        return max(self.model.with_headroom(self._mtu), self._min_pipe)

    @property
    def _target_inflight(self) -> float:
        """TargetInflight (§5.3.3.8.3)."""
        return min(self.model.bdp(), self._cwnd)

    @property
    def _probe_rtt_cwnd(self) -> float:
        """ProbeRTTCwnd (§5.6.4.5)."""
        bdp = self.model.bdp(State.PROBE_RTT.window_gain)
        return max(bdp if bdp < inf else 0.0, self._min_pipe)

    def _inflight(self, gain: float, bw: float, more: float = 0.0) -> float:
        """Inflight, QuantizationBudget (§5.6.4.2)."""
        model = self.model
        if model.min_rtt == inf:
            return initial_window(self._mtu)
        # §5.5.8.2, §5.6.3: the quantum is what the pacer lets go at once. On paths shorter than a timer it is what a
        # wake-up must find to do, while the path itself holds next to nothing.
        quantum = min(bw * BUCKET_TIME, MAX_BURST)
        inflight = max(gain * bw * model.min_rtt + more, quantum, self._min_pipe)
        return inflight + 2 * self._mtu if self.state is State.UP else inflight

    def _set_cwnd(self, newly_acked: int) -> None:
        """SetCwnd (§5.6.4.6)."""
        model = self.model
        most = self._inflight(self.state.window_gain, model.bw, model.extra_acked)
        if model.full_bw_reached:
            self._cwnd = min(self._cwnd + newly_acked, most)
        elif self._cwnd < most or self.sampler.delivered < initial_window(self._mtu):
            self._cwnd += newly_acked
        self._bound_cwnd()

    def _bound_cwnd(self) -> None:
        """BoundCwndForProbeRTT (§5.6.4.5), BoundCwndForModel (§5.6.4.7)."""
        model = self.model
        cap = model.inflight_shortterm
        if self.state is State.PROBE_RTT:
            cap = min(cap, self._headroom, self._probe_rtt_cwnd)
        elif self.state is State.CRUISE:
            cap = min(cap, self._headroom)
        elif self.state in PROBE_BW:
            cap = min(cap, model.inflight_longterm)
        self._set(max(min(self._cwnd, cap), self._min_pipe))

    def _save_cwnd(self) -> None:
        """SaveCwnd (§5.6.4.4)."""
        if self._recovery_start == -inf and self.state is not State.PROBE_RTT:
            self._prior_cwnd = self._cwnd
        else:
            self._prior_cwnd = max(self._prior_cwnd, self._cwnd)

    def _restore_cwnd(self) -> None:
        self._set(max(self._cwnd, self._prior_cwnd))

    def _set(self, cwnd: float) -> None:
        self._cwnd = min(cwnd, MAX_WINDOW)
        self.window = int(self._cwnd)
