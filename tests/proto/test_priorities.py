"""Whose turn it is: urgencies, equal shares, and what was lost before what is new."""

from __future__ import annotations

import random

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.proto.events import StreamOpened
from burstwire.sim import Link, Simulation
from burstwire.wire import frames as f

KIB = 1024
MIB = 1024 * KIB

SLOW = Link(delay=0.02, rate=2_500_000)
"""20 Mbit/s and 40 ms: many streams wait for one path."""


def together(sizes: dict[int, int], priorities: dict[int, int], link: Link = SLOW, seed: int = 1) -> list[int]:
    """Sends so many bytes on each of some streams at once; the streams in the order in which they were complete."""
    order: list[int] = []
    with Simulation(seed, link) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flows = {number: left.open() for number in sizes}
        for number, flow in flows.items():
            assert flow.stream is not None
            flow.stream.priority = priorities[number]
            flow.send(sizes[number])

        def complete() -> bool:
            for number, flow in flows.items():
                there = right.flows.get(flow.stream.id) if flow.stream else None
                if number not in order and there is not None and there.at_end:
                    order.append(number)
            return len(order) == len(flows)

        sim.run(complete, 120)
    return order


def test_streams_are_complete_in_the_order_of_their_priorities():
    priorities = {number: number for number in range(8)}
    shuffled = list(priorities)
    random.Random(3).shuffle(shuffled)
    link = Link(delay=0.02, rate=2_500_000, queue=4 * MIB)  # nothing is lost, or its repair would come later
    assert together(dict.fromkeys(shuffled, 300 * KIB), priorities, link) == sorted(shuffled)


def test_a_small_urgent_stream_does_not_wait_for_a_large_one():
    assert together({0: 4 * MIB, 1: 50 * KIB}, {0: 3, 1: 2}) == [1, 0]


def test_a_priority_may_change_on_the_way():
    with Simulation(1, SLOW) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        first, second = left.open().send(3 * MIB), left.open().send(3 * MIB)
        assert first.stream is not None
        assert second.stream is not None
        sim.run(lambda: len(right.flows) == 2 and right.flow(second).received > 500 * KIB, 10)
        second.stream.priority = 1
        before = right.flow(first).received
        sim.run(lambda: right.flow(second).at_end, 10)
        # What was on its way, or had its turn, at the moment of the change.
        assert right.flow(first).received - before < 600 * KIB
        sim.run(lambda: right.flow(first).at_end, 10)


FAST = Link(delay=0.005, rate=50_000_000, queue=4 * MIB)
TURN = 64 * KIB
"""Bytes of a stream's turn at most."""

LOSSY = Link(delay=0.02, rate=1_000_000, loss=0.01)


@pytest.mark.parametrize("streams", [2, 7])
@pytest.mark.parametrize("link", [SLOW, FAST, LOSSY], ids=["slow", "fast", "lossy"])
def test_equal_streams_share_by_bytes(streams, link):
    """They are never further apart than a few turns, however long it takes; windows do not hold them up here."""
    large = {"stream_window_initial": 16 * MIB, "connection_window_initial": 64 * MIB}
    config = Config(stream_window=16 * MIB, connection_window=64 * MIB, send_buffer=64 * MIB, **large)
    with Simulation(streams, link) as sim:
        left, right = sim.connect(sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config))
        flows = [left.open().send(40 * MIB) for _ in range(streams)]
        sim.run(lambda: sum(flow.received for flow in right.flows.values()) >= 6 * MIB, 60)
        sent = sorted(stream.sending.sent for flow in flows if (stream := flow.stream) is not None)
        print(f"{streams} streams: {[size // KIB for size in sent]} KiB sent")
        assert sent[0] > 6 * MIB // streams // 2
        assert sent[-1] - sent[0] <= 3 * TURN
        for flow in flows:
            flow.reset(0)


def test_a_stream_of_pieces_has_its_share_beside_a_bulk_one():
    """What does not fill a packet is not forgotten behind what does."""
    with Simulation(1, SLOW) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        bulk, small = left.open().send(20 * MIB), left.open().send(100, finish=False)
        sim.run(lambda: len(right.flows) == 2 and right.flow(small).received == 100, 10)
        for number in range(2, 30):
            small.send(100, finish=False)
            assert sim.run(lambda size=100 * number: right.flow(small).received == size, 10) < 0.5
        bulk.reset(0)


