"""What connections do on paths that are slow, narrow, broken or moving."""

from __future__ import annotations

from random import Random

import pytest

from burstwire.config import Config
from burstwire.core.address import pack_address
from burstwire.errors import (
    HandshakeTimeout,
    IdleTimeout,
    LocallyClosed,
    MessageTooLarge,
    PeerClosed,
    RemoteProtocolError,
    StreamReset,
    StreamStopped,
)
from burstwire.identity import KeyPair
from burstwire.sim import Flow, Link, Peer, SimHost, Simulation, SimulationError, seeds
from burstwire.wire import varint

MIB = 1 << 20


def pair(sim: Simulation, config: Config | None = None, **options: object) -> tuple[Peer, Peer]:
    return sim.connect(sim.host("10.0.0.1", config=config, **options), sim.host("10.0.0.2", config=config, **options))


def arrived(peer: Peer, flow: Flow) -> bool:
    return flow.stream is not None and flow.stream.id in peer.flows and peer.flow(flow).at_end


def transfer(sim: Simulation, left: Peer, right: Peer, size: int, within: float = 600) -> float:
    """Virtual seconds that `size` bytes take from left to right."""
    flow = left.open().send(size)
    took = sim.run(lambda: arrived(right, flow), within)
    assert right.flow(flow).received == size
    return took


# speed


@pytest.mark.parametrize("seed", seeds(2))
@pytest.mark.parametrize(("rate", "delay", "queue"), [(1e6, 0.02, 60_000), (3e6, 0.01, 60_000), (0.2e6, 0.1, 40_000)])
def test_a_bottleneck_is_used_well(rate: float, delay: float, queue: int, seed: int) -> None:
    """A queue of about a bandwidth-delay product; slow start and its overshoot are in the price."""
    with Simulation(seed, Link(delay=delay, rate=rate, queue=queue)) as sim:
        left, right = pair(sim)
        size = int(rate * 6)
        assert transfer(sim, left, right, size) < 6 / 0.85
        assert left.connection.stats()["packets_lost"] < size / 1158 / 20


@pytest.mark.parametrize("seed", seeds(2))
def test_two_connections_share_a_bottleneck(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02)) as sim:
        a, b = sim.host("10.0.0.1"), sim.host("10.0.0.2")
        peers = [sim.connect(a, b) for _ in range(2)]
        sim.network.set_link(Link(delay=0.02, rate=500_000, queue=20_000), a.address, b.address)
        flows = [left.open().send(64 * MIB, finish=False) for left, _ in peers]
        sim.pass_time(20)
        shares = [right.flow(flow).received for flow, (_, right) in zip(flows, peers, strict=True)]
        assert sum(shares) > 0.85 * 20 * 500_000
        assert min(shares) > 0.25 * sum(shares)
        for flow in flows:
            flow.reset(1)


@pytest.mark.parametrize("seed", seeds(3))
def test_a_long_fat_path_is_filled_despite_a_little_loss(seed: int) -> None:
    """40 ms round trip, one packet in 10,000 lost, windows of 8 MiB: more than 20 MB/s."""
    config = Config(stream_window=8 * MIB, connection_window=16 * MIB, send_buffer=8 * MIB, max_datagram_size=8900)
    with Simulation(seed, Link(delay=0.02, loss=0.0001, mtu=8900)) as sim:
        left, right = pair(sim, config)
        assert transfer(sim, left, right, 32 * MIB) < 1.6


def test_heavy_reordering_does_not_collapse_the_window() -> None:
    with Simulation(1, Link(delay=0.02, reordering=0.02, hold=0.004)) as sim:
        left, right = pair(sim)
        took = transfer(sim, left, right, 4 * MIB)
        stats = left.connection.stats()
        assert stats["congestion_undone"] > 0
        assert took < 8


