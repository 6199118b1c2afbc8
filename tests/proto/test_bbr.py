"""BBRv3's states and rules, one by one, with the real `Recovery` over a model of a bottleneck (`bbr_path.py`).

Sections are those of draft-ietf-ccwg-bbr; §10 lists cases that an implementation should be tried with.
"""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from bbr_path import BbrPath
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.proto.congestion import initial_window, make_controller
from burstwire.proto.congestion.base import MAX_WINDOW
from burstwire.proto.congestion.bbr import Bbr, State
from burstwire.proto.congestion.bbr_model import WindowedMax, tolerable
from burstwire.proto.recovery import Recovery
from burstwire.proto.rtt import Rtt
from burstwire.proto.sent import SentRecord

MTU = 1200
CYCLE = [State.DOWN, State.CRUISE, State.REFILL, State.UP]


def steady(**options: float) -> BbrPath:
    """A path whose sender has found its rate and cruises."""
    path = BbrPath(**options)
    path.reach(State.CRUISE)
    return path


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


class Once:
    """Loses one packet."""

    def __init__(self, packets: int = 1) -> None:
        self.left = packets

    def __call__(self, number: int) -> bool:
        self.left -= 1
        return self.left >= 0


def test_ten_times_the_bandwidth_is_found_within_a_few_probes() -> None:
    """§10.15: x 1.25 in each of three round trips of a probe, so ten times takes a handful of probes."""
    path = steady(rate=1e6)
    path.rate = 10e6
    path.run(30, lambda: path.cc.model.max_bw > 0.95 * path.rate)


def test_a_tenth_of_the_bandwidth_is_all_that_is_used_after_two_cycles() -> None:
    """§10.16."""
    path = steady(rate=10e6, queue=500_000)
    path.rate = 1e6
    path.run(30, lambda: path.cc.model.max_bw < 1.1 * path.rate)
    path.run(5)
    dropped, delivered, start = path.dropped, path.delivered, path.now
    path.run(10)
    assert path.delivered - delivered > 0.9 * path.rate * (path.now - start)
    assert (path.dropped - dropped) * MTU < 0.02 * (path.delivered - delivered)


# losses outside of probes


def test_random_losses_below_the_threshold_leave_rate_and_window_alone() -> None:
    path = steady(rate=4e6)
    random = Random(1)
    path.lose = lambda number: random.random() < 0.01
    path.run(20)
    delivered, start = path.delivered, path.now
    path.run(10)
    assert path.recovery.packets_lost > 500
    assert path.delivered - delivered > 0.92 * path.rate * (path.now - start)


def test_heavy_losses_while_cruising_slow_down_to_what_arrives_until_the_next_probe() -> None:
    """§5.5.10.3: to what is delivered, and not below 0.7 in one round trip."""
    path = steady()
    model = path.cc.model
    before = model.max_bw
    path.lose = lambda number: number % 5 == 0
    path.run(4 * path.delay, lambda: model.bw_shortterm < math.inf)
    assert 0.7 * before <= model.bw_shortterm < before
    assert model.bw == model.bw_shortterm
    assert path.cc.pacing_rate(path.recovery.rtt) <= 0.99 * before
    path.lose = lambda number: False
    path.reach(State.REFILL)
    assert model.bw_shortterm == model.inflight_shortterm == math.inf


@pytest.mark.parametrize(("packets", "most"), [(4, 1), (20, 1), (100, 4), (1000, 26), (10_000, 221)])
def test_what_may_be_lost_is_two_percent_and_what_chance_adds(packets: int, most: int) -> None:
    assert int(tolerable(packets * MTU, MTU)) // MTU == most


def test_what_is_lost_after_probe_rtt_is_not_measured_by_its_half_window() -> None:
    path = steady()
    path.reach(State.PROBE_RTT)
    path.reach(State.CRUISE)
    path.lose = Once(4)
    path.run(1.9 * path.delay)
    assert path.cc.model.bw_shortterm == math.inf


