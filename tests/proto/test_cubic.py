"""CUBIC and HyStart++ against numbers worked out from the formulas of RFC 9438, RFC 9406 and RFC 9002."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.errors import ConfigError
from burstwire.proto.congestion import CongestionController, initial_window, make_controller
from burstwire.proto.congestion.base import MAX_WINDOW
from burstwire.proto.rtt import Rtt

MTU = 1200


class Path:
    """A sender that keeps the window full (or not) over a path with a given round trip, in whole rounds."""

    def __init__(self, rtt: float = 0.1, mtu: int = MTU) -> None:
        self.now = 0.0
        self.mtu = mtu
        self.delay = rtt
        self.rtt = Rtt()
        self.cc: CongestionController = make_controller("cubic", 0.0, mtu)

    def round(self, acks: int = 10, app_limited: bool = False) -> None:
        """One window leaves now and is acknowledged over the next round trip, in `acks` frames."""
        window, sent = self.cc.window, self.now
        self.cc.on_sent(sent, window)
        for i in range(acks):
            self.now = sent + self.delay * (1 + i / acks / 1000)
            self.rtt.update(self.delay, 0.0, self.now)
            share = window * (i + 1) // acks - window * i // acks
            flight = window - window * i // acks + (0 if app_limited else self.cc.window)
            self.cc.on_ack(self.now, share, flight, self.rtt, app_limited, sent)
        self.now = sent + self.delay

    def lose(self, persistent: bool = False) -> None:
        self.cc.on_loss(self.now, self.mtu, self.now - self.delay / 2, persistent)
        self.now += self.delay / 1e6

    def grow_to(self, segments: int) -> None:
        """Leave slow start for the window given, as the state after a loss at `segments`."""
        while self.cc.window < segments * self.mtu:
            need = segments * self.mtu - self.cc.window
            self.cc.on_sent(self.now, need)
            self.now += self.delay
            self.rtt.update(self.delay, 0.0, self.now)
            self.cc.on_ack(self.now, need, need + 1, self.rtt, False, self.now - self.delay)

    @property
    def segments(self) -> float:
        return self.cc.window / self.mtu


def w_cubic(t: float, w_max: float, start: float) -> float:
    """RFC 9438, figures 1 and 2, in segments."""
    k = ((w_max - start) / 0.4) ** (1 / 3)
    return 0.4 * (t - k) ** 3 + w_max


@pytest.mark.parametrize(("mtu", "window"), [(1200, 12_000), (1452, 14_520), (1500, 14_720), (9000, 18_000)])
def test_the_initial_window_is_that_of_rfc_9002(mtu: int, window: int) -> None:
    assert initial_window(mtu) == window
    assert make_controller("cubic", 0.0, mtu).window == window


def test_an_unknown_controller_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'reno'"):
        make_controller("reno", 0.0, MTU)


# slow start


@pytest.mark.parametrize("acks", [1, 3, 10])
def test_slow_start_doubles_each_round_however_few_acks_come(acks: int) -> None:
    path = Path()
    for n in range(1, 6):
        path.round(acks)
        assert path.cc.window == 12_000 * 2**n


def test_one_frame_never_more_than_doubles_the_window() -> None:
    path = Path()
    path.cc.on_ack(1.0, 10**9, 10**9, path.rtt, False, 0.5)
    assert path.cc.window == 24_000


def test_a_sender_limited_by_its_application_keeps_its_window() -> None:
    path = Path()
    path.round(app_limited=True)
    assert path.cc.window == 12_000


def test_growing_round_trips_end_slow_start_without_a_loss() -> None:
    path = Path(rtt=0.1)
    path.round()
    path.round()
    path.delay = 0.115  # more than 100 ms / 8
    path.round()
    start = path.cc.window
    windows = []
    for _ in range(8):
        path.round()
        windows.append(path.cc.window)
    # five rounds of CSS, the one it began in among them, grow by a quarter; then congestion avoidance by much
    # less
    ratios = [b / a for a, b in pairwise([start, *windows])]
    assert sum(1.2 < r <= 1.26 for r in ratios) in (4, 5)
    assert ratios[-1] < 1.1
    assert path.cc.stats()["ssthresh"] > 0
    assert path.cc.stats()["congestion_events"] == 0


def test_jitter_does_not_end_slow_start() -> None:
    path = Path(rtt=0.1)
    path.round()
    path.round()
    path.delay = 0.115
    path.round()
    path.delay = 0.100
    path.round(20)
    before = path.cc.window
    path.round()
    assert path.cc.window == 2 * before
    assert path.cc.stats()["ssthresh"] == -1


def test_a_small_rise_does_not_end_slow_start() -> None:
    path = Path(rtt=0.1)
    for n in range(1, 6):
        path.delay = 0.1 + n * 0.011  # each round below the threshold of an eighth
        path.round()
    assert path.cc.window == 12_000 * 2**5


# reductions


def test_a_loss_leaves_seven_tenths() -> None:
    path = Path()
    path.grow_to(100)
    path.lose()
    assert path.segments == pytest.approx(70)
    assert path.cc.stats()["ssthresh"] == pytest.approx(70 * MTU)


def test_one_round_trip_reduces_only_once() -> None:
    path = Path()
    path.grow_to(100)
    first = path.now
    path.cc.on_loss(first, MTU, first - 0.01, False)
    path.cc.on_loss(first + 0.05, MTU, first, False)  # sent before the reduction
    path.cc.on_ecn(first + 0.05, first)
    assert path.segments == pytest.approx(70)
    path.cc.on_loss(first + 0.15, MTU, first + 0.01, False)
    assert path.segments == pytest.approx(49, rel=1e-3)


def test_acks_of_the_lost_round_trip_do_not_grow_the_window() -> None:
    path = Path()
    path.grow_to(100)
    path.lose()
    before = path.cc.window
    path.cc.on_ack(path.now + 0.05, 20 * MTU, 50 * MTU, path.rtt, False, path.now - 0.01)
    assert path.cc.window == before
    path.cc.on_ack(path.now + 0.15, 20 * MTU, 50 * MTU, path.rtt, False, path.now + 0.01)
    assert path.cc.window > before


def test_a_mark_counts_as_a_loss() -> None:
    path = Path()
    path.grow_to(100)
    path.cc.on_ecn(path.now, path.now - 0.01)
    assert path.segments == pytest.approx(70)


def test_no_loss_takes_the_window_below_two_packets() -> None:
    path = Path()
    for _ in range(50):
        path.now += 1
        path.lose()
    assert path.cc.window == 2 * MTU


def test_persistent_congestion_starts_over_and_slow_starts_to_the_threshold() -> None:
    path = Path()
    path.grow_to(100)
    path.lose(persistent=True)
    assert path.cc.window == 2 * MTU
    for segments in (4, 8, 16, 32, 64, 70):
        path.round()
        assert path.segments == pytest.approx(segments, rel=0.01)
    # §4.8: the epoch begins at its own maximum, so the curve is convex from there: K = 0
    path.round()
    start = path.now
    for _ in range(40):
        path.round()
    t = path.now - start
    assert path.segments == pytest.approx(max(0.4 * t**3 + 70, 70 + ALPHA * t / path.delay), rel=0.05)


# congestion avoidance

ALPHA = 3 * 0.3 / 1.7


def test_the_window_follows_the_cubic_back_to_where_it_was() -> None:
    path = Path(rtt=0.1)
    path.grow_to(2000)
    path.lose()
    k = (600 / 0.4) ** (1 / 3)  # 11.4 s
    path.round()
    start = path.now - path.delay * 0.999  # the first ack after recovery
    while path.now - start < 2 * k:
        path.round()
        t = path.now - start
        # between the curve now and the curve one round trip ahead (§4.2), less a round for the way there
        low = w_cubic(max(0.0, t - 2 * path.delay), 2000, 1400)
        assert low * 0.995 <= path.segments <= w_cubic(t + path.delay, 2000, 1400) * 1.005


def test_the_target_is_the_curve_one_round_trip_ahead() -> None:
    """§4.2: the first whole window acknowledged in an epoch takes the window to W_cubic(0 + RTT)."""
    path = Path(rtt=0.1)
    path.grow_to(2000)
    path.lose()
    path.round(acks=1)
    assert path.segments == pytest.approx(w_cubic(0.1, 2000, 1400), abs=0.05)


def test_after_persistent_congestion_nothing_draws_the_window_to_its_old_size() -> None:
    """§4.8: K = 0, so two seconds after slow start the window has hardly grown."""
    path = Path(rtt=0.1)
    path.grow_to(2000)
    path.lose(persistent=True)
    while path.segments < 1400:
        path.round()
    for _ in range(20):
        path.round()
    assert 1400 < path.segments < 1420


def test_concave_below_and_convex_above_the_old_maximum() -> None:
    path = Path(rtt=0.1)
    path.grow_to(2000)
    path.lose()
    sizes = []
    for _ in range(230):
        path.round()
        sizes.append(path.segments)
    steps = [b - a for a, b in pairwise(sizes)]
    assert steps[20] > steps[60] > steps[100]  # towards K = 11.4 s
    assert steps[130] < steps[170] < steps[220]


def test_fast_convergence_gives_way_below_the_last_maximum() -> None:
    path = Path(rtt=0.1)
    path.grow_to(1000)
    path.lose()
    assert path.cc.stats()["w_max"] == pytest.approx(1000 * MTU)
    path.round()
    path.lose()  # at about 700, below 1000
    at_loss = path.segments / 0.7
    assert at_loss == pytest.approx(700, rel=0.05)
    assert path.cc.stats()["w_max"] / MTU == pytest.approx(at_loss * 1.7 / 2, rel=1e-3)


def test_short_round_trips_grow_as_reno_does() -> None:
    """§4.3: at 5 ms the cubic is too slow; α segments a round up to the old window, one a round beyond."""
    path = Path(rtt=0.005)
    path.grow_to(50)
    path.lose()
    path.round()
    at = path.segments
    path.round()
    assert path.segments - at == pytest.approx(ALPHA, rel=0.1)
    while path.segments < 49:
        at = path.segments
        path.round()
        assert path.segments - at == pytest.approx(ALPHA, rel=0.1)
    while path.segments < 50.5:
        path.round()
    for _ in range(5):
        at = path.segments
        path.round()
        assert path.segments - at == pytest.approx(1, rel=0.1)


def test_few_large_acks_grow_the_window_as_many_small_ones_do() -> None:
    few, many = Path(rtt=0.05), Path(rtt=0.05)
    for path, acks in ((few, 1), (many, 100)):
        path.grow_to(500)
        path.lose()
        for _ in range(200):
            path.round(acks)
    assert few.segments == pytest.approx(many.segments, rel=0.02)


@pytest.mark.parametrize("pause", ["idle", "app_limited"])
def test_time_in_which_the_window_is_not_used_does_not_count(pause: str) -> None:
    """§5.8: a pause of an hour must not end in a window that jumped along the cubic."""
    path, other = Path(rtt=0.1), Path(rtt=0.1)
    for p in (path, other):
        p.grow_to(1000)
        p.lose()
        for _ in range(20):
            p.round()
    for _ in range(3 if pause == "app_limited" else 1):
        path.round(app_limited=True)
        path.now += 3600 if pause == "idle" else 0.5
    if pause == "idle":
        path.cc.on_ack(path.now - 3600, 1, 1, path.rtt, True, path.now - 3601)  # the last of the flight
    for p in (path, other):
        for _ in range(20):
            p.round()
    assert path.segments == pytest.approx(other.segments, rel=0.01)


def test_a_reduction_that_was_spurious_is_taken_back() -> None:
    path = Path(rtt=0.1)
    path.grow_to(1000)
    path.lose()
    for _ in range(30):
        path.round()
    before, stats = path.cc.window, path.cc.stats()
    path.lose()
    path.cc.on_spurious_loss(path.now)
    assert path.cc.window == before
    assert {k: v for k, v in path.cc.stats().items() if k in ("ssthresh", "w_max")} == {
        k: v for k, v in stats.items() if k in ("ssthresh", "w_max")
    }
    assert path.cc.stats()["undone"] == 1
    at = path.cc.window
    path.round()
    assert path.cc.window > at  # out of recovery, on the old curve
    path.cc.on_spurious_loss(path.now)
    assert path.cc.stats()["undone"] == 1  # nothing is taken back twice


def test_slow_start_goes_on_after_a_spurious_loss() -> None:
    path = Path()
    path.round()
    path.lose()
    path.cc.on_spurious_loss(path.now)
    path.round()
    assert path.cc.window == 48_000


def test_a_mark_is_never_taken_back() -> None:
    path = Path()
    path.grow_to(100)
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    path.cc.on_ecn(path.now + 1, path.now + 0.5)
    path.cc.on_spurious_loss(path.now + 2)
    assert path.segments == pytest.approx(49, rel=1e-3)


# MTU and pacing


def test_a_larger_mtu_lifts_the_least_window() -> None:
    path = Path()
    path.grow_to(10)
    path.lose()
    path.lose()
    path.cc.on_mtu(9000)
    assert path.cc.window == 18_000
    path.cc.on_mtu(1200)
    assert path.cc.window == 18_000


def test_a_larger_mtu_makes_the_curve_steeper() -> None:
    small, large = Path(rtt=0.1), Path(rtt=0.1)
    for path in (small, large):
        path.grow_to(2000)
        path.lose()
        path.round()
    large.cc.on_mtu(9000)
    for path in (small, large):
        for _ in range(30):
            path.round()
    assert large.cc.window > small.cc.window


def test_pacing_outruns_the_window_by_a_quarter_and_doubles_in_slow_start() -> None:
    path = Path(rtt=0.1)
    path.round()
    assert path.cc.pacing_rate(path.rtt) == pytest.approx(2 * path.cc.window / 0.1)
    path.lose()
    assert path.cc.pacing_rate(path.rtt) == pytest.approx(1.25 * path.cc.window / 0.1, rel=1e-4)


def test_before_the_first_sample_the_rate_follows_the_initial_round_trip() -> None:
    path = Path()
    assert path.cc.pacing_rate(path.rtt) == pytest.approx(2 * 12_000 / 0.333)


def test_paths_shorter_than_any_timer_are_not_paced() -> None:
    path = Path(rtt=0.0005)
    path.round()
    assert path.cc.pacing_rate(path.rtt) == math.inf


# whatever happens

inputs = st.one_of(
    st.tuples(st.just("ack"), st.floats(0, 5), st.integers(1, 10**7), st.booleans(), st.floats(0, 3)),
    st.tuples(st.just("loss"), st.floats(0, 5), st.integers(1, 10**7), st.booleans(), st.floats(0, 3)),
    st.tuples(st.just("ecn"), st.floats(0, 5), st.just(0), st.just(False), st.floats(0, 3)),
    st.tuples(st.just("spurious"), st.floats(0, 5), st.just(0), st.just(False), st.just(0.0)),
    st.tuples(st.just("mtu"), st.floats(0, 5), st.integers(1200, 65_507), st.just(False), st.just(0.0)),
    st.tuples(st.just("sent"), st.floats(0, 1e6), st.integers(1, 10**6), st.just(False), st.just(0.0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(inputs, max_size=60), st.floats(1e-6, 10))
def test_the_window_stays_in_its_bounds_and_moves_the_right_way(
    steps: list[tuple[str, float, int, bool, float]], delay: float
) -> None:
    cc, rtt, now, mtu = make_controller("cubic", 0.0, MTU), Rtt(), 0.0, MTU
    for what, elapsed, amount, flag, age in steps:
        now += elapsed
        before = cc.window
        if what == "ack":
            rtt.update(delay, 0, now)
            cc.on_ack(now, amount, amount + 1000, rtt, flag, now - age)
            assert before <= cc.window <= 2 * before
            assert cc.window == before or not flag
        elif what == "loss":
            cc.on_loss(now, amount, now - age, flag)
            assert cc.window <= before
            assert not flag or cc.window == 2 * mtu
        elif what == "ecn":
            cc.on_ecn(now, now - age)
            assert cc.window <= before
        elif what == "spurious":
            cc.on_spurious_loss(now)
            assert cc.window >= before
        elif what == "mtu":
            mtu = amount
            cc.on_mtu(mtu)
            assert cc.window >= before
        else:
            cc.on_sent(now, amount)
            assert cc.window == before
        assert 2 * mtu <= cc.window <= MAX_WINDOW
        assert cc.pacing_rate(rtt) > 0
        assert all(math.isfinite(value) for value in cc.stats().values())
