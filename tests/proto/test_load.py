"""Rates: what is let through, and how little is remembered."""

from __future__ import annotations

from burstwire.proto.load import AddressLimiter, TokenBucket


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