def test_a_mark_counts_as_a_loss() -> None:
    """§3.7."""
    path = steady()
    model = path.cc.model
    path.cc.on_ecn(path.now, path.now)
    path.run(3 * path.delay, lambda: model.bw_shortterm < math.inf)

    starting = BbrPath(rate=1e7)
    starting.run(0.15)
    starting.cc.on_ecn(starting.now, starting.now)
    assert starting.cc.state is State.DRAIN
    assert starting.cc.model.inflight_longterm < math.inf

    probing = steady()
    probing.reach(State.UP)
    probing.cc.on_ecn(probing.now, probing.now)
    assert probing.cc.state is State.DOWN
    assert probing.cc.model.inflight_longterm < math.inf
    probing.cc.on_spurious_loss(probing.now)
    assert probing.cc.state is State.DOWN, "a mark is never taken back"


def test_persistent_congestion_starts_over_with_two_packets_and_comes_back() -> None:
    """RFC 9002 §7.6.2; §5.6.4.4."""
    path = steady()
    window = path.cc.window
    path.cc.on_loss(path.now, MTU, path.now, True)
    assert path.cc.window == 2 * MTU
    path.run(2, lambda: path.cc.window > 0.9 * window)


# losses that were none


def spurious(path: BbrPath) -> None:
    """Everything that was declared lost is acknowledged after all."""
    for record in list(path.recovery.log.records):
        if record.lost:
            last = record.lost.bit_length() - 1
            path.recovery.acknowledged([(record.first, record.first + last)], 0.0, path.now)


def test_bounds_that_spurious_losses_lowered_are_restored() -> None:
    """§5.5.11.2, §10.18."""
    path = steady()
    model = path.cc.model
    window = path.cc.window
    path.lose = Once(12)
    path.run(4 * path.delay, lambda: model.bw_shortterm < math.inf)
    path.cc.on_spurious_loss(path.now)
    assert path.cc.stats()["undone"] == 1
    assert model.bw == model.max_bw
    assert path.cc.window >= 0.9 * window
    path.cc.on_spurious_loss(path.now)
    assert path.cc.stats()["undone"] == 1, "nothing is taken back twice"


def test_a_probe_that_spurious_losses_ended_is_begun_again() -> None:
    path = steady()
    path.reach(State.UP)
    path.run(path.delay)
    path.lose = Once(20)
    path.reach(State.DOWN, within=0.3)
    assert path.cc.model.inflight_longterm < math.inf
    path.cc.on_spurious_loss(path.now)
    assert path.cc.state is State.REFILL
    assert path.cc.model.inflight_longterm == math.inf


def test_a_startup_that_spurious_losses_ended_goes_on() -> None:
    path = BbrPath(rate=1e7)
    path.run(0.2)
    path.lose = lambda number: number % 4 == 0 and number < 600
    path.reach(State.DRAIN, within=1)
    path.cc.on_spurious_loss(path.now)
    assert path.cc.state is State.STARTUP
    assert not path.cc.model.full_bw_reached


def test_late_acknowledgements_reach_the_controller_as_spurious_losses() -> None:
    path = steady()
    path.lose = Once(3)
    path.run(0.3, lambda: path.recovery.packets_lost == 3)
    spurious(path)
    assert path.cc.stats()["undone"] == 1


# ProbeRTT and the minimum round trip


def test_probe_rtt_halves_what_is_in_flight_every_five_seconds_for_at_least_200_ms() -> None:
    """§10.10."""
    path = steady()
    path.reach(State.PROBE_RTT, within=6)
    start, window = path.now, path.cc.window
    assert path.cc.window == pytest.approx(0.5 * path.bdp, rel=0.1)
    path.run(0.15)
    assert path.recovery.log.in_flight <= 0.55 * path.bdp
    path.reach(State.CRUISE)
    assert 0.2 < path.now - start < 0.2 + 3 * path.delay
    path.run(2 * path.delay)
    assert path.cc.window > 3 * window, "the window is what it was"
    path.reach(State.PROBE_RTT, within=10)  # a shorter round trip meanwhile puts it off
    assert path.now - start > 5


