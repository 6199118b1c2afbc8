"""What a desk promises under load: proofs of addresses, rates, bounded tables."""

from __future__ import annotations

import pytest
from handshake_link import ANY, Link, Node, address, agree, cookies_always, pair

from burstwire.config import Config
from burstwire.proto import attempts as attempts_module
from burstwire.proto import handshake_context
from burstwire.proto.answers import LAST_BURST, LAST_REPEATS
from burstwire.wire.header import COOKIE, INITIATE, RESPOND
from burstwire.wire.packets import Cookie, Initiate

A, B, C = address(1), address(2), address(3)


def test_under_load_an_address_is_proven_with_one_more_round_trip() -> None:
    link, a, b = pair(config_b=cookies_always())
    link.connect(a, b)
    link.run(stop=lambda: bool(b.up))
    assert [d[0] for _, _, _, d in link.sent][:4] == [INITIATE, COOKIE, INITIATE, RESPOND]
    first, second = link.datagrams(INITIATE)
    assert first[:-16] == second[:-16]
    assert second[-16:] != bytes(16) == first[-16:]
    assert agree(a.up[0], b.up[0])
    assert a.up[0].handshake_rtt == pytest.approx(0.02)
    assert b.stat("cookies_sent") == 1
    assert len(link.datagrams(COOKIE)[0]) == 53


def test_a_cookie_does_not_serve_another_address() -> None:
    link, a, b = pair(config_b=cookies_always())
    link.tamper = lambda s, t, d: [] if d[0] == RESPOND else [d]
    link.connect(a, b)
    link.run(0.1)
    proven = link.datagrams(INITIATE)[1]
    fresh_b = Node(B, 2000, cookies_always(), key=b.key)
    fresh_b.desk.receive(proven, C + ANY, 0.1)
    assert [d[0] for _, d in fresh_b.desk.outgoing] == [COOKIE]
    assert fresh_b.stat("half_open") == 0


def test_handshakes_beyond_the_threshold_are_asked_for_a_proof_and_below_it_they_are_not() -> None:
    b = Node(B, 2, Config(cookie_threshold=40))
    nodes = [Node(address(10 + i), 100 + i) for i in range(30)]
    link = Link(b, *nodes)
    for node in nodes:
        link.connect(node, b)
    link.run(0.015)
    assert b.stat("responds_sent") == 10  # a quarter of a second's worth at once
    assert b.stat("cookies_sent") == 20
    link.run()
    assert len(b.up) == 30
    # later, one at a time within the rate
    late = [Node(address(100 + i), 200 + i) for i in range(20)]
    link.nodes.update({node.where: node for node in late})
    for node in late:
        link.connect(node, b)
        link.run(0.05)
    assert b.stat("cookies_sent") == 20
    assert len(b.up) == 50


def test_a_proven_address_has_a_rate_too() -> None:
    b = Node(B, 2, cookies_always())
    a = Node(A, 1)
    link = Link(a, b)
    for _ in range(30):
        link.connect(a, b, timeout=5)
    link.run(0.05)
    assert b.stat("responds_sent") == 5
    assert b.stat("initiates_limited") == 25
    link.run()
    assert len(a.up) == len(b.up) == 30


def test_under_strain_who_repeats_itself_gets_in_with_a_proof_and_others_are_not_looked_at() -> None:
    link, a, b = pair()
    b.desk.strained(1)
    link.connect(a, b)
    link.run(stop=lambda: bool(a.up))
    assert b.stat("initiates_postponed") == 1
    assert b.stat("cookies_sent") == 1
    assert b.stat("responds_sent") == 1
    assert link.now < 0.5  # its second INITIATE came after 0.3 s, give or take a fifth
    b.desk.spent_work()
    for number in range(100):  # made up, each for itself
        b.desk.receive(bytes((INITIATE, *bytes(1183), number)) + bytes(16), C + ANY, link.now)
    assert b.stat("initiates_postponed") == 101
    assert b.stat("initiates_bad_mac1") == 0
    assert b.desk.spent_work() == 100


def test_under_strain_one_address_with_a_proof_has_a_few_handshakes_and_another_has_its_own() -> None:
    b, a, c = Node(B, 2), Node(A, 1), Node(C, 3)
    link = Link(a, b, c)
    b.desk.strained(1)
    for _ in range(30):
        link.connect(a, b, timeout=5)
    link.connect(c, b)
    link.run(0.5)
    assert b.stat("responds_sent") < 20
    assert len(c.up) == 1
    assert b.stat("initiates_limited") >= 10


def test_beyond_all_strain_whoever_repeats_itself_still_gets_in() -> None:
    link, a, b = pair()
    b.desk.strained(2)
    link.connect(a, b)
    link.run(stop=lambda: bool(a.up))
    assert b.stat("initiates_postponed") == 1
    assert link.now < 0.5


def test_beyond_all_strain_few_of_those_that_repeat_themselves_are_looked_at() -> None:
    b = Node(B, 2)
    b.desk.strained(2)
    made_up = [bytes((INITIATE, *bytes(1167), *number.to_bytes(16))) + bytes(16) for number in range(5000)]
    for start in (0.0, 0.3):
        for number, datagram in enumerate(made_up):
            b.desk.receive(datagram, address(9, 1000 + number) + ANY, start + number / 50_000)
    looked_at = b.stat("initiates_received") - b.stat("initiates_postponed")
    assert looked_at == b.stat("initiates_bad_mac1")
    assert LAST_REPEATS * LAST_BURST <= looked_at <= LAST_REPEATS * (LAST_BURST + 0.11)


