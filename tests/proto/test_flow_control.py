"""Flow control: windows that grow with who needs them, and what one stream may take from the others."""

from __future__ import annotations

from functools import cache

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.proto.events import StreamOpened
from burstwire.proto.flow import KEPT_SHARE
from burstwire.proto.streams import Stream
from burstwire.sim import Link, Simulation

KIB = 1024
MIB = 1024 * KIB


def opened(pair: Pair) -> tuple[Stream, Stream]:
    """A stream of `a`, and `b`'s end of it, with one byte read."""
    here = pair.a.connection.open_stream()
    assert here is not None
    here.write(memoryview(b"!"))
    while not (found := pair.b.take(StreamOpened)):
        pair.step()
    there = found[0].stream
    assert there.read(1) == b"!"
    return here, there


def keep_full(streams: list[Stream]) -> None:
    zeros = memoryview(bytes(4 * MIB))
    for stream in streams:
        while stream.write(zeros[: max(1, stream.room)]):
            pass


def carry(pair: Pair, here: Stream, there: Stream, size: int) -> None:
    """Moves so many bytes, read as they come."""
    while size > 0:
        keep_full([here])
        moved = pair.step()
        while size > 0 and (data := there.read(min(size, MIB))):
            size -= len(data)
        if not moved and not there.readable and not pair.b.connection.control:
            pair.wait()


def test_the_windows_that_a_connection_begins_with_are_those_of_the_config():
    pair = Pair(Config(stream_window_initial=64 * KIB, connection_window_initial=192 * KIB))
    here, there = opened(pair)
    assert here.sending.max_data == there.receiving.max_data == 64 * KIB
    assert pair.a.connection.flow.peer_limit == 192 * KIB
    small = Pair(Config(stream_window=8 * KIB, connection_window=16 * KIB))
    here, _ = opened(small)
    assert here.sending.max_data == 8 * KIB, "never more than the largest"
    assert small.a.connection.flow.peer_limit == 16 * KIB


@cache
def moved_16_mib(first: int, round_trip: float) -> tuple[float, int, int]:
    """Seconds that 16 MiB take on a fast path when windows begin with so many bytes; the windows at the end."""
    config = Config(stream_window_initial=first, connection_window_initial=4 * first)
    with Simulation(1, Link(delay=round_trip / 2)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config))
        flow = left.open().send(16 * MIB)
        took = sim.run(lambda: flow.stream and flow.stream.id in right.flows and right.flow(flow).at_end, 60)
        there = right.flow(flow).stream
        assert there is not None
        return took, there.receiving.window, right.connection.flow.window


@pytest.mark.parametrize(("first", "more"), [(32 * KIB, 2.5), (256 * KIB, 1)])
def test_a_window_that_holds_the_peer_back_doubles_and_costs_a_long_path_little(first, more):
    """Slow start and the window grow side by side: what a small first window costs are few round trips in all."""
    round_trip = 0.3
    took, window, connection_window = moved_16_mib(first, round_trip)
    at_once, _, _ = moved_16_mib(Config().stream_window, round_trip)
    print(f"16 MiB: {took / round_trip:.1f} round trips from {first // KIB} KiB on, {at_once / round_trip:.1f} at once")
    assert took <= at_once + more * round_trip
    assert window == Config().stream_window, "as large as it may be"
    assert connection_window == Config().connection_window


def test_a_reader_that_is_slow_keeps_the_small_window():
    """Its window is full all the time, but not because the path is long."""
    pair = Pair(Config(stream_window_initial=32 * KIB))
    here, there = opened(pair)
    for step in range(2000):
        keep_full([here])
        if not pair.step():
            pair.now += pair.delay
        if step % 20 == 0:
            there.read(4 * KIB)
    assert there.receiving.read_offset > 6 * 32 * KIB
    assert there.receiving.window == 32 * KIB


def test_a_short_path_needs_no_more_than_its_rate_asks_for():
    """A peer that sends steadily, but not much in a round trip, is not given megabytes."""
    pair = Pair(Config())
    pair.delay = 0.005
    here, there = opened(pair)
    for _ in range(400):  # 20 KB in 10 ms, 2 MB/s: a hundredth of what the first window would carry
        here.write(memoryview(bytes(20_000)))
        pair.step()
        there.read(MIB)
    assert there.receiving.window == Config().stream_window_initial


def test_streams_that_grow_leave_a_part_of_the_connection_to_those_that_do_not():
    config = Config(stream_window=1 * MIB, connection_window=2 * MIB, stream_window_initial=64 * KIB, pacing=False)
    pair = Pair(config)
    pair.delay = 0.05
    pairs = [opened(pair) for _ in range(4)]
    for _ in range(300):
        keep_full([here for here, _ in pairs])
        pair.step()
        for _, there in pairs:
            while there.read(MIB):
                pass
    flow = pair.b.connection.flow
    windows = [there.receiving.window for _, there in pairs]
    grown = sum(windows) - 4 * 64 * KIB
    assert grown == flow.grown > 0
    assert grown <= config.connection_window - config.connection_window // KEPT_SHARE
    # Now nobody reads them any more; others still get through, one after the other.
    for _ in range(50):
        keep_full([here for here, _ in pairs])
        pair.step()
    assert all(here.sending.sent == here.sending.max_data for here, _ in pairs), "all of them are full"
    here, there = opened(pair)
    carry(pair, here, there, 4 * MIB)


def test_what_a_stream_had_grown_by_is_free_again_when_it_is_over():
    pair = Pair(Config())
    pair.delay = 0.05
    here, there = opened(pair)
    carry(pair, here, there, 16 * MIB)
    assert pair.b.connection.flow.grown == there.receiving.window - Config().stream_window_initial > 0
    here.reset(1)
    there.finish()
    pair.settle()
    there.stop(0)
    pair.settle()
    assert pair.b.connection.flow.grown == 0


def test_a_window_never_shrinks_and_no_credit_is_taken_back():
    pair = Pair(Config(stream_window_initial=32 * KIB, connection_window_initial=64 * KIB))
    pair.delay = 0.02
    here, there = opened(pair)
    before = (0, 0)
    for _ in range(200):
        keep_full([here])
        pair.step()
        while there.read(10_000):
            pass
        now = (here.sending.max_data, pair.a.connection.flow.peer_limit)
        assert now[0] >= before[0]
        assert now[1] >= before[1]
        before = now
