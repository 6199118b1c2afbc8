"""The doctor's advice fits what it found."""

from __future__ import annotations

from burstwire.cli.doctor import BUFFER_ASKED, advice
from burstwire.cli.examine import socket_speed

HEALTHY: dict[str, object] = {"gso": True, "gro": True, "switched_off": []}


def test_a_healthy_machine_gets_no_advice() -> None:
    assert advice(HEALTHY, 2 * BUFFER_ASKED) == []


def test_a_small_receive_buffer_is_worth_a_sysctl() -> None:
    (hint,) = advice(HEALTHY, 212_992)
    assert "212,992" in hint
    assert "net.core.rmem_max" in hint


def test_missing_offloads_and_switched_off_ones_are_told_apart() -> None:
    (missing,) = advice(HEALTHY | {"gro": False}, BUFFER_ASKED)
    assert "GSO and GRO" in missing
    (off,) = advice(HEALTHY | {"gro": False, "switched_off": ["BURSTWIRE_GRO"]}, BUFFER_ASKED)
    assert "BURSTWIRE_GRO" in off


def test_every_way_of_the_socket_carries_what_it_is_given() -> None:
    for speed in socket_speed():
        assert speed.nanoseconds > 0
        assert 0.9 <= speed.delivered <= 1
