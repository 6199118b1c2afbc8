"""What a peer with valid keys can make this side do and keep: each has a bound."""

from __future__ import annotations

from pair import Pair

from burstwire.config import Config
from burstwire.errors import HandshakeRefused, RemoteProtocolError
from burstwire.proto.datagrams import Datagrams
from burstwire.proto.events import DatagramsReadable
from burstwire.proto.messages import MAX_READY
from burstwire.proto.outbound import MOST_ITEMS
from burstwire.proto.sending import SendHalf
from burstwire.proto.sent import SentLog
from burstwire.sim import Link, Peer, SimHost, Simulation
from burstwire.wire import frames as f

KIB = 1024


def say(pair: Pair, *payloads: bytes) -> None:
    """`b` receives packets of `a` with these frames."""
    outbox, connection = pair.a.outbox, pair.a.connection
    for payload in payloads:
        number = connection.counters.reserve(connection.counter_index, 1)
        connection.next_counter = number + 1
        aead = connection.keys.sealer(0)
        outbox.packet(connection.path, 0, aead, connection.remote_cid, number, payload)
        table = outbox.finish()
        (row,) = list(table.records())
        packet = bytes(outbox.ring.views[row[0]][row[1] : row[1] + row[2]])
        outbox.clear()
        pair.b.deliver([packet], pair.now)


def frames_of(pair: Pair, monkeypatch) -> list[int]:
    """Counts the frames of each packet that is read from now on."""
    counts: list[int] = []
    parse = f.parse

    def counting(payload):
        frames = parse(payload)
        counts.append(len(frames))
        return frames

    monkeypatch.setattr(f, "parse", counting)
    return counts


def test_a_packet_with_more_frames_than_allowed_ends_the_connection():
    pair = Pair(Config(max_datagram_size=9000))
    say(pair, f.encode_ping() * f.MAX_FRAMES)
    assert pair.b.connection.established
    say(pair, (f.encode_ping() + f.encode_padding(1)) * f.MAX_FRAMES + f.encode_ping())
    assert isinstance(pair.b.connection.error, RemoteProtocolError)


def test_this_side_puts_no_more_frames_into_a_packet_than_half_of_what_is_allowed(monkeypatch):
    pair = Pair(Config(max_datagram_size=60_000, max_datagrams=5000, max_streams=1000))
    counts = frames_of(pair, monkeypatch)
    for n in range(2 * MOST_ITEMS):
        pair.a.connection.send_datagram(bytes((n % 251,)))
    streams = [pair.a.connection.open_stream() for _ in range(800)]
    for stream in streams:
        stream.write(memoryview(b"x"))
        stream.finish()
    pair.settle()
    for stream in streams:  # and as many control frames at once
        pair.b.connection.ask((f.MAX_STREAM_DATA, stream.id))
    pair.settle()
    assert max(counts) > MOST_ITEMS // 2
    assert max(counts) <= f.MAX_FRAMES // 2
    got = 0
    while pair.b.connection.next_datagram() is not None:
        got += 1
    assert got == 2 * MOST_ITEMS
    assert (
        sum(stream.receiving.at_end or stream.readable == 1 for stream in pair.b.connection.streams.open.values())
        == 800
    )


def test_of_several_acks_in_a_packet_the_first_counts():
    pair = Pair()
    pair.a.connection.ask((f.PING,))
    pair.settle()
    for _ in range(3):  # none of them arrives
        pair.b.connection.ask((f.PING,))
        assert len(pair.b.datagrams(pair.now)) == 1
    number = pair.b.connection.next_counter - 1
    say(pair, f.encode_ack([(number - 1, number - 1)], 0) + f.encode_ack([(0, number)], 0))
    assert pair.b.connection.stats()["bytes_in_flight"] > 0, "the second one was heard"
    say(pair, f.encode_ack([(0, number)], 0))
    assert pair.b.connection.stats()["bytes_in_flight"] == 0


def test_datagrams_that_nobody_takes_are_bounded_in_bytes_and_the_newest_stay():
    queue = Datagrams(limit=100, most=1000)
    for n in range(50):
        queue.arrived(bytes([n]) * 300)
        queue.put(bytes([n]) * 300)
    assert [data[0] for data in queue.incoming] == [data[0] for data in queue.outgoing] == [47, 48, 49]
    assert queue.incoming_dropped == queue.outgoing_dropped == 47
    queue.arrived(bytes(5000))
    assert [len(data) for data in queue.incoming] == [5000], "one is always kept"
    assert queue.take() == bytes(5000)
    assert queue.take() is None
    queue.arrived(bytes(600))
    queue.arrived(bytes(400))
    assert len(queue.incoming) == 2, "what was taken counts no more"


def test_of_many_datagrams_that_come_at_once_the_application_hears_once():
    pair = Pair()
    say(pair, *[f.encode_datagram(b"x") * 100] * 3)
    assert len(pair.b.take(DatagramsReadable)) == 1
    assert pair.b.connection.next_datagram() is not None
    say(pair, f.encode_datagram(b"y"))
    assert len(pair.b.take(DatagramsReadable)) == 1


def test_small_messages_before_a_large_one_leave_the_ring_only_if_they_are_few():
    """Outside of it each takes many times its bytes; if there are many, the application must take some first."""
    for few in (True, False):
        config = Config(stream_window=4 * KIB, stream_window_initial=4 * KIB, max_message_size=1 << 20)
        pair = Pair(config)
        number = MAX_READY - 1 if few else 1000
        messages = [b"abc"] * number + [bytes(50_000), b"end"]
        sent = pair.a.connection.send_messages(messages)
        assert sent == len(messages)
        for _ in range(200):
            pair.step()
        reader = pair.b.connection.reader
        assert len(reader.ready) <= MAX_READY
        assert (reader._assembly is not None) is few
        got: list[bytes] = []
        for _ in range(3000):
            got += pair.b.connection.next_messages(1)
            pair.step()
            if len(got) == len(messages):
                break
        assert got == messages