def waited_for_messages(priority: int) -> float:
    with Simulation(1, SLOW) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(20 * MIB)
        sim.run(lambda: right.flows and right.flow(flow).received > MIB, 10)
        left.connection.streams.messages.priority = priority
        left.send_messages([bytes(1 * MIB)])
        took = sim.run(lambda: right.messages, 20)
        flow.reset(0)
    return took


def test_messages_share_with_streams_and_may_go_first():
    equal, first = waited_for_messages(3), waited_for_messages(0)
    print(f"1 MiB of messages beside bulk: {equal:.2f} s as an equal, {first:.2f} s as the first")
    assert first <= 0.75 * equal


def test_what_was_lost_goes_before_what_is_new_of_the_same_priority():
    pair = Pair(Config(max_datagram_size=1200, pacing=False))
    first, second = pair.a.connection.open_stream(), pair.a.connection.open_stream()
    first.write(memoryview(bytes(200_000)))
    lost = pair.a.datagrams(pair.now)
    assert first.sending.sent > 0
    pair.b.deliver(lost[4:], pair.now)  # the first four are lost
    second.write(memoryview(bytes(200_000)))
    pair.now += pair.delay
    pair.a.deliver(pair.b.datagrams(pair.now), pair.now)
    assert pair.a.connection.recovery.packets_lost == 4
    half = first.sending
    resent = half.resend.total
    assert resent
    assert pair.a.connection.sendable[0] is half
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now)
    assert half.resend.total == 0
    opened = {event.stream.id: event.stream for event in pair.b.take(StreamOpened)}
    assert opened[first.id].readable >= resent


def test_what_was_lost_of_a_less_urgent_stream_waits_for_a_more_urgent_one():
    pair = Pair(Config(max_datagram_size=1200, pacing=False))
    low, high = pair.a.connection.open_stream(priority=5), pair.a.connection.open_stream(priority=1)
    low.write(memoryview(bytes(100_000)))
    flight = pair.a.datagrams(pair.now)
    high.write(memoryview(bytes(200_000)))
    pair.b.deliver(flight[4:], pair.now)
    pair.now += pair.delay
    pair.a.deliver(pair.b.datagrams(pair.now), pair.now)
    assert low.sending.resend.total
    assert pair.a.connection.sendable[0] is high.sending


def test_the_order_of_sending_stays_sorted_whatever_happens_to_it():
    rng = random.Random(7)
    pair = Pair(Config(max_datagram_size=1200))
    streams = [pair.a.connection.open_stream(priority=rng.randrange(8)) for _ in range(20)]
    dropping = lambda datagram: [] if rng.random() < 0.05 else [datagram]  # noqa: E731
    readers: dict[int, object] = {}
    for _ in range(400):
        stream = rng.choice(streams)
        match rng.randrange(4):
            case 0:
                stream.priority = rng.randrange(8)
            case 1:
                stream.write(memoryview(bytes(rng.randrange(1, 50_000))))
            case 2:
                stream.write(memoryview(bytes(rng.randrange(1, 300))))
        if not pair.step(dropping, dropping):
            pair.wait()
        readers |= {event.stream.id: event.stream for event in pair.b.take(StreamOpened)}
        for reader in readers.values():
            reader.read(MIB)
        queue = pair.a.connection.sendable
        assert [half.urgency for half in queue] == sorted(half.urgency for half in queue)
        assert len(set(map(id, queue))) == len(queue)
        assert all(half.queued for half in queue)


@pytest.mark.parametrize("priority", [-1, 8, True, 1.5, "3"])
def test_a_priority_out_of_range_is_refused_and_changes_nothing(priority):
    pair = Pair()
    stream = pair.a.connection.open_stream()
    with pytest.raises(ValueError, match="priority is"):
        stream.priority = priority
    assert stream.priority == 3
    with pytest.raises(ValueError, match="priority is"):
        pair.a.connection.open_stream(priority=priority)
    assert len(pair.a.connection.streams) == 1


def test_a_reset_goes_out_before_bulk_data_of_any_priority():
    pair = Pair(Config(max_datagram_size=1200))
    bulk, doomed = pair.a.connection.open_stream(priority=0), pair.a.connection.open_stream(priority=7)
    doomed.write(memoryview(b"x" * 100))
    pair.settle()
    bulk.write(memoryview(bytes(MIB)))
    doomed.reset(5)
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now)
    opened = {event.stream.id: event.stream for event in pair.b.take(StreamOpened)}
    assert opened[doomed.id].receiving.reset_code == 5
    assert f.RESET_STREAM not in {item[0] for item in pair.a.connection.control}
