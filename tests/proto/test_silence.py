"""What silence leads to, and when: a PING to keep a connection, its end, or nothing at all."""

from __future__ import annotations

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.errors import IdleTimeout
from burstwire.proto.events import ConnectionEnded
from burstwire.proto.rtt import Rtt


def silence(pair: Pair, until: float = 1000.0) -> list[float]:
    """Lets side a wait for a peer that says nothing; when it was woken, up to its end."""
    woken = []
    while (due := pair.a.connection.next_timeout()) is not None and due <= until:
        pair.now = max(pair.now, due)
        woken.append(pair.now)
        pair.a.connection.handle_timeout(pair.now)
        assert len(woken) < 1000
        pair.a.ready.add(pair.a.connection)
        pair.a.datagrams(pair.now)
    return woken


def ended(pair: Pair) -> bool:
    return any(isinstance(event.error, IdleTimeout) for event in pair.a.take(ConnectionEnded))


@pytest.mark.parametrize("idle", [0.01, 0.1, 1.0, 30.0])
def test_an_idle_connection_ends_after_its_timeout_or_three_ptos(idle: float) -> None:
    pair = Pair(Config(idle_timeout=idle, keep_alive=0))
    expected = max(idle, 3 * pair.a.connection.recovery.pto())
    assert silence(pair)[-1] == pytest.approx(expected)
    assert ended(pair)


@pytest.mark.parametrize("idle", [0.02, 0.5, 5.0])
def test_what_is_heard_puts_the_end_off_whatever_the_ptos_were_before(idle: float) -> None:
    pair = Pair(Config(idle_timeout=idle, keep_alive=0))
    pair.a.connection.recovery.rtt = Rtt()  # nothing is known of the path: three PTOs are some seconds
    first = 3 * pair.a.connection.recovery.pto()
    silence(pair, until=first * 0.3)
    assert not ended(pair)
    pair.b.connection.send_message(b"still here")
    pair.a.connection.send_message(b"here, too")
    pair.now = first * 0.3
    for _ in range(6):
        pair.step()
    heard = pair.now
    silence(pair, until=heard)
    connection = pair.a.connection
    assert 3 * connection.recovery.pto() < first / 2
    woken = silence(pair)
    assert ended(pair)
    # Counted from the latest packet that was heard, one of the last steps.
    assert heard - 12 * pair.delay < woken[-1] - max(idle, 3 * connection.recovery.pto()) <= heard


def test_without_an_idle_timeout_and_without_keep_alive_nothing_ever_wakes_a_silent_connection() -> None:
    pair = Pair(Config(idle_timeout=0, keep_alive=0))
    assert silence(pair) == []
    pair.a.connection.send_message(b"one")
    pair.settle()
    assert pair.now < 1.0
    assert silence(pair) == []
    assert not ended(pair)


def test_a_ping_leaves_when_nothing_was_heard_for_so_long_and_not_before() -> None:
    pair = Pair(Config(idle_timeout=0, keep_alive=10.0))
    sent = pair.a.connection.outbound
    pair.now = 7.0
    pair.b.connection.send_message(b"something")
    pair.settle()
    assert pair.now < 7.5
    before = sent.packets
    silence(pair, until=10.5)
    assert sent.packets == before, "what was heard at 7 counts"
    assert silence(pair, until=16.9) == []
    assert silence(pair, until=17.2)[0] == pytest.approx(17.0, abs=0.1)
    assert sent.packets > before


def test_a_peer_that_answers_no_ping_is_given_up_although_pings_are_sent() -> None:
    pair = Pair(Config(idle_timeout=10.0, keep_alive=4.0))
    woken = silence(pair)
    assert ended(pair)
    # The first PING since the peer was heard restarts the time (RFC 9000 §10.1), further ones do not.
    assert woken[-1] == pytest.approx(14.0)


def test_a_ping_that_cannot_leave_yet_wakes_nobody_until_it_is_time_for_the_next() -> None:
    pair = Pair(Config(idle_timeout=0, keep_alive=10.0))
    connection = pair.a.connection
    due = connection.next_timeout()
    connection.handle_timeout(due)
    assert connection.control, "it waits for the endpoint to ask for packets"
    assert connection.next_timeout() == pytest.approx(due + 10.0)


@pytest.mark.parametrize("late", [3.0, 500.0])
def test_time_in_which_this_side_did_not_run_is_not_the_peers_silence(late: float) -> None:
    """Neither side runs; afterwards one PING shows that both are alive."""
    pair = Pair(Config(idle_timeout=2.0, keep_alive=0))
    pair.now += 1.5
    heard = pair.a.connection._last_heard
    pair.now += late
    for side in (pair.a, pair.b):
        side.connection.overslept(late, pair.now)
        side.connection.handle_timeout(pair.now)
    assert not ended(pair)
    for _ in range(6):
        pair.step()
    assert not ended(pair)
    assert pair.a.connection._last_heard > heard, "the PING was answered"


def test_a_peer_that_is_gone_after_an_oversleep_is_given_up_three_ptos_later() -> None:
    pair = Pair(Config(idle_timeout=2.0, keep_alive=0))
    pair.now += 100
    pair.a.connection.overslept(99.0, pair.now)
    began = pair.now
    woken = silence(pair)
    assert ended(pair)
    assert 3 * pair.a.connection.recovery.rtt.minimum < woken[-1] - began <= max(2.0, 10.0)


def test_an_oversleep_does_not_put_off_a_keep_alive() -> None:
    pair = Pair(Config(idle_timeout=60.0, keep_alive=20.0))
    pair.now += 30
    pair.a.connection.overslept(29.0, pair.now)
    assert pair.a.connection.next_timeout() is not None
    pair.a.connection.handle_timeout(max(pair.now, pair.a.connection.next_timeout() or 0))
    assert not ended(pair)


def test_an_oversleep_is_no_part_of_a_round_trip_and_loses_nothing() -> None:
    """Acknowledgements that waited in the socket show the path as it is."""
    pair = Pair(Config(idle_timeout=60.0))
    connection = pair.a.connection
    for _ in range(4):
        connection.send_message(b"x" * 5000)
        pair.step()
    connection.send_message(b"y" * 5000)
    flying = pair.a.datagrams(pair.now)
    assert connection.recovery.log.in_flight > 5000
    pair.now += 500
    connection.overslept(500.0, pair.now)
    pair.b.deliver(flying, pair.now)
    for _ in range(6):
        pair.step()
    assert connection.recovery.log.in_flight == 0
    assert connection.recovery.rtt.smoothed < 1.0
    assert connection.recovery.packets_lost == 0