@pytest.mark.parametrize("mtu", [1200, 1452, 8900, 65507])
@pytest.mark.parametrize("gro", [True, False])
def test_every_packet_size_works_with_and_without_gro(mtu: int, gro: bool) -> None:
    with Simulation(mtu, Link(delay=0.001, loss=0.005, mtu=mtu)) as sim:
        left, right = pair(sim, Config(max_datagram_size=mtu), gro=gro)
        transfer(sim, left, right, MIB)


def find_mtu(sim: Simulation, left: Peer, right: Peer, least: int) -> None:
    """Transfers go on until packets are so large."""
    for _ in range(30):
        transfer(sim, left, right, MIB)
        if left.connection.stats()["mtu"] >= least:
            return
    raise AssertionError(f"packets still have {left.connection.stats()['mtu']} bytes")


@pytest.mark.parametrize("seed", seeds(3))
def test_a_path_that_becomes_narrower_is_found_out(seed: int) -> None:
    with Simulation(seed, Link(delay=0.01, loss=0.002, mtu=9000)) as sim:
        left, right = pair(sim)
        find_mtu(sim, left, right, 8000)
        sim.network.set_link(Link(delay=0.01, loss=0.002, mtu=1200))
        assert transfer(sim, left, right, MIB, within=120) < 60
        assert left.connection.stats()["mtu"] == 1200


@pytest.mark.parametrize("seed", seeds(3))
def test_a_path_that_becomes_wider_is_found_out_in_time(seed: int) -> None:
    with Simulation(seed, Link(delay=0.01, mtu=1472)) as sim:
        left, right = pair(sim)
        find_mtu(sim, left, right, 1472)
        assert left.connection.stats()["mtu"] == 1472
        sim.network.set_link(Link(delay=0.01, mtu=9000))
        for _ in range(70):
            transfer(sim, left, right, 10_000)
            sim.pass_time(10)
        find_mtu(sim, left, right, 8000)


# trouble


@pytest.mark.parametrize("seed", seeds(5))
@pytest.mark.parametrize("seconds", [0.05, 1.0, 20.0])
def test_a_transfer_survives_an_outage(seconds: float, seed: int) -> None:
    with Simulation(seed, Link(delay=0.01, loss=0.01, rate=500_000, queue=20_000)) as sim:
        left, right = pair(sim)
        flow = left.open().send(400_000)
        sim.pass_time(0.15)
        assert not arrived(right, flow)
        sim.network.outage(seconds)
        # the probe after the outage comes at the latest after as long again, and a round
        took = sim.run(lambda: arrived(right, flow), 2 * seconds + 20)
        assert took >= seconds


@pytest.mark.parametrize("seed", seeds(5))
def test_acks_that_are_mostly_lost_only_slow_it_down(seed: int) -> None:
    with Simulation(seed, Link(delay=0.01)) as sim:
        left, right = pair(sim)
        sim.network.set_link(Link(delay=0.01, loss=0.5), source=right.host.address)
        assert transfer(sim, left, right, 300_000) < 60


def test_a_peer_that_vanished_is_given_up_after_the_idle_timeout() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, Config(idle_timeout=5, keep_alive=1))
        sim.network.outage(1000)
        sim.run(lambda: left.error and right.error, 10)
        assert isinstance(left.error, IdleTimeout)
        assert isinstance(right.error, IdleTimeout)
        assert sim.elapsed < 6.5


def test_a_quiet_connection_is_kept_alive_and_costs_little() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim)
        before = sim.network.stats()["sent"]
        sim.pass_time(3600)
        assert left.error is None
        assert right.error is None
        assert sim.network.stats()["sent"] - before < 3600 / 25 * 4 + 8
        transfer(sim, left, right, 1000)


def test_a_connection_without_keep_alive_ends_quietly() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, Config(idle_timeout=10, keep_alive=0))
        before = sim.network.stats()["sent"]
        sim.run(lambda: left.error and right.error, 20)
        assert isinstance(left.error, IdleTimeout)
        assert sim.network.stats()["sent"] - before <= 4


