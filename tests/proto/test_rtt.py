"""RTT estimation against the formulas of RFC 9002 §5 and §6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.proto.rtt import Rtt


def test_before_any_sample_the_pto_is_one_second() -> None:
    rtt = Rtt()
    assert rtt.first_sample is None
    assert rtt.pto(0.0) == pytest.approx(0.999)
    assert rtt.pto(0.025) == pytest.approx(1.024)


def test_the_first_sample_replaces_the_guess_and_ignores_the_ack_delay() -> None:
    rtt = Rtt()
    rtt.update(0.100, 0.020, now=5.0)
    assert (rtt.latest, rtt.smoothed, rtt.variance, rtt.minimum) == (0.1, 0.1, 0.05, 0.1)
    assert rtt.first_sample == 5.0
    assert rtt.pto(0.025) == pytest.approx(0.1 + 0.2 + 0.025)


def test_later_samples_are_smoothed_less_the_ack_delay() -> None:
    rtt = Rtt()
    rtt.update(0.100, 0, 1.0)
    rtt.update(0.140, 0.020, 2.0)  # adjusted 0.120
    assert rtt.variance == pytest.approx(0.75 * 0.05 + 0.25 * 0.020)
    assert rtt.smoothed == pytest.approx(7 / 8 * 0.100 + 0.120 / 8)
    assert rtt.latest == 0.140
    assert rtt.first_sample == 1.0


def test_an_ack_delay_that_would_undercut_the_minimum_is_ignored() -> None:
    rtt = Rtt()
    rtt.update(0.100, 0, 1.0)
    rtt.update(0.110, 0.020, 2.0)
    assert rtt.smoothed == pytest.approx(7 / 8 * 0.100 + 0.110 / 8)
    assert rtt.minimum == 0.100


def test_the_minimum_never_subtracts_the_ack_delay() -> None:
    rtt = Rtt()
    rtt.update(0.100, 0, 1.0)
    rtt.update(0.090, 0.050, 2.0)
    assert rtt.minimum == 0.090


def test_after_persistent_congestion_the_minimum_starts_anew() -> None:
    rtt = Rtt()
    rtt.update(0.010, 0, 1.0)
    rtt.reset_minimum()
    rtt.update(0.200, 0, 2.0)
    assert rtt.minimum == 0.200
    rtt.update(0.300, 0, 3.0)
    assert rtt.minimum == 0.200


def test_timers_never_fall_below_the_granularity() -> None:
    rtt = Rtt()
    for i in range(50):
        rtt.update(0.0, 0, float(i))
    assert rtt.smoothed > 0
    assert rtt.pto(0) >= 0.001
    assert rtt.loss_delay() == 0.001


def test_the_loss_delay_follows_the_larger_of_latest_and_smoothed() -> None:
    rtt = Rtt()
    rtt.update(0.100, 0, 1.0)
    assert rtt.loss_delay() == pytest.approx(0.1125)
    rtt.update(0.200, 0, 2.0)
    assert rtt.loss_delay() == pytest.approx(0.225)
    rtt.update(0.050, 0, 3.0)
    assert rtt.loss_delay() == pytest.approx(9 / 8 * rtt.smoothed)


@given(st.lists(st.tuples(st.floats(-1, 100), st.floats(-1, 100)), min_size=1, max_size=50))
def test_estimates_stay_within_what_was_sampled(samples: list[tuple[float, float]]) -> None:
    rtt = Rtt()
    for i, (sample, delay) in enumerate(samples):
        rtt.update(sample, delay, float(i))
        seen = [max(s, 1e-6) for s, _ in samples[: i + 1]]
        assert rtt.minimum == min(seen)
        assert min(seen) * 0.999 <= rtt.smoothed <= max(seen) * 1.001
        assert 0 <= rtt.variance <= max(seen)
