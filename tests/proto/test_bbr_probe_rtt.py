"""BBRv3's ProbeRTT, and paths of every kind, over a model of a bottleneck (`bbr_path.py`).

Sections are those of draft-ietf-ccwg-bbr.
"""

from __future__ import annotations

import math
from random import Random

import pytest
from bbr_path import BbrPath, steady
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.proto.congestion import initial_window
from burstwire.proto.congestion.base import MAX_WINDOW
from burstwire.proto.congestion.bbr import Bbr, State
from burstwire.proto.congestion.bbr_model import WindowedMax
from burstwire.proto.recovery import Recovery
from burstwire.proto.rtt import Rtt
from burstwire.proto.sent import SentRecord

MTU = 1200


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
