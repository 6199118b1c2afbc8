"""What connections cost that do nothing, and those that are over."""

from __future__ import annotations

import gc
import weakref

import pytest

from burstwire.config import Config
from burstwire.core.ring import StreamRing
from burstwire.crypto.aead import BySize
from burstwire.crypto.aead_cryptography import CryptographyAead
from burstwire.crypto.aead_libcrypto import LibcryptoAead
from burstwire.proto.connection import Connection
from burstwire.proto.roster import MOST_RESTED, QUIET
from burstwire.sim import Link, Peer, SimHost, Simulation

SETTLED = 4.0
"""Seconds after which a connection that went quiet has nothing left to do but to stay alive."""


class Wakes:
    """Counts how often an endpoint is given its timeouts."""

    def __init__(self, host: SimHost) -> None:
        self.count = 0
        handle_timeout = host.endpoint.handle_timeout

        def counted(now: float) -> None:
            self.count += 1
            handle_timeout(now)

        host.endpoint.handle_timeout = counted  # type: ignore[method-assign]


def connected(sim: Simulation, count: int, config: Config) -> tuple[SimHost, SimHost, list[tuple[Peer, Peer]]]:
    """Two hosts with so many connections, each of which has carried a message each way."""
    a, b = sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config)
    pairs = [sim.connect(a, b) for _ in range(count)]
    for left, right in pairs:
        left.send_messages([b"ping"])
        right.send_messages([b"pong"])
    return a, b, pairs


@pytest.mark.parametrize("count", [1, 40])
def test_idle_connections_wake_nobody_between_keep_alives(count: int) -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b, _ = connected(sim, count, Config(keep_alive=25))
        sim.pass_time(SETTLED)
        wakes, sent = [Wakes(a), Wakes(b)], sim.network.stats()["sent"]
        sim.pass_time(15)
        assert [each.count for each in wakes] == [0, 0]
        assert sim.network.stats()["sent"] == sent
        sim.pass_time(15)
        assert all(each.count for each in wakes), "but then they are kept alive"
        assert sim.network.stats()["sent"] > sent


def test_idle_connections_that_need_not_be_kept_alive_never_wake_anybody() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b, pairs = connected(sim, 40, Config(keep_alive=0, idle_timeout=0))
        sim.pass_time(SETTLED)
        wakes = [Wakes(a), Wakes(b)]
        assert a.endpoint.next_timeout() is b.endpoint.next_timeout() is None
        sim.pass_time(10 * 3600)
        assert [each.count for each in wakes] == [0, 0]
        assert not any(peer.error for pair in pairs for peer in pair)


def owned(connection: Connection, *kinds: type) -> int:
    """Objects of these kinds that are reachable from a connection's keys and streams."""
    found, seen = 0, set()
    stack: list[object] = [connection.keys, *connection.streams.open.values()]
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | Connection):
            continue
        seen.add(id(thing))
        found += isinstance(thing, kinds)
        stack += gc.get_referents(thing)
    return found


def test_a_quiet_connection_holds_neither_ciphers_nor_rings_and_goes_on_as_before() -> None:
    kinds = (BySize, CryptographyAead, LibcryptoAead, StreamRing)
    with Simulation(1, Link(delay=0.01)) as sim:
        _, _, pairs = connected(sim, 3, Config())
        sim.pass_time(0.2)
        cores = [peer.connection for pair in pairs for peer in pair]
        assert all(owned(core, *kinds) for core in cores)
        sim.pass_time(SETTLED)
        assert [owned(core, *kinds) for core in cores] == [0] * 6
        for left, right in pairs:
            flow = left.open().send(50_000)
            sim.run(lambda: flow.stream and flow.stream.id in right.flows and right.flow(flow).at_end)  # noqa: B023
        assert not any(peer.error for pair in pairs for peer in pair)


def test_a_connection_that_is_busy_now_and_then_is_left_alone() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        _, _, ((left, right),) = connected(sim, 1, Config())
        sim.pass_time(0.2 * QUIET)
        ring = left.connection.streams.messages.sending.ring
        for _ in range(20):
            sim.pass_time(0.7 * QUIET)
            left.send_messages([b"ping"])
            sim.pass_time(0.1 * QUIET)
            assert left.connection.streams.messages.sending.ring is ring
        assert right.error is None


def test_all_of_very_many_quiet_connections_are_put_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burstwire.proto.roster.MOST_RESTED", 2)
    assert MOST_RESTED > 2
    with Simulation(1, Link(delay=0.01)) as sim:
        _, _, pairs = connected(sim, 7, Config())
        sim.pass_time(SETTLED + 7)
        assert [owned(peer.connection, StreamRing) for pair in pairs for peer in pair] == [0] * 14


def test_a_closed_connection_is_gone_after_a_round_trip_and_takes_no_timer() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b, ((left, right),) = connected(sim, 1, Config())
        sim.pass_time(SETTLED)
        left.connection.close(sim.clock.now)
        a.poke()
        sim.run(lambda: left.error and right.error, 1)
        sim.pass_time(0.05)
        assert not a.endpoint.connections
        assert not b.endpoint.connections
        sim.pass_time(SETTLED)
        assert a.endpoint.next_timeout() is b.endpoint.next_timeout() is None


def test_an_ended_connection_is_kept_in_memory_by_nobody() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b, pairs = connected(sim, 1, Config())
        weak = weakref.ref(pairs[0][0])  # which its connection refers to
        pairs[0][0].connection.close(sim.clock.now)
        a.poke()
        sim.run(lambda: not a.endpoint.connections and not b.endpoint.connections, 5)
        for host in (a, b):  # what the simulation itself remembers
            host.applications.clear()
            host.ended.clear()
            host.log.clear()
            host.attempts.clear()
        pairs.clear()
        gc.collect()
        assert weak() is None


def test_late_packets_of_a_closed_connection_are_no_strangers() -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b, ((left, right),) = connected(sim, 1, Config())
        sim.pass_time(SETTLED)
        right.connection.close(sim.clock.now)  # what left says now meets a connection that is over
        b.poke()
        sim.pass_time(0.005)
        left.send_messages([b"still there?"])
        sim.run(lambda: left.error and right.error, 1)
        sim.pass_time(1)
        for host in (a, b):
            assert host.endpoint.stats()["datagrams_unknown"] == host.endpoint.stats()["resets_sent"] == 0
