"""The key schedule: documented bytes, one chain a direction, and which generations can be opened when."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lone import open_sealed, seal

from burstwire.crypto.aead import Aead, make_aead
from burstwire.crypto.keys import GENERATION_BITS, INTEGRITY_LIMITS, TrafficKeys, derive
from burstwire.errors import CryptoError

SPLIT = (b"i" * 32, b"r" * 32)
HASH = b"h" * 32
HEADER = bytes(13)


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def pair(aead_id: int = 0) -> tuple[TrafficKeys, TrafficKeys]:
    return (
        TrafficKeys(*derive(SPLIT, True, HASH), aead_id),
        TrafficKeys(*derive(SPLIT, False, HASH), aead_id),
    )


def opens(aead: Aead | None, sealed: bytes) -> bool:
    return aead is not None and open_sealed(aead, HEADER, sealed) == b"x"


@pytest.mark.parametrize(
    ("aead_id", "name", "size"),
    [(0, "aes-128-gcm", 16), (1, "aes-256-gcm", 32), (2, "chacha20-poly1305", 32)],
)
def test_keys_are_the_documented_bytes(aead_id: int, name: str, size: int) -> None:
    alice, _ = pair(aead_id)
    secret = mac(mac(HASH, SPLIT[0]), b"burstwire 1 initiator\x01")
    for generation in range(3):
        key = mac(secret, b"burstwire 1 key" + bytes([aead_id]) + b"\x01")[:size]
        expected = seal(make_aead(name, key), HEADER, b"x")
        assert seal(alice.sealer(generation), HEADER, b"x") == expected
        secret = mac(secret, b"burstwire 1 update\x01")


def test_each_side_opens_what_the_other_seals_and_not_what_it_seals_itself() -> None:
    alice, bob = pair()
    from_alice = seal(alice.sealer(0), HEADER, b"x")
    from_bob = seal(bob.sealer(0), HEADER, b"x")
    assert opens(bob.opener(0), from_alice)
    assert opens(alice.opener(0), from_bob)
    assert not opens(alice.opener(0), from_alice)
    assert not opens(bob.opener(0), from_bob)


@given(st.integers(0, 255))
def test_another_handshake_hash_makes_other_keys(number: int) -> None:
    other = bytes([number]) * 32
    assert (derive(SPLIT, True, other) == derive(SPLIT, True, HASH)) == (other == HASH)


def test_the_next_generation_opens_before_it_is_current_and_the_one_after_it_does_not() -> None:
    alice, bob = pair()
    sealed = [seal(alice.sealer(generation), HEADER, b"x") for generation in range(4)]
    assert [opens(bob.opener(generation), sealed[generation]) for generation in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert bob.opening == 0
    assert bob.received(1)
    assert bob.opening == 1
    assert [opens(bob.opener(generation), sealed[generation]) for generation in range(4)] == [
        True,
        True,
        True,
        False,
    ]
    assert bob.opener(-1) is None


def test_the_previous_generation_opens_until_it_is_dropped() -> None:
    alice, bob = pair()
    old = seal(alice.sealer(0), HEADER, b"x")
    assert bob.opener(1) is not None
    bob.received(1)
    assert opens(bob.opener(0), old)
    bob.drop_previous()
    assert bob.opener(0) is None
    assert bob.opener(1) is not None


def test_a_second_step_drops_the_generation_two_back() -> None:
    _, bob = pair()
    for generation in (1, 2):
        assert bob.opener(generation) is not None
        assert bob.received(generation)
    assert bob.opener(0) is None
    assert bob.opener(1) is not None


@pytest.mark.parametrize("generation", [-1, 0, 2, 5])
def test_receiving_another_generation_than_the_next_changes_nothing(generation: int) -> None:
    _, bob = pair()
    assert not bob.received(generation)
    assert bob.opening == 0


def test_the_next_generation_is_not_entered_before_anything_of_it_was_opened() -> None:
    _, bob = pair()
    assert not bob.received(1)


@pytest.mark.parametrize(("first", "then"), [(0, 2), (1, 0), (1, 3), (0, -1)])
def test_sealing_goes_ahead_by_one_generation_and_never_back(first: int, then: int) -> None:
    alice, _ = pair()
    alice.sealer(first)
    before = seal(alice.sealer(first), HEADER, b"x")
    with pytest.raises(CryptoError):
        alice.sealer(then)
    assert alice.sealing == first
    assert seal(alice.sealer(first), HEADER, b"x") == before


def test_directions_ratchet_alone() -> None:
    alice, bob = pair()
    alice.sealer(1)
    assert alice.opening == 0
    assert opens(alice.opener(0), seal(bob.sealer(0), HEADER, b"x"))


def test_ciphers_are_made_on_first_use_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(name: str, key: bytes, backend: str | None = None) -> Aead:
        made.append(name)
        return make_aead(name, key, backend)

    monkeypatch.setattr("burstwire.crypto.keys.make_aead", counting)
    alice, _ = pair()
    assert made == []
    assert alice.sealer(0) is alice.sealer(0)
    assert len(made) == 1
    assert alice.opener(1) is alice.opener(1)
    assert len(made) == 2
    following = alice.opener(1)
    alice.received(1)
    assert alice.opener(1) is following
    assert len(made) == 2


def test_a_generation_stays_below_the_limit_of_its_cipher() -> None:
    # RFC 9001 §6.6: AES-GCM seals at most 2**23 packets under one key.
    assert 1 << GENERATION_BITS < 1 << 23
    assert INTEGRITY_LIMITS == (1 << 52, 1 << 52, 1 << 36)


def test_an_unknown_packet_protection_is_refused() -> None:
    with pytest.raises(CryptoError):
        TrafficKeys(b"s" * 32, b"r" * 32, 3)


def test_no_secret_is_printed() -> None:
    keys = TrafficKeys(b"s" * 32, b"r" * 32, 0)
    assert "ssss" not in repr(keys)
    assert "…" in repr(keys)