@pytest.mark.parametrize("seed", seeds(3))
def test_a_restarted_peer_is_noticed_within_a_round_trip_or_two(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02)) as sim:
        left, right = pair(sim)
        old = right.host
        old.crash()
        again = SimHost(sim.network, "10.0.0.2", key=old.key, application=Peer)
        sim.hosts.remove(old)
        sim.hosts.append(again)
        left.send_messages([b"still there? " * 10])
        assert sim.run(lambda: left.error is not None, 5) < 0.5
        assert isinstance(left.error, PeerClosed)
        left, right = sim.connect(left.host, again)
        transfer(sim, left, right, 10_000)
        old.destroy()


def test_nobody_there_is_a_timeout() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        attempt = sim.host("10.0.0.1").connect(pack_address("10.0.0.9", 1), KeyPair(bytes(31) + b"\1").public, 2.0)
        took = sim.run(lambda: attempt.done, 10)
        assert isinstance(attempt.error, HandshakeTimeout)
        assert 2.0 <= took < 2.1


def test_a_path_below_1200_bytes_is_a_timeout() -> None:
    with Simulation(1, Link(delay=0.01, mtu=1199)) as sim:
        attempt = sim.host("10.0.0.1").connect(sim.host("10.0.0.2"), timeout=3)
        sim.run(lambda: attempt.done, 10)
        assert isinstance(attempt.error, HandshakeTimeout)


@pytest.mark.parametrize("seed", seeds(8))
def test_two_that_call_each_other_end_up_with_one_connection(seed: int) -> None:
    with Simulation(seed, Link(delay=0.03, jitter=0.02)) as sim:
        a, b = sim.host("10.0.0.1"), sim.host("10.0.0.2")
        attempts = [a.connect(b), b.connect(a)]
        sim.run(lambda: all(attempt.done for attempt in attempts), 10)
        sim.pass_time(1)
        assert [attempt.error for attempt in attempts] == [None, None]
        assert len(a.endpoint.connections) == len(b.endpoint.connections) == 1
        left, right = a.applications[-1], b.applications[-1]
        assert isinstance(left, Peer)
        assert isinstance(right, Peer)
        transfer(sim, left, right, 10_000)
        transfer(sim, right, left, 10_000)


@pytest.mark.parametrize("seed", seeds(5))
def test_a_nat_that_rebinds_does_not_break_a_transfer(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, loss=0.01)) as sim:
        left, right = pair(sim)
        flow = left.open().send(500_000)
        back = right.open().send(300_000)
        sim.pass_time(0.3)
        left.host.move("10.9.9.9", 777)
        sim.run(lambda: arrived(right, flow) and arrived(left, back), 30)
        sim.pass_time(1)
        assert right.connection.path[:24] == pack_address("10.9.9.9", 777)
        assert right.connection.stats()["path_changes"] == 1


def test_a_forged_source_address_does_not_move_the_path() -> None:
    """Somebody on the way sends copies from elsewhere: they get at most challenges, and nothing goes there."""
    with Simulation(1, Link(delay=0.02)) as sim:
        left, right = pair(sim)
        thief = pack_address("10.6.6.6", 666)
        stolen: list[bytes] = []
        sim.network.attach(thief, lambda source, datagrams, ecn: stolen.extend(datagrams))

        def copy(now: float, source: bytes, destination: bytes, datagrams: list[bytes]) -> None:
            if source == left.host.address:
                sim.network.tap = None
                sim.network.send(thief, destination, datagrams)
                sim.network.tap = copy

        sim.network.set_link(Link(delay=0.001), source=thief)  # the copy always wins the race
        sim.network.tap = copy
        transfer(sim, left, right, 100_000)
        assert right.connection.path[:24] == left.host.address
        assert right.connection.stats()["path_changes"] == 0
        given = sum(map(len, stolen))
        assert given <= 3 * 110_000


# pressure


