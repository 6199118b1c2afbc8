"""What the pacer lets through, and when it asks to be woken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.proto.pacing import MAX_BURST, TIMER, Pacer

MTU = 1200


def drain(pacer: Pacer, now: float, rate: float, mtu: int = MTU) -> int:
    """Send whole packets as long as the budget allows; how many bytes left."""
    sent = 0
    while (allowed := pacer.budget(now, rate, mtu)) >= mtu:
        size = allowed // mtu * mtu
        pacer.on_sent(size)
        sent += size
    return sent


def test_the_initial_window_leaves_at_once() -> None:
    pacer = Pacer(0.0, 12_000)
    assert drain(pacer, 0.0, 72_000) == 12_000
    assert pacer.budget(0.0, 72_000, MTU) == 0


def test_the_first_burst_is_granted_only_once() -> None:
    pacer = Pacer(0.0, 12_000)
    drain(pacer, 0.0, 72_000)
    assert pacer.budget(1000.0, 72_000, MTU) == 2 * MTU  # 2 ms of this rate are less than two packets


def test_a_rest_saves_up_two_milliseconds_of_rate() -> None:
    pacer = Pacer(0.0, 0)
    assert pacer.budget(60.0, 10e6, MTU) == 20_000 + MTU


def test_the_bucket_is_capped_at_one_mebibyte() -> None:
    pacer = Pacer(0.0, 0)
    assert pacer.budget(60.0, 0.9e9, MTU) == MAX_BURST


@pytest.mark.parametrize("rate", [math.inf, 5e9, MAX_BURST / TIMER])
def test_a_rate_that_fills_the_bucket_within_a_timer_is_not_limited(rate: float) -> None:
    pacer = Pacer(0.0, 0)
    for _ in range(10):
        assert pacer.budget(0.0, rate, 65_000) == MAX_BURST
        pacer.on_sent(MAX_BURST)
        assert pacer.next_time(0.0, rate, 65_000) == 0.0


def test_less_than_a_packet_is_no_budget() -> None:
    pacer = Pacer(0.0, MTU - 1)
    assert pacer.budget(0.0, 1000.0, MTU) == 0


def test_no_timer_is_asked_for_within_a_millisecond() -> None:
    pacer = Pacer(0.0, 0)
    assert pacer.next_time(0.0, 100e6, MTU) == TIMER  # a packet is due after 12 us


def test_a_slow_path_is_woken_when_its_packet_is_due() -> None:
    pacer = Pacer(0.0, 0)
    due = pacer.next_time(0.0, 12_000.0, MTU)
    assert due == pytest.approx(0.1)
    assert pacer.budget(due - 0.001, 12_000.0, MTU) == 0
    assert pacer.budget(due + 1e-9, 12_000.0, MTU) == MTU


def test_with_budget_left_the_time_is_now() -> None:
    assert Pacer(3.0, 5000).next_time(3.0, 1e6, MTU) == 3.0


def test_unpaced_packets_are_paid_off_by_later_ones() -> None:
    pacer = Pacer(0.0, 0)
    pacer.on_sent(10_000)
    assert pacer.next_time(0.0, 1e6, MTU) == pytest.approx((10_000 + MTU) / 1e6)


@given(
    rate=st.floats(5_000, 1e9),
    mtu=st.integers(1200, 65_507),
    late=st.lists(st.floats(0, 0.0009), min_size=20, max_size=20),
)
def test_over_time_the_rate_is_kept_whatever_the_timers_do(rate: float, mtu: int, late: list[float]) -> None:
    """Driven by its own timers alone, each up to 0.9 ms late, a pacer sends its rate: not more, hardly
    less."""
    pacer = Pacer(0.0, 0)
    now, sent = 0.0, 0
    for delay in late * 10:
        now = pacer.next_time(now, rate, mtu) + delay
        sent += drain(pacer, now, rate, mtu)
    bucket = max(2 * mtu, mtu + 0.002 * rate)
    assert sent <= now * rate + bucket + 1
    if bucket <= MAX_BURST:
        assert sent >= now * rate - bucket - 2 * mtu - 1
