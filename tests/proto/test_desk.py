"""What a desk promises as initiator and as responder, on a link that may lose, repeat, delay and forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from handshake_link import ANY, Link, Node, address, agree

from burstwire.config import AEADS, Config
from burstwire.errors import HandshakeError, HandshakeRefused, HandshakeTimeout, VersionMismatch
from burstwire.proto import attempts as attempts_module
from burstwire.proto import handshake_context
from burstwire.proto.answers import LAST_BURST, LAST_REPEATS
from burstwire.proto.negotiation import Refusal
from burstwire.wire.header import COOKIE, INITIATE, RESPOND, VERSIONS
from burstwire.wire.packets import Cookie, Initiate, Respond, Versions

A, B, C = address(1), address(2), address(3)


def pair(
    config_a: Config | None = None, config_b: Config | None = None, seed: int = 1, **options: float
) -> tuple[Link, Node, Node]:
    a, b = Node(A, seed, config_a), Node(B, seed + 1000, config_b)
    return Link(a, b, seed=seed, **options), a, b  # type: ignore[arg-type]


def cookies_always() -> Config:
    return Config(cookie_threshold=0)


# --- the plain case -----------------------------------------------------------------------------


def test_both_sides_end_up_with_the_same_keys_and_each_others_parameters() -> None:
    link, a, b = pair(Config(max_streams=3), Config(max_streams=4))
    number = link.connect(a, b)
    link.run()
    (one,), (other,) = a.up, b.up
    assert agree(one, other)
    assert (one.attempt, other.attempt) == (number, None)
    assert one.peer_key == b.public
    assert other.peer_key == a.public
    assert one.aead == AEADS[0]
    assert one.peer_parameters.initial_max_streams_bidi == 4
    assert other.peer_parameters.initial_max_streams_bidi == 3
    assert one.peer_parameters.stateless_reset_token == one.remote_cid.to_bytes(16)
    assert other.peer_parameters.stateless_reset_token == other.remote_cid.to_bytes(16)
    assert one.path == B + ANY
    assert other.path == A + ANY
    assert one.peer_parameters.observed_address == A
    assert other.peer_parameters.observed_address == B


def test_one_round_trip_and_two_datagrams_suffice() -> None:
    link, a, b = pair()
    link.connect(a, b)
    link.run(stop=lambda: bool(a.up))
    assert link.now == pytest.approx(0.02)
    assert [datagram[0] for _, _, _, datagram in link.sent[:2]] == [INITIATE, RESPOND]
    assert a.up[0].handshake_rtt == pytest.approx(0.02)
    link.run()
    assert b.up[0].handshake_rtt == pytest.approx(0.02)
    assert not b.desk.owns(b.up[0].local_cid)
    assert not a.desk.owns(a.up[0].local_cid)


def test_initiate_has_1200_bytes_and_respond_is_smaller() -> None:
    name = "x" * 255
    link, a, b = pair(Config(application_protocol=name), Config(application_protocol=name))
    link.connect(a, b)
    link.run()
    assert a.up
    assert [len(d) for d in link.datagrams(INITIATE)] == [1200]
    assert len(link.datagrams(RESPOND)[0]) <= 1200


def test_the_responder_surfaces_nothing_before_confirmation() -> None:
    link, a, b = pair()
    link.tamper = lambda s, t, d: [] if d[0] == 0x10 else [d]
    link.connect(a, b)
    link.run(5)
    assert len(a.up) == 1
    assert b.up == []
    assert b.stat("half_open") == 1
    assert b.desk.half_open(a.up[0].remote_cid) is not None
    assert b.desk.owns(a.up[0].remote_cid)
    assert b.desk.half_open(a.up[0].remote_cid ^ 1) is None


def test_a_preshared_key_is_mixed_in() -> None:
    config = Config(preshared_key=b"p" * 32)
    link, a, b = pair(config, config)
    link.connect(a, b)
    link.run()
    assert agree(a.up[0], b.up[0])
    assert link.datagrams(INITIATE)[0][9] == 1


def test_an_endpoint_may_dial_itself() -> None:
    a = Node(A, 1)
    link = Link(a)
    link.connect(a, a)
    link.run()
    assert len(a.up) == 2
    assert agree(*a.up)
    assert a.stat("responds_postponed") == 0
    assert sorted(e.attempt or 0 for e in a.up) == [0, 1]


def test_secrets_are_not_shown() -> None:
    link, a, b = pair()
    link.connect(a, b)
    link.run()
    for established in (a.up[0], b.up[0]):
        for shown in (repr(established), str(established)):
            assert repr(established.send_secret)[2:-1] not in shown
            assert established.send_secret.hex() not in shown
            assert "…" in shown


# --- loss and repetition ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_handshakes_survive_loss_duplication_and_reordering(seed: int) -> None:
    link, a, b = pair(seed=seed)
    link.loss, link.duplication, link.jitter = 0.3, 0.3, 0.5
    for _ in range(4):
        link.connect(a, b, timeout=60.0)
    link.run(120)
    assert a.failed == []
    assert len(a.up) == len(b.up) == 4
    for one in a.up:
        assert sum(agree(one, other) for other in b.up) == 1


def test_a_repeat_is_the_same_bytes() -> None:
    link, a, b = pair()
    link.loss = 1.0
    link.connect(a, b, timeout=10)
    link.run(9)
    sent = link.datagrams(INITIATE)
    assert len(sent) > 3
    assert len(set(sent)) == 1


def test_the_wait_between_repeats_doubles_up_to_a_bound_and_varies_between_nodes() -> None:
    first_waits = set()
    for seed in range(8):
        link, a, b = pair(seed=seed)
        link.loss = 1.0
        link.connect(a, b, timeout=60)
        link.run(59)
        times = [when for when, _, _, d in link.sent]
        waits = [late - early for early, late in pairwise(times)]
        first_waits.add(waits[0])
        for i, wait in enumerate(waits):
            middle = min(attempts_module.FIRST_BACKOFF * 2**i, attempts_module.MAX_BACKOFF)
            assert 0.8 * middle - 1e-6 <= wait <= 1.2 * middle + 1e-6
    assert len(first_waits) == 8


def test_a_repeated_initiate_gets_the_same_answer_without_a_new_entry_and_not_all_the_time() -> None:
    link, a, b = pair()
    a.desk.connect(B, b.public, 0.0, 5.0)
    _, initiate = a.desk.outgoing.popleft()
    for number in range(9):
        b.desk.receive(initiate, A + ANY, number * 0.026)
    responds = [datagram for _, datagram in b.desk.outgoing]
    assert len(responds) == 3
    assert len(set(responds)) == 1
    assert b.stat("responds_sent") == b.stat("half_open") == 1
    assert b.stat("responds_repeated") == 2
    assert b.stat("responds_withheld") == 6
    link.now = 0.21
    link.collect()
    link.run()
    assert len(a.up) == len(b.up) == 1
    assert a.stat("responds_unmatched") == 2
    assert b.up[0].handshake_rtt is None


def test_no_round_trip_is_measured_when_copies_were_sent() -> None:
    link, a, b = pair()
    dropped: list[bytes] = []

    def lose_the_first(source: bytes, target: bytes, datagram: bytes) -> list[bytes]:
        if not dropped:
            dropped.append(datagram)
            return []
        return [datagram]

    link.tamper = lose_the_first
    link.connect(a, b)
    link.run()
    assert a.up[0].handshake_rtt is None


def test_a_late_copy_of_a_used_initiate_is_dropped_without_work() -> None:
    link, a, b = pair()
    link.connect(a, b)
    link.run()
    link.inject(A, B, link.datagrams(INITIATE)[0])
    link.run()
    assert b.stat("initiates_replayed") == 1
    assert b.stat("half_open") == 0
    assert len(link.datagrams(RESPOND)) == 1


def test_a_replay_after_everything_was_forgotten_only_makes_an_entry_that_expires() -> None:
    link, a, b = pair(config_b=Config(max_known_initiates=1, handshake_timeout=5))
    link.connect(a, b)
    link.run()
    first = link.datagrams(INITIATE)[0]
    link.connect(a, b)
    link.run()  # the second connection pushes the first out of the memory of one
    assert len(a.up) == len(b.up) == 2
    link.inject(C, B, first)
    link.run(1)
    assert b.stat("half_open") == 1
    assert len(b.up) == 2
    link.run(10)
    assert b.stat("half_open") == 0
    assert b.stat("half_open_expired") == 1
    assert len(a.up) == len(b.up) == 2


def test_timers_that_fire_early_or_late_do_no_harm() -> None:
    link, a, b = pair()
    link.loss = 1.0
    a.desk.connect(B, b.public, 0.0, 5.0)
    due = a.desk.next_timeout()
    assert due is not None
    a.desk.handle_timeout(due - 0.0005)
    assert a.desk.next_timeout() == due
    a.desk.handle_timeout(100.0)
    assert len(a.desk.results) == 1
    assert a.desk.next_timeout() is None


# --- giving up ----------------------------------------------------------------------------------


def test_silence_ends_in_a_timeout_that_says_what_to_check() -> None:
    link, a, b = pair()
    link.loss = 1.0
    number = link.connect(a, b, timeout=3.0)
    link.run()
    (failed,) = a.failed
    assert failed.attempt == number
    assert a.failed_at == [pytest.approx(3.0)]
    assert isinstance(failed.error, HandshakeTimeout)
    text = str(failed.error)
    for word in (
        "10.0.0.2:4433",
        "3 s",
        "nothing came back",
        "port",
        "firewall",
        "public key",
        "preshared",
        str(b.public),
    ):
        assert word in text
    assert not a.desk.owns(0)
    assert a.stat("attempts") == 0


def test_a_peer_with_another_key_stays_silent_and_the_timeout_mentions_the_key() -> None:
    link, a, b = pair()
    other = Node(C, 77)
    link.connect(a, b, timeout=2.0, key=other.public)
    link.run()
    assert b.stat("initiates_bad_mac1") == b.stat("initiates_received") > 0
    assert [d[0] for d in link.datagrams(RESPOND)] == []
    assert "public key" in str(a.failed[0].error)


def test_a_timeout_after_cookies_says_so() -> None:
    link, a, b = pair(config_b=cookies_always())
    link.tamper = lambda s, t, d: [] if d[0] == RESPOND else [d]
    link.connect(a, b, timeout=2.0)
    link.run()
    assert "COOKIE" in str(a.failed[0].error)


def test_different_preshared_keys_end_in_a_timeout_that_says_so() -> None:
    link, a, b = pair(Config(preshared_key=b"p" * 32), Config(preshared_key=b"q" * 32))
    link.connect(a, b, timeout=2.0)
    link.run()
    assert "same preshared key" in str(a.failed[0].error)
    assert a.stat("responds_invalid") > 0
    assert b.up == []


@pytest.mark.parametrize(("first", "second"), [(b"p" * 32, None), (None, b"p" * 32)])
def test_a_preshared_key_on_one_side_only_gets_no_answer(first: bytes | None, second: bytes | None) -> None:
    link, a, b = pair(Config(preshared_key=first), Config(preshared_key=second))
    link.connect(a, b, timeout=2.0)
    link.run()
    assert "preshared key" in str(a.failed[0].error)
    assert b.stat("initiates_other_suite") > 0
    assert link.datagrams(RESPOND) == []


def test_a_cancelled_attempt_leaves_nothing_behind() -> None:
    link, a, b = pair()
    number = link.connect(a, b)
    a.desk.cancel(number)
    a.desk.cancel(number)
    link.run()
    assert a.up == []
    assert a.failed == []
    assert a.stat("attempts") == 0
    assert len(link.datagrams(INITIATE)) == 1
    assert a.desk.next_timeout() is None


def test_closing_forgets_everything() -> None:
    link, a, b = pair()
    link.tamper = lambda s, t, d: [] if d[0] == 0x10 else [d]
    link.connect(a, b)
    link.connect(b, Node(C, 5))
    link.run(0.1)
    cid = a.up[0].remote_cid
    b.desk.close()
    assert b.desk.half_open(cid) is None
    assert b.desk.next_timeout() is None
    assert b.desk.confirm(cid, link.now) is None
    assert b.stat("attempts") == b.stat("half_open") == 0


def test_attempts_are_bounded() -> None:
    a, b = Node(A, 1, Config(max_connections=2)), Node(B, 2)
    a.desk.connect(B, b.public, 0.0, 1.0)
    a.desk.connect(B, b.public, 0.0, 1.0)
    with pytest.raises(HandshakeError, match="max_connections"):
        a.desk.connect(B, b.public, 0.0, 1.0)


def test_starting_and_cancelling_for_ever_keeps_the_timers_bounded() -> None:
    a, b = Node(A, 1), Node(B, 2)
    for _ in range(300):
        a.desk.cancel(a.desk.connect(B, b.public, 0.0, 10.0))
        a.desk.outgoing.clear()
    assert len(a.desk._attempts._timers) <= 70


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config_a", "config_b", "code", "word"),
    [
        (
            Config(application_protocol="chess/1"),
            Config(application_protocol="go/1"),
            Refusal.PROTOCOL,
            "go/1",
        ),
        (Config(aeads=(AEADS[0],)), Config(aeads=(AEADS[2],)), Refusal.AEAD, AEADS[2]),
    ],
)
def test_a_refusal_ends_the_attempt_at_once_with_the_peers_words(
    config_a: Config, config_b: Config, code: Refusal, word: str
) -> None:
    link, a, b = pair(config_a, config_b)
    number = link.connect(a, b)
    link.run(1)
    (failed,) = a.failed
    assert isinstance(failed.error, HandshakeRefused)
    assert failed.attempt == number
    assert failed.error.code == code
    assert word in failed.error.reason
    assert str(b.public) in str(failed.error)
    assert "10.0.0.2:4433" in str(failed.error)
    assert a.failed_at == [pytest.approx(0.02)]
    assert b.stat("refused") == 1
    assert b.stat("half_open") == 0
    assert b.up == []


@pytest.mark.parametrize(("code", "reason"), [(4, "you are not on the list"), (5, "full"), (4, "")])
def test_the_endpoint_may_refuse_and_is_asked_with_key_and_address(code: int, reason: str) -> None:
    asked: list[tuple[object, bytes]] = []

    def admit(key: object, where: bytes) -> tuple[int, str] | None:
        asked.append((key, where))
        return code, reason

    a, b = Node(A, 1), Node(B, 2, admit=admit)  # type: ignore[arg-type]
    link = Link(a, b)
    link.connect(a, b)
    link.run()
    assert asked == [(a.public, A)]
    error = a.failed[0].error
    assert isinstance(error, HandshakeRefused)
    assert (error.code, error.reason) == (code, reason)


def test_a_refusal_is_sealed() -> None:
    link, a, b = pair(config_b=Config(application_protocol="secret-name"))
    link.connect(a, b)
    link.run()
    assert a.failed
    assert all(b"secret-name" not in datagram for datagram in link.datagrams(RESPOND))


# --- load ---------------------------------------------------------------------------------------


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


# --- simultaneous open --------------------------------------------------------------------------


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