@pytest.mark.parametrize("seed", seeds(3))
def test_a_reader_that_stands_still_holds_the_writer_back(seed: int) -> None:
    config = Config(stream_window=64 * 1024, connection_window=256 * 1024, send_buffer=128 * 1024)
    with Simulation(seed, Link(delay=0.01, loss=0.01)) as sim:
        left, right = pair(sim, config)
        right.paused = True
        flow = left.open().send(500_000)
        sim.pass_time(40)
        far = right.flow(flow)
        assert far.received == 0
        assert flow.sent <= 64 * 1024 + 128 * 1024
        for _ in range(20):
            far.resume(10_000)
            sim.pass_time(0.5)
        assert 200_000 <= far.received < 220_000
        far.resume()
        sim.run(lambda: far.at_end, 30)


@pytest.mark.parametrize("seed", seeds(3))
def test_one_stream_that_is_not_read_does_not_stop_the_others(seed: int) -> None:
    config = Config(stream_window=64 * 1024, connection_window=1 * MIB)
    with Simulation(seed, Link(delay=0.01, loss=0.01)) as sim:
        left, right = pair(sim, config)
        right.paused = True
        stuck = left.open().send(300_000)
        sim.pass_time(1)
        right.paused = False
        for _ in range(5):
            transfer(sim, left, right, 200_000)
        assert right.flow(stuck).received == 0
        right.flow(stuck).resume()
        sim.run(lambda: arrived(right, stuck))


@pytest.mark.parametrize("seed", seeds(3))
def test_unread_messages_hold_the_sender_back_and_none_is_lost(seed: int) -> None:
    config = Config(stream_window=64 * 1024, send_buffer=64 * 1024)
    messages = [i.to_bytes(4, "big") * 250 for i in range(1000)]
    with Simulation(seed, Link(delay=0.01, loss=0.01)) as sim:
        left, right = pair(sim, config)
        right.paused = True
        left.send_messages(messages)
        sim.pass_time(30)
        assert right.messages == []
        right.resume()
        sim.run(lambda: len(right.messages) == 1000)
        assert right.messages == messages


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_message_larger_than_the_window_arrives_whole(size: int) -> None:
    config = Config(stream_window=64 * 1024, connection_window=128 * 1024, send_buffer=64 * 1024)
    big = Random(size).randbytes(size)
    with Simulation(1, Link(delay=0.01, loss=0.01)) as sim:
        left, right = pair(sim, config)
        right.paused = True  # not even a reader is needed
        left.send_messages([b"before", big, b"after", big[:70_000]])
        sim.pass_time(60)
        right.resume()
        sim.run(lambda: len(right.messages) == 4)
        assert right.messages == [b"before", big, b"after", big[:70_000]]


def test_a_buffer_smaller_than_a_packet_never_waits_for_itself() -> None:
    """The rest that is held back for a full packet can never become one."""
    config = Config(send_buffer=4096, max_datagram_size=8000)
    with Simulation(1, Link(delay=0.01, mtu=8000)) as sim:
        left, right = pair(sim, config)
        messages = [bytes([i]) * (700 + 37 * i) for i in range(100)]
        left.send_messages(messages)
        flow = left.open().send(50_000)
        sim.run(lambda: len(right.messages) == 100 and arrived(right, flow))
        assert right.messages == messages


def test_a_message_too_large_for_the_peer_is_refused_and_changes_nothing() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, Config(max_message_size=1000))
        with pytest.raises(MessageTooLarge):
            left.connection.send_message(bytes(1001))
        left.send_messages([bytes(1000)])
        sim.run(lambda: right.messages == [bytes(1000)])


@pytest.mark.parametrize("seed", seeds(2))
def test_more_streams_than_allowed_wait_for_their_turn(seed: int) -> None:
    with Simulation(seed, Link(delay=0.01, loss=0.02)) as sim:
        left, right = pair(sim, Config(max_streams=10))
        right.on_stream = lambda flow: flow.send(100)
        flows = [left.open().send(1000 + i) for i in range(200)]
        # An answer may come before what it answers is complete, for a later stream opens the earlier ones.
        sim.run(lambda: all(flow.at_end and right.flow(flow).at_end for flow in flows), 60)
        assert [right.flow(flow).received for flow in flows] == [1000 + i for i in range(200)]
        assert max(flow.stream.id for flow in flows if flow.stream) == 800
        sim.pass_time(5)
        assert left.connection.stats()["streams"] == right.connection.stats()["streams"] == 0


