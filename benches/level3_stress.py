"""Level 3: many connections and streams at once, both directions at once, connections that come and go, and a soak.

How long the soak takes is in the environment variable BURSTWIRE_SOAK_SECONDS (150 by default).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

import burstwire as bw
from benches import soak
from benches.contest import Contest
from benches.many import Outcome, transfer
from burstwire.crypto.aead import fastest

MIB = 1 << 20
FAIR = 0.9
"""Jain's index that we want: with that, no more than a tenth of the streams' shares is out of place."""

SHAPES = {
    "1 connection, 1 stream": (1, 1),
    "1 connection, 64 streams": (1, 64),
    "64 connections, 1 stream": (64, 1),
    "16 connections, 8 streams": (16, 8),
}


class Many:
    """So many connections and streams at once, as a way of a contest; the same bytes in sum."""

    def __init__(self, connections: int, streams: int, direction: str = "up") -> None:
        self._shape = connections, streams
        self._direction = direction
        self.outcomes: list[Outcome] = []

    def __call__(self, count: int) -> float:
        connections, streams = self._shape
        both = self._direction == "both"
        outcome = transfer(
            connections=connections,
            streams=streams,
            size=count // (connections * streams * (2 if both else 1)),
            direction=self._direction,
            hash_all=count <= 8 * MIB,
        )
        self.outcomes.append(outcome)
        return outcome.seconds * count / outcome.bytes

    def about(self) -> dict[str, Any]:
        """The AEAD, the granted buffers; and the worst fairness of all rounds."""
        known = self.outcomes[1:] or self.outcomes  # the first one only warms up
        found: dict[str, Any] = {"aead": " and ".join(dict.fromkeys(fastest("aes-128-gcm"))), **known[-1].about}
        if self._direction == "up":
            for name in ("jain_streams", "jain_connections", "least_share"):
                found[name] = min(outcome.up[name] for outcome in known)
        return found


AT_ONCE = Contest(
    "many connections and streams at once",
    "mb_per_second",
    {name: Many(*shape) for name, shape in SHAPES.items()},
    base="1 connection, 1 stream",
    count=512 * MIB,
    quick_count=4 * MIB,
    scale=1e-6,
    rate=True,
    rounds=3,
)

DIRECTIONS = Contest(
    "both directions at once",
    "mb_per_second",
    {"one direction": Many(1, 1), "the other": Many(1, 1, "down"), "both, in sum": Many(1, 1, "both")},
    base="one direction",
    count=512 * MIB,
    quick_count=4 * MIB,
    scale=1e-6,
    rate=True,
    rounds=5,
)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(AT_ONCE, DIRECTIONS), ids=str)
def test_bulk(benchmark: Any, contest: Contest, way: str) -> None:
    contest.report(benchmark, way)
    done: Any = contest.ways[way]
    benchmark.extra_info.update(done.about())
    if contest is AT_ONCE:
        benchmark.extra_info["wanted_jain"] = FAIR


async def _churn(count: int, at_once: int) -> dict[str, Any]:
    """So many connections, each with one message and its echo, a few at a time beside one that stays."""
    config = bw.Config(cookie_threshold=1 << 20, keep_alive=0)
    async with (
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as server,
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as client,
    ):
        echoed = 0

        async def echo(connection: bw.Connection) -> None:
            async for message in connection:
                await connection.send(message)

        async def serve() -> None:
            async with asyncio.TaskGroup() as tasks:
                async for connection in server.incoming():
                    tasks.create_task(echo(connection))

        async def dial(numbers: range) -> None:
            nonlocal echoed
            for number in numbers:
                async with await client.connect(server.local_address, server.public_key) as connection:
                    await connection.send(b"%d" % number)
                    assert await connection.recv() == b"%d" % number
                    echoed += 1

        serving = asyncio.create_task(serve())
        async with await client.connect(server.local_address, server.public_key) as staying:
            started = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for worker in range(at_once):
                    tasks.create_task(dial(range(worker, count, at_once)))
            seconds = time.perf_counter() - started
            await staying.send(b"still here")
            assert await staying.recv() == b"still here"
        async with asyncio.timeout(30):  # what was closed last is remembered for three PTOs
            while server.stats()["connections"] or client.stats()["connections"]:
                await asyncio.sleep(0.02)
        stats, own = server.stats(), client.stats()
        assert echoed == count
        assert stats["connections_accepted"] == own["connections_opened"] == count + 1
        for name in ("ring_leased", "half_open", "attempts"):
            assert stats[name] == own[name] == 0, f"{name}: {stats[name]} and {own[name]} are left"
        await server.close()
        await serving
        return {
            "connections_per_second": count / seconds, "connections": count, "at_once": at_once,
            "initiates_sent": own["initiates_sent"], "receive_buffer": own["socket_receive_buffer"],
        }  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 8, 64])
def test_connections_come_and_go(benchmark: Any, at_once: int) -> None:
    benchmark.group = "connections made, used and closed; both sides in one process"
    count = 64 if benchmark.disabled else 1000
    found = benchmark.pedantic(lambda: asyncio.run(_churn(count, at_once)), rounds=1)
    benchmark.extra_info.update(way=f"{at_once} at once", **found)


def test_soak(benchmark: Any) -> None:
    benchmark.group = "soak"
    seconds = 2.0 if benchmark.disabled else float(os.environ.get("BURSTWIRE_SOAK_SECONDS", "150"))
    counts, samples = benchmark.pedantic(lambda: asyncio.run(soak.soak(seconds)), rounds=1)
    assert counts.streams
    assert counts.given_up
    assert counts.messages
    assert counts.connections
    benchmark.extra_info.update(
        way=f"{seconds:g} s",
        seconds=seconds,
        gigabytes=counts.bytes / 1e9,
        messages=counts.messages,
        connections=counts.connections,
        allocated_blocks_growth=samples.blocks_growth(),
        allocated_blocks_limit=soak.BLOCKS,
        rss_growth_mib=samples.growth(samples.resident) / MIB,
        rss_limit_mib=soak.RESIDENT // MIB,
        closed_connections_held=max(samples.closed[: samples.count]),
        closed_connections_limit=soak.CLOSED,
        **counts.extra,
    )


def test_a_long_stream(benchmark: Any) -> None:
    benchmark.group = "a long stream, both sides in one process"
    size = (64 if benchmark.disabled else 4096) * MIB
    samples, about = benchmark.pedantic(lambda: asyncio.run(soak.steady(size)), rounds=1)
    growth = samples.blocks_growth()
    assert growth < soak.BLOCKS
    benchmark.extra_info.update(
        way=f"{size // MIB:,} MiB",
        allocated_blocks_growth=growth,
        allocated_blocks_limit=soak.BLOCKS,
        rss_growth_mib=samples.growth(samples.resident) / MIB,
        rss_limit_mib=soak.RESIDENT // MIB,
        **about,
    )
