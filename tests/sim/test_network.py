"""The virtual clock and network alone, between dummy nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from burstwire.core.address import pack_address
from burstwire.errors import AddressError, ConfigError
from burstwire.sim.clock import Clock, StandStill
from burstwire.sim.link import Link
from burstwire.sim.network import Network

A = pack_address("10.0.0.1", 4000)
B = pack_address("10.0.0.2", 4000)
C = pack_address("2001:db8::3", 4000)


class Node:
    """Notes what arrives: (seconds since the start, source, datagram, ECN)."""

    def __init__(self, network: Network, address: bytes) -> None:
        self.network = network
        self.start = network.clock.now
        self.got: list[tuple[float, bytes, bytes, int]] = []
        network.attach(address, self.receive)

    def receive(self, source: bytes, datagrams: list[bytes], ecn: int) -> None:
        self.got += [(round(self.network.clock.now - self.start, 9), source, data, ecn) for data in datagrams]

    @property
    def data(self) -> list[bytes]:
        return [data for _, _, data, _ in self.got]

    @property
    def times(self) -> list[float]:
        return [time for time, *_ in self.got]


def network(link: Link | None = None, seed: int = 1) -> tuple[Network, Node, Node]:
    net = Network(Clock(), seed, link)
    return net, Node(net, A), Node(net, B)


def numbered(n: int, size: int = 100) -> list[bytes]:
    return [i.to_bytes(4, "big") * (size // 4) for i in range(n)]


def settle(net: Network) -> None:
    while net.clock.step():
        pass


# the clock


def test_calls_are_made_in_the_order_of_their_times_then_of_their_making() -> None:
    clock = Clock(5.0)
    made: list[tuple[str, float]] = []
    for when, name in ((7, "c"), (6, "a"), (6, "b"), (1, "past")):
        clock.at(when, lambda name=name: made.append((name, clock.now)))
    cancelled = clock.at(6, lambda: made.append(("never", 0)))
    cancelled.cancel()
    assert not clock.run(6.5)
    assert made == [("past", 5.0), ("a", 6), ("b", 6)]
    assert clock.now == 6.5
    assert clock.next_time == 7


def test_a_run_stops_as_soon_as_it_is_told() -> None:
    clock = Clock(0.0)
    made: list[int] = []
    for i in range(5):
        clock.at(i, lambda i=i: made.append(i))
    assert clock.run(10, lambda: len(made) == 2)
    assert (made, clock.now) == ([0, 1], 1)


def test_time_that_stands_still_is_noticed() -> None:
    clock = Clock()

    def again() -> None:
        clock.at(clock.now, again)

    again()
    with pytest.raises(StandStill):
        clock.run(2000)


# links


def test_a_plain_link_delivers_everything_in_order_after_its_delay() -> None:
    net, _, b = network(Link(delay=0.05))
    net.send(A, B, numbered(10), ecn=2)
    settle(net)
    assert b.got == [(0.05, A, data, 2) for data in numbered(10)]


def test_loss_takes_about_its_share() -> None:
    net, _, b = network(Link(loss=0.2))
    net.send(A, B, numbered(5000))
    settle(net)
    assert 3800 < len(b.got) < 4200
    assert b.data == sorted(b.data)
    assert net.stats()["lost"] == 5000 - len(b.got)


def test_total_loss_lets_nothing_through() -> None:
    net, _, b = network(Link(loss=1.0))
    net.send(A, B, numbered(100))
    settle(net)
    assert b.got == []


def test_duplicates_arrive_once_more_within_the_hold_time() -> None:
    net, _, b = network(Link(delay=0.01, duplication=0.3, hold=0.002))
    net.send(A, B, numbered(1000))
    settle(net)
    assert 1200 < len(b.got) < 1400
    assert set(b.data) == set(numbered(1000))
    assert max(b.data.count(data) for data in numbered(1000)) == 2
    assert 0.01 <= min(b.times) <= max(b.times) <= 0.012


def test_jitter_varies_the_delay_and_keeps_the_order() -> None:
    net, _, b = network(Link(delay=0.01, jitter=0.005))
    for data in numbered(200):
        net.send(A, B, [data])
        net.clock.run(net.clock.now + 0.001)
    settle(net)
    assert b.data == numbered(200)
    delays = [time - i * 0.001 for i, time in enumerate(b.times)]
    assert len({round(delay, 5) for delay in delays}) > 100
    assert min(delays) >= 0.01 - 1e-9


def test_reordered_datagrams_are_overtaken_by_later_ones() -> None:
    net, _, b = network(Link(delay=0.01, reordering=0.1, hold=0.005))
    for data in numbered(500):
        net.send(A, B, [data])
        net.clock.run(net.clock.now + 0.001)
    settle(net)
    assert b.data != numbered(500)
    assert sorted(b.data) == numbered(500)
    assert 30 < net.stats()["reordered"] < 75


def test_corruption_flips_one_bit_or_cuts_the_end_off() -> None:
    net, _, b = network(Link(corruption=0.5))
    net.send(A, B, [bytes(100)] * 400)
    settle(net)
    whole = [data for data in b.data if len(data) == 100]
    flipped = [data for data in whole if data != bytes(100)]
    assert len(b.data) == 400
    assert {sum(byte.bit_count() for byte in data) for data in flipped} == {1}
    assert len(flipped) > 100
    assert 20 < 400 - len(whole) < 100
    assert len(flipped) + 400 - len(whole) == net.stats()["corrupted"]


def test_a_rate_spaces_datagrams_and_its_queue_drops_the_tail() -> None:
    net, _, b = network(Link(delay=0.1, rate=100_000, queue=1000))
    net.send(A, B, numbered(20))
    settle(net)
    assert b.data == numbered(10)
    assert b.times == pytest.approx([0.1 + 0.001 * (i + 1) for i in range(10)])
    assert net.stats()["queue"] == 10
    net.send(A, B, [b"later"])  # the queue has emptied
    settle(net)
    assert b.data[-1] == b"later"


def test_a_filling_queue_marks_what_may_be_marked() -> None:
    for ecn, marks in ((2, [2, 2, 2, 3, 3]), (0, [0] * 5)):
        net, _, b = network(Link(rate=1e6, mark=250))
        net.send(A, B, numbered(5), ecn)
        settle(net)
        assert [mark for *_, mark in b.got] == marks


@pytest.mark.parametrize("link", [Link(mtu=1200), Link(mtu=1200, loss=1e-9)])
def test_datagrams_beyond_the_mtu_vanish(link: Link) -> None:
    net, _, b = network(link)
    net.send(A, B, [bytes(1200), bytes(1201), bytes(1)])
    settle(net)
    assert [len(data) for data in b.data] == [1200, 1]
    assert net.stats()["mtu"] == 1


def test_a_link_that_becomes_shorter_is_not_overtaken_by_itself() -> None:
    net, _, b = network(Link(delay=0.1))
    net.send(A, B, [b"1"])
    net.set_link(Link(delay=0.01))
    net.send(A, B, [b"2"])
    settle(net)
    assert b.data == [b"1", b"2"]


@pytest.mark.parametrize(
    "change", [{"loss": 1.1}, {"loss": -0.1}, {"delay": -1}, {"rate": 0}, {"queue": 0}, {"mtu": 0}, {"corruption": 2}]
)
def test_impossible_links_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(Link(), **change)


# the network


def test_each_direction_has_its_own_link() -> None:
    net, a, b = network(Link(delay=0.01))
    net.set_link(Link(delay=0.5), source=B)
    net.send(A, B, [b"out"])
    net.send(B, A, [b"back"])
    settle(net)
    assert (b.times, a.times) == ([0.01], [0.5])
    assert net.link(B, A) == Link(delay=0.5)


def test_links_change_while_datagrams_are_under_way() -> None:
    net, _, b = network(Link(delay=0.01))
    net.send(A, B, [b"1"])
    net.set_link(Link(loss=1.0), destination=B)
    net.send(A, B, [b"2"])
    net.set_link(Link(delay=0.02), A, B)
    net.send(A, B, [b"3"])
    settle(net)
    assert b.data == [b"1", b"3"]


def test_an_outage_cuts_only_its_direction_and_ends() -> None:
    net, a, b = network()
    net.outage(1.0, source=A)
    net.send(A, B, [b"lost"])
    net.send(B, A, [b"kept"])
    net.clock.run(net.clock.now + 1.0)
    net.send(A, B, [b"again"])
    settle(net)
    assert (a.data, b.data) == ([b"kept"], [b"again"])
    assert net.stats()["cut"] == 1


def test_an_address_belongs_to_one_and_may_be_given_up() -> None:
    net, _, b = network(Link(delay=0.01))
    with pytest.raises(AddressError, match=r"10\.0\.0\.2:4000 is in use"):
        Node(net, B)
    net.send(A, B, [b"1"])
    net.detach(B)
    settle(net)
    assert b.got == []
    assert net.stats()["unreachable"] == 1


def test_one_seed_gives_one_run() -> None:
    wild = Link(delay=0.01, jitter=0.01, loss=0.1, duplication=0.1, reordering=0.1, corruption=0.1, rate=1e6)

    def run(seed: int) -> tuple[list[tuple[float, bytes, bytes, int]], str]:
        net, _, b = network(wild, seed)
        net.send(A, B, numbered(300))
        settle(net)
        return b.got, net.digest()

    assert run(7) == run(7)
    assert run(7)[0] != run(8)[0]


def test_traffic_in_one_direction_does_not_change_what_happens_in_another() -> None:
    def run(with_other: bool) -> list[bytes]:
        net, _, b = network(Link(loss=0.3))
        Node(net, C)
        for data in numbered(100):
            if with_other:
                net.send(A, C, [data])
                net.send(B, A, [data])
            net.send(A, B, [data])
        settle(net)
        return b.data

    assert run(True) == run(False)


def test_the_digest_tells_datagrams_and_times_apart() -> None:
    digests = set()
    for data, wait in ((b"x", 0.0), (b"y", 0.0), (b"x", 0.1)):
        net, *_ = network()
        net.clock.run(net.clock.now + wait)
        net.send(A, B, [data])
        digests.add(net.digest())
    assert len(digests) == 3