def test_what_was_acknowledged_is_not_sent_again_however_the_acknowledgements_lie():
    half = SendHalf(_Nobody(), 1 << 20, 1 << 20)
    half.accept(bytes(10_000))
    half.on_sent(0, 10_000, False)
    for low in range(100, 10_000, 200):
        half.on_acked(low, 100, False)
    half.on_lost(0, 10_000, False)
    assert list(half.resend) == [(low, low + 100) for low in range(0, 10_000, 200)]


def test_a_skipped_number_is_found_among_any_ranges():
    log = SentLog()
    log.skipped = [50]
    assert log.acks_unsent([(60, 70), (40, 49), (0, 3)]) is None
    assert log.acks_unsent([(60, 70), (40, 50), (0, 3)]) == 50
    assert log.acks_unsent([(50, 50)]) == 50
    assert log.acks_unsent([(51, 90)]) is None
    assert log.acks_unsent([(0, 49)]) is None


def test_credit_for_the_connection_wakes_the_streams_that_waited_for_it():
    pair = Pair(Config(connection_window=64 * KIB, connection_window_initial=64 * KIB))
    streams = [pair.a.connection.open_stream() for _ in range(4)]
    for stream in streams:
        stream.write(memoryview(bytes(32 * KIB)))
    for _ in range(20):
        pair.step()
    assert pair.a.connection.flow.allowance == 0
    got = 0
    for _ in range(200):
        for stream in list(pair.b.connection.streams.open.values())[1:]:
            got += len(stream.read(1 << 20) or b"")
        pair.step()
    assert got == 4 * 32 * KIB


def test_padding_between_frames_is_skipped_wherever_it_lies():
    for lengths in ((1,), (1, 2, 3), (8, 9), (63, 64, 65), (4095, 4096, 4097), (10_000,), (0, 1, 0)):
        payload = b"".join(f.encode_padding(n) + f.encode_max_data(n) for n in lengths) + f.encode_padding(lengths[-1])
        for buffer in (payload, memoryview(payload)):
            assert f.parse(buffer) == [(f.MAX_DATA, n) for n in lengths]


class _Nobody:
    id = 0


def test_a_peer_has_no_more_connections_than_its_limit_and_others_still_get_in():
    config = Config(max_connections_per_peer=2, handshake_timeout=2.0)
    with Simulation(1, Link(delay=0.01)) as sim:
        node = sim.host("10.0.0.1", config=config)
        greedy, other = sim.host("10.0.0.2"), sim.host("10.0.0.3")
        first, _ = sim.connect(greedy, node)
        sim.connect(greedy, node)
        third = greedy.connect(node)
        sim.run(lambda: third.done, 5)
        assert isinstance(third.error, HandshakeRefused)
        assert "with this peer" in str(third.error)
        assert len(node.endpoint.connections) == 2
        sim.connect(other, node)
        first.close()
        sim.pass_time(1)
        sim.connect(greedy, node)
        assert len(node.endpoint.connections) == 3


def test_handshakes_that_come_at_once_do_not_pass_the_limit_together():
    config = Config(max_connections_per_peer=2, handshake_timeout=2.0)
    with Simulation(1, Link(delay=0.01)) as sim:
        node, greedy = sim.host("10.0.0.1", config=config), sim.host("10.0.0.2")
        attempts = [greedy.connect(node) for _ in range(6)]
        for _ in range(100):
            sim.pass_time(0.1)
            assert len(node.endpoint.connections) <= 2
        assert len(node.endpoint.connections) == 2
        assert all(attempt.done for attempt in attempts)
        assert node.endpoint.stats()["connections_over_limit"] > 0
        assert len(greedy.endpoint.connections) == 2, "the others were told"


def test_a_peer_that_restarted_gets_in_although_all_its_connections_are_taken():
    config = Config(max_connections_per_peer=1)
    with Simulation(1, Link(delay=0.01)) as sim:
        node, peer = sim.host("10.0.0.1", config=config), sim.host("10.0.0.2")
        sim.connect(peer, node)
        peer.crash()
        again = SimHost(sim.network, "10.0.0.2", key=peer.key, application=Peer)
        sim.hosts.remove(peer)
        sim.hosts.append(again)
        attempt = again.connect(node)
        sim.run(lambda: attempt.done, 5)
        if attempt.error is not None:  # it was refused, and the older connection was asked whether it lives
            assert isinstance(attempt.error, HandshakeRefused)
            sim.pass_time(0.1)
            attempt = again.connect(node)
            sim.run(lambda: attempt.done, 5)
        assert attempt.error is None
        sim.pass_time(0.1)
        assert len(node.endpoint.connections) == 1
        peer.destroy()


def test_no_more_is_sent_than_can_be_remembered():
    pair = Pair(Config(max_sent_records=16, max_datagrams=5000, datagram_buffer=1 << 24))
    for _ in range(3000):
        pair.a.connection.send_datagram(bytes(900))
    here = pair.a.connection.open_stream()
    here.write(memoryview(bytes(200_000)))
    remembered: list[int] = []

    def note(datagram: bytes) -> list[bytes]:
        remembered.append(len(pair.a.connection.recovery.log.records))
        return [datagram]

    pair.settle(note)
    assert 10 < max(remembered) <= 2 * 16, "packets that are not full, and probes, may come on top"
    (there,) = list(pair.b.connection.streams.open.values())[1:]
    assert there.receiving.ready == 200_000
