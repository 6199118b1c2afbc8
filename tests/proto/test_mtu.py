"""The search for the path MTU, against paths that are described by what they carry."""

from __future__ import annotations

import socket
import sys

import pytest
from pair import Pair
from support.sized import transfer, wide

from burstwire.config import Config
from burstwire.core.address import pack_address
from burstwire.core.socket import UdpSocket
from burstwire.proto.mtu import (
    BLACK_HOLE_LOSSES,
    BLACK_HOLE_TIMER,
    MAX_PROBES,
    RAISE_TIMER,
    WORTH_IT,
    MtuDiscovery,
)
from burstwire.proto.sent import SentRecord
from burstwire.sim import Link, Simulation, seeds

WIDE = 1 << 30


def search(carries: int, limit: int = 65507, interface: int = 1 << 20) -> tuple[MtuDiscovery, int]:
    """Runs a search over a path; returns it and how many probes were lost."""
    pmtu = MtuDiscovery(None, limit, 0)
    lost = 0
    for _ in range(100):
        size = pmtu.next_probe(0.0, WORTH_IT, WIDE)
        if not size:
            return pmtu, lost
        assert size <= limit
        pmtu.sent(size)
        if size > interface:
            pmtu.refused(True, 0.0)
        elif size > carries:
            lost += 1
            pmtu.lost(size, 0.0)
        else:
            pmtu.acked(size, 0.0)
    raise AssertionError("the search does not end")


@pytest.mark.parametrize(
    ("carries", "found"),
    [
        (65507, 65507),
        (1472, 1472),
        (1471, 1452),
        (1452, 1452),
        (8972, 8972),
        (1280, 1200),
        (1200, 1200),
        (20_000, 16_384),
    ],
)
def test_the_largest_usual_size_that_passes_is_found(carries: int, found: int) -> None:
    assert search(carries)[0].size == found


def test_what_the_interface_refuses_costs_no_loss() -> None:
    pmtu, lost = search(1472, interface=1472)
    assert (pmtu.size, lost) == (1472, 0)


def test_no_probe_exceeds_what_the_peer_takes_or_a_quarter_of_its_buffer() -> None:
    assert search(65507, limit=9000)[0].size == 9000
    pmtu = MtuDiscovery(None, 65507, 200_000)
    assert pmtu.next_probe(0.0, WORTH_IT, WIDE) == 50_000


def test_a_small_window_tries_the_small_steps_and_the_large_ones_when_it_has_grown() -> None:
    pmtu = MtuDiscovery(None, 65507, 0)
    assert pmtu.next_probe(0.0, WORTH_IT, 2400) == 1372
    pmtu.sent(1372)
    pmtu.acked(1372, 0.0)
    assert pmtu.next_probe(0.0, WORTH_IT, 2400) == 1452
    assert pmtu.next_probe(0.0, WORTH_IT, 1 << 20) == 65507


def test_a_size_is_given_up_only_after_several_losses() -> None:
    pmtu = MtuDiscovery(None, 1472, 0)
    for _ in range(MAX_PROBES - 1):
        pmtu.sent(pmtu.next_probe(0.0, WORTH_IT, WIDE))
        pmtu.lost(1472, 0.0)
    pmtu.sent(pmtu.next_probe(0.0, WORTH_IT, WIDE))
    assert pmtu.acked(1472, 0.0)
    assert pmtu.size == 1472


def test_nothing_is_probed_before_bulk_data_flow_or_when_the_size_is_pinned() -> None:
    assert MtuDiscovery(None, 65507, 0).next_probe(0.0, WORTH_IT - 1, WIDE) == 0
    pinned = MtuDiscovery(1452, 65507, 0)
    assert pinned.size == 1452
    assert pinned.next_probe(0.0, 1 << 30, WIDE) == 0
    assert not pinned.may_shrink
    lose(pinned, 100)
    assert not any(pinned.pair_acked(0.0) for _ in range(10))
    assert not pinned.refused(False, 0.0)
    pinned.new_path()
    assert pinned.size == 1452


def test_a_search_that_ended_is_resumed_later() -> None:
    pmtu, _ = search(1472)
    assert pmtu.next_probe(RAISE_TIMER - 1, WORTH_IT, WIDE) == 0
    assert pmtu.next_probe(RAISE_TIMER, WORTH_IT, WIDE) == 65507


