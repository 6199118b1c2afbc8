"""Peers with valid keys that attack: an honest transfer beside each flood keeps its pace, and memory its bound.

The flooder is a process of its own; what is compared with is the same transfer beside the same process, as busy and
mute (`siege.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from hostile_peer import FLOODS, STRANGERS, HostilePeer
from siege import MIB, Siege

from burstwire import PeerClosed, PublicKey
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode

SLICE = ("acks", "overlapping", "pings", "datagrams")
"""Floods of the quick form: what had cost the most before there were bounds."""

KEPT, KEPT_IN_SMALL = 0.5, 0.3
"""Shares of its rate that the honest peer keeps. Small amounts say little about rates: half a second of the others on
the machine is as long as they are."""

GROWTH = 16 * MIB
TRIES = 3
"""Of which the best counts: nothing that others do makes an honest peer faster than the node lets it be."""


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    siege = Siege()
    yield siege
    siege.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "flood" in metafunc.fixturenames:
        every = [name for name in FLOODS if name not in ("mute", *STRANGERS)]
        metafunc.parametrize("flood", every if metafunc.config.getoption("--hard") else SLICE)


def test_an_honest_peer_beside_a_flood_keeps_half_of_its_rate_and_memory_stays_bounded(
    siege: Siege, flood: str, full: bool, outcome: Callable[[str, str, str], None]
) -> None:
    wanted = KEPT if full else KEPT_IN_SMALL
    found = siege.flood(flood, 0.6 if full else 0.3, 2 if full else 1)
    growth = found.growth
    for _ in range(TRIES - 1):
        if found.kept >= wanted:
            break
        again = siege.flood(flood, 0.6, 2)
        growth = max(growth, again.growth)
        found = max(found, again, key=lambda one: one.kept)
    what = (FLOODS[flood].__doc__ or "packets of nothing but these").split("\n")[0].rstrip(".")
    outcome("attacks", f"{flood}: {what}", str(found))
    assert growth <= GROWTH
    assert found.kept >= wanted


def test_a_peer_that_acknowledges_what_was_never_sent_is_closed_at_once(
    siege: Siege, outcome: Callable[[str, str, str], None]
) -> None:
    peer = HostilePeer(siege.info["port"], PublicKey.parse(siege.info["key"]))
    try:
        started = time.monotonic()
        peer.inject([f.encode_ack([(1 << 40, 1 << 40)], 0)])
        while not peer.ended and time.monotonic() < started + 10:
            peer.listen()
        error = peer.connection.error
        assert isinstance(error, PeerClosed)
        assert error.code == TransportCode.PROTOCOL_VIOLATION
        took = time.monotonic() - started
        outcome("attacks", "a peer acknowledges what was never sent", f"closed after {took * 1e3:.1f} ms: {error}")
    finally:
        peer.close()
