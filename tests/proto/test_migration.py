"""The peer's address changes: what proves the new one, what it costs, and what nobody else can bring about."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.core.address import pack_address
from burstwire.proto.path import AMPLIFICATION, FIRST_PTO, MAX_WAITING, VALIDATION_PTOS
from burstwire.sim import Flow, Link, Peer, Simulation, seeds
from burstwire.wire import frames as f


def elsewhere(path: bytes, port: int = 9, host: int = 9) -> bytes:
    """The same path with another remote address."""
    return pack_address(f"10.0.0.{host}", port) + path[24:]


class Moving:
    """Side b of a pair hears of side a from other addresses."""

    def __init__(self) -> None:
        self.pair = Pair()
        self.pair.settle()
        self.connection = self.pair.b.connection
        self.old = self.connection.path
        self.new = elsewhere(self.old)

    def hear(self, message: bytes = b"from elsewhere", path: bytes | None = None) -> int:
        """A message of a's arrives from another address; how many bytes that were."""
        self.pair.a.connection.send_message(message)
        datagrams = self.pair.a.datagrams(self.pair.now)
        size = sum(map(len, datagrams))
        self.pair.b.deliver(datagrams, self.pair.now, path or self.new)
        return size

    def challenges(self, path: bytes) -> list[tuple[bytes, int]]:
        """Data and size of what waits to be sent to a path; it is then gone."""
        waiting = self.connection.paths.outgoing
        found = [(frame[1:], size) for to, frame, size in waiting if to == path and frame[0] == f.PATH_CHALLENGE]
        waiting.clear()
        return found

    def answer(self, data: bytes) -> None:
        """A PATH_RESPONSE with these data arrives."""
        self.connection.paths.answered(data, self.pair.now)

    def wait(self) -> None:
        """Time passes until the validation has something to do."""
        deadline = self.connection.paths.deadline
        assert deadline is not None
        self.pair.now = deadline
        self.connection.paths.on_timeout(deadline)


def test_both_addresses_are_challenged_with_different_data() -> None:
    moving = Moving()
    moving.hear(b"m" * 1000)
    waiting = list(moving.connection.paths.outgoing)
    assert {path for path, _, _ in waiting} == {moving.old, moving.new}
    assert len({frame for _, frame, _ in waiting}) == 2
    assert all(size == 1200 for _, _, size in waiting)
    assert moving.connection.path == moving.old


def test_an_answer_moves_the_path_and_a_wrong_one_does_not() -> None:
    moving = Moving()
    moving.hear(b"m" * 1000)
    ((data, _),) = moving.challenges(moving.new)
    moving.answer(bytes(8))
    assert moving.connection.path == moving.old
    moving.answer(data)
    assert moving.connection.path == moving.new
    assert moving.connection.paths.deadline is None


def test_an_unproven_address_gets_three_times_its_bytes_at_most_however_often_it_is_challenged() -> None:
    moving = Moving()
    received = moving.hear(b"small")
    sent = 0
    while moving.connection.paths.deadline is not None:
        sent += sum(size for _, size in moving.challenges(moving.new))
        moving.wait()
    assert 0 < sent <= AMPLIFICATION * received


def test_a_challenge_that_is_lost_is_repeated_with_growing_pauses_until_the_path_is_given_up() -> None:
    moving = Moving()
    moving.hear(b"m" * 20_000)
    start = moving.pair.now
    times = []
    data = set()
    while moving.connection.paths.deadline is not None:
        for one, _ in moving.challenges(moving.new):
            times.append(moving.pair.now)
            data.add(one)
        moving.wait()
    assert len(data) == 1
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps[0] == pytest.approx(moving.connection.recovery.pto())
    assert gaps[1:] == pytest.approx([2 * gap for gap in gaps[:-1]])
    assert moving.pair.now == pytest.approx(start + VALIDATION_PTOS * FIRST_PTO)
    assert moving.connection.path == moving.old, "the old path was never left"
    assert moving.connection.paths.candidate is None
    moving.answer(data.pop())
    assert moving.connection.path == moving.old, "too late"


def test_a_path_proven_with_a_small_challenge_is_challenged_again_with_1200_bytes() -> None:
    """RFC 9000 §8.2.1."""
    moving = Moving()
    moving.hear(b"small")
    ((data, size),) = moving.challenges(moving.new)
    assert size < 1200
    moving.answer(data)
    assert moving.connection.path == moving.new
    ((again, size),) = moving.challenges(moving.new)
    assert size == 1200
    assert again != data
    moving.answer(again)
    assert moving.connection.paths.deadline is None
    assert moving.connection.path == moving.new


def test_a_path_that_does_not_carry_1200_bytes_is_left_for_the_one_before() -> None:
    moving = Moving()
    moving.hear(b"small")
    ((data, _),) = moving.challenges(moving.new)
    moving.answer(data)
    while moving.connection.paths.deadline is not None:
        moving.wait()
        moving.challenges(moving.new)
    assert moving.connection.path == moving.old


def test_a_challenge_from_an_address_that_is_neither_in_use_nor_tried_is_not_answered() -> None:
    moving = Moving()
    moving.connection.paths.challenged(elsewhere(moving.old, host=77), b"12345678")
    assert not moving.connection.paths.outgoing