@pytest.mark.parametrize("seed", seeds(4))
def test_a_reset_stream_tells_its_reader_and_gives_its_credit_back(seed: int) -> None:
    config = Config(stream_window=64 * 1024, connection_window=96 * 1024)
    with Simulation(seed, Link(delay=0.01, loss=0.05)) as sim:
        left, right = pair(sim, config)
        for code in range(6):  # without the credit back, the connection would be blocked after two
            flow = left.open().send(200_000)
            sim.run(lambda flow=flow: flow.stream.id in right.flows and right.flow(flow).received > 20_000)
            right.flow(flow).pause()
            sim.pass_time(1)
            flow.reset(code)
            sim.pass_time(1)
            right.flow(flow).resume()
            sim.run(lambda flow=flow: right.flow(flow).read_error is not None)
            error = right.flow(flow).read_error
            assert isinstance(error, StreamReset)
            assert error.code == code
            right.flow(flow).send(0)
        transfer(sim, left, right, 300_000)


@pytest.mark.parametrize("seed", seeds(4))
def test_a_stopped_stream_tells_its_writer_and_gives_its_credit_back(seed: int) -> None:
    config = Config(stream_window=64 * 1024, connection_window=96 * 1024, send_buffer=64 * 1024)
    with Simulation(seed, Link(delay=0.01, loss=0.05)) as sim:
        left, right = pair(sim, config)
        for code in range(6):
            flow = left.open().send(500_000)
            sim.run(lambda flow=flow: flow.stream.id in right.flows and right.flow(flow).received > 20_000)
            right.flow(flow).stop(code)
            sim.run(lambda flow=flow: flow.write_error is not None)
            error = flow.write_error
            assert isinstance(error, StreamStopped)
            assert error.code == code
        transfer(sim, left, right, 300_000)


@pytest.mark.parametrize("seed", seeds(2))
def test_many_connections_of_one_host_do_not_disturb_each_other(seed: int) -> None:
    with Simulation(seed, Link(delay=0.01, jitter=0.005, loss=0.02)) as sim:
        server = sim.host("10.0.0.1")
        peers = [sim.connect(sim.host(f"10.0.1.{n}"), server) for n in range(30)]
        flows = [(left.open().send(20_000), right.open().send(10_000)) for left, right in peers]
        sim.run(
            lambda: all(
                arrived(right, out) and arrived(left, back)
                for (left, right), (out, back) in zip(peers, flows, strict=True)
            )
        )


@pytest.mark.parametrize("seed", seeds(4))
def test_a_small_message_does_not_wait_for_bulk_data(seed: int) -> None:
    with Simulation(seed, Link(delay=0.05, rate=200_000, queue=20_000)) as sim:
        left, right = pair(sim)
        left.open().send(64 * MIB, finish=False)
        sim.pass_time(4 + seed / 7)
        for n in range(5):
            left.send_messages([b"question"])
            assert sim.run(lambda n=n: len(right.messages) == n + 1, 5) < 0.5
            right.send_messages([b"answer"])
            assert sim.run(lambda n=n: len(left.messages) == n + 1, 5) < 0.2
        left.connection.abort(sim.clock.now, 0, "")
        left.host.poke()


@pytest.mark.parametrize("seed", seeds(2))
def test_bulk_data_in_both_directions_do_not_starve_each_others_credit(seed: int) -> None:
    config = Config(stream_window=128 * 1024, connection_window=256 * 1024, send_buffer=1 * MIB)
    with Simulation(seed, Link(delay=0.02, rate=1e6, queue=50_000)) as sim:
        left, right = pair(sim, config)
        flows = left.open().send(2 * MIB), right.open().send(2 * MIB)
        took = sim.run(lambda: arrived(right, flows[0]) and arrived(left, flows[1]))
        assert took < 3


