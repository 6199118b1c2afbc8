"""A single handshake: what is bound to what, what a forgery can do (nothing), and what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from handshake_link import Link, Node, address, agree

from burstwire.config import AEADS, Config
from burstwire.crypto import cookie, keys, noise
from burstwire.crypto.noise import HandshakeState
from burstwire.errors import HandshakeError
from burstwire.identity import PublicKey
from burstwire.proto import negotiation
from burstwire.proto.handshake import Initiator, Responder
from burstwire.wire.errors import WireError
from burstwire.wire.packets import Cookie, Initiate, Respond, Versions, initiate_header
from burstwire.wire.parameters import TransportParameters, decode, encode

ADDRESS = bytes(range(24))


class Sides:
    """Two keys, and an INITIATE from one to the other."""

    def __init__(self, preshared_key: bytes | None = None, version: int = 1) -> None:
        self.random = Random(5).randbytes
        self.preshared_key = preshared_key
        self.version = version
        self.near = X25519PrivateKey.from_private_bytes(self.random(32))
        self.far = X25519PrivateKey.from_private_bytes(self.random(32))
        self.offered = negotiation.offer(Config(), (version,), b"t" * 16, 4096, ADDRESS, b"attempt8")
        self.initiator = Initiator(
            self.near,
            public(self.far),
            self.offered,
            version=version,
            local_cid=0x01020304,
            preshared_key=preshared_key,
            random=self.random,
        )
        self.datagram = self.initiator.datagram(None)

    def responder(self, datagram: bytes | None = None) -> Responder:
        packet = Initiate.parse(datagram or self.datagram)
        return Responder(self.far, packet, self.preshared_key, self.random)

    def accept(self, dst: int = 0x01020304, src: int = 77) -> TransportParameters:
        return negotiation.answer(Config(), (self.version,), b"r" * 16, 1, ADDRESS, AEADS[0], (dst, src), None)


def public(private: X25519PrivateKey) -> PublicKey:
    return PublicKey(private.public_key().public_bytes_raw())


@pytest.mark.parametrize("preshared_key", [None, b"p" * 32])
def test_both_ends_derive_the_same_secrets_crosswise(preshared_key: bytes | None) -> None:
    sides = Sides(preshared_key)
    responder = sides.responder()
    assert responder.peer_key == public(sides.near)
    assert responder.read_offer() == sides.offered
    accepted = sides.accept()
    opened = sides.initiator.open(Respond.parse(responder.respond(0x01020304, 77, accepted)), "peer")
    assert opened is not None
    assert opened.answered == accepted
    assert (opened.receive_secret, opened.send_secret) == responder.secrets()
    assert opened.send_secret != opened.receive_secret


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("preshared_key", [None, b"p" * 32])
def test_the_bytes_are_those_of_the_design(preshared_key: bytes | None, version: int) -> None:
    """Read by a plain Noise state and the layout in DESIGN, not by our own classes."""
    sides = Sides(preshared_key, version)
    datagram = sides.datagram
    suite = 0 if preshared_key is None else 1
    assert datagram[:10] == bytes([1]) + version.to_bytes(4) + bytes([1, 2, 3, 4, suite])
    assert len(datagram) == 1200
    far = public(sides.far)
    assert datagram[-32:-16] == cookie.mac(cookie.mac1_key(bytes(far)), datagram[:-32])
    assert datagram[-16:] == bytes(16)
    state = HandshakeState(False, sides.far, prologue=b"burstwire %d" % version + datagram[:10], psk=preshared_key)
    assert decode(state.read_message(datagram[10:-32])) == sides.offered
    message = state.write_message(encode(sides.accept()))
    respond = bytes([2]) + bytes([1, 2, 3, 4]) + (77).to_bytes(4) + message
    opened = sides.initiator.open(Respond.parse(respond), "peer")
    assert opened is not None
    receive, send = keys.derive(state.split(), False, state.handshake_hash)[::-1]
    assert (opened.send_secret, opened.receive_secret) == (receive, send)


@pytest.mark.parametrize("position", [1, 4, 5, 8, 10, 41, 42, 89, 90, 1167])
def test_header_and_message_of_an_initiate_are_bound_even_without_mac1(position: int) -> None:
    sides = Sides()
    changed = bytearray(sides.datagram)
    changed[position] ^= 1
    with pytest.raises(HandshakeError):
        sides.responder(bytes(changed))


def test_the_suite_is_bound() -> None:
    sides = Sides()
    changed = bytearray(sides.datagram)
    changed[9] = 1
    with pytest.raises(HandshakeError):
        sides.responder(bytes(changed))


def test_an_initiate_of_another_version_does_not_open_as_this_one() -> None:
    sides = Sides(version=2)
    changed = bytearray(sides.datagram)
    changed[1:5] = (1).to_bytes(4)
    with pytest.raises(HandshakeError):
        sides.responder(bytes(changed))


def test_forged_and_altered_responds_leave_the_initiator_as_it_was() -> None:
    sides = Sides()
    genuine = Respond.parse(sides.responder().respond(0x01020304, 77, sides.accept()))
    for forged in (
        replace(genuine, message=bytes(48)),
        replace(genuine, message=bytes(300)),
        replace(genuine, message=genuine.message[:-1] + bytes([genuine.message[-1] ^ 1])),
        replace(genuine, message=bytes([genuine.message[0] ^ 1]) + genuine.message[1:]),
        replace(genuine, message=genuine.message + b"\0"),
        replace(genuine, src_cid=78),
        replace(genuine, dst_cid=5),
    ):
        assert sides.initiator.open(forged, "peer") is None
    assert sides.initiator.open(genuine, "peer") is not None


def test_a_stranger_who_saw_the_initiate_cannot_answer_it() -> None:
    sides = Sides()
    stranger = X25519PrivateKey.generate()
    with pytest.raises(HandshakeError):
        Responder(stranger, Initiate.parse(sides.datagram), None, sides.random)
    fake = HandshakeState(True, stranger, bytes(public(sides.near)), b"burstwire 1" + sides.datagram[:10])
    answer = fake.write_message(encode(sides.accept()))
    assert sides.initiator.open(Respond(0x01020304, 77, answer), "peer") is None


def test_an_authentic_answer_that_cannot_be_read_ends_the_attempt() -> None:
    sides = Sides()
    prologue = b"burstwire 1" + sides.datagram[:10]
    state = HandshakeState(False, sides.far, prologue=prologue)
    state.read_message(sides.datagram[10:-32])
    respond = Respond(0x01020304, 77, state.write_message(b"\x01"))
    with pytest.raises(HandshakeError, match="answer of somebody cannot be read"):
        sides.initiator.open(respond, "somebody")


def test_an_authentic_answer_without_connection_ids_is_not_believed() -> None:
    sides = Sides()
    responder = sides.responder()
    datagram = responder.respond(0x01020304, 77, sides.accept()._replace(cids=None))
    assert sides.initiator.open(Respond.parse(datagram), "peer") is None


def test_an_authentic_offer_that_cannot_be_read_raises_what_the_refusal_says() -> None:
    sides = Sides()
    header = Initiate(1, 1, 0, b"").header
    state = HandshakeState(True, sides.near, bytes(public(sides.far)), b"burstwire 1" + header)
    packet = Initiate(1, 1, 0, state.write_message(b"\x01\x01" + bytes(1200)))
    responder = Responder(sides.far, packet, None, sides.random)
    with pytest.raises(WireError):
        responder.read_offer()


def test_points_of_small_order_in_an_initiate_are_refused_without_a_trace() -> None:
    a, b = Node(address(1), 1), Node(address(2), 2)
    a.desk.connect(b.where, b.public, 0.0, 1.0)
    forged = bytearray(a.desk.outgoing.popleft()[1])
    forged[10:42] = bytes(32)
    forged[-32:-16] = cookie.mac(cookie.mac1_key(bytes(b.public)), bytes(forged[:-32]))
    b.desk.receive(bytes(forged), a.where + bytes(24), 0.0)
    assert b.stat("initiates_invalid") == 1
    assert not b.desk.outgoing


def test_a_cookie_is_opened_only_for_the_initiate_it_answers() -> None:
    sides = Sides()
    far = bytes(public(sides.far))
    sealed = cookie.seal_cookie(far, b"s" * 16, sides.datagram[-32:-16], b"c" * 16)
    assert sides.initiator.open_cookie(Cookie(0x01020304, b"s" * 16, sealed)) == b"c" * 16
    assert sides.initiator.open_cookie(Cookie(0x01020304, b"S" * 16, sealed)) is None
    other = cookie.seal_cookie(far, b"s" * 16, bytes(16), b"c" * 16)
    assert sides.initiator.open_cookie(Cookie(0x01020304, b"s" * 16, other)) is None


def test_mac2_covers_everything_before_it() -> None:
    sides = Sides()
    proven = sides.initiator.datagram(b"c" * 16)
    assert proven[:-16] == sides.datagram[:-16]
    assert proven[-16:] == cookie.mac(b"c" * 16, proven[:-16])


def test_versions_is_believed_only_with_our_ephemeral_key_and_without_our_version() -> None:
    sides = Sides()
    echo = sides.datagram[10:26]
    assert sides.initiator.believes(Versions(0x01020304, echo, (2, 3)))
    assert not sides.initiator.believes(Versions(0x01020304, echo, (2, 1)))
    assert not sides.initiator.believes(Versions(0x01020304, echo[:-1] + b"\0", (2, 3)))


# --- cost ---------------------------------------------------------------------------------------


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts Diffie-Hellman exchanges and ephemeral key generations, by side."""
    counter: Counter[str] = Counter()
    exchange, generate = noise._exchange, HandshakeState._new_ephemeral
    side = ["?"]

    def counted_exchange(private: X25519PrivateKey, public_key: X25519PublicKey) -> bytes:
        counter[f"{side[0]} exchange"] += 1
        return exchange(private, public_key)

    def counted_generate(self: HandshakeState) -> X25519PrivateKey:
        counter[f"{side[0]} generate"] += 1
        return generate(self)

    def sided(name: str) -> None:
        method = getattr(HandshakeState, name)

        def wrapped(self: HandshakeState, *args: bytes) -> bytes:
            side[0] = "initiator" if self._initiator else "responder"
            return method(self, *args)  # type: ignore[no-any-return]

        monkeypatch.setattr(HandshakeState, name, wrapped)

    monkeypatch.setattr(noise, "_exchange", counted_exchange)
    monkeypatch.setattr(HandshakeState, "_new_ephemeral", counted_generate)
    sided("read_message")
    sided("write_message")
    return counter


