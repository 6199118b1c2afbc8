"""Wake-ups of many packets: whatever lies together in them, each packet counts once and all bytes find their place."""

from __future__ import annotations

import random
from functools import cache

import pytest
from batches import PATH, Wire, corrupted
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.config import Config
from burstwire.crypto.aead import backends
from burstwire.errors import PeerClosed, RemoteProtocolError
from burstwire.proto.events import ConnectionEnded, ConnectionEstablished, StreamReadable
from burstwire.proto.intake import CAPACITY, MAX_SPAN
from burstwire.wire import frames as f
from burstwire.wire import varint
from burstwire.wire.errors import TransportCode
from burstwire.wire.header import RUN_OVERHEAD

SIZE = 142
CHUNK = SIZE - RUN_OVERHEAD


MESSAGES = [random.Random(n).randbytes(n * n % 1000) for n in range(200)]


@cache
def whole(stream: int) -> bytes:
    if stream:
        return random.Random(stream).randbytes(200_000)
    return b"".join(varint.encode(len(message)) + message for message in MESSAGES)


def content(stream: int, n: int) -> bytes:
    """The first bytes of what a stream carries; stream 0 carries `MESSAGES`."""
    assert n <= len(whole(stream))
    return whole(stream)[:n]


def bulk(wire: Wire, counter: int, stream: int, offset: int, count: int, size: int = SIZE) -> list[bytes]:
    """Consecutive packets of a run of a stream's content."""
    chunk = size - RUN_OVERHEAD
    data = content(stream, offset + count * chunk)
    return [
        wire.packet(counter + i, f.encode_run_stream(stream, at, data[at : at + chunk]))
        for i, at in enumerate(range(offset, offset + count * chunk, chunk))
    ]


def read(connection, stream: int) -> bytes:
    """Everything readable of a stream."""
    found = connection.streams.open.get(stream)
    return found.receiving.peek(1 << 30) if found is not None else b""


# --- random wake-ups ------------------------------------------------------------------------------------------------

pieces = st.lists(
    st.one_of(
        st.tuples(st.just("bulk"), st.sampled_from([0, 4, 8]), st.integers(1, 70)),
        st.tuples(st.just("short"), st.sampled_from([4, 8]), st.integers(1, CHUNK - 1)),
        st.tuples(st.just("end"), st.sampled_from([4, 8]), st.integers(0, CHUNK)),
        st.tuples(st.just("datagram"), st.booleans(), st.integers(1, 50)),
        st.tuples(st.just("ping"), st.booleans(), st.integers(1, 3)),
        st.tuples(st.just("again"), st.sampled_from([4, 8]), st.integers(1, 20)),
    ),
    min_size=1,
    max_size=10,
)


