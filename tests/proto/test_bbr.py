"""BBRv3's states and rules, one by one, with the real `Recovery` over a model of a bottleneck (`bbr_path.py`).

Sections are those of draft-ietf-ccwg-bbr; §10 lists cases that an implementation should be tried with.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from bbr_path import BbrPath, Once, steady

from burstwire.proto.congestion import initial_window, make_controller
from burstwire.proto.congestion.bbr import State
from burstwire.proto.rtt import Rtt

MTU = 1200
CYCLE = [State.DOWN, State.CRUISE, State.REFILL, State.UP]


@pytest.mark.parametrize("rate", [4.7e6, 5e6, 5.3e6])
def test_whole_packets_and_bundled_acknowledgements_are_not_taken_for_bandwidth(rate: float) -> None:
    """§5.5.5, §5.6.2: a path of 40 packets, acknowledged each millisecond; one packet more in a round trip is 2.5 %."""
    path = BbrPath(rate=rate, delay=0.01, mtu=1200, queue=2 * 0.01 * rate)
    path.reach(State.CRUISE)
    path.run(2.0)
    assert path.cc.model.max_bw <= 1.011 * rate


# Startup and Drain


def test_the_initial_window_is_that_of_all_controllers_and_may_leave_at_once() -> None:
    cc = make_controller("bbr", 0.0, MTU)
    assert cc.window == initial_window(MTU)
    assert cc.pacing_rate(Rtt()) * 0.001 > cc.window


def test_startup_doubles_the_rate_each_round_trip_until_it_finds_the_path() -> None:
    """§5.3.1.1, §10.1: from 10 packets to 417 in flight in less than seven doublings."""
    path = BbrPath(rate=5e6, delay=0.1)
    path.run(0.9, lambda: path.cc.model.max_bw > 0.98 * path.rate)
    path.reach(State.DRAIN, within=1.0)
    assert path.cc.model.max_bw == pytest.approx(path.rate, rel=0.02)


def test_startup_ends_three_round_trips_after_the_rate_stopped_growing() -> None:
    path = BbrPath(rate=1e6, delay=0.1)
    path.run(2.0, lambda: path.cc.model.max_bw > 0.98 * path.rate)
    found = path.now
    path.reach(State.DRAIN)
    assert 2 * path.delay < path.now - found < 7 * path.delay  # round trips have become longer by the queue


def test_startup_queues_no_more_than_its_window_gain_allows() -> None:
    path = BbrPath()
    path.reach(State.DRAIN)
    assert path.peak < 2.5 * path.bdp
    assert path.dropped == 0


def test_drain_empties_the_queue_within_a_few_round_trips() -> None:
    """§10.3."""
    path = BbrPath()
    path.reach(State.DRAIN)
    start, queued = path.now, path.waiting
    assert queued > 0.5 * path.bdp
    rtt = path.recovery.rtt
    assert path.cc.pacing_rate(rtt) == pytest.approx(0.5 * 0.99 * path.cc.model.bw)
    path.reach(State.CRUISE)
    assert path.waiting < 0.1 * path.bdp
    assert path.now - start < 4 * path.delay


def test_drain_ends_after_three_round_trips_although_the_queue_stays() -> None:
    """§10.4."""
    path = BbrPath()
    path.reach(State.DRAIN)
    start = path.cc.model.round_count
    path.rate *= 0.2
    path.reach(State.DOWN, within=5)
    assert path.waiting > 0
    assert path.cc.model.round_count == start + 4


def test_startup_does_not_end_while_the_application_limits() -> None:
    """§10.7."""
    path = BbrPath()
    path.supply = path.rate / 10
    path.run(4.5)
    assert path.states() == [State.STARTUP]
    assert path.cc.sampler.is_app_limited
    path.supply = math.inf
    path.reach(State.CRUISE, within=3)
    assert path.cc.model.max_bw == pytest.approx(path.rate, rel=0.03)


def test_losses_end_startup_even_if_the_application_limits() -> None:
    """§5.3.1.3, §10.2."""
    path = BbrPath()
    path.supply = path.rate / 2
    path.run(1.0)
    assert path.cc.state is State.STARTUP
    path.lose = lambda number: number % 4 == 0
    path.run(1, lambda: path.cc.model.full_bw_reached)
    assert path.cc.state is not State.STARTUP
    assert path.cc.sampler.is_app_limited
    assert path.cc.model.inflight_longterm < math.inf


def test_a_single_burst_of_losses_does_not_end_startup() -> None:
    path = BbrPath(rate=5e6)
    path.lose = lambda number: 30 <= number < 36  # six packets, but one stretch
    path.run(0.3)
    assert path.recovery.packets_lost == 6
    assert path.cc.state is State.STARTUP


# probing for bandwidth


def test_the_states_follow_each_other_and_each_does_its_part() -> None:
    path = steady()
    path.visited.clear()
    path.run(14)
    visited = [state for state in path.states() if state is not State.PROBE_RTT]
    assert visited.count(State.UP) >= 3
    for state, following in pairwise(visited):
        if state is not following:  # ProbeRTT in between
            assert following in (CYCLE[(CYCLE.index(state) + 1) % 4], State.CRUISE)
    model = path.cc.model
    assert model.max_bw == pytest.approx(path.rate, rel=0.03)
    assert model.min_rtt == pytest.approx(path.delay, abs=0.004)


@pytest.mark.parametrize(
    ("state", "gain", "window_gain"),
    [(State.DOWN, 0.9, 2), (State.CRUISE, 1.0, 2), (State.REFILL, 1.0, 2), (State.UP, 1.25, 2.25)],
)
def test_pacing_and_window_have_the_gains_of_their_state_less_one_percent(
    state: State, gain: float, window_gain: float
) -> None:
    """§5.6.1, §5.6.2, where no queue stands but that of Up, which Down begins with."""
    path = steady()
    model = path.cc.model
    path.reach(state)
    if state is not State.CRUISE:
        path.run(path.delay * 0.5)
    else:
        path.run(path.delay * 5, lambda: not model.is_queued)
    assert path.cc.state is state
    assert model.is_queued is (state is State.DOWN)
    assert path.cc.pacing_rate(path.recovery.rtt) == pytest.approx(0.99 * gain * model.bw, rel=0.005)
    bdp = model.bw * model.min_rtt
    least = 2 * bdp if state is State.UP else window_gain * bdp  # the window grows no faster than by what arrives
    assert least - 1 <= path.cc.window <= window_gain * bdp + model.extra_acked + 2 * MTU + 1


@pytest.mark.parametrize(("left", "paced"), [(0.9, 0.9), (0.75, 0.75), (0.4, 0.7)])
def test_where_a_queue_stands_cruise_paces_a_little_below_what_was_delivered(left: float, paced: float) -> None:
    """As when others took the rest of the path; no lower than 0.7 of the rate that was found."""
    path = steady()
    model = path.cc.model
    path.run(5 * path.delay, lambda: not model.is_queued)
    path.rate *= left
    path.run(20 * path.delay, lambda: model.is_queued and model.round_rate < 1.02 * path.rate)
    path.run(2 * path.delay, lambda: model.round_start)
    assert path.cc.state is State.CRUISE
    assert path.cc.pacing_rate(path.recovery.rtt) == pytest.approx(0.99 * 0.95 * paced * model.bw, rel=0.03)


def test_a_round_trip_that_the_application_limited_says_nothing_of_what_is_delivered() -> None:
    path = steady()
    path.supply = 0.3 * path.rate
    path.run(5 * path.delay)
    assert path.cc.model.round_rate == math.inf


def test_refill_lasts_one_round_trip() -> None:
    path = steady()
    path.reach(State.REFILL)
    start = path.now
    path.reach(State.UP)
    assert path.delay <= path.now - start < 1.5 * path.delay


def test_up_ends_when_the_rate_does_not_grow_and_down_drains_what_it_queued() -> None:
    """§10.5, §10.8."""
    path = steady()
    path.reach(State.UP)
    path.reach(State.DOWN)
    assert path.cc.model.full_bw_now
    assert path.waiting > 0.3 * path.bdp
    path.reach(State.CRUISE)
    assert path.waiting < 0.1 * path.bdp


def test_up_goes_on_as_long_as_the_application_limits_without_a_loss() -> None:
    """§10.7."""
    path = steady()
    path.reach(State.UP)
    path.supply = path.rate / 2
    path.run(1.0)
    assert path.cc.state is State.UP


@pytest.mark.parametrize(("delay", "least", "most"), [(0.2, 2.0, 3.0), (0.02, 0.3, 63 * 0.03)])
def test_the_wait_between_probes_is_two_to_three_seconds_or_as_many_round_trips_as_reno_takes(
    delay: float, least: float, most: float
) -> None:
    """§5.3.3.8.3; a path of 17 packets is probed every 17 round trips."""
    path = steady(delay=delay)
    path.reach(State.UP)
    path.reach(State.DOWN)
    start = path.now
    path.run(10, lambda: path.cc.state in (State.REFILL, State.PROBE_RTT))
    if path.cc.state is State.PROBE_RTT:  # the wait begins anew
        path.reach(State.CRUISE)
        start = path.now
        path.reach(State.REFILL)
    assert least <= path.now - start <= most + 3 * delay


def test_too_many_losses_in_up_bound_what_is_in_flight_and_end_it() -> None:
    """§5.5.10.2, §10.6, §10.21."""
    path = steady(queue=0.3 * 50_000)
    path.reach(State.UP)
    path.run(5, lambda: path.dropped > 0)
    path.reach(State.DOWN, within=0.3)
    assert path.bdp < path.cc.model.inflight_longterm < 1.5 * path.bdp
    path.reach(State.CRUISE)
    longterm = path.cc.model.inflight_longterm
    assert path.bdp < longterm < 1.5 * path.bdp
    assert path.cc.window == pytest.approx(0.85 * longterm, abs=1), "CRUISE leaves room for others"


@pytest.mark.parametrize("faster", [False, True])
def test_the_probe_after_one_that_lost_too_much_stops_at_its_bound_and_goes_on_if_it_delivered_more(
    faster: bool,
) -> None:
    """§5.3.3.6."""
    path = steady()
    path.reach(State.UP)
    path.queue = 0.3 * path.bdp
    path.reach(State.DOWN)
    bound = path.cc.model.inflight_longterm
    assert bound < math.inf
    path.queue = math.inf
    path.rate *= 2 if faster else 1
    path.reach(State.UP)
    path.reach(State.DOWN)
    assert path.recovery.log.in_flight <= bound + 2 * MTU
    stopped = path.now
    path.reach(State.UP)
    assert (path.now - stopped < 4 * path.delay) is faster
    path.run(4 * path.delay)
    assert path.recovery.log.in_flight > bound + 2 * MTU


def test_one_lost_packet_does_not_end_a_probe() -> None:
    path = steady()
    path.reach(State.UP)
    path.lose = Once()
    path.run(path.delay * 1.5)
    assert path.recovery.packets_lost == 1
    assert path.cc.state is State.UP
    assert path.cc.model.inflight_longterm == math.inf
