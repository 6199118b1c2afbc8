"""The shared budget on real sockets, by its own books: nothing is asserted of the clock."""

from __future__ import annotations

import asyncio

import pytest

import burstwire as bw
from burstwire.proto.budget import POOL_TIME
from burstwire.proto.connection import Connection

RATE = 4_000_000
SIZE = 400_000


def test_real_connections_stay_within_what_the_budget_earned() -> None:
    async def main() -> None:
        key, peer = bw.KeyPair.generate(), bw.KeyPair.generate()
        # Packets of Ethernet's size: with those of loopback a bucket of two packets would be a third of what is sent.
        config = bw.Config(total_bandwidth=RATE, max_datagram_size=1400)
        async with (
            await bw.bind("127.0.0.1:0", key, config=config) as sender,
            await bw.bind("127.0.0.1:0", peer) as sink,
        ):
            received: list[int] = []

            async def take(connection: bw.Connection) -> None:
                message = await connection.recv()
                received.append(len(message))

            async def accept() -> None:
                async with asyncio.TaskGroup() as group:
                    count = 0
                    async for connection in sink.incoming():
                        group.create_task(take(connection))
                        count += 1
                        if count == 3:
                            break

            async def send(name: str) -> bw.Connection:
                connection = await sender.connect(sink.local_address, peer.public, congestion=name)
                assert connection.congestion == name
                await connection.send(bytes(SIZE))
                return connection

            accepting = asyncio.create_task(accept())
            connections = await asyncio.gather(*(send(name) for name in ("cubic", "ledbat", "cubic")))
            await accepting
            budget = sender._driver.protocol._budget
            assert budget is not None
            cores: list[Connection] = list(sender._driver.protocol.connections.values())
            accounts = sum(core.recovery.share.account for core in cores if core.recovery.share is not None)
            assert received == [SIZE] * 3
            stats = sender.stats()
            assert stats["budget_sent"] >= 3 * SIZE
            assert budget.sent + budget.pool + accounts == pytest.approx(
                budget.earned - budget.expired + budget.overdrawn, abs=1.0
            )
            # What went beyond what was earned are probes and floors, which are on the books.
            assert budget.sent <= budget.earned + budget.overdrawn + POOL_TIME * RATE
            assert stats["budget_waits"] > 0
            with pytest.raises(bw.ConfigError):
                await sender.connect(sink.local_address, peer.public, congestion="reno")
            with pytest.raises(bw.ConfigError):
                connections[0].set_congestion("reno")
            connections[0].set_congestion("ledbat")
            assert connections[0].congestion == "ledbat"

    asyncio.run(asyncio.wait_for(main(), 60))