def large(count: int, size: int = 8972) -> SentRecord:
    return SentRecord(0, count, 0, size, 0.0)


def lose(pmtu: MtuDiscovery, count: int, size: int = 8972) -> None:
    pmtu.missed([(large(count, size), (1 << count) - 1)])


def test_small_packets_that_arrive_where_large_ones_do_not_lead_back_to_the_base_and_later_to_a_new_search() -> None:
    pmtu, _ = search(8972)
    lose(pmtu, BLACK_HOLE_LOSSES)
    assert not pmtu.pair_acked(5.0), "the end of an outage may look like this"
    assert pmtu.pairing
    assert pmtu.pair_acked(5.0)
    assert pmtu.size == 1200
    assert not pmtu.pairing
    assert pmtu.next_probe(5.0 + BLACK_HOLE_TIMER - 1, WORTH_IT, WIDE) == 0
    assert pmtu.next_probe(5.0 + BLACK_HOLE_TIMER, WORTH_IT, WIDE) > 1200


def test_few_losses_are_no_black_hole_however_many_small_packets_arrive() -> None:
    pmtu, _ = search(8972)
    lose(pmtu, BLACK_HOLE_LOSSES - 1)
    assert not any(pmtu.pair_acked(5.0) for _ in range(10))


def test_losses_without_small_packets_that_arrive_are_no_black_hole() -> None:
    pmtu, _ = search(8972)
    lose(pmtu, 60)
    assert pmtu.size == 8972
    lose(pmtu, 60, size=1200)
    assert pmtu.suspects == 60


def test_one_large_packet_that_arrives_clears_the_suspicion() -> None:
    pmtu, _ = search(8972)
    lose(pmtu, 60)
    assert not pmtu.pair_acked(5.0)
    pmtu.arrived([(large(1, 1200), 1, 0)])
    assert pmtu.suspects == 60, "that one was small"
    pmtu.arrived([(large(1), 1, 0)])
    assert not pmtu.pairing
    assert not pmtu.pair_acked(5.0)
    lose(pmtu, BLACK_HOLE_LOSSES)
    assert not pmtu.pair_acked(5.0), "one pair since then"


def test_a_probe_is_neither_lost_to_a_black_hole_nor_proof_against_one() -> None:
    pmtu, _ = search(1472)
    probe = large(1)
    probe.is_probe = True
    pmtu.missed([(probe, 1)])
    assert pmtu.suspects == 0
    lose(pmtu, 3, 1472)
    pmtu.arrived([(probe, 1, 0)])
    assert pmtu.suspects == 3


def test_a_refusal_of_another_packet_is_not_taken_for_that_of_the_probe_on_its_way() -> None:
    pmtu = MtuDiscovery(None, 65507, 0)
    for size in (1372, 1452):
        assert pmtu.next_probe(0.0, WORTH_IT, 2000) == size
        pmtu.sent(size)
        pmtu.acked(size, 0.0)
    pmtu.sent(pmtu.next_probe(0.0, WORTH_IT, 2000))
    assert pmtu.refused(False, 0.0), "the interface has become narrower than what is in use"
    assert (pmtu.size, pmtu.probing) == (1200, 0)


def test_a_refused_probe_lowers_nothing() -> None:
    pmtu = MtuDiscovery(None, 65507, 0)
    pmtu.sent(pmtu.next_probe(0.0, WORTH_IT, WIDE))
    assert not pmtu.refused(True, 0.0)
    assert pmtu.next_probe(0.0, WORTH_IT, WIDE) == 1372


def narrow(size: int):
    return lambda datagram: [datagram] if len(datagram) <= size else []


def bulk(pair: Pair, data: bytes, limit) -> None:
    """Sends messages that amount to `data` several times, over a path with a limit."""
    pair.a.connection.confirmed = pair.b.connection.confirmed = True
    for _ in range(8):
        pair.a.connection.send_message(data)
        pair.settle(limit, limit)
        assert pair.b.connection.next_message() == data


