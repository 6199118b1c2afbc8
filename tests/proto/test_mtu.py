"""The search for the path MTU, against paths that are described by what they carry."""

from __future__ import annotations

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.proto.mtu import BLACK_HOLE_PTOS, BLACK_HOLE_TIMER, MAX_PROBES, RAISE_TIMER, WORTH_IT, MtuDiscovery

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
            pmtu.refused(0.0)
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
    assert not pinned.silence(10, 0.0)
    assert not pinned.refused(0.0)
    pinned.new_path()
    assert pinned.size == 1452


def test_a_search_that_ended_is_resumed_later() -> None:
    pmtu, _ = search(1472)
    assert pmtu.next_probe(RAISE_TIMER - 1, WORTH_IT, WIDE) == 0
    assert pmtu.next_probe(RAISE_TIMER, WORTH_IT, WIDE) == 65507


def test_a_black_hole_leads_back_to_the_base_and_the_search_starts_again_later() -> None:
    pmtu, _ = search(8972)
    assert not pmtu.silence(BLACK_HOLE_PTOS - 1, 5.0)
    assert pmtu.size == 8972
    assert pmtu.silence(BLACK_HOLE_PTOS, 5.0)
    assert pmtu.size == 1200
    assert pmtu.next_probe(5.0 + BLACK_HOLE_TIMER - 1, WORTH_IT, WIDE) == 0
    assert pmtu.next_probe(5.0 + BLACK_HOLE_TIMER, WORTH_IT, WIDE) > 1200


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
