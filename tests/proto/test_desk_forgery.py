"""What a desk promises where packets are forged or altered, versions among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from handshake_link import ANY, Link, Node, address, agree, pair

from burstwire.errors import HandshakeError, HandshakeTimeout, VersionMismatch
from burstwire.wire.header import INITIATE, RESPOND, VERSIONS
from burstwire.wire.packets import Initiate, Respond, Versions

A, B, C = address(1), address(2), address(3)


# --- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"),
    [((1, 2), (1,), 1), ((1,), (1, 2), 1), ((1, 2), (1, 2), 2), ((1, 2, 3), (2, 1), 2), ((3, 2), (1, 2), 2)],
)
def test_neighbouring_versions_find_the_best_common_one(
    ours: tuple[int, ...], theirs: tuple[int, ...], spoken: int
) -> None:
    a, b = Node(A, 1, versions=ours), Node(B, 2, versions=theirs)
    link = Link(a, b)
    link.connect(a, b)
    link.run()
    assert agree(a.up[0], b.up[0])
    assert int.from_bytes(link.datagrams(INITIATE)[-1][1:5]) == spoken


def test_no_version_in_common_is_an_error_that_names_both_sides_versions() -> None:
    a, b = Node(A, 1, versions=(1,)), Node(B, 2, versions=(2, 3))
    link = Link(a, b)
    link.connect(a, b)
    link.run(1)
    error = a.failed[0].error
    assert isinstance(error, VersionMismatch)
    assert error.peer_versions == (2, 3)
    for word in ("0x1", "0x2", "0x3", "10.0.0.2:4433"):
        assert word in str(error)
    assert all(len(d) <= 1200 for d in link.datagrams(VERSIONS))
    assert b.stat("half_open") == 0


def test_each_version_is_offered_with_a_fresh_ephemeral_key() -> None:
    a, b = Node(A, 1, versions=(1, 2)), Node(B, 2)
    link = Link(a, b)
    link.connect(a, b)
    link.run()
    first, second = (Initiate.parse(d) for d in link.datagrams(INITIATE))
    assert first.ephemeral != second.ephemeral


@pytest.mark.parametrize("flaw", ["echo", "offered version listed", "cid", "after the answer"])
def test_versions_that_do_not_answer_our_initiate_are_ignored(flaw: str) -> None:
    link, a, b = pair()
    link.connect(a, b)
    sent = Initiate.parse(link.datagrams(INITIATE)[0])
    forged = Versions(sent.src_cid, sent.ephemeral[:16], (7,))
    if flaw == "echo":
        forged = replace(forged, echo=bytes(16))
    elif flaw == "offered version listed":
        forged = replace(forged, versions=(7, 1))
    elif flaw == "cid":
        forged = replace(forged, dst_cid=sent.src_cid ^ 1)
    else:
        link.run(0.1)
    link.inject(B, A, forged.encode())
    link.run()
    assert a.stat("versions_ignored") == 1
    assert a.failed == []
    assert agree(a.up[0], b.up[0])


def test_a_downgrade_by_a_forged_versions_packet_is_noticed() -> None:
    a, b = Node(A, 1, versions=(1, 2)), Node(B, 2, versions=(1, 2))
    link = Link(a, b)

    def downgrade(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] == INITIATE and int.from_bytes(datagram[1:5]) == 2:
            packet = Initiate.parse(datagram)
            link.inject(B, A, Versions(packet.src_cid, packet.ephemeral[:16], (1,)).encode(), delay=0.01)
            return []
        return [datagram]

    link.tamper = downgrade
    link.connect(a, b)
    link.run()
    assert a.up == b.up == []
    error = a.failed[0].error
    assert isinstance(error, HandshakeError)
    assert not isinstance(error, HandshakeTimeout)


@pytest.mark.parametrize("listed", [(9,), (1,), (1, 9)])
def test_forged_versions_of_somebody_who_sees_our_packets_do_not_end_an_attempt(listed: tuple[int, ...]) -> None:
    a, b = Node(A, 1, versions=(1, 2)), Node(B, 2, versions=(1, 2))
    link = Link(a, b)

    def overtake(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] == INITIATE:
            packet = Initiate.parse(datagram)
            link.inject(B, A, Versions(packet.src_cid, packet.ephemeral[:16], listed).encode(), delay=0.001)
        return [datagram]

    link.tamper = overtake
    link.connect(a, b)
    link.run()
    assert a.stat("versions_received") > 0
    assert a.failed == []
    assert agree(a.up[0], b.up[0])


def test_a_genuine_versions_packet_counts_after_a_forged_one() -> None:
    a, b = Node(A, 1, versions=(1, 2)), Node(B, 2)
    link = Link(a, b)
    link.connect(a, b)
    packet = Initiate.parse(link.datagrams(INITIATE)[0])
    link.inject(B, A, Versions(packet.src_cid, packet.ephemeral[:16], (9,)).encode())
    link.run()
    assert a.failed == []
    assert agree(a.up[0], b.up[0])


def test_a_forged_versions_packet_has_no_effect_after_a_genuine_one() -> None:
    a, b = Node(A, 1, versions=(1, 2)), Node(B, 2)
    link = Link(a, b)
    link.connect(a, b)
    packet = Initiate.parse(link.datagrams(INITIATE)[0])
    link.inject(B, A, Versions(packet.src_cid, packet.ephemeral[:16], (9,)).encode())
    link.tamper = lambda s, t, d: [] if d[0] == RESPOND and link.now < 2.0 else [d]
    link.run()
    assert a.failed == []
    assert agree(a.up[0], b.up[0])


def test_versions_are_sent_only_to_those_who_know_our_key_and_not_without_end() -> None:
    link, a, b = pair()
    link.connect(a, b)
    datagram = bytearray(link.datagrams(INITIATE)[0])
    datagram[1:5] = (99).to_bytes(4)
    b.desk.receive(bytes(datagram), A + ANY, 0.0)
    assert b.stat("initiates_bad_mac1") == 1
    assert len(b.desk.outgoing) == 0
    old = Node(C, 3, versions=(99,))
    old.desk.connect(B, b.public, 0.0, 5.0)
    unknown = old.desk.outgoing[0][1]
    for _ in range(1000):
        b.desk.receive(unknown, C + ANY, 0.0)
    assert 0 < b.stat("versions_sent") <= 100
    assert {d[0] for _, d in b.desk.outgoing} == {VERSIONS}


# --- forgery ------------------------------------------------------------------------------------


def test_a_forged_respond_changes_nothing() -> None:
    link, a, b = pair()
    link.connect(a, b)
    cid = Initiate.parse(link.datagrams(INITIATE)[0]).src_cid
    for i in range(5):
        link.inject(B, A, Respond(cid, 7, bytes([i]) * 300).encode())
    link.run()
    assert a.stat("responds_invalid") == 5
    assert agree(a.up[0], b.up[0])


@pytest.mark.parametrize("position", [5, 8, 9, 40, 60, -1])
def test_an_altered_respond_is_dropped_and_the_genuine_one_still_counts(position: int) -> None:
    link, a, b = pair()

    def alter(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] != RESPOND:
            return [datagram]
        changed = bytearray(datagram)
        changed[position] ^= 1
        return [bytes(changed), datagram]

    link.tamper = alter
    link.connect(a, b)
    link.run()
    assert a.stat("responds_invalid") == 1
    assert agree(a.up[0], b.up[0])


@pytest.mark.parametrize("position", [1, 5, 9, 10, 50, 100, 1000, -17])
def test_an_altered_initiate_gets_no_answer(position: int) -> None:
    link, a, b = pair()
    link.connect(a, b)
    changed = bytearray(link.datagrams(INITIATE)[0])
    changed[position] ^= 1
    b.desk.receive(bytes(changed), A + ANY, 0.0)
    assert b.stat("initiates_bad_mac1") == 1
    assert not b.desk.outgoing


def test_a_respond_copied_from_elsewhere_does_not_move_the_path() -> None:
    link, a, b = pair()

    def race(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] == RESPOND:
            link.inject(C, A, datagram)
        return [datagram]

    link.tamper = race
    link.connect(a, b)
    link.run()
    assert a.up[0].path == B + ANY
