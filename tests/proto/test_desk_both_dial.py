"""What two desks promise that dial each other: one connection, and both attempts are it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handshake_link import ANY, Link, Node, address, agree, pair

from burstwire.errors import HandshakeRefused
from burstwire.proto.negotiation import Refusal
from burstwire.wire.header import COOKIE, INITIATE, RESPOND
from burstwire.wire.packets import Respond

A, B, C = address(1), address(2), address(3)


def both_dial(seed: int = 1, gap: float = 0.0, tamper: Callable[[Link], None] | None = None) -> tuple[Link, Node, Node]:
    """The first node returned has the lower public key."""
    link, a, b = pair(seed=seed)
    if bytes(a.public) > bytes(b.public):
        a, b = b, a
    if tamper:
        tamper(link)
    link.connect(b, a)
    link.run(gap)
    link.connect(a, b)
    return link, a, b


@pytest.mark.parametrize("gap", [0.0, 0.005])
@pytest.mark.parametrize("seed", range(4))
def test_when_both_dial_one_connection_results_and_both_attempts_are_it(seed: int, gap: float) -> None:
    link, low, high = both_dial(seed, gap)
    link.run(5)
    (one,), (other,) = low.up, high.up
    assert agree(one, other)
    assert one.is_initiator
    assert (one.attempt, other.attempt) == (1, 1)
    assert low.stat("attempts") == high.stat("attempts") == 0
    link.run(60)
    assert low.failed == high.failed == []
    assert low.stat("half_open") == high.stat("half_open") == 0


@pytest.mark.parametrize("seed", range(25))
def test_when_both_dial_on_a_bad_link_both_attempts_still_succeed(seed: int) -> None:
    def spoil(link: Link) -> None:
        link.loss, link.duplication, link.jitter = 0.3, 0.3, 0.4

    link, low, high = both_dial(seed, 0.05, spoil)
    link.run(120)
    assert low.failed == high.failed == []
    assert [e.attempt for e in low.up].count(1) == 1
    assert [e.attempt for e in high.up].count(1) == 1
    for one in low.up:
        assert any(agree(one, other) for other in high.up)


def test_a_late_copy_of_the_attempt_that_gave_way_is_known() -> None:
    def lose_the_higher(link: Link) -> None:
        higher = max(link.nodes, key=lambda where: bytes(link.nodes[where].public))
        link.tamper = lambda s, t, d: [] if d[0] == INITIATE and s == higher else [d]

    link, low, high = both_dial(tamper=lose_the_higher)
    link.run(5)
    assert low.stat("initiates_received") == 0
    link.inject(high.where, low.where, link.datagrams(INITIATE, high)[0])
    link.run(1)
    assert low.stat("initiates_superseded") == 1
    assert low.stat("half_open") == 0


def test_a_replayed_initiate_does_not_make_an_attempt_fail() -> None:
    link, low, high = both_dial()
    link.run()
    old = link.datagrams(INITIATE, low)[0]
    high2 = Node(B, 4321, key=high.key)  # restarted: it knows nothing of the old connection
    low2 = Node(A, 1234, key=low.key)
    link2 = Link(low2, high2)
    number = high2.desk.connect(A, low2.public, 0.0, 10.0)
    high2.desk.receive(old, A + ANY, 0.0)
    high2.desk.outgoing.popleft()  # its INITIATE is lost, so that the pause matters
    link2.run()
    assert [e.attempt for e in high2.up] == [number]
    assert high2.up[0].is_initiator
    assert agree(high2.up[0], low2.up[0])


def test_the_lower_key_reaches_a_peer_whose_address_it_has_wrong() -> None:
    link, a, b = pair()
    low, high = (a, b) if bytes(a.public) < bytes(b.public) else (b, a)
    low.desk.connect(C, high.public, 0.0, 10.0)  # nobody is there
    link.connect(high, low)
    link.run(20)
    assert agree(low.up[0], high.up[0])
    assert low.up[0].path[:24] == high.where
    assert len(low.up) == len(high.up) == 1
    assert (low.up[0].attempt, high.up[0].attempt) == (1, 1)


def test_two_dials_on_each_side_become_two_connections() -> None:
    link, a, b = pair()
    low, high = (a, b) if bytes(a.public) < bytes(b.public) else (b, a)
    for _ in range(2):
        link.connect(low, high)
        link.connect(high, low)
    link.run()
    assert sorted(e.attempt or 0 for e in low.up) == [1, 2]
    assert sorted(e.attempt or 0 for e in high.up) == [1, 2]


def test_a_dialling_peer_that_may_not_connect_to_us_may_still_be_dialled() -> None:
    link, a, b = pair()
    low, high = (a, b) if bytes(a.public) < bytes(b.public) else (b, a)
    high.desk._answers._admit = lambda key, where: (Refusal.AUTHORIZATION, "no")
    link.connect(low, high)
    link.connect(high, low)
    link.run()
    assert isinstance(low.failed[0].error, HandshakeRefused)
    assert [e.attempt for e in high.up] == [1]
    assert [e.attempt for e in low.up] == [None]


def test_each_address_gets_a_respond_of_its_own_however_an_initiate_is_repeated() -> None:
    """Who may read it at one address could otherwise claim another one, and have data sent there unproven."""
    a, b = Node(address(1), 1), Node(address(2), 2)
    a.desk.connect(b.where, b.public, 0.0, 10.0)
    _, initiate = a.desk.outgoing.popleft()
    victim, attacker = address(66), address(77)
    b.desk.receive(initiate, victim + ANY, 0.0)
    b.desk.receive(initiate, attacker + ANY, 0.1)
    b.desk.receive(initiate, victim + ANY, 0.2)
    assert [path[:24] for path, _ in b.desk.outgoing] == [victim, attacker, victim]
    assert [datagram[0] for _, datagram in b.desk.outgoing] == [RESPOND, COOKIE, RESPOND]
    (_, first), (_, asked), (_, third) = b.desk.outgoing
    assert first == third
    b.desk.outgoing.clear()
    a.desk.receive(asked, b.where + ANY, 0.3)
    _, proven = a.desk.outgoing.popleft()
    b.desk.receive(proven, attacker + ANY, 0.4)
    ((path, second),) = b.desk.outgoing
    assert path[:24] == attacker
    at_victim, at_attacker = (b.desk.half_open(Respond.parse(datagram).src_cid) for datagram in (first, second))
    assert at_victim is not None
    assert at_attacker is not None
    assert (at_victim.path[:24], at_attacker.path[:24]) == (victim, attacker)
    assert at_victim.receive_secret != at_attacker.receive_secret


def test_a_copy_of_an_initiate_that_overtakes_it_does_not_stop_the_handshake() -> None:
    link, a, b = pair()

    def overtake(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] == INITIATE:
            link.inject(C, B, datagram, delay=0.001)
        return [datagram]

    link.tamper = overtake
    link.connect(a, b)
    link.run(1.0)
    assert agree(a.up[0], b.up[0])
    assert b.up[0].path[:24] == A
    before, half_open = b.stat("initiates_replayed"), b.stat("half_open")
    link.inject(address(99), B, link.datagrams(INITIATE)[0])
    link.run(1.0)
    assert b.stat("initiates_replayed") == before + 1
    assert b.stat("half_open") == half_open


def test_who_gave_way_keeps_quiet_for_a_while_and_then_goes_on() -> None:
    link, low, high = both_dial()
    link.tamper = lambda s, t, d: [] if d[0] in (RESPOND, 0x10) else [d]
    link.run(0.99)
    assert len(link.datagrams(INITIATE, high)) == 1
    assert len(link.datagrams(INITIATE, low)) > 1
    link.run(1.0)
    assert len(link.datagrams(INITIATE, high)) > 1


def test_replays_keep_an_attempt_quiet_once_only() -> None:
    _, low, high = both_dial()
    low2, high2 = Node(A, 1234, key=low.key), Node(B, 4321, key=high.key)
    link2 = Link(high2)
    high2.desk.connect(A, low2.public, 0.0, 10.0)
    for number in range(8):  # INITIATEs of earlier days, a new one every 0.5 s
        low2.desk.connect(B, high2.public, 0.0, 10.0)
        link2.inject(A, B, low2.desk.outgoing.popleft()[1], delay=number / 2)
    link2.run(4.0)
    assert high2.stat("responds_sent") == 8
    assert len(link2.datagrams(INITIATE)) >= 3


def test_the_peers_initiate_makes_us_resend_ours_at_once() -> None:
    """Ours was stopped by the peer's NAT, which the peer's own has opened since."""
    link, a, b = pair()
    low, high = (a, b) if bytes(a.public) < bytes(b.public) else (b, a)
    link.tamper = lambda s, t, d: [] if s == low.where and link.now == 0 else [d]
    link.connect(low, high)
    link.run(0.05)
    link.connect(high, low)
    link.run(0.1)
    assert agree(low.up[0], high.up[0])
    assert low.up[0].is_initiator


def test_when_both_dial_and_one_is_seen_under_another_address_there_is_still_one_connection() -> None:
    link, a, b = pair()
    low, high = (a, b) if bytes(a.public) < bytes(b.public) else (b, a)
    link.nodes[C] = high

    def two_addresses(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if source == high.where and datagram[0] == INITIATE:
            link.inject(C, target, datagram, delay=0.01)
            return []
        return [datagram]

    link.tamper = two_addresses
    link.connect(low, high)
    link.connect(high, low)
    link.run(0.2)
    assert len(low.up) == len(high.up) == 1
    assert agree(low.up[0], high.up[0])
    assert (low.up[0].attempt, high.up[0].attempt) == (1, 1)
    link.run()
    assert len(low.up) == len(high.up) == 1