def test_probe_rtt_in_startup_goes_back_to_startup() -> None:
    """§10.20."""
    path = BbrPath()
    path.supply = path.rate / 10
    path.run(0.5)
    path.delay += 0.003
    path.reach(State.PROBE_RTT, within=6)
    path.run(1, lambda: path.cc.state is not State.PROBE_RTT)
    assert path.cc.state is State.STARTUP


def test_samples_of_probe_rtt_do_not_lower_the_rate() -> None:
    path = steady()
    path.reach(State.PROBE_RTT)
    before = path.cc.model.max_bw
    path.reach(State.CRUISE)
    path.run(1)
    assert path.cc.model.max_bw == pytest.approx(before, rel=0.03)


def test_silence_takes_the_place_of_probe_rtt_and_sending_goes_on_at_the_known_rate() -> None:
    """§5.4.1, §10.11."""
    path = steady()
    path.supply = 0.0
    path.run(6)
    assert path.recovery.log.in_flight == 0
    path.supply = math.inf
    path.visited.clear()
    path.run(0.1, lambda: path.recovery.log.in_flight > 0)
    assert path.cc.pacing_rate(path.recovery.rtt) == pytest.approx(0.99 * path.cc.model.bw)
    path.run(1)
    assert State.PROBE_RTT not in path.states()
    assert path.cc.model.max_bw == pytest.approx(path.rate, rel=0.03)


def test_a_longer_path_is_noticed_after_ten_seconds() -> None:
    """§5.5.7.2."""
    path = steady()
    path.delay = 0.08
    path.run(16, lambda: path.cc.model.min_rtt > 0.079)
    path.run(10)
    assert path.cc.model.min_rtt == pytest.approx(0.08, abs=0.006)
    assert path.cc.model.max_bw == pytest.approx(path.rate, rel=0.05)


def test_a_shorter_path_is_noticed_at_once() -> None:
    path = steady()
    path.delay = 0.02
    path.run(0.5, lambda: path.cc.model.min_rtt < 0.024)


# aggregation, small paths, the interface


def test_acknowledgements_that_come_in_bundles_do_not_starve_the_path() -> None:
    """§5.5.9, §10.12, §10.13."""
    path = BbrPath(delay=0.02)
    path.bundle = 0.04
    path.run(6)
    assert path.cc.model.full_bw_reached
    assert path.cc.model.extra_acked > path.bdp
    delivered, start = path.delivered, path.now
    path.run(5)
    assert path.delivered - delivered > 0.9 * path.rate * (path.now - start)


def test_a_path_that_holds_less_than_a_packet_is_used_with_four_to_a_dozen() -> None:
    """§5.6.4.3, §10.14: four make the least round trip that is measured, of which the window may hold two."""
    path = BbrPath(rate=10_000, delay=0.03)
    path.run(30)
    assert 4 * MTU <= path.cc.window <= 13 * MTU
    delivered, start = path.delivered, path.now
    path.run(10)
    assert path.delivered - delivered > 0.85 * path.rate * (path.now - start)


def test_packets_of_64_kib_fill_a_path() -> None:
    path = BbrPath(rate=50e6, delay=0.02, mtu=65_000)
    path.run(5)
    delivered, start = path.delivered, path.now
    path.run(5)
    assert path.delivered - delivered > 0.85 * path.rate * (path.now - start)
    assert path.peak < 4 * max(path.bdp, 4 * path.mtu)


def test_without_pacing_the_window_alone_keeps_queue_and_rate_in_bounds() -> None:
    path = BbrPath(pacing=False)
    path.run(8)
    delivered, start = path.delivered, path.now
    path.run(8)
    assert path.delivered - delivered > 0.93 * path.rate * (path.now - start)
    assert path.cc.window < 4 * path.bdp


