"""Many connections on one socket, and several endpoints in one loop."""

from __future__ import annotations

import asyncio
import random

import pytest
from linked import KEYS, LOCALHOST, endpoints
from support.loops import Run

from burstwire import Config, Connection, Endpoint, KeyPair, bind


async def echo(endpoint: Endpoint) -> None:
    """Answers every message of every connection until the endpoint closes."""
    async with asyncio.TaskGroup() as tasks:
        async for connection in endpoint.incoming():
            tasks.create_task(answer(connection))


async def answer(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message)


def test_two_hundred_connections_of_one_socket_each_get_their_own_answers(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):
            serving = asyncio.create_task(echo(b))

            async def talk(number: int) -> None:
                async with await a.connect(b.local_address, b.public_key) as here:
                    rng = random.Random(number)
                    for _ in range(5):
                        message = b"%d " % number + rng.randbytes(rng.randrange(5000))
                        await here.send(message)
                        assert await here.recv() == message

            for start in range(0, 200, 50):
                async with asyncio.TaskGroup() as tasks:
                    for number in range(start, start + 50):
                        tasks.create_task(talk(number))
            assert b.stats()["connections_accepted"] == 200
            await b.close()
            await serving

    run(main)


def test_bulk_on_several_connections_at_once_starves_none(run: Run, config: Config) -> None:
    async def main() -> None:
        size = 4 << 20
        async with endpoints(config) as (a, b):
            incoming = b.incoming()
            progress: dict[int, int] = {}

            async def transfer(number: int) -> None:
                here = await a.connect(b.local_address, b.public_key)
                async with await here.open_stream() as stream:
                    await stream.write(b"%d" % number + bytes(size - 1))

            async def receive(connection: Connection) -> None:
                stream = await anext(connection.incoming_streams())
                number = int(await stream.read(1))
                progress[number] = 1
                async for chunk in stream:
                    progress[number] += len(chunk)
                    if progress[number] == size:
                        # Nobody has finished before everybody was well under way.
                        assert min(progress.values()) > size // 20

            async with asyncio.TaskGroup() as tasks:
                for number in range(6):
                    tasks.create_task(transfer(number))
                for _ in range(6):
                    tasks.create_task(receive(await anext(incoming)))
            assert progress == dict.fromkeys(range(6), size)

    run(main)


def test_three_endpoints_talk_to_each_other_in_one_loop(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 3) as nodes:
            serving = [asyncio.create_task(echo(node)) for node in nodes]
            for node in nodes:
                for peer in nodes:
                    if peer is not node:
                        async with await node.connect(peer.local_address, peer.public_key) as connection:
                            assert connection.peer_key == peer.public_key
                            await connection.send(b"hello")
                            assert await connection.recv() == b"hello"
            for node in nodes:
                await node.close()
            await asyncio.gather(*serving)

    run(main)


def test_two_that_dial_each_other_at_the_same_time_both_get_a_connection(run: Run, config: Config) -> None:
    async def main() -> None:
        for _ in range(5):
            async with endpoints(config) as (a, b):
                here, there = await asyncio.gather(
                    a.connect(b.local_address, b.public_key), b.connect(a.local_address, a.public_key)
                )
                await here.send(b"from a")
                await there.send(b"from b")
                if len(a._driver.protocol.connections) == 1:
                    assert await there.recv() == b"from a"
                    assert await here.recv() == b"from b"
                else:
                    assert await (await anext(b.incoming())).recv() == b"from a"
                    assert await (await anext(a.incoming())).recv() == b"from b"

    run(main)


def test_an_endpoint_can_dial_itself(run: Run, config: Config) -> None:
    async def main() -> None:
        async with await bind(LOCALHOST, KEYS[0], config=config) as alone:
            here = await alone.connect(alone.local_address, alone.public_key, timeout=2.0)
            there = await anext(alone.incoming())
            await here.send(b"to myself")
            assert await there.recv() == b"to myself"

    run(main)


@pytest.mark.slow
def test_connections_come_and_go_without_a_trace(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 1) as (a,):
            serving = asyncio.create_task(echo(a))
            for _ in range(20):
                async with await bind(LOCALHOST, KeyPair.generate(), config=config) as guest:
                    here = await guest.connect(a.local_address, a.public_key)
                    await here.send(b"x")
                    assert await here.recv() == b"x"
            stats = a.stats()
            assert stats["connections_accepted"] == 20
            assert stats["ring_leased"] == 0
            await a.close()
            await serving

    run(main)
