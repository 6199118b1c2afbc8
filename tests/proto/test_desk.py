"""What a desk promises as initiator and as responder, on a link that may lose, repeat and delay."""

from __future__ import annotations

from itertools import pairwise

import pytest
from handshake_link import ANY, Link, Node, address, agree, cookies_always, pair

from burstwire.config import AEADS, Config
from burstwire.errors import HandshakeError, HandshakeRefused, HandshakeTimeout
from burstwire.proto import attempts as attempts_module
from burstwire.proto.negotiation import Refusal
from burstwire.wire.header import INITIATE, RESPOND

A, B, C = address(1), address(2), address(3)


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
