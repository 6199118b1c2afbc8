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
from burstwire.errors import RemoteProtocolError
from burstwire.proto.events import ConnectionEnded
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
        return random.Random(stream).randbytes(100_000)
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
    frame = f.encode_run_stream(4, varint.MAX - 5 * CHUNK, bytes(CHUNK))
    wire.receiver.wake(slotwise([wire.packet(i, frame) for i in range(30)]))
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
