"""Streams that end before their time: reset, stopped, both, twice, too late, or with numbers that do not add up."""

from __future__ import annotations

from functools import cache

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.errors import RemoteProtocolError, StreamReset, StreamStopped
from burstwire.proto.connection import Connection
from burstwire.proto.events import ConnectionEnded, StreamOpened, StreamReadable, StreamWritable
from burstwire.proto.sending import SendHalf
from burstwire.proto.streams import Stream
from burstwire.sim import Link, Simulation
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode, WireError

KIB = 1024
MIB = 1024 * KIB


def opened(pair: Pair, data: bytes = b"0123456789") -> tuple[Stream, Stream]:
    """A stream of `a` with some bytes in it, which `b` has received and not read."""
    here = pair.a.connection.open_stream()
    assert here is not None
    here.write(memoryview(data))
    pair.settle()
    (event,) = pair.b.take(StreamOpened)
    pair.b.take(StreamReadable)
    return here, event.stream


def hear(pair: Pair, frame: bytes) -> None:
    """`b` hears a frame as if `a` had sent it."""
    (parsed,) = f.parse(memoryview(frame))
    connection = pair.b.connection
    try:
        if parsed[0] == f.STREAM:
            connection.inbound._stream(parsed)
        else:
            connection.inbound._control(parsed[0], parsed, pair.now)
    except WireError as error:
        connection.fail(error.code, error.reason, pair.now)


def test_a_stream_that_is_reset_twice_is_reset_once():
    pair = Pair()
    here, there = opened(pair)
    assert there.read(100) == b"0123456789"
    assert there.read(100) is None
    here.reset(7)
    here.reset(8)
    pair.settle()
    hear(pair, f.encode_reset_stream(here.id, 9, 10))
    assert len(pair.b.take(StreamReadable)) == 1
    with pytest.raises(StreamReset) as caught:
        there.read(1)
    assert caught.value.code == 7
    assert pair.b.connection.established


@pytest.mark.parametrize(
    "frames",
    [
        [f.encode_reset_stream(4, 0, 9)],
        [f.encode_stream(4, 10, b"", True), f.encode_reset_stream(4, 0, 11)],
        [f.encode_reset_stream(4, 0, 20), f.encode_reset_stream(4, 0, 21)],
        [f.encode_reset_stream(4, 0, 20), f.encode_stream(4, 19, b"xx")],
    ],
    ids=["below what came", "after an end elsewhere", "two that differ", "data behind it"],
)
def test_a_reset_with_a_wrong_final_size_ends_the_connection(frames):
    pair = Pair()
    opened(pair)
    for frame in frames:
        assert pair.b.connection.established
        hear(pair, frame)
    (ended,) = pair.b.take(ConnectionEnded)
    assert isinstance(ended.error, RemoteProtocolError)
    assert ended.error.code == TransportCode.FINAL_SIZE_ERROR


def test_a_reset_beyond_the_window_ends_the_connection():
    pair = Pair()
    opened(pair)
    hear(pair, f.encode_reset_stream(4, 0, Config().stream_window_initial + 1))
    assert pair.b.take(ConnectionEnded)[0].error.code == TransportCode.FLOW_CONTROL_ERROR


def test_a_reset_uses_the_credit_up_to_its_final_size_and_gives_it_back():
    pair = Pair()
    opened(pair)
    flow = pair.b.connection.flow
    hear(pair, f.encode_reset_stream(4, 0, 100_000))
    assert flow.received == 100_000
    assert flow.consumed == 100_000


def test_a_reset_after_the_end_was_delivered_changes_nothing():
    pair = Pair()
    here, there = opened(pair)
    here.finish()
    pair.settle()
    here.reset(5)
    pair.settle()
    assert there.read(100) == b"0123456789"
    assert there.read(100) == b""
    assert here.sending.reset_code is None


def test_a_reset_while_the_end_is_on_its_way_wins():
    pair = Pair()
    here, there = opened(pair)
    here.finish()
    pair.a.datagrams(pair.now)  # lost
    here.reset(5)
    pair.settle()
    with pytest.raises(StreamReset):
        there.read(100)
    there.finish()
    pair.settle()
    assert here.read(1) == b""
    pair.settle()
    assert len(pair.a.connection.streams) == len(pair.b.connection.streams) == 0


def test_stop_is_answered_by_a_reset_with_its_code_and_the_stream_is_over():
    pair = Pair()
    here, there = opened(pair)
    there.stop(6)
    there.stop(7)
    there.finish()
    pair.settle()
    assert pair.a.take(StreamWritable)
    with pytest.raises(StreamStopped) as caught:
        here.write(memoryview(b"more"))
    assert caught.value.code == 6
    assert here.sending.reset_code == 6
    assert there.receiving.reset_code == 6
    assert here.read(1) == b""
    pair.settle()
    assert len(pair.a.connection.streams) == len(pair.b.connection.streams) == 0


