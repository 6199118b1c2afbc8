"""What one connection does to another, packet by packet, with a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.errors import (
    IdleTimeout,
    MessageTooLarge,
    PeerClosed,
    RemoteProtocolError,
    StreamReset,
    StreamStopped,
)
from burstwire.proto.events import (
    ConnectionEnded,
    MessagesReadable,
    MessagesWritable,
    StreamOpened,
    StreamsAvailable,
    StreamWritable,
)
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode

MIB = 1 << 20


def payload(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def drop(every: float, seed: int):
    rng = random.Random(seed)
    return lambda d: [] if rng.random() < every else [d]


def shuffled(seed: int):
    """Keeps some datagrams back for a while, sends some twice."""
    rng = random.Random(seed)
    kept: list[bytes] = []

    def change(datagram: bytes) -> list[bytes]:
        out = [datagram] * (2 if rng.random() < 0.05 else 1)
        if rng.random() < 0.1:
            kept.append(out.pop())
        if kept and rng.random() < 0.1:
            out.append(kept.pop(0))
        return out

    return change


def transfer(pair: Pair, data: bytes, a_to_b=None, b_to_a=None, read: int = 100_000) -> bytes:
    """Sends `data` over a stream from a to b and returns what b reads."""
    stream = pair.a.connection.open_stream()
    view = memoryview(data)
    incoming = None
    got = bytearray()
    for _ in range(200_000):
        if view:
            view = view[stream.write(view) :]
        if not view:
            stream.finish()
        moved = pair.step(a_to_b, b_to_a)
        for event in pair.b.take(StreamOpened):
            incoming = event.stream
        while incoming is not None and (piece := incoming.read(read)) is not None:
            if not piece:
                assert incoming.at_end
                return bytes(got)
            got += piece
        if not moved:
            pair.wait()
    raise AssertionError(f"stuck after {len(got)} bytes: {pair.a.connection.stats()}")


@pytest.mark.parametrize("mtu", [1200, 1452, 9000, 65507])
@pytest.mark.parametrize("size", [0, 1, 1157, 1158, 1159, 100_000, 5 * MIB])
def test_a_stream_arrives_byte_for_byte(mtu, size):
    data = payload(size)
    assert transfer(Pair(Config(max_datagram_size=mtu)), data) == data


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_survives_loss_duplication_and_reordering(seed):
    data = payload(400_000)
    pair = Pair(seed=seed)
    assert transfer(pair, data, drop(0.05, seed), drop(0.05, seed + 100)) == data
    pair = Pair(seed=seed)
    assert transfer(pair, data, shuffled(seed), shuffled(seed + 100)) == data
    pair.settle()
    assert pair.a.connection.recovery.log.in_flight == 0


def test_a_lost_tail_is_probed_and_arrives():
    pair = Pair()
    lost = []

    def lose_first_flight(datagram):
        if len(lost) < 3:
            lost.append(datagram)
            return []
        return [datagram]

    assert transfer(pair, payload(2000), lose_first_flight) == payload(2000)
    assert pair.a.connection.stats()["pto_expired"] >= 1


def test_a_changed_bit_costs_one_packet_of_its_run_and_nothing_else():
    pair = Pair()
    hit = []

    def flip(datagram):
        if len(datagram) == 1200 and len(hit) < 5:
            hit.append(1)
            datagram = datagram[:500] + bytes((datagram[500] ^ 4,)) + datagram[501:]
        return [datagram]

    data = payload(300_000)
    assert transfer(pair, data, flip) == data
    assert pair.b.connection.stats()["packets_invalid"] == 5
    assert pair.a.connection.stats()["packets_lost"] == 5


def test_a_copy_of_every_packet_is_dropped_before_it_is_opened():
    pair = Pair()
    data = payload(300_000)
    assert transfer(pair, data, lambda d: [d, d]) == data
    stats = pair.b.connection.stats()
    assert stats["packets_duplicate"] == stats["packets_received"]
    assert stats["packets_invalid"] == 0


def test_a_writer_waits_for_a_reader_that_does_not_read_and_goes_on_when_it_does():
    config = Config(stream_window=100_000, send_buffer=50_000)
    pair = Pair(config)
    stream = pair.a.connection.open_stream()
    data = payload(400_000)
    taken = 0
    for _ in range(200):
        taken += stream.write(memoryview(data)[taken:])
        pair.step()
    assert taken <= 150_000, "the reader's window and the writer's buffer"
    incoming = pair.b.take(StreamOpened)[0].stream
    assert incoming.readable == 100_000
    got = b""
    pair.a.take(StreamWritable)
    while len(got) < len(data):
        got += incoming.read(30_000) or b""
        pair.step()
        taken += stream.write(memoryview(data)[taken:])
    assert got == data
    assert pair.a.take(StreamWritable)


def test_messages_arrive_whole_and_in_order_whatever_their_size():
    pair = Pair()
    messages = [payload(n) for n in (0, 1, 63, 64, 1158, 16383, 16384, 70_000, 3, 200_000)]
    assert pair.a.connection.send_messages(messages) == len(messages)
    pair.settle()
    assert pair.b.take(MessagesReadable)
    assert pair.b.connection.next_messages(100) == messages


def test_a_message_larger_than_the_window_arrives_although_nobody_reads():
    pair = Pair(Config(stream_window=64 * 1024, connection_window=128 * 1024))
    small, large = payload(10), payload(3 * MIB)
    pair.a.connection.send_message(small)
    pair.a.connection.send_message(large)
    pair.settle()
    assert pair.b.connection.next_messages(10) == [small, large]


def test_unread_messages_hold_the_sender_back():
    pair = Pair(Config(stream_window=64 * 1024, send_buffer=32 * 1024))
    sent = 0
    for _ in range(1000):
        while pair.a.connection.message_room():
            pair.a.connection.send_message(b"x" * 1000)
            sent += 1
        if not pair.step():
            break
    assert sent * 1002 <= (64 + 32) * 1024 + 1002, "window, buffer, and the one message that was taken whole"
    got = 0
    while got < sent:
        got += len(pair.b.connection.next_messages(10))
        pair.step()
    pair.step()
    assert pair.a.take(MessagesWritable)


def test_a_message_beyond_the_peers_limit_is_refused_and_nothing_is_sent():
    pair = Pair(Config(), responder=Config(max_message_size=1000))
    with pytest.raises(MessageTooLarge) as caught:
        pair.a.connection.send_message(b"x" * 1001)
    assert (caught.value.size, caught.value.limit) == (1001, 1000)
    with pytest.raises(MessageTooLarge):
        pair.a.connection.send_messages([b"x", b"x" * 1001])
    pair.settle()
    assert pair.b.connection.next_message() is None


def test_datagrams_arrive_and_the_oldest_is_dropped_when_there_are_too_many():
    pair = Pair(Config(max_datagrams=4))
    for n in range(6):
        pair.a.connection.send_datagram(bytes((n,)))
    pair.settle()
    got = []
    while (data := pair.b.connection.next_datagram()) is not None:
        got.append(data)
    assert got == [bytes((n,)) for n in (2, 3, 4, 5)]
    assert pair.a.connection.stats()["datagrams_dropped_sending"] == 2
    with pytest.raises(MessageTooLarge):
        pair.a.connection.send_datagram(bytes(pair.a.connection.max_datagram + 1))
    pair.a.connection.send_datagram(bytes(pair.a.connection.max_datagram))
    pair.settle()
    assert len(pair.b.connection.next_datagram()) == pair.a.connection.max_datagram


def test_a_reset_reaches_the_reader_and_leaves_other_streams_alone():
    pair = Pair()
    bad, good = pair.a.connection.open_stream(), pair.a.connection.open_stream()
    bad.write(memoryview(payload(250_000)))
    good.write(memoryview(payload(200_000)))
    pair.step()
    bad.reset(9)
    good.finish()
    pair.settle()
    streams = {event.stream.id: event.stream for event in pair.b.take(StreamOpened)}
    with pytest.raises(StreamReset) as caught:
        streams[bad.id].read(1000)
    assert caught.value.code == 9
    got = b""
    while piece := streams[good.id].read(1 << 20):
        got += piece
    assert got == payload(200_000)
    assert pair.a.connection.recovery.log.in_flight == 0


def test_a_reader_that_stops_stops_the_writer():
    pair = Pair()
    stream = pair.a.connection.open_stream()
    stream.write(memoryview(payload(100_000)))
    pair.step()
    pair.b.take(StreamOpened)[0].stream.stop(5)
    pair.settle()
    with pytest.raises(StreamStopped) as caught:
        stream.write(memoryview(b"more"))
    assert caught.value.code == 5


def test_one_direction_ends_and_the_other_goes_on():
    pair = Pair()
    stream = pair.a.connection.open_stream()
    stream.write(memoryview(b"question"))
    stream.finish()
    pair.settle()
    other = pair.b.take(StreamOpened)[0].stream
    assert other.read(100) == b"question"
    assert other.read(100) == b""
    other.write(memoryview(b"answer"))
    other.finish()
    pair.settle()
    assert stream.read(100) == b"answer"
    assert stream.read(100) == b""
    assert stream.id not in pair.a.connection.streams.open
    assert other.id not in pair.b.connection.streams.open


def test_streams_beyond_the_peers_limit_wait_until_others_end():
    pair = Pair(Config(max_streams=2))
    opened = [pair.a.connection.open_stream() for _ in range(2)]
    assert pair.a.connection.open_stream() is None
    for stream in opened:
        stream.finish()
    pair.settle()
    for event in pair.b.take(StreamOpened):
        assert event.stream.read(1) == b""
        event.stream.finish()
    pair.settle()
    for stream in opened:
        assert stream.read(1) == b""
    pair.settle()
    assert pair.a.take(StreamsAvailable)
    assert pair.a.connection.open_stream() is not None


def test_close_delivers_what_was_accepted_and_tells_the_peer_code_and_reason():
    pair = Pair()
    pair.a.connection.send_message(payload(300_000))
    pair.a.connection.close(pair.now, 7, "done")
    pair.settle()
    ended = pair.b.take(ConnectionEnded)
    assert len(ended) == 1
    error = ended[0].error
    assert isinstance(error, PeerClosed)
    assert (error.code, error.reason, error.by_application) == (7, "done", True)
    assert pair.b.connection.next_message() == payload(300_000)
    assert len(pair.a.take(ConnectionEnded)) == 1


def test_a_lost_close_is_repeated():
    pair = Pair()
    pair.a.connection.close(pair.now, 1, "")
    lost = []

    def lose_first(datagram):
        if not lost:
            lost.append(datagram)
            return []
        return [datagram]

    pair.step(lose_first)
    assert not pair.b.take(ConnectionEnded)
    pair.wait()
    pair.step()
    assert pair.b.take(ConnectionEnded)


def test_close_gives_up_on_a_silent_peer_after_its_timeout():
    pair = Pair(Config(close_timeout=2.0))
    pair.a.connection.send_message(b"never acknowledged")
    pair.a.connection.close(pair.now, 0, "")
    while not pair.a.take(ConnectionEnded):
        pair.step(lambda d: [])
        pair.wait()
        assert pair.now < 2.5
    assert pair.now >= 2.0


def test_a_silent_peer_is_given_up_after_the_idle_timeout():
    pair = Pair(Config(idle_timeout=5.0, keep_alive=0))
    pair.settle()
    while not (ended := pair.a.take(ConnectionEnded)):
        pair.wait()
    assert isinstance(ended[0].error, IdleTimeout)
    assert 5.0 <= pair.now < 7.0


def test_keep_alive_keeps_a_quiet_connection():
    pair = Pair(Config(idle_timeout=5.0, keep_alive=2.0))
    while pair.now < 60:
        if not pair.step():
            pair.wait()
    assert not pair.a.take(ConnectionEnded)
    assert pair.a.connection.stats()["packets_sent"] < 100


def test_keys_are_updated_in_mid_transfer_without_losing_anything():
    pair = Pair()
    for generation in range(1, 4):
        data = payload(100_000 + generation)
        assert transfer(pair, data) == data
        pair.settle()
        pair.a.connection.update_keys()
        assert pair.a.connection.next_counter >> 22 == generation
    data = payload(123_456)
    assert transfer(pair, data, drop(0.03, 1), drop(0.03, 2)) == data
    assert pair.b.connection.keys.opening == 3


def sneak(pair: Pair, frame: bytes, path: bytes | None = None) -> int:
    """Has side a send a frame that its own code would not; returns the bytes of the packet."""
    connection = pair.a.connection
    counter = connection.counters.reserve(connection.counter_index, 1)
    connection.next_counter = counter + 1
    outbox = pair.a.outbox
    outbox.packet(connection.path, 0, connection.keys.sealer(counter >> 22), connection.remote_cid, counter, frame)
    table = outbox.finish()
    slot, start, length, *_ = next(iter(table.records()))
    datagram = bytes(outbox.ring.views[slot][start : start + length])
    outbox.clear()
    pair.b.deliver([datagram], pair.now, path)
    return len(datagram)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (f.encode_ack([(0, 5000)], 0), TransportCode.PROTOCOL_VIOLATION),
        (f.encode_stream(4, Config().stream_window, b"x"), TransportCode.FLOW_CONTROL_ERROR),
        (f.encode_stream(4 * 1000, 0, b"x"), TransportCode.STREAM_LIMIT_ERROR),
        (f.encode_stream(6, 0, b"x"), TransportCode.STREAM_LIMIT_ERROR),
        (f.encode_stream(5, 0, b"x"), TransportCode.STREAM_STATE_ERROR),
        (f.encode_reset_stream(0, 1, 0), TransportCode.STREAM_STATE_ERROR),
        (f.encode_stop_sending(0, 1), TransportCode.STREAM_STATE_ERROR),
        (f.encode_stream(0, 0, b"\xff" * 8), TransportCode.PROTOCOL_VIOLATION),
        (f.encode_stream(4, 5, b"x", True) + f.encode_stream(4, 9, b"y"), TransportCode.FINAL_SIZE_ERROR),
        (b"\x3f", TransportCode.FRAME_ENCODING_ERROR),
    ],
    ids=lambda value: value.hex()[:12] if isinstance(value, bytes) else "",
)
def test_a_peer_that_breaks_the_protocol_is_told_so_and_dropped(frame, code):
    pair = Pair()
    pair.settle()
    sneak(pair, frame)
    ended = pair.b.take(ConnectionEnded)
    assert len(ended) == 1
    assert isinstance(ended[0].error, RemoteProtocolError)
    assert ended[0].error.code == code
    pair.step()
    told = pair.a.take(ConnectionEnded)[0].error
    assert isinstance(told, PeerClosed)
    assert told.code == code
    assert not told.by_application


def test_acknowledging_a_skipped_number_is_a_violation():
    pair = Pair()
    pair.b.connection.outbound._next_skip = 0
    pair.b.connection.ask((f.PING,))
    pair.settle()
    skipped = pair.b.connection.recovery.log.skipped[0]
    sneak(pair, f.encode_ack([(skipped, skipped)], 0))
    assert pair.b.take(ConnectionEnded)[0].error.code == TransportCode.PROTOCOL_VIOLATION


def test_an_unknown_extension_frame_is_skipped():
    pair = Pair()
    sneak(pair, b"\x40\x7f\x03abc" + f.encode_stream(0, 0, b"\x02hi"))
    assert pair.b.connection.next_message() == b"hi"


def test_the_peer_is_followed_to_a_new_address_once_it_is_proven():
    pair = Pair()
    pair.settle()
    old = pair.b.connection.path
    new = bytes([4, 0, 9, 9, 0, 0, 0, 0, 10, 9, 8, 7]) + bytes(12) + old[24:]
    pair.a.connection.send_message(b"from elsewhere")
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now, new)
    assert pair.b.connection.path == old, "one packet proves nothing: it may have been copied"
    received = pair.a.connection.stats()["bytes_sent"]
    assert sum(size for path, _, size in pair.b.connection.paths.outgoing if path == new) <= 3 * received
    challenge = pair.b.datagrams(pair.now)
    pair.a.deliver(challenge, pair.now)
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now, new)
    assert pair.b.connection.path == new
    assert pair.b.connection.stats()["path_changes"] == 1


def test_an_old_packet_from_elsewhere_moves_nothing():
    pair = Pair()
    pair.a.connection.send_message(b"one")
    kept = pair.a.datagrams(pair.now)
    pair.a.connection.send_message(b"two")
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now)
    pair.b.deliver(kept, pair.now, bytes([4, 0, 9, 9]) + bytes(44))
    assert pair.b.connection.paths.candidate is None


def test_a_challenge_from_an_unproven_address_is_answered_with_three_times_its_bytes_at_most():
    pair = Pair()
    pair.settle()
    new = bytes([4, 0, 9, 9, 0, 0, 0, 0, 10, 9, 8, 7]) + bytes(12) + pair.b.connection.path[24:]
    received = sneak(pair, f.encode_path_challenge(b"12345678"), new)
    waiting = pair.b.connection.paths.outgoing
    assert new in [path for path, _, _ in waiting]
    assert sum(size for path, _, size in waiting if path == new) <= 3 * received


def test_a_close_behind_data_in_one_train_is_noticed():
    pair = Pair()
    pair.a.connection.abort(pair.now, 1, "")
    pair.b.connection.send_message(payload(50_000))
    flight = pair.b.datagrams(pair.now)
    pair.b.connection.abort(pair.now, 2, "")
    flight += pair.b.datagrams(pair.now)
    pair.a.deliver(flight, pair.now)
    assert pair.a.connection.state.name == "DRAINING"


def test_a_closed_side_answers_ever_more_rarely():
    pair = Pair()
    pair.a.connection.abort(pair.now, 1, "")
    pair.a.datagrams(pair.now)
    answers = 0
    for _ in range(64):
        pair.b.connection.ask((f.PING,))
        pair.a.deliver(pair.b.datagrams(pair.now), pair.now)
        answers += len(pair.a.datagrams(pair.now))
    assert 1 <= answers <= 7


def test_numbers_go_on_being_skipped_at_the_same_rate():
    pair = Pair(Config(max_datagram_size=1200, stream_window=1 << 24, connection_window=1 << 24))
    skipped = set()
    connection = pair.a.connection
    while connection.next_counter < 400_000:
        connection.outbound._numbers(1000)
        skipped.update(connection.recovery.log.skipped)
    gaps = [high - low for low, high in zip(sorted(skipped), sorted(skipped)[1:], strict=False)]
    assert len(gaps) >= 5
    assert max(gaps) <= 50_000


@pytest.mark.parametrize("fin_comes", ["with the bytes", "later"])
def test_a_stream_that_was_read_to_its_last_byte_makes_room_for_another_one(fin_comes):
    pair = Pair(Config(max_streams=1))
    for number in range(3):
        stream = pair.a.connection.open_stream()
        assert stream is not None, f"stream {number} waits for one that is over"
        stream.write(memoryview(b"12345"))
        stream.finish() if fin_comes == "with the bytes" else None
        pair.settle()
        other = pair.b.take(StreamOpened)[0].stream
        assert other.read(5) == b"12345"
        other.finish()
        stream.finish()
        pair.settle()
        assert stream.read(1) == b""
        assert other.read(1) == b"", "the end can still be asked for"
        pair.settle()


def test_a_packet_behind_a_gap_is_acknowledged_at_once():
    pair = Pair()
    pair.settle()
    for text in (b"lost", b"arrives"):
        pair.a.connection.send_message(text)
        datagrams = pair.a.datagrams(pair.now)
    pair.b.deliver(datagrams, pair.now)
    assert pair.b.datagrams(pair.now), "without waiting for a timer"


def test_a_lone_packet_in_order_may_wait_for_company():
    pair = Pair()
    pair.settle()
    pair.a.connection.send_message(b"x")
    pair.b.deliver(pair.a.datagrams(pair.now), pair.now)
    assert not pair.b.datagrams(pair.now)
    assert pair.b.connection.next_timeout() <= pair.now + Config().max_ack_delay


def test_a_side_that_was_answered_its_close_says_nothing_more():
    pair = Pair()
    pair.a.connection.close(pair.now, 1, "")
    pair.settle()
    assert pair.a.connection.state.name == "DRAINING"
    pair.wait()
    assert pair.step() == 0


def test_of_a_lost_packet_that_carried_everything_all_that_matters_is_sent_again_once(monkeypatch):
    pair = Pair()
    theirs = pair.b.connection.open_stream()
    theirs.write(memoryview(b"unwanted"))
    pair.settle()
    incoming = pair.a.take(StreamOpened)[0].stream
    pair.b.connection.send_message(b"to be acknowledged")
    pair.a.deliver(pair.b.datagrams(pair.now), pair.now)
    incoming.stop(3)
    rest, whole = pair.a.connection.open_stream(), pair.a.connection.open_stream()
    rest.write(memoryview(payload(100)))
    whole.write(memoryview(payload(10)))
    whole.finish()
    assert len(pair.a.datagrams(pair.now)) == 1, "all of it in one packet, which is lost"
    record = pair.a.connection.recovery.log.records[-1]
    assert record.half is rest.sending
    assert len(record.items) == 2
    assert record.ack >= 0

    frames = []
    parse = f.parse
    monkeypatch.setattr(f, "parse", lambda data: frames.extend(found := parse(data)) or found)
    for _ in range(4):
        pair.a.connection.send_message(b"shows the loss")
        pair.b.deliver(pair.a.datagrams(pair.now), pair.now)
    assert {frame[1] for frame in frames if frame[0] == f.STREAM} == {0}
    assert len([frame for frame in frames if frame[0] == f.ACK]) == 0, "nothing arrived since the lost one"
    pair.settle()
    pair.settle()
    again = [frame for frame in frames if frame[0] == f.STREAM and frame[1]]
    assert sorted((frame[1], frame[2], len(frame[3]), bool(frame[4])) for frame in again) == [
        (rest.id, 0, 100, False),
        (whole.id, 0, 10, True),
    ]
    assert len([frame for frame in frames if frame[0] == f.STOP_SENDING]) == 1
    opened = {event.stream.id: event.stream for event in pair.b.take(StreamOpened)}
    assert opened[rest.id].read(1000) == payload(100)
    assert opened[whole.id].read(1000) == payload(10)
    assert opened[whole.id].at_end
    with pytest.raises(StreamStopped):
        theirs.write(memoryview(b"more"))
    assert rest.all_acked
    assert whole.all_acked
    assert pair.a.connection.recovery.log.in_flight == 0