def test_unproven_entries_are_evicted_first_and_the_oldest_of_them() -> None:
    b = Node(B, 2, Config(max_half_open=4))
    nodes = [Node(address(10 + i), 100 + i) for i in range(6)]
    link = Link(b, *nodes)
    link.tamper = lambda s, t, d: [] if d[0] == 0x10 else [d]  # nobody confirms
    for node in nodes:
        link.connect(node, b)
        link.run(0.5)
    # two came without proof, then half of the table was theirs and proofs were demanded: four with
    assert b.stat("cookies_sent") == 4
    assert b.stat("half_open") == 4
    assert b.stat("half_open_evicted") == 2
    alive = [b.desk.half_open(node.up[0].remote_cid) is not None for node in nodes]
    assert alive == [False, False, True, True, True, True]
    last = Node(address(99), 999)
    link.nodes[last.where] = last
    link.connect(last, b)
    link.run(0.5)
    assert b.stat("half_open_evicted") == 3
    assert b.desk.half_open(nodes[2].up[0].remote_cid) is None
    assert b.desk.half_open(nodes[3].up[0].remote_cid) is not None


def test_half_open_entries_expire() -> None:
    link, a, b = pair(config_b=Config(handshake_timeout=2.0))
    link.tamper = lambda s, t, d: [] if d[0] == 0x10 else [d]
    link.connect(a, b)
    link.run(1.9)
    assert b.stat("half_open") == 1
    link.run(0.2)
    assert b.stat("half_open") == 0
    assert b.stat("half_open_expired") == 1


def test_a_forged_cookie_changes_nothing() -> None:
    link, a, b = pair()
    link.connect(a, b)
    cid = Initiate.parse(link.datagrams(INITIATE)[0]).src_cid
    link.inject(B, A, Cookie(cid, b"s" * 16, b"x" * 32).encode())
    link.run()
    assert a.stat("cookies_invalid") == 1
    assert a.up
    assert len(link.datagrams(INITIATE)) == 1


def test_a_flood_of_cookies_does_not_make_a_firehose() -> None:
    b = Node(B, 2, cookies_always())
    a = Node(A, 1)
    link = Link(a, b)

    def fresh_secret_each_time(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if datagram[0] != INITIATE:
            return [datagram]
        answers: list[bytes] = []
        for seed in range(10):
            other = Node(B, 500 + seed + len(link.sent), cookies_always(), key=b.key)
            other.desk.receive(datagram, A + ANY, link.now)
            answers += [d for _, d in other.desk.outgoing]
        for answer in answers:
            link.inject(B, A, answer)
        return []

    link.tamper = fresh_secret_each_time
    link.connect(a, b, timeout=1.0)
    link.run()
    assert a.stat("cookies_received") > 20
    assert len(link.datagrams(INITIATE)) <= 3 + attempts_module.MAX_PROMPT_RESENDS


def test_what_waits_to_be_sent_is_bounded_and_drops_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_context, "MAX_OUTGOING", 4)
    a, b = Node(A, 1), Node(B, 2)
    for _ in range(6):
        a.desk.connect(B, b.public, 0.0, 5.0)
    assert len(a.desk.outgoing) == 4
    assert a.stat("outgoing_dropped") == 2
    for datagram in [d for _, d in a.desk.outgoing] + [made_elsewhere(b) for _ in range(2)]:
        b.desk.receive(datagram, A + ANY, 0.0)
    assert len(b.desk.outgoing) == 4
    assert b.stat("outgoing_dropped") == 2
    assert b.stat("half_open") == 4  # no work is done for an answer that cannot leave


def made_elsewhere(target: Node) -> bytes:
    """An INITIATE of somebody else."""
    other = Node(C, 333 + target.stat("initiates_received"))
    other.desk.connect(target.where, target.public, 0.0, 5.0)
    return other.desk.outgoing.popleft()[1]


def test_a_proof_that_comes_with_a_repeat_renews_the_entry() -> None:
    a, b = Node(A, 1), Node(B, 2, Config(cookie_threshold=1))
    b.desk.receive(made_elsewhere(b), C + ANY, 0.0)  # takes the only token
    b.desk.outgoing.clear()
    a.desk.connect(B, b.public, 0.0, 30.0)
    unproven = a.desk.outgoing.popleft()[1]
    b.desk.receive(unproven, A + ANY, 0.0)
    a.desk.receive(b.desk.outgoing.popleft()[1], B + ANY, 0.1)
    proven = a.desk.outgoing.popleft()[1]
    b.desk.receive(unproven, A + ANY, 5.0)  # a late copy, when there is a token again
    b.desk.receive(proven, A + ANY, 8.0)
    assert b.stat("responds_repeated") == 1
    b.desk.handle_timeout(15.5)
    assert b.stat("half_open") == 1
    b.desk.handle_timeout(18.0)
    assert b.stat("half_open") == 0