WHOLE = {
    "initiator exchange": 4,
    "initiator generate": 1,
    "responder exchange": 4,
    "responder generate": 1,
}


def test_a_handshake_costs_each_side_four_exchanges_and_one_key(spent: Counter[str]) -> None:
    a, b = Node(address(1), 1), Node(address(2), 2)
    link = Link(a, b)
    link.connect(a, b)
    link.run()
    assert agree(a.up[0], b.up[0])
    assert spent == WHOLE


def test_repeats_cookies_and_replays_cost_no_exchange_more(spent: Counter[str]) -> None:
    a, b = Node(address(1), 1), Node(address(2), 2, Config(cookie_threshold=0))
    link = Link(a, b)
    link.tamper = lambda source, target, datagram: [datagram] * 4
    link.connect(a, b)
    link.run()
    assert b.stat("cookies_sent") == 1
    assert b.stat("initiates_limited") == 3
    assert b.stat("responds_withheld") == 3
    link.inject(a.where, b.where, link.datagrams(1)[-1])
    link.run()
    assert b.stat("initiates_replayed") == 1
    assert agree(a.up[0], b.up[0])
    assert spent == WHOLE


def test_those_without_our_public_key_and_those_without_a_cookie_under_load_cost_no_exchange(
    spent: Counter[str],
) -> None:
    a, b, c = Node(address(1), 1), Node(address(2), 2, Config(cookie_threshold=0)), Node(address(3), 3)
    a.desk.connect(b.where, c.public, 0.0, 5.0)
    a.desk.connect(b.where, b.public, 0.0, 5.0)
    for _, datagram in list(a.desk.outgoing):
        b.desk.receive(datagram, a.where + bytes(24), 0.0)
    assert b.stat("initiates_bad_mac1") == 1
    assert b.stat("cookies_sent") == 1
    assert not any(name.startswith("responder") for name in spent)


def test_a_flood_of_forgeries_has_fewer_exchanges_computed_than_honest_peers_could(spent: Counter[str]) -> None:
    b = Node(address(2), 2, Config(cookie_threshold=100))
    key = cookie.mac1_key(bytes(b.public))
    header = initiate_header(1, 7, 0)
    for number in range(1000):
        signed = header + number.to_bytes(4) + bytes(1200 - 10 - 4 - 32)
        b.desk.receive(signed + cookie.mac(key, signed) + bytes(16), address(1) + bytes(24), number / 1000)
    assert b.stat("initiates_received") == 1000
    assert 5 <= spent["responder exchange"] <= 20
    a = Node(address(1), 1)
    link = Link(a, b)
    link.now = 1.0
    link.connect(a, b)
    link.run()
    assert agree(a.up[0], b.up[0])