def test_a_message_longer_than_agreed_ends_the_connection_and_keeps_what_came_before() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, Config(max_message_size=1000))
        right.paused = True
        left.send_messages([b"one", b"two"])
        half = left.connection.streams.messages.sending
        half.accept(varint.encode(1001) + bytes(50))
        left.connection.wants_to_send(half)
        sim.pass_time(1)
        right.resume()
        assert right.messages == [b"one", b"two"]
        sim.run(lambda: left.error and right.error, 5)
        assert isinstance(right.error, RemoteProtocolError)
        assert isinstance(left.error, PeerClosed)


def test_datagrams_never_wait_for_streams() -> None:
    with Simulation(1, Link(delay=0.05, rate=100_000, queue=20_000)) as sim:
        left, right = pair(sim)
        left.open().send(5 * MIB, finish=False)
        sim.pass_time(5)
        left.send_datagram(b"now")
        assert sim.run(lambda: right.datagrams, 5) < 0.6
        left.connection.abort(sim.clock.now, 0, "")
        left.host.poke()


# endings


@pytest.mark.parametrize("seed", seeds(6))
def test_both_sides_may_close_at_once(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, loss=0.1)) as sim:
        left, right = pair(sim)
        left.send_messages([b"bye"])
        left.close(1)
        right.close(2)
        sim.run(lambda: left.error and right.error, 10)
        assert {type(left.error), type(right.error)} <= {LocallyClosed, PeerClosed}


def test_an_end_is_known_after_half_a_round_trip() -> None:
    with Simulation(1, Link(delay=0.05)) as sim:
        left, right = pair(sim)
        sim.pass_time(1)
        left.close(9, "done")
        assert sim.run(lambda: right.error is not None) == pytest.approx(0.05)
        assert isinstance(right.error, PeerClosed)
        assert (right.error.code, right.error.reason) == (9, "done")


def test_closing_towards_nobody_takes_no_longer_than_configured() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, _ = pair(sim, Config(close_timeout=2))
        left.send_messages([b"x" * 100])
        sim.network.outage(100)
        left.close()
        took = sim.run(lambda: left.error and not left.host.endpoint.connections, 20)
        assert 2 <= took < 3


# the simulation itself


def test_books_that_do_not_balance_are_noticed() -> None:
    sim = Simulation(1)
    left, _ = pair(sim)
    slot = left.host.ring.lease()
    with pytest.raises(SimulationError, match="host 0: 1 slots of the receive ring were not given back"):
        sim.finish()
    left.host.ring.release(slot)
    sim.check_books()


def test_what_never_happens_is_told_with_the_state_of_everything() -> None:
    sim = Simulation(3, Link(delay=0.01))
    pair(sim)
    with pytest.raises(SimulationError, match=r"not within 2 virtual seconds\nhost 0: <Connection [0-9a-f]{8} open>"):
        sim.run(lambda: False, 2)


def test_datagrams_beyond_the_socket_buffer_are_dropped_and_made_good() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, receive_buffer=60_000)
        transfer(sim, left, right, MIB)
        assert right.host.dropped >= 0


def test_trains_beyond_the_interface_are_refused_as_a_kernel_would() -> None:
    with Simulation(1, Link(delay=0.01, mtu=1500)) as sim:
        a = sim.host("10.0.0.1", config=Config(max_datagram_size=1500), mtu=1452)
        left, right = sim.connect(a, sim.host("10.0.0.2", config=Config(max_datagram_size=1500)))
        left.open().send(10_000)
        sim.pass_time(2)
        assert a.refused > 0
        assert a.endpoint.stats()["trains_refused"] == a.refused
        left.connection.abort(sim.clock.now, 0, "")
        a.poke()
        sim.run(lambda: right.error is not None)
