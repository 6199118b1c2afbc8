"""Noise IK and IKpsk2: an independent implementation agrees, and forged messages spoil nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.crypto import noise
from burstwire.crypto.noise import MAX_MESSAGE, MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD, HandshakeState, StaticKey
from burstwire.errors import ConfigError, HandshakeError

PSK = bytes(range(100, 132))
ALICE, BOB, ALICE_E, BOB_E, MALLORY = (bytes([n] * 32) for n in (1, 2, 3, 4, 5))

psks = pytest.mark.parametrize("psk", [None, PSK], ids=["IK", "IKpsk2"])


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def pair(psk: bytes | None = None, prologue: bytes = b"p") -> tuple[HandshakeState, HandshakeState]:
    alice = HandshakeState(True, ALICE, public(BOB), prologue, ALICE_E, psk=psk)
    return alice, HandshakeState(False, BOB, prologue=prologue, ephemeral=BOB_E, psk=psk)


@psks
@given(first=st.binary(max_size=300), second=st.binary(max_size=300), prologue=st.binary(max_size=50))
@settings(max_examples=20)
def test_both_sides_end_with_the_same_keys_and_hash(
    psk: bytes | None, first: bytes, second: bytes, prologue: bytes
) -> None:
    alice, bob = pair(psk, prologue)
    message = alice.write_message(first)
    assert len(message) == MESSAGE_1_OVERHEAD + len(first)
    assert not bob.remote_static
    assert bob.read_message(message) == first
    assert bob.remote_static == public(ALICE)
    answer = bob.write_message(second)
    assert len(answer) == MESSAGE_2_OVERHEAD + len(second)
    assert alice.read_message(answer) == second
    assert alice.finished
    assert bob.finished
    assert alice.split() == bob.split()
    assert len(set(map(bytes, alice.split()))) == 2
    assert alice.handshake_hash == bob.handshake_hash


def reference(initiator: bool, static: bytes, remote: bytes | None, psk: bytes | None) -> Any:
    """One side of the handshake as the package `noiseprotocol` does it."""
    connection = pytest.importorskip("noise.connection", reason="noiseprotocol is not installed")
    name = b"Noise_IK_25519_ChaChaPoly_SHA256" if psk is None else b"Noise_IKpsk2_25519_ChaChaPoly_SHA256"
    other = connection.NoiseConnection.from_name(name)
    if psk is not None:
        other.set_psks(psk)
    other.set_prologue(b"prologue")
    other.set_as_initiator() if initiator else other.set_as_responder()
    other.set_keypair_from_private_bytes(connection.Keypair.STATIC, static)
    if remote is not None:
        other.set_keypair_from_public_bytes(connection.Keypair.REMOTE_STATIC, remote)
    other.start_handshake()
    return other


def cipher(key: bytes, nonce: int, plain: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(4) + nonce.to_bytes(8, "little"), plain, b"")


@psks
def test_as_initiator_an_independent_responder_agrees(psk: bytes | None) -> None:
    bob = reference(False, BOB, None, psk)
    alice = HandshakeState(True, ALICE, public(BOB), b"prologue", ALICE_E, psk=psk)
    assert bob.read_message(alice.write_message(b"hello")) == b"hello"
    assert alice.read_message(bytes(bob.write_message(b"welcome"))) == b"welcome"
    sending, receiving = alice.split()
    assert bob.get_handshake_hash() == alice.handshake_hash
    assert bob.decrypt(cipher(sending, 0, b"one")) == b"one"
    assert bob.encrypt(b"two") == cipher(receiving, 0, b"two")


@psks
def test_as_responder_an_independent_initiator_agrees(psk: bytes | None) -> None:
    alice = reference(True, ALICE, public(BOB), psk)
    bob = HandshakeState(False, BOB, prologue=b"prologue", ephemeral=BOB_E, psk=psk)
    assert bob.read_message(bytes(alice.write_message(b"hello"))) == b"hello"
    assert alice.read_message(bob.write_message(b"welcome")) == b"welcome"
    receiving, sending = bob.split()
    assert alice.get_handshake_hash() == bob.handshake_hash
    assert alice.encrypt(b"one") == cipher(receiving, 0, b"one")
    assert alice.decrypt(cipher(sending, 0, b"two")) == b"two"


@psks
def test_a_mutated_or_cut_message_raises_and_the_true_one_still_works(psk: bytes | None) -> None:
    alice, bob = pair(psk)
    message = alice.write_message(b"hello")
    refuse_all_forgeries(bob, message)
    assert bob.read_message(message) == b"hello"
    answer = bob.write_message(b"welcome")
    refuse_all_forgeries(alice, answer)
    assert alice.read_message(answer) == b"welcome"
    assert alice.split() == bob.split()


def refuse_all_forgeries(state: HandshakeState, message: bytes) -> None:
    before = state.handshake_hash, state.remote_static
    for position in range(len(message)):
        forged = bytearray(message)
        # Any bit will do, even the top bit of a public key: X25519 ignores it, the hash does not.
        forged[position] ^= 1 << (position % 8)
        with pytest.raises(HandshakeError):
            state.read_message(bytes(forged))
    for length in [0, 1, 31, 32, 47, 48, 79, 95, len(message) - 1]:
        with pytest.raises(HandshakeError):
            state.read_message(message[: min(length, len(message) - 1)])
    with pytest.raises(HandshakeError):
        state.read_message(message + b"\0")
    assert (state.handshake_hash, state.remote_static) == before


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_random_bytes_raise_handshake_error(message: bytes) -> None:
    _, bob = pair()
    with pytest.raises(HandshakeError):
        bob.read_message(message)


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_low_order_key_is_refused_wherever_it_appears(point: str) -> None:
    low = bytes.fromhex(point)
    alice = HandshakeState(True, ALICE, low)
    with pytest.raises(HandshakeError, match="low order"):
        alice.write_message()
    alice, bob = pair()
    with pytest.raises(HandshakeError, match="low order"):
        bob.read_message(low + alice.write_message()[32:])
    bob.read_message(HandshakeState(True, ALICE, public(BOB), b"p", ALICE_E).write_message())
    with pytest.raises(HandshakeError, match="low order"):
        alice.read_message(low + bob.write_message()[32:])


def test_a_wrong_responder_key_prologue_or_psk_does_not_authenticate() -> None:
    message = HandshakeState(True, ALICE, public(MALLORY), b"p").write_message()
    with pytest.raises(HandshakeError):
        pair()[1].read_message(message)
    message = HandshakeState(True, ALICE, public(BOB), b"q").write_message()
    with pytest.raises(HandshakeError):
        pair()[1].read_message(message)
    # IKpsk2 mixes the key in at the end: only message 2 tells.
    alice, _ = pair(PSK)
    bob = HandshakeState(False, BOB, prologue=b"p", psk=bytes(32))
    bob.read_message(alice.write_message())
    with pytest.raises(HandshakeError):
        alice.read_message(bob.write_message())


def test_an_impostor_of_the_responder_cannot_answer() -> None:
    alice, bob = pair()
    message = alice.write_message()
    bob.read_message(message)
    other = HandshakeState(False, BOB, prologue=b"p")
    other.read_message(HandshakeState(True, MALLORY, public(BOB), b"p").write_message())
    with pytest.raises(HandshakeError):
        alice.read_message(other.write_message(b"I am Bob"))
    assert alice.read_message(bob.write_message(b"no, I am")) == b"no, I am"


def test_a_responder_that_pins_a_key_accepts_no_other() -> None:
    for private, accepted in [(ALICE, True), (MALLORY, False)]:
        bob = HandshakeState(False, BOB, public(ALICE))
        message = HandshakeState(True, private, public(BOB)).write_message(b"x")
        if accepted:
            assert bob.read_message(message) == b"x"
        else:
            with pytest.raises(HandshakeError, match="another key"):
                bob.read_message(message)


def test_peek_shows_payload_and_key_and_takes_no_step() -> None:
    alice, bob = pair()
    message = alice.write_message(b"who am I")
    before = bob.handshake_hash
    assert bob.peek(message) == (b"who am I", public(ALICE))
    assert bob.handshake_hash == before
    assert bob.remote_static is None
    with pytest.raises(HandshakeError):
        bob.peek(message[:-1])
    assert bob.read_message(message) == b"who am I"


def test_a_call_out_of_turn_raises_and_changes_nothing() -> None:
    alice, bob = pair()
    for call in forbidden(alice.read_message, bob.write_message, alice.split, bob.split, alice.peek):
        call()
    message = alice.write_message(b"1")
    for call in forbidden(alice.write_message, alice.split, bob.write_message):
        call()
    assert bob.read_message(message) == b"1"
    for call in forbidden(bob.read_message, bob.peek, bob.split):
        call()
    assert alice.read_message(bob.write_message(b"2")) == b"2"
    for call in forbidden(alice.read_message, alice.write_message, bob.read_message, bob.write_message):
        call()
    assert alice.split() == bob.split()


def forbidden(*methods: Callable[..., Any]) -> list[Callable[[], None]]:
    def refused(method: Callable[..., Any]) -> Callable[[], None]:
        def call() -> None:
            with pytest.raises(HandshakeError):
                method() if method.__name__ == "split" else method(bytes(200))

        return call

    return [refused(method) for method in methods]


def test_a_payload_beyond_65535_bytes_is_refused_and_changes_nothing() -> None:
    alice, bob = pair()
    most = MAX_MESSAGE - MESSAGE_1_OVERHEAD
    with pytest.raises(HandshakeError, match="at most"):
        alice.write_message(bytes(most + 1))
    message = alice.write_message(bytes(most))
    with pytest.raises(HandshakeError, match="at most"):
        bob.read_message(message + b"\0")
    assert bob.read_message(message) == bytes(most)


def test_ephemeral_keys_are_fresh_unless_given_or_drawn_from_the_source() -> None:
    fresh = {HandshakeState(True, ALICE, public(BOB)).write_message()[:32] for _ in range(3)}
    assert len(fresh) == 3
    asked = []

    def random(size: int) -> bytes:
        asked.append(size)
        return BOB_E

    drawn = HandshakeState(True, ALICE, public(BOB), random=random).write_message()
    assert (asked, drawn[:32]) == ([32], public(BOB_E))
    given_key = HandshakeState(True, ALICE, public(BOB), b"", BOB_E, random=random).write_message()
    assert given_key == drawn
    assert asked == [32]


def test_a_loaded_static_key_does_as_well_as_its_bytes() -> None:
    loaded = X25519PrivateKey.from_private_bytes(ALICE)
    one = HandshakeState(True, loaded, public(BOB), b"", ALICE_E).write_message(b"x")
    assert one == HandshakeState(True, ALICE, public(BOB), b"", ALICE_E).write_message(b"x")


@pytest.mark.parametrize(
    "arguments",
    [
        {"static": b"short"},
        {"remote_static": bytes(33)},
        {"remote_static": None},
        {"ephemeral": b""},
        {"psk": bytes(31)},
    ],
)
def test_a_wrong_argument_is_a_config_error(arguments: dict[str, Any]) -> None:
    good: dict[str, Any] = {"static": ALICE, "remote_static": public(BOB)}
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        HandshakeState(True, **(good | arguments))


def test_no_key_is_printed() -> None:
    state = HandshakeState(True, ALICE, public(BOB), psk=PSK)
    assert ALICE.hex() not in repr(state)
    assert "…" in repr(state)


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[X25519PublicKey]:
    """The public keys of all Diffie-Hellman computations so far."""
    made: list[X25519PublicKey] = []
    exchange = noise._exchange

    def counted(private: X25519PrivateKey, public_key: X25519PublicKey) -> bytes:
        made.append(public_key)
        return exchange(private, public_key)

    monkeypatch.setattr(noise, "_exchange", counted)
    return made


def meet(alice: StaticKey, bob: StaticKey) -> tuple[bytes, bytes]:
    """A handshake between two that have met or not; the keys that come of it."""
    one, two = HandshakeState(True, alice, bob.public), HandshakeState(False, bob)
    two.read_message(one.write_message())
    one.read_message(two.write_message())
    assert one.split() == two.split()
    return one.split()


def test_what_two_static_keys_have_in_common_is_computed_once(exchanges: list[X25519PublicKey]) -> None:
    alice, bob = StaticKey(ALICE), StaticKey(BOB)
    keys = set()
    for expected in (8, 6, 6):
        exchanges.clear()
        keys.add(tuple(map(bytes, meet(alice, bob))))
        assert len(exchanges) == expected
    assert len(keys) == 3, "and yet no two handshakes have keys in common"


def test_a_handshake_with_a_remembered_peer_has_the_same_bytes() -> None:
    bob = StaticKey(BOB)
    alice = StaticKey(ALICE)
    meet(alice, bob)
    remembered = HandshakeState(True, alice, bob.public, b"p", ALICE_E).write_message(b"x")
    assert remembered == HandshakeState(True, ALICE, public(BOB), b"p", ALICE_E).write_message(b"x")


def test_a_peer_is_remembered_only_once_it_has_authenticated(exchanges: list[X25519PublicKey]) -> None:
    bob = StaticKey(BOB)
    message = HandshakeState(True, MALLORY, bob.public).write_message(b"x")
    for _ in range(2):
        exchanges.clear()
        with pytest.raises(HandshakeError):
            HandshakeState(False, bob).read_message(message[:-1] + bytes([message[-1] ^ 1]))
        assert len(exchanges) == 2
    alice = StaticKey(ALICE)
    for _ in range(2):  # nor does dialling a key show that somebody has it
        exchanges.clear()
        HandshakeState(True, alice, public(MALLORY)).write_message()
        assert len(exchanges) == 2


def test_the_peer_met_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch, exchanges: list[bytes]) -> None:
    monkeypatch.setattr(noise, "MAX_SHARED", 2)
    alice, bob, mallory, eve = (StaticKey(raw) for raw in (ALICE, BOB, MALLORY, bytes(range(32))))
    meet(alice, bob)
    meet(mallory, bob)
    meet(alice, bob)  # so mallory is the one to go
    meet(eve, bob)
    exchanges.clear()
    meet(alice, bob)
    assert len(exchanges) == 6
    exchanges.clear()
    meet(mallory, bob)
    assert len(exchanges) == 7


def test_a_static_key_shows_nothing_of_itself() -> None:
    bob = StaticKey(BOB)
    meet(StaticKey(ALICE), bob)
    assert repr(bob) == "<StaticKey 1 peers, key …>"
