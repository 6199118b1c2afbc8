"""Amounts: handshakes that are made up, connections that are tried, streams that are opened: memory keeps its bound.

How fast a flood of INITIATEs may come is another matter (`test_flood_initiates.py`); here it is how many there were in
sum, and what is left of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hostile_peer import FLOODS, HostilePeer, Refused
from siege import MIB, Siege, resident
from test_bounds_peers import GROWTH, KEPT

from burstwire import Config, KeyPair, StreamReset, limits
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.core.socket import UdpSocket
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.events import StreamOpened, StreamReadable

Outcome = Callable[[str, str, str], None]


@pytest.fixture
def siege() -> Iterator[Siege]:
    siege = Siege()
    yield siege
    siege.close()


@pytest.mark.parametrize(
    ("flood", "what", "small", "large"),
    [("forged-handshakes", "packets", 10_000, 1_000_000), ("handshakes", "tries", 1000, 100_000)],
)
def test_however_many_handshakes_come_memory_keeps_its_bound(
    siege: Siege, flood: str, what: str, small: int, large: int, full: bool, outcome: Outcome
) -> None:
    amount = large if full else small
    found = siege.flood(flood, 2.0 if full else 0.3, 1, until=(what, amount))
    stats = siege.node.ask()
    held = f"{stats['connections']} connections, {stats['half_open']} half open at the end"
    outcome("attacks", f"{found.sums[what]:,} {flood.replace('-', ' ')}", f"{found}; {held}")
    assert found.sums[what] >= amount
    # The tables of handshakes, and as many connections as the one who tries has at a time.
    tables = sum(size for name, size in limits.worst_case(Config()).endpoint.items() if "handshakes" in name)
    assert found.growth <= tables + (1000 * limits.CONNECTION if flood == "handshakes" else GROWTH)
    assert stats["half_open"] <= Config().max_half_open
    # A third of a second says nothing about a rate.
    assert found.kept >= KEPT if full else found.rate > 0


def test_a_million_streams_opened_and_given_up_leave_nothing_behind(full: bool, outcome: Outcome) -> None:
    """A node without an application that takes time, so that there are many."""
    amount = 1_000_000 if full else 5000
    key, ring, table = KeyPair.generate(), BufferRing(16), RunTable()
    socket = UdpSocket(("127.0.0.1", 0))
    node = Endpoint(key, Config(), now=time.monotonic(), random=os.urandom, receive_buffer=socket.receive_buffer)
    opened = most = 0

    def step() -> bool:
        nonlocal opened, most
        now = time.monotonic()
        came = socket.recv(ring, table, 12)
        if came:
            node.receive(ring, table, now)
        table.release(ring)
        when = node.next_timeout()
        if when is not None and when <= now:
            node.handle_timeout(now)
        for event in node.events():
            if isinstance(event, StreamOpened):
                opened += 1
            elif isinstance(event, StreamReadable):
                with pytest.raises(StreamReset):
                    event.stream.read(1)
        for connection in node.connections.values():
            most = max(most, len(connection.streams))
        while (flight := node.transmit(now)) is not None:
            socket.send(flight)
            node.sent(now)
        return bool(came)

    peers: list[HostilePeer] = []
    connecting = threading.Thread(target=lambda: peers.append(HostilePeer(socket.local_address[1], key.public)))
    connecting.start()
    while connecting.is_alive():
        step()
        time.sleep(0.0002)
    (peer,) = peers
    try:
        flood = FLOODS["streams-opened-and-reset"](peer)
        started = before = 0.0
        first = 0
        while opened < amount:
            if opened >= 2000 and not before:  # what the first ones need is there
                started, before, first = time.monotonic(), resident(), opened
            peer.inject(next(flood))
            while step():
                pass
        growth = resident() - before
        rate = (opened - first) / (time.monotonic() - started)
        (connection,) = node.connections.values()
        outcome(
            "attacks",
            f"{opened:,} streams opened and given up",
            f"{growth / MIB:+.1f} MiB; {rate:,.0f} a second, {most} at a time at most",
        )
        assert connection.error is None
        assert most <= Config().max_streams
        assert growth <= GROWTH
    except Refused:
        pytest.fail(f"the node ended the connection: {node.connections}")
    finally:
        peer.close()
        node.destroy()
        socket.close()
        ring.close()


def test_what_a_node_takes_under_a_siege_is_below_what_its_limits_add_up_to(siege: Siege, outcome: Outcome) -> None:
    """The bound that `burstwire.limits` gives, of a node with four connections."""
    found = siege.flood("streams-left-open", 0.3, 1)
    bound = limits.worst_case(Config(max_connections=4)).total
    outcome(
        "attacks",
        "streams that stay open, beside the sum of all limits for four connections",
        f"{found.growth / MIB:+.1f} MiB of at most {bound / MIB:,.0f} MiB",
    )
    assert found.growth < bound
