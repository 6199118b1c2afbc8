"""The doctor's advice fits what it found."""

from __future__ import annotations

import platform

import pytest

from burstwire.cli.doctor import BUFFER_ASKED, advice, aead_advice
from burstwire.cli.examine import socket_speed
from burstwire.crypto import aead_ipsecmb

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


@pytest.mark.parametrize(
    ("machine", "built", "there", "expected"),
    [
        ("x86_64", ["libIPSec_MB.so.1"], True, None),
        ("x86_64", ["libIPSec_MB.so.1"], False, "libipsec-mb1"),
        ("x86_64", [], False, "libipsec-mb-dev"),
        ("aarch64", [], False, None),
    ],
)
def test_a_missing_fast_library_is_named_where_it_would_run(
    monkeypatch: pytest.MonkeyPatch, machine: str, built: list[str], there: bool, expected: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(aead_ipsecmb, "candidates", lambda: built)
    monkeypatch.setattr(aead_ipsecmb, "present", lambda: there)
    monkeypatch.setattr(aead_ipsecmb, "version", lambda: "1.3")
    hints = aead_advice()
    assert len(hints) == (expected is not None)
    assert not expected or f"install {expected}" in hints[0]


def test_every_way_of_the_socket_carries_what_it_is_given() -> None:
    for speed in socket_speed():
        assert speed.nanoseconds > 0
        assert 0.9 <= speed.delivered <= 1