def written(wire: Wire, todo) -> list[bytes]:
    """The packets of these pieces, by number."""
    packets: list[bytes] = []
    offsets = {0: 0, 4: 0, 8: 0}
    ended: set[int] = set()
    for what, which, n in todo:
        number = len(packets)
        if what == "bulk" and which not in ended:
            packets += bulk(wire, number, which, offsets[which], n)
            offsets[which] += n * CHUNK
        elif what == "again" and offsets[which] >= CHUNK:  # bytes that were sent before, in packets that lie otherwise
            n = min(n, offsets[which] // CHUNK)
            packets += bulk(wire, number, which, offsets[which] - n * CHUNK, n)
        elif what in ("short", "end") and which not in ended:
            data = content(which, offsets[which] + n)[offsets[which] :]
            packets.append(wire.packet(number, f.encode_run_stream(which, offsets[which], data, what == "end")))
            offsets[which] += n
            if what == "end":
                ended.add(which)
        elif what == "datagram":
            packets.append(wire.packet(number, f.encode_datagram(bytes((number & 255,)) * n), SIZE if which else 0))
        elif what == "ping":
            packets += [wire.packet(number + i, f.encode_ping(), SIZE if which else 0) for i in range(n)]
    return packets


def arrivals(packets: list[bytes], rng: random.Random, trouble: float) -> list[bytes]:
    """The packets with losses, copies, changed bits and parts that overtake each other."""
    arriving: list[bytes] = []
    at = 0
    while at < len(packets):
        part = packets[at : at + rng.randint(1, 50)]
        at += len(part)
        if rng.random() < trouble:
            arriving[rng.randint(0, len(arriving)) : 0] = part
        else:
            arriving += part
        if rng.random() < trouble:
            arriving += part[rng.randrange(len(part)) :]
    result: list[bytes] = []
    for packet in arriving:
        lot = rng.random()
        if lot > trouble / 10:
            result.append(packet)
        elif lot > trouble / 20:
            result += [corrupted(packet), packet]
    return result


def trains(datagrams: list[bytes], rng: random.Random) -> list[list[bytes]]:
    result: list[list[bytes]] = []
    longest = rng.choice((3, 20, 64))
    for one in datagrams:
        last = result[-1] if result else []
        joins = last and len(one) <= len(last[0]) == len(last[-1]) and len(last) < longest
        if joins and rng.random() > 0.05:
            last.append(one)
        else:
            result.append([one])
    return result


@pytest.mark.parametrize("backend", backends())
@settings(max_examples=60)
@given(todo=pieces, seed=st.integers(0, 1 << 32), trouble=st.sampled_from([0.0, 0.1, 0.5]))
def test_a_wake_up_delivers_the_same_as_its_packets_one_by_one(backend, todo, seed, trouble) -> None:
    rng = random.Random(seed)
    wire = Wire(Config(aead_backend=backend), receivers=2)
    together, alone = wire.receivers
    arriving = [wire.packet(0, f.encode_ping())]  # as the first, so that both know the connection from here on
    arriving += arrivals(written(wire, [("ping", False, 1), *todo])[1:], rng, trouble)
    now = 0.01
    for one in arriving:
        alone.wake([[one]], now)
    left = trains(arriving, rng)
    while left:
        together.begin()
        for train in left[: rng.randint(1, 30)]:
            left.pop(0)
            together.add(train, beside=rng.random() < 0.3)
        together.end(now)
    found, expected = together.connection, alone.connection
    assert found.listening
    assert expected.listening
    messages = found.next_messages(len(MESSAGES))
    assert messages == expected.next_messages(len(MESSAGES))
    assert messages == MESSAGES[: len(messages)]
    for stream in (4, 8):
        data = read(found, stream)
        assert data == read(expected, stream)
        assert data == content(stream, len(data))
        if stream in expected.streams.open:
            halves = [connection.streams.open[stream].receiving for connection in (found, expected)]
            assert halves[0].final_size == halves[1].final_size
            assert list(halves[0].parts) == list(halves[1].parts)
    assert sorted(found.datagrams.incoming) == sorted(expected.datagrams.incoming)
    assert found.acks.received.ack_ranges() == expected.acks.received.ack_ranges()
    assert found.flow.received == expected.flow.received
    counts = [
        {name: n for name, n in connection.stats().items() if name.startswith("packets_")}
        for connection in (found, expected)
    ]
    assert counts[0] == counts[1]


# --- spans ------------------------------------------------------------------------------------------------------------


def slotwise(packets: list[bytes], each: int = 10) -> list[list[bytes]]:
    """The packets as trains of `each`, every one in a slot of its own: runs of one span."""
    return [packets[at : at + each] for at in range(0, len(packets), each)]


def error(wire: Wire) -> RemoteProtocolError | None:
    """Why the receiver closed the connection, None if it did not."""
    ended = [event for event in wire.receiver.events if isinstance(event, ConnectionEnded)]
    return ended[0].error if ended else None


def test_an_offset_at_the_very_end_of_what_a_varint_holds_closes_the_connection_and_harms_nobody_else() -> None:
    wire = Wire()
    # As if they went on after it: what a span's last run says cannot tell.
    offsets = [(varint.MAX - 5 * CHUNK + i * CHUNK) % (varint.MAX + 1) for i in range(30)]
    packets = [wire.packet(i, f.encode_run_stream(4, at, bytes(CHUNK))) for i, at in enumerate(offsets)]
    wire.receiver.wake(slotwise(packets))
    assert error(wire).code == TransportCode.FLOW_CONTROL_ERROR


def test_trains_of_streams_in_turn_are_copied_in_c_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    wire.receiver.wake([[wire.packet(0, f.encode_ping())]])
    read_one_by_one = []
    parse = f.parse
    monkeypatch.setattr(f, "parse", lambda payload: read_one_by_one.append(1) or parse(payload))
    packets = []
    for turn in range(3):
        for stream in (4, 8):
            packets.append(bulk(wire, 1 + 10 * len(packets), stream, turn * 10 * CHUNK, 10))
    wire.receiver.wake(packets)
    for stream in (4, 8):
        assert read(wire.receiver.connection, stream) == content(stream, 30 * CHUNK)
    assert not read_one_by_one


@pytest.mark.parametrize("bad", [(0,), (3,), (9, 10), (29,), (0, 5, 12, 27)])
def test_bad_packets_of_a_span_leave_the_others_to_c(monkeypatch: pytest.MonkeyPatch, bad: tuple[int, ...]) -> None:
    wire = Wire()
    wire.receiver.wake([[wire.packet(0, f.encode_ping())]])
    read_one_by_one = []
    parse = f.parse
    monkeypatch.setattr(f, "parse", lambda payload: read_one_by_one.append(1) or parse(payload))
    packets = bulk(wire, 1, 4, 0, 30)
    wire.receiver.wake(slotwise([corrupted(one) if i in bad else one for i, one in enumerate(packets)]))
    assert not read_one_by_one
    connection = wire.receiver.connection
    assert read(connection, 4) == content(4, bad[0] * CHUNK)
    assert connection.stats()["packets_invalid"] == len(bad)
    wire.receiver.wake(slotwise(packets))
    assert read(connection, 4) == content(4, 30 * CHUNK)
    assert connection.stats()["packets_duplicate"] == 30 - len(bad)


def test_a_path_challenge_amid_bulk_data_is_answered_to_where_it_came_from() -> None:
    wire = Wire()
    wire.receiver.wake([[wire.packet(0, f.encode_ping())]])
    wire.receiver.flight(0.01)
    moved = PATH[:3] + bytes((PATH[3] ^ 1,)) + PATH[4:]
    packets = bulk(wire, 1, 4, 0, 30)
    packets[15] = wire.packet(16, f.encode_path_challenge(b"question"), SIZE)
    wire.receiver.begin()
    for train in slotwise(packets):
        wire.receiver.add(train)
    for train in slotwise(bulk(wire, 31, 4, 30 * CHUNK, 30)):
        wire.receiver.add(train, path=moved)
    wire.receiver.end()
    paths = wire.receiver.connection.paths
    assert [path for path, frame, _ in paths.outgoing if frame == f.encode_path_response(b"question")] == [PATH]


def test_more_runs_than_a_span_holds_become_several_spans_and_every_byte_arrives() -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, 3 * MAX_SPAN + 1)
    wire.receiver.wake(slotwise(packets, 2), now=0.01)
    assert read(wire.receiver.connection, 4) == content(4, len(packets) * CHUNK)
    assert wire.receiver.connection.stats()["packets_received"] == len(packets)


