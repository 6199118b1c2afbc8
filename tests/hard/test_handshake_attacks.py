"""Attacks on the handshake, each with its measured outcome: what strangers hear, and what they make a node do."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from statistics import median

import pytest
from proto.handshake_link import ANY, Link, Node, address, agree

import burstwire as bw
from burstwire.core import BufferRing, RunTable
from burstwire.crypto import cookie, noise
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.handshake_context import MAX_OUTGOING
from burstwire.wire.header import COOKIE, DATA, INITIATE, RESPOND, VERSIONS
from burstwire.wire.packets import initiate_header

Outcome = Callable[[str, str, str], None]

B = address(2)

LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)
"""X25519 points whose multiples are all zero (RFC 7748 §6.1, and their other encodings)."""


@pytest.fixture
def multiplications(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """As long as X25519 operations were done."""
    done: list[None] = []
    exchange = noise._exchange

    def counted(*arguments: object) -> bytes:
        done.append(None)
        return exchange(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(noise, "_exchange", counted)
    return done


def source(number: int) -> bytes:
    """An IPv4 address of its own for each number."""
    return bytes([4, 0]) + (1000 + number % 50_000).to_bytes(2) + bytes(4) + number.to_bytes(4) + bytes(12)


def bogus(public: bw.PublicKey, rng: Random, *, version: int = 1, suite: int = 0, ephemeral: bytes = b"") -> bytes:
    """An INITIATE with a good mac1 and nonsense inside."""
    body = initiate_header(version, rng.getrandbits(32), suite) + ephemeral
    body += rng.randbytes(1200 - 32 - len(body))
    return body + cookie.mac(cookie.mac1_key(bytes(public)), body) + bytes(16)


def genuine(node: Node, target: Node) -> bytes:
    """The INITIATE of a node that dials."""
    node.desk.connect(target.where, target.public, 0.0, 5.0)
    return node.desk.outgoing.popleft()[1]


def strangers(rng: Random, count: int) -> Iterator[bytes]:
    """What somebody can send who does not know the public key."""
    for _ in range(count):
        kind = rng.choice((INITIATE, INITIATE, RESPOND, COOKIE, VERSIONS, 0x07, 0x40, 0xFF))
        size = rng.choice((1, 5, 21, 53, 100, 1199, 1200, 1201, 1452))
        header = initiate_header(rng.choice((1, 2, rng.getrandbits(32))), rng.getrandbits(32), rng.choice((0, 1, 9)))
        datagram = (bytes([kind]) + header[1:] + rng.randbytes(size))[:size]
        yield datagram[:-16] + bytes(16) if size > 1000 and rng.random() < 0.5 else datagram


def test_who_does_not_know_the_public_key_hears_nothing(full: bool, outcome: Outcome) -> None:
    node, rng = Node(B, 2), Random(1)
    count = 200_000 if full else 5_000
    for number, datagram in enumerate(strangers(rng, count)):
        node.desk.receive(datagram, source(number) + ANY, number / 100_000)
    stats = node.desk.stats()
    outcome(
        "attacks",
        "handshake packets without the public key: silence (mac1)",
        f"{count:,} datagrams, {stats['initiates_bad_mac1']:,} of them INITIATEs: {len(node.desk.outgoing)} answers, "
        f"{stats['half_open']} entries",
    )
    assert not node.desk.outgoing
    assert stats["initiates_bad_mac1"] > count / 100
    assert stats["half_open"] == stats["attempts"] == 0


@pytest.mark.parametrize("threshold", [10, 200])
def test_above_the_threshold_of_the_configuration_an_address_must_be_proven(threshold: int, outcome: Outcome) -> None:
    node = Node(B, 2, bw.Config(cookie_threshold=threshold))
    peers = [Node(source(n), 100 + n) for n in range(100)]
    for peer in peers:
        node.desk.receive(genuine(peer, node), peer.where + ANY, 0.0)
    stats = node.desk.stats()
    outcome(
        "attacks",
        f"100 peers at once with cookie_threshold={threshold}",
        f"{stats['responds_sent']} answered, {stats['cookies_sent']} asked to prove their address first",
    )
    assert stats["responds_sent"] == min(threshold // 4, 50)
    assert stats["responds_sent"] + stats["cookies_sent"] == 100 - stats["initiates_limited"]
    assert stats["cookies_sent"] >= 50


def test_one_source_has_a_rate_even_with_proof(outcome: Outcome) -> None:
    node, peer = Node(B, 2, bw.Config(cookie_threshold=0)), Node(address(1), 1)
    link = Link(node, peer)
    for _ in range(200):
        link.connect(peer, node, timeout=5)
    link.run(1.0)
    stats = node.desk.stats()
    outcome("attacks", "200 handshakes of one source at once", f"{stats['responds_sent']} answered in the first second")
    assert 1 <= stats["responds_sent"] <= 30
    assert stats["initiates_limited"] > 0


def test_an_unproven_address_gets_less_than_it_sent_in_every_state(outcome: Outcome) -> None:
    """RESPOND as long as it can be, its repeats, COOKIE, VERSIONS, refusals, and RESET to DATA of every size."""
    ratios: dict[str, float] = {}
    long = bw.Config(application_protocol="x" * 255)

    def measure(what: str, node: Node, datagram: bytes, times: int = 1) -> None:
        for number in range(times):
            node.desk.receive(datagram, source(7) + ANY, number * 0.3)
        sent = sum(len(answer) for _, answer in node.desk.outgoing)
        assert sent > 0
        ratios[what] = sent / (times * len(datagram))

    def node(config: bw.Config = long, *, admit: tuple[int, str] | None = None) -> Node:
        return Node(B, 2, config, admit=lambda key, where: admit)

    peer = Node(address(1), 1, long)
    measure("RESPOND", target := node(), genuine(peer, target))
    measure("RESPOND, 20 times", target := node(), genuine(peer, target), 20)
    measure("COOKIE", target := node(long.replace(cookie_threshold=0)), genuine(peer, target))
    measure("VERSIONS", target := node(), bogus(target.public, Random(1), version=9))
    measure("refusal", target := node(admit=(4, "no" * 128)), genuine(peer, target))
    ratios["RESET"] = max(_reset_ratio(size) for size in (22, 29, 100, 1200))
    worst = max(ratios, key=lambda name: ratios[name])
    listed = ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())
    outcome(
        "attacks",
        "amplification towards an unproven address",
        f"at most {ratios[worst]:.2f} bytes for a byte ({listed})",
    )
    assert ratios[worst] < 1.0


def _reset_ratio(size: int) -> float:
    """Bytes sent for a byte of DATA with an unknown connection ID."""
    endpoint = Endpoint(bw.KeyPair(bytes(range(32))), bw.Config(), now=0.0, random=Random(1).randbytes)
    ring, table = BufferRing(1), RunTable()
    slot = ring.lease()
    ring.views[slot][:size] = bytes([DATA]) + bytes(size - 1)
    table.parse(ring, slot, size, 0, source(1) + ANY, 0)
    endpoint.receive(ring, table, 0.0)
    table.release(ring)
    sent = sum(len(packet) for _, packet in endpoint._resets)
    endpoint.destroy()
    ring.close()
    return sent / size


def test_the_table_of_half_open_handshakes_is_bounded_and_the_unproven_and_old_go_first(
    full: bool, outcome: Outcome
) -> None:
    count = 5_000 if full else 300
    config = bw.Config(max_half_open=64, cookie_threshold=1 << 20)
    node, honest = Node(B, 2, config), Node(address(1), 1)
    proven_config = config.replace(cookie_threshold=0)
    asked = Node(B, 2, proven_config, key=node.key)
    honest.desk.connect(B, node.public, 0.0, 20.0)
    asked.desk.receive(honest.desk.outgoing.popleft()[1], honest.where + ANY, 0.0)
    honest.desk.receive(asked.desk.outgoing.popleft()[1], B + ANY, 0.0)
    asked.desk.receive(proven := honest.desk.outgoing.popleft()[1], honest.where + ANY, 0.0)
    assert asked.stat("half_open") == 1
    flooder = Node(address(3), 3, bw.Config(max_connections=1 << 20))
    most = 0
    for number in range(count):
        asked.desk.receive(genuine(flooder, asked), source(number) + ANY, number / 1000)
        node.desk.receive(genuine(flooder, node), source(number) + ANY, number / 1000)
        most = max(most, node.stat("half_open"), asked.stat("half_open"))
    asked.desk.receive(proven, honest.where + ANY, 0.2 + count / 1000)
    outcome(
        "attacks",
        f"{count:,} half-open handshakes from as many addresses, max_half_open=64",
        f"at most {most} entries; an entry with a proven address stayed",
    )
    assert most <= 64
    assert asked.stat("responds_repeated") == 1 or count / 1000 > config.handshake_timeout / 2


def test_a_replayed_initiate_costs_one_handshake_and_makes_no_connection(
    multiplications: list[None], full: bool, outcome: Outcome
) -> None:
    count = 100_000 if full else 3_000
    peer, node = Node(address(1), 1), Node(B, 2)
    datagram = genuine(peer, node)
    multiplications.clear()
    for number in range(count):
        where = source(number) if number % 2 else peer.where
        node.desk.receive(datagram, where + ANY, number / 50_000)
        node.desk.outgoing.clear()
    outcome(
        "attacks",
        f"a genuine INITIATE, {count:,} times from one address and from many",
        f"{len(multiplications)} X25519, {node.stat('half_open')} half-open entry, {len(node.up)} connections",
    )
    assert len(multiplications) == 4
    assert node.stat("half_open") == 1
    assert not node.up


def test_low_order_and_malformed_keys_are_met_with_silence(multiplications: list[None], outcome: Outcome) -> None:
    node, rng = Node(B, 2), Random(3)
    tried = 0
    for point in LOW_ORDER:
        for high_bit in (0, 0x80):
            ephemeral = point[:31] + bytes([point[31] | high_bit])
            node.desk.receive(bogus(node.public, rng, ephemeral=ephemeral), source(tried) + ANY, float(tried))
            tried += 1
        with pytest.raises(bw.TransportError):
            bw.PublicKey(point)
    for cut in (1, 32, 1199):
        node.desk.receive(bogus(node.public, rng)[:cut], source(cut) + ANY, 100.0)
    outcome(
        "attacks",
        f"{tried} encodings of low-order points as ephemeral key, and cut INITIATEs",
        f"{len(node.desk.outgoing)} answers, {node.stat('half_open')} entries",
    )
    assert not node.desk.outgoing
    assert node.stat("initiates_invalid") == tried
    assert node.stat("malformed") == 3
    assert node.stat("half_open") == 0


def test_nothing_tells_why_an_initiate_was_not_answered(full: bool, outcome: Outcome) -> None:
    """The same silence for a wrong mac1, wrong contents, another suite and a wrong size; times are only told."""
    times: dict[str, float] = {}
    rng = Random(4)
    for what in ("mac1", "contents", "suite", "size"):
        node = Node(B, 2, bw.Config(cookie_threshold=1 << 20))
        taken = []
        for number in range(2000 if full else 50):
            datagram = bogus(node.public, rng, suite=1 if what == "suite" else 0)
            if what == "mac1":
                datagram = datagram[:-32] + rng.randbytes(16) + bytes(16)
            elif what == "size":
                datagram = datagram[:1199]
            started = time.perf_counter()
            node.desk.receive(datagram, source(number) + ANY, float(number))
            taken.append(time.perf_counter() - started)
        assert not node.desk.outgoing
        times[what] = median(taken)
    outcome(
        "attacks",
        "INITIATEs that are wrong in different ways",
        f"all met with silence; work behind it: {', '.join(f'{k} {v * 1e6:.0f} µs' for k, v in times.items())}",
    )


def test_authorize_and_allow_decide_before_the_application_sees_anything(outcome: Outcome) -> None:
    member, outsider, node = (bw.KeyPair.generate() for _ in range(3))
    asked: list[bw.PublicKey] = []

    def authorize(key: bw.PublicKey, address: tuple[str, int]) -> bool:
        asked.append(key)
        return True

    async def attempt() -> tuple[int, int]:
        config = bw.Config(allow=frozenset({member.public}), authorize=authorize)
        async with (
            await bw.bind("127.0.0.1:0", node, config=config) as endpoint,
            await bw.bind("127.0.0.1:0", outsider) as stranger,
            await bw.bind("127.0.0.1:0", member) as friend,
        ):
            with pytest.raises(bw.HandshakeRefused, match="not allowed"):
                await stranger.connect(endpoint.local_address, node.public)
            before = len(endpoint._driver.protocol.connections)
            connection = await friend.connect(endpoint.local_address, node.public)
            accepted = await anext(endpoint.incoming())
            assert accepted.peer_key == member.public
            await connection.close()
            return before, endpoint.stats()["refused"]

    before, refused = asyncio.run(attempt())
    outcome("attacks", "a key that is not in Config.allow", f"{refused} refused, {before} connections made for it")
    assert (before, refused) == (0, 1)
    assert asked == [member.public]


def test_an_allow_list_of_anything_but_keys_is_refused_and_a_good_one_is_a_copy() -> None:
    key = bw.KeyPair.generate().public
    for wrong in ([key, str(key)], [bytes(key)], 5, "abc"):
        with pytest.raises(bw.ConfigError, match="allow"):
            bw.Config(allow=wrong)  # type: ignore[arg-type]
    members = [key]
    config = bw.Config(allow=members)
    members.clear()
    assert config.allow is not None
    assert key in config.allow
    assert bw.Config(allow=()).allow == frozenset()


def test_a_pre_shared_key_closes_the_network(multiplications: list[None], outcome: Outcome) -> None:
    node = Node(B, 2, bw.Config(preshared_key=b"k" * 32))
    outsiders = Node(address(1), 1), Node(address(3), 3, bw.Config(preshared_key=b"x" * 32))
    member = Node(address(4), 4, bw.Config(preshared_key=b"k" * 32))
    link = Link(node, member, *outsiders)
    for outsider in outsiders:
        link.connect(outsider, node, timeout=3)
    link.run(5)
    answered = [len(link.datagrams(kind, node)) for kind in (RESPOND, COOKIE, VERSIONS)]
    link.connect(member, node)
    link.run(5)
    outcome(
        "attacks",
        "outsiders of a network with a pre-shared key, one without any and one with another",
        f"{len(node.up)} connection, the member's; {sum(answered)} answers to outsiders, none of which they can open",
    )
    assert all(len(outsider.failed) == 1 and not outsider.up for outsider in outsiders)
    assert len(node.up) == 1
    assert agree(member.up[0], node.up[0])


def test_a_hundred_thousand_bogus_initials_a_second_leave_state_under_a_cap(full: bool, outcome: Outcome) -> None:
    """In virtual time, one second of them: forged, with false proofs, from strangers, of unknown types."""
    count = 100_000 if full else 5_000
    node, rng = Node(B, 2), Random(5)
    ready = [bogus(node.public, rng) for _ in range(500)]
    ready += [datagram[:-16] + rng.randbytes(16) for datagram in ready[:250]]
    ready += list(strangers(rng, 250))
    for warm in range(300):  # tables that are made when first needed
        node.desk.receive(ready[warm % 500], source(warm) + ANY, -1.0)
    node.desk.outgoing.clear()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    taken = sent = 0
    for number in range(count):
        datagram = ready[number % len(ready)]
        taken += len(datagram)
        node.desk.receive(datagram, source(number) + ANY, number / 100_000)
        if number % 100 == 0:
            sent += sum(len(answer) for _, answer in node.desk.outgoing)
            assert len(node.desk.outgoing) <= MAX_OUTGOING
            node.desk.outgoing.clear()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stats = node.desk.stats()
    outcome(
        "demands",
        f"9, {count:,} bogus initials at 100,000 a second",
        f"{stats['half_open']} half-open entries; {(after - before) / 1024:.0f} KiB more memory, at most "
        f"{(peak - before) / 1024:.0f} KiB; {sent / taken:.4f} bytes sent for a byte; {stats['malformed']:,} of "
        "unknown type or size dropped",
    )
    assert stats["half_open"] == 0
    assert peak - before < 4 << 20
    assert sent <= 3 * taken
    assert stats["malformed"] > 0
