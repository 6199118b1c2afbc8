"""Whatever arrives: no exception, no connection for the wrong party, and an honest handshake beside it completes."""

from __future__ import annotations

from random import Random

import pytest
from handshake_link import ANY, Link, Node, address, agree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burstwire.config import Config
from burstwire.crypto import cookie
from burstwire.identity import KeyPair
from burstwire.proto.desk import HandshakeDesk
from burstwire.wire.header import COOKIE, INITIATE, RESPOND, VERSIONS

A, B, C, D = (address(n) for n in range(1, 5))
KINDS = (INITIATE, RESPOND, COOKIE, VERSIONS)
KEYS = [KeyPair(Random(n).randbytes(32)) for n in range(3)]

slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

datagrams = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda kind, body, length: (bytes([kind]) + body).ljust(length, b"\0"),
        st.sampled_from(KINDS),
        st.binary(max_size=60),
        st.sampled_from([0, 53, 60, 1200, 1300]),
    ),
)


@slow
@given(st.lists(datagrams, max_size=30))
def test_arbitrary_bytes_are_counted_and_nothing_else(noise: list[bytes]) -> None:
    a, b = Node(A, 1, key=KEYS[0]), Node(B, 2, key=KEYS[1])
    link = Link(a, b)
    link.connect(a, b)
    before = {name: b.stat(name) for name in ("half_open", "attempts")}
    for datagram in noise:
        for node in (a, b):
            node.desk.receive(datagram, C + ANY, 0.0)
    assert {name: b.stat(name) for name in before} == before
    assert not a.desk.outgoing
    assert not b.desk.outgoing
    link.run()
    assert agree(a.up[0], b.up[0])


class Attacker:
    """Sees every packet, knows every public key, and sends altered copies to everybody."""

    def __init__(self, seed: int, nodes: list[Node]) -> None:
        self.rng = Random(seed)
        self.nodes = nodes

    def mutate(self, datagram: bytes) -> bytes:
        rng = self.rng
        data = bytearray(datagram)
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            kind = rng.randrange(6)
            if kind == 0 and data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[rng.randrange(len(data) + 1) :]
            elif kind == 2:
                data += rng.randbytes(rng.randrange(40))
            elif kind == 3 and len(data) >= 10:
                data[1:5] = rng.choice([bytes(4), b"\0\0\0\1", b"\0\0\0\2", rng.randbytes(4)])
            elif kind == 4 and len(data) >= 10:
                data[5:9] = rng.randbytes(4)
            elif kind == 5 and data:
                data[0] = rng.choice(KINDS)
        if data[:1] == bytes([INITIATE]) and len(data) > 32 and rng.random() < 0.7:
            # whoever knows a public key can make mac1
            key = cookie.mac1_key(bytes(rng.choice(self.nodes).public))
            data[-32:-16] = cookie.mac(key, bytes(data[:-32]))
        return bytes(data)

    def attack(self, link: Link, datagram: bytes) -> None:
        if datagram[0] == 0x10:
            return  # the stand-in for DATA shows the secrets, which an attacker does not have
        for _ in range(4):
            source = self.rng.choice([A, B, C, D])
            target = self.rng.choice(self.nodes).where
            link.inject(source, target, self.mutate(datagram), delay=self.rng.random() * 0.05)


CONFIGS = (Config(), Config(cookie_threshold=0), Config(preshared_key=b"k" * 32))


@pytest.mark.parametrize("config", CONFIGS, ids=["plain", "cookies", "psk"])
@slow
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_altered_copies_of_genuine_packets_neither_harm_nor_connect_the_wrong_party(
    config: Config, seed: int, crossing: bool, two_versions: bool
) -> None:
    versions = (1, 2) if two_versions else (1,)
    a = Node(A, 1, config, key=KEYS[0], versions=versions)
    b = Node(B, 2, config, key=KEYS[1])
    bystander = Node(D, 3, config, key=KEYS[2])
    link = Link(a, b, bystander, seed=seed)
    attacker = Attacker(seed, [a, b, bystander])

    def listen(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        attacker.attack(link, datagram)
        return [datagram]

    link.tamper = listen
    link.connect(a, b)
    if crossing:
        link.connect(b, a)
    link.run(30)
    assert a.failed == b.failed == []
    assert 1 in [e.attempt for e in a.up]
    if crossing:
        assert 1 in [e.attempt for e in b.up]
    for one in a.up:
        assert one.peer_key == b.public
        assert sum(agree(one, other) for other in b.up) == 1
    assert len(a.up) == len(b.up) <= 1 + crossing
    assert bystander.up == []
    assert bystander.stat("half_open") == 0
    link.run(60)
    for node in (a, b, bystander):
        stats = node.desk.stats()
        assert stats["half_open"] == stats["attempts"] == 0
        assert node.desk.next_timeout() is None


@slow
@given(st.integers(0, 2**32))
def test_a_replayed_conversation_connects_nobody(seed: int) -> None:
    rng = Random(seed)
    a, b = Node(A, 1, key=KEYS[0]), Node(B, 2, key=KEYS[1])
    link = Link(a, b)
    link.connect(a, b)
    link.run()
    recorded = [(target, datagram) for _, _, target, datagram in link.sent]
    # both restart with the same keys, and somebody plays everything back
    a2, b2 = Node(A, 7, key=KEYS[0]), Node(B, 8, key=KEYS[1])
    again = Link(a2, b2)
    for target, datagram in recorded * 2:
        again.inject(C, target, datagram, delay=rng.random())
    again.run()
    assert a2.up == b2.up == []
    again.connect(a2, b2)
    again.run()
    assert agree(a2.up[0], b2.up[0])


def test_a_flood_with_forged_addresses_leaves_room_for_an_honest_peer() -> None:
    config = Config(max_half_open=16, cookie_threshold=10_000)
    b = Node(B, 2, config)
    honest = Node(A, 1)
    link = Link(honest, b)
    flooder = Node(C, 3)
    for number in range(200):
        flooder.desk.connect(B, b.public, 0.0, 5.0)
        datagram = flooder.desk.outgoing.popleft()[1]
        link.inject(address(number % 250, 1000 + number), B, datagram, delay=number / 1000)
    link.run(0.1)
    link.connect(honest, b)
    link.run(2.0)
    assert agree(honest.up[0], b.up[0])
    assert b.stat("half_open") <= 16
    assert b.stat("cookies_sent") > 100


def test_the_desk_does_not_keep_what_it_is_given() -> None:
    """`receive` takes bytes of a slot that is overwritten at once; so a memoryview is fine too."""
    a, b = Node(A, 1), Node(B, 2)
    a.desk.connect(B, b.public, 0.0, 5.0)
    buffer = bytearray(a.desk.outgoing.popleft()[1])
    b.desk.receive(memoryview(buffer), A + ANY, 0.0)  # type: ignore[arg-type]
    buffer[:] = bytes(len(buffer))
    answer = bytearray(b.desk.outgoing.popleft()[1])
    a.desk.receive(memoryview(answer), B + ANY, 0.02)  # type: ignore[arg-type]
    answer[:] = bytes(len(answer))
    assert isinstance(a.desk, HandshakeDesk)
    established = a.desk.results.popleft()
    half_open = b.desk.half_open(established.remote_cid)  # type: ignore[union-attr]
    assert half_open is not None
    assert agree(established, half_open)  # type: ignore[arg-type]