@pytest.mark.parametrize(("carries", "found"), [(1500, 1472), (9000, 8972), (65507, 53_248)])
def test_a_connection_comes_to_use_what_its_path_carries(carries: int, found: int) -> None:
    pair = Pair(Config())
    bulk(pair, b"m" * 400_000, narrow(carries))
    assert pair.a.connection.stats()["mtu"] == found
    assert pair.a.connection.recovery.controller.window > 10 * 1200, "lost probes are no congestion"


def test_a_path_that_becomes_narrow_in_mid_transfer_costs_time_and_no_byte() -> None:
    pair = Pair(Config())
    bulk(pair, b"m" * 400_000, narrow(9000))
    bulk(pair, b"n" * 400_000, narrow(1300))
    assert pair.a.connection.stats()["mtu"] == 1200


# whole connections in virtual time; with loss and black holes: tests/hard/test_statement_mtu.py


@pytest.mark.parametrize("seed", seeds(3))
def test_an_outage_is_not_taken_for_a_black_hole(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, mtu=8972, rate=3e6)) as sim:
        left, right = wide(sim, 8972)
        sim.network.set_link(Link(delay=0.02, mtu=8972, rate=3e6, loss=0.01))
        for seconds in (0.1, 0.5, 2.0):
            flow = left.open().send(2_000_000)
            sim.pass_time(0.2)
            sim.network.outage(seconds)
            sim.run(lambda flow=flow: right.flow(flow).at_end)
            assert left.connection.mtu == 8972


@pytest.mark.parametrize("interface", [1252, 1472])
def test_nothing_larger_than_the_interface_takes_leaves_and_only_probes_are_refused(interface: int) -> None:
    """1,252 bytes of UDP payload are an IPv4 MTU of 1,280."""
    with Simulation(1, Link(delay=0.01, mtu=interface)) as sim:
        seen: list[int] = []
        sim.network.tap = lambda now, source, destination, datagrams: seen.extend(map(len, datagrams))
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}", mtu=interface) for n in (1, 2)))
        transfer(sim, left, right, 2_000_000)
        assert max(seen) <= interface
        assert left.connection.mtu == (1200 if interface < 1372 else interface)
        assert left.connection.stats()["packets_lost"] == 0
        assert left.host.refused > 0


def test_an_interface_that_becomes_narrower_stops_nothing() -> None:
    with Simulation(1, Link(delay=0.01, mtu=1472)) as sim:
        left, right = wide(sim, 1472)
        sim.network.set_link(Link(delay=0.01, mtu=1472, rate=3e6))
        flow = left.open().send(3_000_000)
        sim.pass_time(0.2)
        left.host.mtu = 1252
        assert sim.run(lambda: right.flow(flow).at_end) < 5
        assert left.connection.mtu == 1200


def test_lost_probes_are_no_congestion() -> None:
    """Sizes that do not pass are tried again and again; the window never notices."""
    with Simulation(1, Link(delay=0.01, mtu=1300)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        for _ in range(4):
            transfer(sim, left, right, 500_000)
        stats = left.connection.stats()
        assert stats["packets_lost"] == stats["congestion_congestion_events"] == 0
        assert sim.network.stats()["mtu"] >= MAX_PROBES


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
def test_the_kernel_is_told_never_to_fragment() -> None:
    ip_mtu_discover, ip_pmtudisc_probe = 10, 3
    with (
        UdpSocket(("127.0.0.1", 0)) as opened,
        socket.fromfd(opened.fileno(), socket.AF_INET, socket.SOCK_DGRAM) as same,
    ):
        assert same.getsockopt(socket.IPPROTO_IP, ip_mtu_discover) == ip_pmtudisc_probe


def test_the_packet_size_is_kept_for_each_host_that_the_peer_is_at() -> None:
    with Simulation(1, Link(delay=0.01, mtu=1472)) as sim:
        left, right = wide(sim, 1472)
        home, away = right.host.address, pack_address("10.7.7.7", 4000)
        assert away != home
        for address, expected in (("10.7.7.7", 1200), ("10.0.0.2", 1472)):
            right.host.move(address)
            right.send_datagram(b"here I am")
            sim.run(lambda address=address: left.connection.path[:24] == pack_address(address, 4000))
            assert left.connection.mtu == expected
