"""Rates: what is let through, and how little is remembered."""

from __future__ import annotations

from random import Random

import pytest

from burstwire.proto.attempts import JITTER, MAX_BACKOFF
from burstwire.proto.load import AddressLimiter, Callers, TokenBucket


def v4(last: int, port: int = 1) -> bytes:
    return bytes([4, 0]) + port.to_bytes(2) + bytes(4) + bytes([10, 0, 0, last]) + bytes(12)


def v6(ip: bytes) -> bytes:
    return bytes([6, 0, 0, 1]) + bytes(4) + ip


def test_a_burst_passes_and_then_the_rate_rules() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert [bucket.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert sum(bucket.take(100.0) for _ in range(50)) == 5


def test_over_a_long_time_the_rate_is_kept() -> None:
    bucket = TokenBucket(100, 5, 0.0)
    assert 1000 <= sum(bucket.take(i / 1000) for i in range(10_000)) <= 1006


def test_time_that_stands_still_or_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(10, 1, 5.0)
    assert bucket.take(5.0)
    assert not bucket.take(4.0)
    assert not bucket.take(5.05)


def test_a_fine_delays_the_next_ones_by_a_burst_at_most() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    bucket.fine(3)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    bucket.fine(1000)
    assert not bucket.take(0.55)
    assert bucket.take(0.65)


def test_a_rate_of_nothing_lets_nothing_through() -> None:
    assert not TokenBucket(0, 1, 0.0).take(1000.0)


def test_each_address_has_its_own_rate_whatever_the_port() -> None:
    limiter = AddressLimiter(10, 2, 100)
    assert [limiter.take(v4(1, port), 0.0) for port in range(3)] == [True, True, False]
    assert limiter.take(v4(2), 0.0)


def test_an_ipv6_network_counts_as_one_party() -> None:
    limiter = AddressLimiter(10, 1, 100)
    network = bytes.fromhex("20010db8000000ab")
    assert limiter.take(v6(network + bytes(8)), 0.0)
    assert not limiter.take(v6(network + b"\xff" * 8), 0.0)
    assert limiter.take(v6(bytes.fromhex("20010db8000000ac") + bytes(8)), 0.0)


def test_the_table_of_addresses_is_bounded_and_forgets_the_least_recent() -> None:
    limiter = AddressLimiter(10, 1, 3)
    for last in (1, 2, 3):
        assert limiter.take(v4(last), 0.0)
    assert not limiter.take(v4(1), 0.0)  # seen again, so 2 is the oldest now
    assert limiter.take(v4(4), 0.0)
    assert len(limiter) == 3
    assert not limiter.take(v4(1), 0.0)
    assert limiter.take(v4(2), 0.0)


def test_who_calls_again_is_answered_and_who_does_not_stop_calling_is_not() -> None:
    callers = Callers(0.0)
    rng = Random(1)
    while callers.admit(rng.randbytes(40), 0.0):  # newcomers use up what there is for them
        pass
    assert not callers.admit(b"patient", 0.0)
    assert callers.admit(b"patient", 0.3)
    assert [callers.admit(b"pours", 0.02 * n) for n in range(16)].count(True) <= 2


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_who_was_here_a_moment_ago_is_told_from_others(start: float) -> None:
    callers = Callers(start)
    assert callers.meet(b"patient", start) == -1
    assert callers.meet(b"patient", start + 0.01) == 0
    assert 0 <= callers.meet(b"patient", start + 0.05) < Callers.TOO_SOON
    longest = MAX_BACKOFF * (1 + JITTER)
    for now in (0.3, 0.6, 1.2, 1.2 + longest, 1.2 + 2 * longest):
        assert callers.meet(b"patient", start + now) >= Callers.TOO_SOON
    assert callers.meet(b"patient", start + 8.0) == -1  # forgotten
    rng = Random(1)
    assert not any(callers.meet(rng.randbytes(40), start + 8 + n / 50_000) >= 0 for n in range(50_000))


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_in_a_flood_of_newcomers_an_initiator_is_answered_by_its_third_call(start: float) -> None:
    """50,000 a second from ever new addresses: in all cases of 40, and mostly by the second call."""
    callers = Callers(start)
    rng = Random(1)
    waits = [0.0, 0.3, 0.9]
    calls = sorted((0.5 + n / 40 + wait, b"honest" + bytes([n])) for n in range(40) for wait in waits)
    answered: dict[bytes, int] = {}
    tries: dict[bytes, int] = {}
    flood = answers = 0
    for step in range(2600):
        now = start + step / 1000
        for _ in range(50):
            flood += 1
            answers += callers.admit(rng.randbytes(40), now)
        while calls and start + calls[0][0] <= now:
            _, caller = calls.pop(0)
            tries[caller] = tries.get(caller, 0) + 1
            if caller not in answered and callers.admit(caller, now):
                answered[caller] = tries[caller]
    assert flood == 130_000
    assert len(answered) == 40
    assert sum(number <= 2 for number in answered.values()) >= 36
    assert answers <= (Callers.NEWCOMER_RATE + Callers.RETURNING_RATE) * (2.6 + Callers.BURST)