def test_a_span_never_outgrows_the_table_of_runs() -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, CAPACITY + MAX_SPAN)
    wire.receiver.begin()
    for packet in packets:
        wire.receiver.add([packet], beside=True, gap=1)
    assert wire.receiver.table.count == len(packets)
    wire.receiver.end()
    assert read(wire.receiver.connection, 4) == content(4, len(packets) * CHUNK)


@pytest.mark.parametrize("before", [15, 16, 17, 32, 63])
def test_a_shorter_last_packet_behind_such_as_are_no_bulk_data_is_read_with_its_own_length(before: int) -> None:
    """Those are read a few at a time; the last one may be left alone then. Its stream frame fills it to its end."""
    wire = Wire()
    wire.receiver.wake([[wire.packet(0, f.encode_ping())]])
    packets = [wire.packet(1 + n, f.encode_ping(), SIZE) for n in range(before)]
    packets.append(wire.packet(1 + before, f.encode_stream(4, 0, b"the last words")))
    assert len(packets[-1]) < SIZE
    wire.receiver.wake([packets])
    assert wire.receiver.connection.listening
    assert read(wire.receiver.connection, 4) == b"the last words"


def test_packets_of_another_size_begin_a_span_of_their_own() -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, 20)
    data = content(4, 20 * CHUNK + 2000)
    packets += [
        wire.packet(20 + i, f.encode_run_stream(4, 2000 + i * 200, data[2000 + i * 200 :][:200])) for i in range(10)
    ]
    wire.receiver.wake(slotwise(packets))
    connection = wire.receiver.connection
    assert read(connection, 4) == data
    assert connection.stats()["bytes_received"] == sum(map(len, packets))


@pytest.mark.parametrize("reverse", [False, True])
def test_more_runs_than_a_table_takes_are_opened_and_copied_in_several_calls(reverse: bool) -> None:
    wire = Wire()
    half = CHUNK // 2
    length = CHUNK + half
    count = CAPACITY + 100
    data = content(4, count * length)
    last = wire.packet(2 * count, f.encode_stream(4, len(data) - 1, data[-1:]))
    wire.receiver.wake([[last]])  # so that the ring has its size before
    assert not read(wire.receiver.connection, 4)
    runs = []
    for i in range(count):  # a shorter packet ends a run, and its span
        middle = i * length + CHUNK
        frames = [
            f.encode_run_stream(4, i * length, data[i * length : middle]),
            f.encode_run_stream(4, middle, data[middle : middle + half]),
        ]
        runs.append([wire.packet(2 * i + j, frame) for j, frame in enumerate(frames)])
    wire.receiver.begin()
    for run in runs[::-1] if reverse else runs:
        wire.receiver.add(run, beside=True)
    assert wire.receiver.table.count > CAPACITY
    wire.receiver.end()
    assert read(wire.receiver.connection, 4) == data
    assert wire.receiver.connection.stats()["packets_received"] == 2 * count + 1