def test_paths_shorter_than_any_timer_are_not_paced_and_have_a_wake_up_in_flight() -> None:
    cc, rtt = Bbr(0.0, MTU), Rtt()
    recovery = Recovery(0.0, "bbr", MTU, 0.0, 0, True, 0.0002)
    now, number = 0.0, 0
    for _ in range(400):  # 0.3 ms from sending to the acknowledgement of a whole window: far more than 0.2 ms hold
        count = recovery.allowance(now) // MTU
        recovery.sent(SentRecord(number, count, recovery.log.sent, MTU, now))
        recovery.limited = True
        now += 0.0003
        recovery.acknowledged([(number, number + count - 1)], 0.0, now)
        number += count
    assert recovery.controller.pacing_rate(recovery.rtt) == math.inf
    assert recovery.controller.window > 500_000
    rtt.update(0.0005, 0.0, 1.0)
    assert cc.pacing_rate(rtt) == math.inf


def test_a_larger_mtu_lifts_the_least_window() -> None:
    cc = Bbr(0.0, MTU)
    cc.on_mtu(9000)
    assert cc.window == initial_window(9000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), min_size=1, max_size=60), st.integers(1, 12))
def test_the_windowed_maximum_is_that_of_the_last_rounds(steps: list[tuple[int, float]], window: int) -> None:
    maximum, at, seen = WindowedMax(), 0, []
    for elapsed, value in steps:
        at += elapsed
        seen.append((at, value))
        assert maximum.update(value, at, window) == max(v for round_, v in seen if round_ > at - window)


# whatever happens


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_happens_takes_window_or_rate_out_of_their_bounds(seed: int) -> None:
    """Acknowledgements in any pattern, losses, late ones, marks, silence, phases that the application limits, other
    paths and packet sizes: no error, a window from two packets up, a rate above zero."""
    random = Random(seed)
    mtu = random.choice((1200, 1452, 9000, 65_507))
    recovery = Recovery(0.0, "bbr", mtu, 0.025, 0, random.random() < 0.9, random.choice((None, 0.0, 0.0001, 0.05)))
    now, number = 0.0, 0
    scale = random.choice((1e-6, 1e-3, 0.05, 2.0))
    for _ in range(400):
        now += random.choice((0.0, random.expovariate(1 / scale)))
        what = random.random()
        if what < 0.45:
            size = random.choice((recovery.mtu, recovery.mtu, random.randint(30, recovery.mtu)))
            count = random.randint(1, 64) if size == recovery.mtu else 1
            if recovery.allowance(now) > 0 or random.random() < 0.1:
                recovery.sent(SentRecord(number, count, recovery.log.sent, size, now))
                number += count
            recovery.limited = random.random() < 0.7
        elif what < 0.85 and number:
            numbers = sorted({random.randrange(number) for _ in range(random.randint(1, 4))} | {number - 1})
            ranges = [(max(0, n - random.randint(0, 40)), n) for n in numbers]
            merged: list[tuple[int, int]] = []
            for low, high in ranges:
                if merged and low <= merged[-1][1] + 1:
                    merged[-1] = (merged[-1][0], high)
                else:
                    merged.append((low, high))
            recovery.acknowledged(merged[::-1], random.random() * 0.03, now)
        elif what < 0.95:
            now += random.choice((0.0, 0.1, 30.0))
            recovery.on_timeout(now)
        elif what < 0.97:
            recovery.controller.on_ecn(now, now - random.random())
        elif what < 0.98:
            recovery.controller.on_spurious_loss(now)
        elif what < 0.99:
            recovery.set_mtu(random.choice((1200, 1452, 9000)))
        else:
            recovery.new_path(now)
        cc = recovery.controller
        assert 2 * recovery.mtu <= cc.window <= MAX_WINDOW
        assert cc.pacing_rate(recovery.rtt) > 0
        assert all(math.isfinite(value) for value in cc.stats().values())