def test_stop_after_everything_was_read_says_nothing():
    pair = Pair()
    here, there = opened(pair)
    here.finish()
    pair.settle()
    assert there.read(100) == b"0123456789"
    there.stop(1)
    assert not pair.b.connection.control
    pair.settle()
    assert here.sending.finished
    assert here.sending.stop_code is None


def test_stop_that_comes_when_the_end_is_acknowledged_changes_nothing():
    pair = Pair()
    here, there = opened(pair)
    here.finish()
    pair.settle()
    there.stop(1)
    pair.settle()
    assert here.sending.stop_code is None
    assert here.sending.reset_code is None
    assert there.read(1) == b""


def test_stop_of_a_stream_that_was_reset_meanwhile_is_ignored():
    pair = Pair()
    here, there = opened(pair)
    here.reset(1)
    there.stop(2)
    pair.settle()
    assert here.sending.reset_code == 1
    assert pair.a.connection.established
    assert pair.b.connection.established


def test_both_directions_are_given_up_by_both_sides_and_nothing_is_left():
    pair = Pair(Config(max_streams=1))
    for _ in range(3):
        here, there = opened(pair, bytes(100_000))
        there.write(memoryview(bytes(100_000)))
        pair.settle()
        for side in (here, there):
            side.reset(1)
            side.stop(1)
        pair.settle()
        assert len(pair.a.connection.streams) == len(pair.b.connection.streams) == 0
    for end in (pair.a, pair.b):
        flow = end.connection.flow
        assert flow.received == flow.consumed


def test_frames_for_a_stream_that_is_over_are_ignored():
    pair = Pair()
    here, there = opened(pair)
    for side in (here, there):
        side.reset(0)
        side.stop(0)
    pair.settle()
    before = pair.b.connection.flow.received
    hear(pair, f.encode_stream(here.id, 1000, b"late"))
    hear(pair, f.encode_reset_stream(here.id, 3, 5))
    hear(pair, f.encode_stop_sending(here.id, 3))
    assert pair.b.connection.established
    assert pair.b.connection.flow.received == before


# --- eight streams, of which one is given up ---------------------------------------------------------------------

RATE = 2_500_000
ROUND_TRIP = 0.05
QUEUE = 0.05
"""Seconds that the bottleneck's queue takes when it is full."""


def in_flight_of(connection: Connection, half: SendHalf | None) -> int:
    return sum(r.size * r.pending.bit_count() for r in connection.recovery.log.records if r.half is half)


@cache
def rate_of_seven(give_up: str) -> float:
    """Bytes per second of seven streams over three seconds, at the beginning of which an eighth may be given up."""
    with Simulation(8, Link(delay=ROUND_TRIP / 2, rate=RATE, queue=int(RATE * QUEUE))) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flows = [left.open().send(60 * MIB) for _ in range(8)]
        sim.run(lambda: len(right.flows) == 8, 10)
        sim.pass_time(2)
        end = sim.elapsed + 3
        doomed, others = flows[3], flows[:3] + flows[4:]
        halves = [flow.stream.sending for flow in flows if flow.stream is not None]
        half = halves[3]
        received = sum(right.flow(flow).received for flow in others)
        connection = left.connection

        def balanced() -> bool:
            return connection.recovery.log.in_flight == sum(in_flight_of(connection, h) for h in (*halves, None))

        if give_up:
            assert in_flight_of(connection, half) > 0
            if give_up == "sender":
                doomed.reset(9)
            else:
                right.flow(doomed).stop(9)
            waited = sim.run(lambda: half.reset_code is not None, ROUND_TRIP + QUEUE)
            sent = half.sent
            assert balanced()
            sim.run(lambda: not in_flight_of(connection, half), ROUND_TRIP + QUEUE)
            assert balanced()
            sim.pass_time(ROUND_TRIP + QUEUE)
            assert half.sent == sent, "nothing is sent after the reset"
            if give_up == "sender":
                assert isinstance(right.flow(doomed).read_error, StreamReset)
            else:
                assert isinstance(doomed.write_error, StreamStopped)
            print(f"given up by the {give_up}: the sender stops after {waited * 1e3:.0f} ms of {ROUND_TRIP * 1e3:.0f}")
        sim.pass_time(end - sim.elapsed)
        rate = (sum(right.flow(flow).received for flow in others) - received) / 3
        for flow in flows:
            flow.reset(0)
        return rate


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_one_of_eight_streams_is_given_up_and_the_others_hardly_notice(who):
    """The peer gets a typed error, the sender stops within a round trip, what the stream had in flight is the others'
    as soon as it has arrived."""
    beside, alone = rate_of_seven(""), rate_of_seven(who)
    print(f"given up by the {who}: the other seven {alone / 1e6:.2f} MB/s, beside the eighth {beside / 1e6:.2f}")
    assert alone >= 0.95 * beside