@pytest.mark.parametrize("behind", [4, 8])
def test_a_stream_that_ends_in_a_span_may_be_followed_by_another_stream_but_not_by_more_of_itself(behind: int) -> None:
    wire = Wire()
    data = content(4, 20 * CHUNK)
    packets = bulk(wire, 0, 4, 0, 20)
    packets[19] = wire.packet(19, f.encode_run_stream(4, 19 * CHUNK, data[19 * CHUNK :], True))
    packets += bulk(wire, 20, behind, 20 * CHUNK if behind == 4 else 0, 20)
    wire.receiver.wake(slotwise(packets))
    connection = wire.receiver.connection
    assert read(connection, 4) == data
    if behind == 4:
        assert error(wire).code == TransportCode.FINAL_SIZE_ERROR
    else:
        assert error(wire) is None
        assert connection.streams.open[4].receiving.complete
        assert read(connection, 8) == content(8, 20 * CHUNK)


def test_a_span_ends_with_its_key_generation_and_both_are_opened_in_one_wake_up() -> None:
    wire = Wire()
    edge = 1 << 22
    packets = bulk(wire, edge - 20, 4, 0, 40)
    late = packets.pop(5)
    wire.receiver.wake([*slotwise(packets), [late]])
    connection = wire.receiver.connection
    assert read(connection, 4) == content(4, 40 * CHUNK)
    assert connection.keys.opening == 1
    wire.receiver.wake(slotwise(bulk(wire, 2 * edge, 4, 40 * CHUNK, 10)))
    assert connection.keys.opening == 2
    assert read(connection, 4) == content(4, 50 * CHUNK)


def test_packets_of_a_generation_too_far_ahead_are_not_opened_whatever_surrounds_them() -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, 20)
    wire.peer.keys.sealer(1)
    ahead = bulk(wire, 2 << 22, 4, 20 * CHUNK, 20)
    wire.receiver.wake([*slotwise(packets[:10]), *slotwise(ahead), *slotwise(packets[10:])])
    connection = wire.receiver.connection
    assert read(connection, 4) == content(4, 20 * CHUNK)
    assert connection.stats()["packets_unopened"] == 20
    assert connection.keys.opening == 0


# --- the first and the last wake-up of a connection -------------------------------------------------------------------


@pytest.mark.parametrize("bad", [(), (0,), (0, 9, 10, 29), (15,)])
def test_a_span_of_several_runs_opens_a_connection_if_any_packet_verifies(bad: tuple[int, ...]) -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, 30)
    arriving = [corrupted(one) if i in bad else one for i, one in enumerate(packets)]
    wire.receiver.wake(slotwise(arriving))
    assert isinstance(wire.receiver.events[0], ConnectionEstablished)
    connection = wire.receiver.connection
    assert connection.stats()["packets_received"] == 30 - len(bad)
    assert connection.stats()["packets_invalid"] == len(bad)
    wire.receiver.wake([[packets[i]] for i in bad])
    assert read(connection, 4) == content(4, 30 * CHUNK)


def test_a_forged_span_opens_no_connection_and_the_genuine_one_behind_it_does() -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, 30)
    wire.receiver.wake(slotwise([corrupted(one) for one in packets]))
    assert not wire.receiver.events
    assert not wire.receiver.endpoint.connections
    forged = [corrupted(one) for one in packets]
    wire.receiver.wake([*slotwise(forged), *slotwise(packets), *slotwise(forged)])
    connection = wire.receiver.connection
    assert read(connection, 4) == content(4, 30 * CHUNK)
    assert connection.stats()["packets_duplicate"] == 30
    assert [type(event) for event in wire.receiver.events].count(ConnectionEstablished) == 1


@pytest.mark.parametrize("close", [20, 21, 29])
def test_a_close_amid_bulk_data_ends_the_connection_with_all_that_came_before_it_and_nothing_behind_it(
    close: int,
) -> None:
    wire = Wire()
    packets = bulk(wire, 0, 4, 0, close)
    packets.append(wire.packet(close, f.encode_close(7, "enough", by_application=True), SIZE))
    packets += bulk(wire, close + 1, 8, 0, 29)
    wire.receiver.wake(slotwise(packets))
    kinds = [type(event) for event in wire.receiver.events]
    (ended,) = [event for event in wire.receiver.events if isinstance(event, ConnectionEnded)]
    assert isinstance(ended.error, PeerClosed)
    assert (ended.error.code, ended.error.reason) == (7, "enough")
    connection = ended.connection
    assert read(connection, 4) == content(4, close * CHUNK)
    assert read(connection, 8) == b""
    assert kinds.index(ConnectionEnded) == max(i for i, kind in enumerate(kinds) if kind is not StreamReadable)
