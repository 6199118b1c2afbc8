"""Keys that are replaced at tiny limits, while data pass that are lost, reordered and copied: nothing is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
from support.loops import LOOPS, run_under
from support.relay import Faults, Relay

from burstwire import Config, Connection, KeyPair, Stream, bind
from burstwire.sim import Flow, Link, Peer, Simulation

Outcome = Callable[[str, str, str], None]

TINY = {
    "packets": {"key_update_packets": 5},
    "bytes": {"key_update_bytes": 4000, "key_update_interval": 0.0},
    "time": {"key_update_bytes": 0, "key_update_interval": 0.01},
}
"""Limits that every flight exceeds, so that an update follows an update as soon as it may."""

BAD = Link(delay=0.01, loss=0.03, reordering=0.1, hold=0.03, duplication=0.02, rate=2.5e6)


@pytest.mark.parametrize("limit", TINY)
def test_no_byte_is_lost_on_a_bad_path_while_keys_are_replaced_as_often_as_they_may(
    limit: str, seed: int, full: bool, outcome: Outcome
) -> None:
    size = (20 if full else 1) << 20
    config = Config(**TINY[limit], idle_timeout=600.0)  # type: ignore[arg-type]
    with Simulation(seed, BAD) as sim:
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}", config=config) for n in (1, 2)))
        flows = [left.open().send(size), right.open().send(size)]
        messages = [Random(seed).randbytes(n * 7) for n in range(300)]
        left.send_messages(messages)
        sim.run(lambda: arrived(right, flows[0]) and arrived(left, flows[1]), within=3000)
        sim.run(lambda: len(right.messages) == len(messages), within=600)
        assert right.messages == messages
        for peer, flow in ((right, flows[0]), (left, flows[1])):
            assert peer.flow(flow).received == flow.sent == size
        stats = [peer.connection.stats() for peer in (left, right)]
        seconds = sim.elapsed
    for own, other in (stats, stats[::-1]):
        assert own["key_updates"] >= 10
        # The peer has seen all of them but the latest.
        assert own["key_updates"] - 1 <= other["key_updates_peer"] <= own["key_updates"]
        # Nobody updates so fast that late packets find their key gone: what is late by 30 ms is within 3 PTO.
        assert other["packets_unopened"] == 0
    updates = sum(int(one["key_updates"]) for one in stats)
    outcome(
        "demands",
        f"8: rekey under load, 3 % loss, 10 % reordered, by {limit}",
        f"{2 * size >> 20} MiB both ways arrived whole through {updates:,} key updates in {seconds:.0f} s (simulated); "
        f"{sum(int(one['packets_lost']) for one in stats):,} packets lost, none came too late for its key",
    )


def arrived(peer: Peer, flow: Flow) -> bool:
    """Whether the peer has read all of a flow of the other side."""
    return flow.stream is not None and flow.stream.id in peer.flows and peer.flow(flow).at_end


@pytest.mark.parametrize("loop", LOOPS)
def test_no_byte_is_lost_over_sockets_and_a_bad_relay_while_keys_are_replaced(
    loop: str, seed: int, full: bool, outcome: Outcome
) -> None:
    updates = 60 if full else 5
    config = Config(key_update_packets=20, key_update_interval=0.05)
    piece = Random(seed).randbytes(100_000)
    sent = 0
    stats: list[dict[str, int | float]] = []

    async def send(connection: Connection, stream: Stream) -> int:
        """Sends as long as it takes for so many updates; the bytes."""
        size = 0
        while min(connection.stats()[name] for name in ("key_updates", "key_updates_peer")) < updates:
            await stream.write(piece)
            size += len(piece)
        await stream.finish()
        return size

    async def receive(stream: Stream) -> int:
        """Reads to the end; the bytes, all of them right."""
        size = 0
        expected = piece * 4
        while got := await stream.read(len(piece)):
            at = size % len(piece)
            assert got == expected[at : at + len(got)]
            size += len(got)
        return size

    async def main() -> None:
        nonlocal sent
        keys = [KeyPair.generate() for _ in range(2)]
        faults = Faults(drop=0.01, duplicate=0.01, reorder=0.05, corrupt=0.005)
        async with (
            await bind("127.0.0.1:0", keys[0], config=config) as a,
            await bind("127.0.0.1:0", keys[1], config=config) as b,
        ):
            with Relay(b.local_address, faults, seed) as relay:
                here = await a.connect(relay.address, keys[1].public)
                there = await anext(b.incoming())
                stream = await here.open_stream()
                outgoing = asyncio.create_task(send(here, stream))
                other = await anext(there.incoming_streams())
                sizes = await asyncio.gather(outgoing, send(there, other), receive(other), receive(stream))
                assert sizes[:2] == sizes[2:]
                sent = sum(sizes[:2])
                stats.extend((here.stats(), there.stats()))
                await a.close()  # as long as the relay carries what it says
                await b.close()

    run_under(loop, main)
    outcome(
        "demands",
        f"8: rekey under load over sockets ({loop}), 1 % loss, 5 % reordered",
        f"{sent / 1e6:.0f} MB both ways arrived whole through {sum(int(one['key_updates']) for one in stats):,} key "
        f"updates; {sum(int(one['packets_lost']) for one in stats):,} packets lost",
    )
