"""What BBRv3 makes of losses and of a bandwidth that changes, over a model of a bottleneck (`bbr_path.py`).

Sections are those of draft-ietf-ccwg-bbr.
"""

from __future__ import annotations

import math
from random import Random

import pytest
from bbr_path import BbrPath, Once, steady

from burstwire.proto.congestion.bbr import State
from burstwire.proto.congestion.bbr_model import tolerable

MTU = 1200


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
