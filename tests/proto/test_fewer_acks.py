"""ACK_FREQUENCY, as it is asked for: one ACK stands for more packets, but never for more than are in flight."""

from __future__ import annotations

import pytest
from pair import Pair

from burstwire.config import Config

KIB = 1024
RATE = 5_000_000
"""Bytes a second; its window is large enough for fewer acknowledgements to be asked for, and stays as it is."""


def full(pair: Pair) -> Pair:
    """With as much to send as the peer gives credit for: nothing is read, so no credit takes acknowledgements along."""
    for _ in range(4):
        assert pair.a.connection.open_stream().write(bytes(256 * KIB)) == 256 * KIB
    return pair


def counts(pair: Pair) -> tuple[int, int]:
    return pair.a.connection.stats()["packets_sent"], pair.b.connection.stats()["packets_sent"]


def test_where_many_packets_are_in_flight_an_ack_stands_for_several() -> None:
    pair = full(Pair(Config(max_datagram_size=1200, pacing=False)))
    while counts(pair)[0] < 400:
        assert pair.step()
    packets, acks = counts(pair)
    pair.step()
    pair.step()
    packets, acks = counts(pair)[0] - packets, counts(pair)[1] - acks
    assert packets >= 100
    assert acks <= packets / 4


@pytest.mark.parametrize("mtu", [20_000, 53_248])
def test_when_packets_have_become_large_no_flight_waits_for_the_delay_of_an_ack(mtu: int) -> None:
    """Three packets of 53,248 bytes are what a receive buffer of 208 KiB holds. If one ACK for eight, asked for when
    they had 1,200, is still what is wanted then, each flight waits for a timer."""
    steady = Config(max_datagram_size=1200, pacing=False, congestion="fixed", fixed_rate=RATE)
    pair = full(Pair(steady))
    a = pair.a.connection
    while counts(pair)[0] < 150:
        assert pair.step()
    a.pmtu.size = mtu
    a.set_mtu()
    waits = flights = 0
    while a.sendable:
        flights += 1
        if not pair.step():
            waits += 1
            pair.wait()
    assert flights >= 4
    assert waits <= 1  # the first flight has not been acknowledged when the new wish arrives
