"""Marks for congestion: a path is tested before it is trusted, and what it reports slows the sender down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from burstwire.config import Config
from burstwire.proto.ecn import LOST_MARKED, SILENT_PTOS, TESTED, Ecn, EcnState
from burstwire.proto.sent import SentRecord
from burstwire.sim import Flow, Link, Peer, Simulation, seeds

Change = Callable[[int], int | None]
"""What a path makes of a mark; None: it loses what carries it."""


def record(first: int, count: int = 1) -> SentRecord:
    return SentRecord(first, count, first, 1200, 0.0)


def whole(*records: SentRecord) -> list[tuple[SentRecord, int, int]]:
    return [(one, (1 << one.count) - 1, 0) for one in records]


def lost(*records: SentRecord) -> list[tuple[SentRecord, int]]:
    return [(one, (1 << one.count) - 1) for one in records]


def after_test() -> Ecn:
    """Ten packets, 0 to 9, were marked."""
    ecn = Ecn(True)
    ecn.left(TESTED, TESTED)
    return ecn


def capable() -> Ecn:
    ecn = after_test()
    ecn.acknowledged(whole(record(0, TESTED)), [], (TESTED, 0, 0), True, 20)
    assert ecn.state is EcnState.CAPABLE
    return ecn


def test_what_is_switched_off_never_marks() -> None:
    ecn = Ecn(False)
    assert (ecn.mark, ecn.watching, ecn.state) == (0, False, EcnState.OFF)
    ecn.new_path(7)
    assert (ecn.mark, ecn.watching) == (0, False)


def test_a_few_packets_are_marked_and_no_more_before_one_is_known_to_have_arrived() -> None:
    ecn = Ecn(True)
    assert ecn.mark == 2
    ecn.left(TESTED - 1, TESTED - 1)
    assert ecn.mark == 2
    ecn.left(1, TESTED)
    assert (ecn.mark, ecn.state) == (0, EcnState.WAITING)


def test_counts_that_match_make_a_path_capable() -> None:
    ecn = after_test()
    ecn.acknowledged(whole(record(0, 3)), [], (3, 0, 0), True, 20)
    assert (ecn.mark, ecn.state) == (2, EcnState.CAPABLE)


@pytest.mark.parametrize(
    ("what", "counts"),
    [
        ("no counts at all", None),
        ("fewer than arrived", (2, 0, 0)),
        ("more than were sent", (TESTED + 1, 0, 0)),
        ("another codepoint", (3, 1, 0)),
        ("moved to another codepoint", (0, 3, 0)),
    ],
)
def test_counts_that_cannot_be_right_end_the_marks(what: str, counts: tuple[int, int, int] | None) -> None:
    ecn = after_test()
    assert ecn.acknowledged(whole(record(0, 3)), [], counts, True, 20) == 0
    assert (ecn.mark, ecn.state, ecn.watching) == (0, EcnState.FAILED, False), what


def test_a_path_that_worked_is_left_as_soon_as_its_counts_are_wrong() -> None:
    ecn = capable()
    ecn.left(5, 25)
    ecn.acknowledged(whole(record(20, 5)), [], (TESTED, 0, 0), True, 25)
    assert ecn.state is EcnState.FAILED


def test_packets_without_a_mark_are_not_missed_in_the_counts() -> None:
    ecn = after_test()
    ecn.acknowledged(whole(record(0, TESTED), record(TESTED, 10)), [], (TESTED, 0, 0), True, 20)
    assert ecn.state is EcnState.CAPABLE
    ecn.acknowledged(whole(record(15, 5)), [], (TESTED, 0, 0), True, 20)
    assert ecn.state is EcnState.CAPABLE


def test_an_overtaken_ack_proves_nothing() -> None:
    """RFC 9000 §13.4.2.1."""
    ecn = capable()
    ecn.left(5, 25)
    ecn.acknowledged(whole(record(20, 2)), [], (TESTED - 3, 0, 0), False, 25)
    assert ecn.state is EcnState.CAPABLE


def test_a_path_that_drops_what_is_marked_is_found_out() -> None:
    ecn = after_test()
    ecn.on_pto(1, 12)
    ecn.acknowledged(whole(record(10, 2)), lost(record(0, TESTED)), None, True, 20)
    assert ecn.state is EcnState.FAILED


def test_one_marked_packet_that_is_lost_ends_nothing_but_a_few_in_a_row_do() -> None:
    ecn = Ecn(True)
    number = 0
    for _ in range(LOST_MARKED - 1):
        ecn.left(1, number + 1)
        ecn.on_pto(1, number + 1)
        assert ecn.mark == 0, "what a PTO sends must not be lost for the same reason"
        ecn.acknowledged(whole(record(number + 1)), lost(record(number)), None, True, number + 2)
        assert (ecn.mark, ecn.state) == (2, EcnState.TESTING)
        number += 2
    ecn.left(1, number + 1)
    ecn.on_pto(1, number + 1)
    ecn.acknowledged(whole(record(number + 1)), lost(record(number)), None, True, number + 2)
    assert ecn.state is EcnState.FAILED


def test_silence_has_the_path_tested_again_without_a_mark_on_what_breaks_it() -> None:
    ecn = capable()
    ecn.left(5, 25)
    ecn.on_pto(SILENT_PTOS - 1, 25)
    assert ecn.mark == 2
    ecn.on_pto(SILENT_PTOS, 27)
    assert ecn.mark == 0
    ecn.acknowledged(whole(record(27, 2)), [], (TESTED, 0, 0), True, 29)
    assert (ecn.mark, ecn.state) == (2, EcnState.TESTING)


def test_another_path_is_tested_anew_whatever_the_one_before_did() -> None:
    ecn = after_test()
    ecn.acknowledged(whole(record(0, 3)), [], (1, 2, 0), True, 20)
    assert ecn.state is EcnState.FAILED
    ecn.new_path(20)
    ecn.left(TESTED, 30)
    ecn.acknowledged(whole(record(20, TESTED)), [], (1 + TESTED, 2, 0), True, 30)
    assert ecn.state is EcnState.CAPABLE


def test_only_more_ce_marks_than_before_are_news() -> None:
    ecn = capable()
    ecn.left(10, 30)
    assert ecn.acknowledged(whole(record(20, 5)), [], (TESTED + 3, 0, 2), True, 30) == 2
    assert ecn.acknowledged(whole(record(25, 5)), [], (TESTED + 8, 0, 2), True, 30) == 0
    assert ecn.ce == 2


# whole connections


@contextmanager
def path(change: Change, seed: int = 1, config: Config | None = None) -> Iterator[tuple[Simulation, Peer, Peer]]:
    """Two connected hosts; the way from left to right changes marks from now on, that of the handshake included."""
    with Simulation(seed, Link(delay=0.01)) as sim:
        send = sim.network.send

        def altered(source: bytes, destination: bytes, datagrams: list[bytes], ecn: int = 0) -> None:
            mark = change(ecn)
            if mark is not None:
                send(source, destination, datagrams, mark)

        sim.network.send = altered  # type: ignore[method-assign]
        left, right = sim.connect(sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config))
        yield sim, left, right


def transfer(sim: Simulation, left: Peer, right: Peer, size: int = 500_000) -> float:
    flow: Flow = left.open().send(size)
    return sim.run(lambda: flow.stream is not None and flow.stream.id in right.flows and right.flow(flow).at_end)


def test_a_connection_comes_to_mark_its_packets_and_the_peer_counts_them() -> None:
    with path(lambda mark: mark) as (sim, left, right):
        transfer(sim, left, right)
        assert left.connection.stats()["ecn_state"] == EcnState.CAPABLE
        assert left.connection.stats()["ecn_ce"] == 0


def test_a_connection_that_must_not_mark_does_not() -> None:
    seen = set()
    with path(lambda mark: seen.add(mark) or mark, config=Config(ecn=False)) as (sim, left, right):
        transfer(sim, left, right)
        assert seen == {0}
        assert left.connection.stats()["ecn_state"] == EcnState.OFF


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("bleached", lambda mark: 0),
        ("mangled", lambda mark: 1 if mark == 2 else mark),
        ("dropped", lambda mark: None if mark == 2 else mark),
    ],
)
def test_a_path_that_cannot_carry_marks_is_found_out_and_costs_little(what: str, change: Change) -> None:
    with path(lambda mark: mark) as (sim, left, right):
        plain = transfer(sim, left, right)
    with path(change) as (sim, left, right):
        took = transfer(sim, left, right)
        print(f"a path on which marks are {what}: {took * 1e3:.0f} ms instead of {plain * 1e3:.0f}")
        assert left.connection.stats()["ecn_state"] == EcnState.FAILED
        assert took < plain + LOST_MARKED * 2 * left.connection.recovery.pto() + 0.5


def test_a_path_that_drops_marks_later_on_is_left_again() -> None:
    drops = [False]
    with path(lambda mark: None if drops[0] and mark == 2 else mark) as (sim, left, right):
        transfer(sim, left, right)
        drops[0] = True
        transfer(sim, left, right)
        assert left.connection.stats()["ecn_state"] == EcnState.FAILED
        took = transfer(sim, left, right)
        assert took < 1


@pytest.mark.parametrize("seed", seeds(1))
def test_marks_keep_a_queue_short_without_a_loss(seed: int) -> None:
    """A bottleneck that marks from a few packets on: the queue stays below where it would drop."""
    figures = {}
    for ecn in (True, False):
        with Simulation(seed, Link(delay=0.02)) as sim:
            config = Config(ecn=ecn)
            left, right = sim.connect(sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config))
            narrow = Link(delay=0.02, rate=1_000_000, queue=200_000, mark=30_000)
            sim.network.set_link(narrow, left.host.address, right.host.address)
            took = transfer(sim, left, right, 3_000_000)
            stats = left.connection.stats()
            figures[ecn] = (took, stats["packets_lost"], stats["ecn_ce"])
    print(f"seconds, losses, marks: with ECN {figures[True]}, without {figures[False]}")
    took, losses, marks = figures[True]
    assert losses == 0
    assert marks > 0
    assert figures[False][1] > 0
    assert took < 3 / 0.85