def test_what_waits_to_be_sent_and_what_is_remembered_is_bounded() -> None:
    moving = Moving()
    for n in range(10):  # what the congestion window of the sender lets out
        moving.hear(b"m" * 1000, elsewhere(moving.old, port=100 + n))
        moving.connection.paths.challenged(moving.old, n.to_bytes(8))
    assert len(moving.connection.paths.outgoing) <= MAX_WAITING
    assert moving.connection.paths.candidate == elsewhere(moving.old, port=109)


@pytest.mark.parametrize("same_host", [True, False])
def test_window_and_round_trip_are_kept_only_where_no_more_than_the_port_changes(same_host: bool) -> None:
    """RFC 9000 §9.4."""
    moving = Moving()
    moving.connection.send_message(b"b" * 300_000)
    moving.pair.settle()
    recovery = moving.connection.recovery
    before = recovery.controller, recovery.rtt, moving.connection.mtu
    new = elsewhere(moving.old, port=4711)
    if same_host:
        new = moving.old[:2] + b"\x12\x34" + moving.old[4:]
    moving.hear(b"m" * 1000, new)
    ((data, _),) = moving.challenges(new)
    moving.answer(data)
    assert moving.connection.path == new
    kept = recovery.controller is before[0] and recovery.rtt is before[1]
    assert kept is same_host
    assert moving.connection.mtu == (before[2] if same_host else 1200)


# whole connections in virtual time


def arrived(peer: Peer, flow: Flow) -> int:
    return peer.flow(flow).received if flow.stream is not None and flow.stream.id in peer.flows else 0


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("uploads", [True, False])
@pytest.mark.parametrize("host", ["10.0.0.1", "10.9.9.9"])
def test_a_rebinding_in_mid_transfer_costs_three_round_trips_and_a_pto_at_most_and_no_byte(
    host: str, uploads: bool, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """A NAT gives its client another port, or another host; what is under way to the old one is lost.

    The client sends, or receives and says something now and then, as an application with anything to say does.
    """
    delay = 0.02
    size = 6_000_000
    with Simulation(seed, Link(delay=delay)) as sim:
        client, server = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        sim.network.set_link(Link(delay=delay, rate=2e6, queue=60_000))
        source, target = (client, server) if uploads else (server, client)
        flow = source.open().send(size)
        sim.pass_time(1.0)
        recovery = source.connection.recovery
        allowed = 3 * recovery.rtt.smoothed + recovery.pto()
        client.host.move(host, 5555)
        moved = sim.clock.now
        if not uploads:
            client.send_datagram(b"still there")
        last, longest = moved, 0.0
        seen = arrived(target, flow)

        def done() -> bool:
            nonlocal last, longest, seen
            now = arrived(target, flow)
            if now > seen:
                longest = max(longest, sim.clock.now - last)
                last, seen = sim.clock.now, now
            return target.flow(flow).at_end

        sim.run(done, 30)
        figure = f"{'up' if uploads else 'down'}load, {host}: stalled for {longest * 1e3:.0f} of {allowed * 1e3:.0f} ms"
        print(figure)
        record_property("figure", figure)
        assert longest <= allowed
        assert arrived(target, flow) == size
        assert server.connection.path[:24] == pack_address(host, 5555)
        assert server.connection.stats()["path_changes"] == 1
        assert client.error is None


@pytest.mark.parametrize("seed", seeds(3))
def test_losses_on_the_way_delay_a_move_and_do_not_prevent_it(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, loss=0.2)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(300_000)
        sim.pass_time(0.5)
        left.host.move("10.9.9.9", 777)
        sim.run(lambda: arrived(right, flow) == 300_000)
        sim.run(lambda: right.connection.path[:24] == pack_address("10.9.9.9", 777), 20)


def test_a_copy_from_elsewhere_moves_nothing_and_stops_nothing() -> None:
    """Somebody on the way repeats every datagram from an address of his own, faster, and never answers."""
    with Simulation(1, Link(delay=0.02, rate=2e6)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        thief = pack_address("10.6.6.6", 666)
        stolen: list[int] = []
        given = [0]
        sim.network.attach(thief, lambda source, datagrams, ecn: stolen.extend(map(len, datagrams)))
        sim.network.set_link(Link(delay=0.001), source=thief)

        def copy(now: float, source: bytes, destination: bytes, datagrams: list[bytes]) -> None:
            if source == left.host.address:
                given[0] += sum(map(len, datagrams))
                sim.network.send(thief, destination, datagrams)

        sim.network.tap = copy
        flow = left.open().send(4_000_000)
        sim.run(lambda: arrived(right, flow) == 4_000_000, 30)
        assert right.connection.path[:24] == left.host.address
        assert right.connection.stats()["path_changes"] == 0
        assert sum(stolen) <= AMPLIFICATION * given[0]
        assert len(stolen) < 30, "challenges are repeated by a timer, not for every packet"


def test_a_keep_alive_holds_a_binding_and_is_silent_while_there_is_traffic() -> None:
    assert Config().keep_alive == 25.0
    with Simulation(1, Link(delay=0.02)) as sim:
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}", config=Config(keep_alive=2.0)) for n in (1, 2)))
        times: list[float] = []

        def tap(now: float, source: bytes, destination: bytes, datagrams: list[bytes]) -> None:
            times.append(now)

        sim.network.tap = tap
        sim.pass_time(21)
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert max(gaps) < 2.5, "no binding of a NAT gets older than that"
        quiet = len(times)
        times.clear()
        for _ in range(20):
            left.send_datagram(b"traffic")
            sim.pass_time(1)
        assert len(times) <= 20 * 2 + 2, "each datagram and its acknowledgement, no PING"
        assert quiet > 0
        assert right.error is None
