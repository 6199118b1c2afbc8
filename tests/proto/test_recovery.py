"""Loss detection of one path: what is lost, what was only late, and how long to wait for what is silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from burstwire.proto.recovery import (
    LONGEST_WAIT,
    MOST_WIDENED,
    PACKET_THRESHOLD,
    REORDERING_KEPT,
    Acked,
    Lost,
    Recovery,
)
from burstwire.proto.sent import SentRecord
from burstwire.sim import Flow, Link, Peer, Simulation, seeds

MTU = 1200
RTT = 0.1


class Path:
    """A `Recovery` whose packets and acknowledgements a test makes; the handshake gave a round trip of 0.1 s."""

    def __init__(self) -> None:
        self.recovery = Recovery(0.0, "cubic", MTU, 0.0, 0, False, RTT)
        self.now = 1.0
        self.number = 0

    def send(self, count: int = 1, after: float = 0.0) -> SentRecord:
        """Sends a run of full packets."""
        self.now += after
        record = SentRecord(self.number, count, self.recovery.log.sent, MTU, self.now)
        self.number += count
        self.recovery.sent(record)
        return record

    def ack(self, *numbers: int, after: float = 0.0) -> tuple[Acked, Lost]:
        """An ACK of these packets arrives."""
        self.now += after
        ranges = [(n, n) for n in sorted(numbers, reverse=True)]
        return self.recovery.acknowledged(ranges, 0.0, self.now)

    @property
    def window(self) -> int:
        return self.recovery.controller.window

    @property
    def undone(self) -> float:
        return self.recovery.controller.stats()["undone"]


# what was only late


def test_a_late_packet_undoes_the_reduction_that_it_caused() -> None:
    path = Path()
    path.send(10)
    before = path.window
    _, lost = path.ack(*range(1, 10), after=RTT)
    assert lost
    assert path.window < before
    path.ack(0, after=0.01)
    assert path.window >= before
    assert path.recovery.packets_spurious == 1


def test_losses_found_one_after_the_other_in_one_round_trip_are_undone_only_when_all_were_late() -> None:
    path = Path()
    path.send(20)
    path.ack(*range(1, 5), after=RTT)  # 0 is lost
    reduced = path.window
    path.ack(*range(6, 20), after=0.01)  # and 5
    assert path.recovery.packets_lost == 2
    path.ack(5, after=0.01)
    assert path.undone == 0, "0 is still missing"
    assert path.window <= reduced + 20 * MTU
    path.ack(0, after=0.01)
    assert path.undone == 1


def test_late_packets_of_an_episode_before_undo_nothing_of_the_next() -> None:
    path = Path()
    path.send(10)
    path.ack(*range(1, 10), after=RTT)  # 0 is lost
    path.send(10, after=0.01)
    path.ack(*range(11, 20), after=RTT)  # 10 is lost: another round trip, another reduction
    assert path.recovery.controller.stats()["congestion_events"] == 2
    path.ack(0, after=0.001)
    assert path.undone == 0
    path.ack(10, after=0.001)
    assert path.undone == 1


def test_an_undone_episode_leaves_the_next_one_to_itself() -> None:
    path = Path()
    path.send(10)
    path.ack(*range(1, 10), after=RTT)
    path.ack(0, after=0.01)
    path.recovery.packet_threshold = PACKET_THRESHOLD
    path.send(10, after=0.01)
    path.ack(10, *range(12, 20), after=RTT)
    assert path.recovery.controller.stats()["congestion_events"] == 2
    path.ack(11, after=0.001)
    assert path.undone == 2


def test_a_late_probe_of_the_packet_size_says_nothing_about_reordering() -> None:
    path = Path()
    path.send(1).is_probe = True
    path.send(9)
    path.ack(*range(1, 10), after=RTT)
    path.ack(0, after=0.01)
    assert path.recovery.packets_spurious == 0
    assert path.recovery.packet_threshold == PACKET_THRESHOLD


# reordering


def test_reordering_that_was_seen_is_no_loss_the_next_time() -> None:
    path = Path()
    for late in (8, 15):
        first = path.number
        path.send(20, after=0.01)
        lost_before = path.recovery.packets_lost
        path.ack(*range(first + 1, first + late + 1), after=RTT)
        path.ack(first, after=0.01)
        if late == 8:
            assert path.recovery.packets_lost == lost_before + 1
            assert path.recovery.packet_threshold == 9
            path.recovery.packet_threshold = 16
        else:
            assert path.recovery.packets_lost == lost_before
        path.ack(*range(first, first + 20), after=0.001)


def test_the_time_threshold_grows_to_two_round_trips_at_most() -> None:
    path = Path()
    path.send(10)
    path.ack(*range(1, 10), after=RTT)
    path.ack(*range(10), after=5 * RTT)
    assert path.recovery.widening == MOST_WIDENED
    assert path.recovery.rtt.loss_delay() * MOST_WIDENED == pytest.approx(2 * RTT)


def test_reordering_is_forgotten_after_many_losses_that_were_losses() -> None:
    path = Path()
    path.send(10)
    path.ack(*range(1, 10), after=RTT)
    path.ack(0, after=0.03)
    threshold = path.recovery.packet_threshold
    assert threshold > PACKET_THRESHOLD
    for episode in range(REORDERING_KEPT + 1):
        assert path.recovery.packet_threshold == threshold, episode
        first = path.number
        path.send(threshold + 2, after=0.01)
        path.ack(*range(first + 1, path.number), after=RTT)
    assert path.recovery.packet_threshold == PACKET_THRESHOLD
    assert path.recovery.widening == 1.0


# round trips


def test_an_old_packet_that_is_acknowledged_late_gives_no_round_trip_sample() -> None:
    """RFC 9002 §5.1: the largest must be among what is newly acknowledged, even within one run."""
    path = Path()
    path.send(4)
    path.ack(1, 2, 3, after=RTT)
    smoothed = path.recovery.rtt.smoothed
    path.ack(0, 1, 2, 3, after=7 * RTT)
    assert path.recovery.rtt.smoothed == smoothed
    assert path.recovery.rtt.latest == pytest.approx(RTT)


# silence


def test_ptos_double_up_to_a_limit() -> None:
    path = Path()
    path.send()
    pto = path.recovery.pto()
    waits = []
    for _ in range(12):
        deadline = path.recovery.deadline()
        assert deadline is not None
        waits.append(deadline - path.now)
        path.now = deadline
        path.recovery.on_timeout(deadline)
        assert path.recovery.probes
        path.send()
        path.send()
    assert waits == pytest.approx([min(pto * 2**n, LONGEST_WAIT) for n in range(12)])


def test_a_pto_longer_than_the_limit_is_waited_for_all_the_same() -> None:
    path = Path()
    path.recovery.rtt.smoothed = 2 * LONGEST_WAIT
    path.send()
    path.recovery.pto_count = 3
    assert path.recovery.deadline() == path.now + path.recovery.pto()


def test_a_packet_sent_later_puts_the_pto_off_and_an_ack_starts_it_anew() -> None:
    """RFC 9002 §6.2.1."""
    path = Path()
    path.send()
    path.send(after=0.05)
    assert path.recovery.deadline() == path.now + path.recovery.pto()
    path.recovery.pto_count = 4
    path.ack(0, after=0.05)
    deadline = path.recovery.deadline()
    assert deadline is not None
    assert deadline <= path.now + path.recovery.pto()


# another path


def test_what_left_before_the_peer_moved_neither_shrinks_the_window_nor_times_the_path() -> None:
    path = Path()
    path.send(10)
    path.recovery.moved()
    window = path.window
    assert path.recovery.probes, "what was sent in vain is made good without waiting for a PTO"
    path.send(10, after=0.5)
    smoothed = path.recovery.rtt.smoothed
    _, lost = path.ack(3, after=0.1)
    assert path.recovery.rtt.smoothed == smoothed
    lost += path.ack(*range(10, 20), after=0.001)[1]
    assert sum(mask.bit_count() for _, mask in lost) == 9
    assert path.window >= window
    assert path.recovery.log.in_flight == 0


def test_another_host_starts_with_a_window_of_its_own_and_the_bytes_in_flight_are_right() -> None:
    path = Path()
    path.send(10)
    path.recovery.new_path(path.now)
    assert path.recovery.log.in_flight == 0
    path.send(2)
    assert path.recovery.log.in_flight == 2 * MTU
    path.ack(10, 11, after=RTT)
    assert path.recovery.log.in_flight == 0
    assert path.recovery.rtt.latest == pytest.approx(RTT)


# whole connections in virtual time


def told(record_property: Callable[[str, object], None], figure: str) -> None:
    print(figure)
    record_property("figure", figure)


def arrived(peer: Peer, flow: Flow) -> int:
    return peer.flow(flow).received if flow.stream is not None and flow.stream.id in peer.flows else 0


@pytest.mark.parametrize("seed", seeds(3))
def test_an_outage_of_30_seconds_is_survived_if_the_idle_timeout_allows(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    with Simulation(seed, Link(delay=0.02, rate=1e6, loss=0.01)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(2_000_000)
        sim.pass_time(0.3)
        sim.network.outage(30)
        took = sim.run(lambda: arrived(right, flow) == 2_000_000)
        told(record_property, f"2 MB at 8 Mbit/s with an outage of 30 s: {took:.1f} s")
        assert 30 < took < 30 + LONGEST_WAIT + 8


@pytest.mark.parametrize("seed", seeds(4))
def test_a_lost_tail_is_sent_again_within_a_pto_or_two(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(5_000, finish=False)
        sim.run(lambda: arrived(right, flow) == 5_000)
        sim.pass_time(1)
        pto = left.connection.recovery.pto()
        sim.network.outage(0.001)
        flow.send(5_000)
        took = sim.run(lambda: arrived(right, flow) == 10_000)
        assert took < 2 * pto + 0.06


@pytest.mark.parametrize("seed", seeds(2))
def test_heavy_reordering_costs_little_once_it_was_seen(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    figures = []
    for reordering in (0.0, 0.05):
        with Simulation(seed, Link(delay=0.02, reordering=reordering, hold=0.01, rate=2e6, queue=1 << 20)) as sim:
            left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
            flow = left.open().send(4_000_000)
            took = sim.run(lambda right=right, flow=flow: arrived(right, flow) == 4_000_000)
            figures.append((took, left.connection.recovery.packets_spurious))
    told(record_property, f"seconds and spurious losses: {figures[0]} in order, {figures[1]} with 5 % up to 10 ms late")
    assert figures[1][1] < 200
    assert figures[1][0] < 1.5 * figures[0][0]
