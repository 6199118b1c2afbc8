"""Cancelling at every await: the connection stays usable, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from linked import Link, deaf, endpoints, linked
from support.loops import Run, cancelled, settled, turns

from burstwire import Config, KeyPair, LocallyClosed

SMALL = {"send_buffer": 16384, "stream_window": 16384, "connection_window": 16384}
"""Buffers that a few writes fill, so that there is something to wait for."""


async def still_works(link: Link) -> None:
    """One message each way and a stream."""
    await link.here.send(b"ping")
    assert await link.there.recv() == b"ping"
    await link.there.send(b"pong")
    assert await link.here.recv() == b"pong"
    here, there = await link.stream()
    await there.write(b"echo")
    assert await here.read(10) == b"echo"


@pytest.mark.parametrize("call", ["recv", "recv_many", "recv_datagram", "wait_closed"])
def test_a_cancelled_receiver_has_taken_nothing(run: Run, config: Config, call: str) -> None:
    async def main() -> None:
        async with linked(config) as link:
            await cancelled(getattr(link.there, call)())
            await still_works(link)

    run(main)


@pytest.mark.parametrize("wait", range(4))
def test_a_receiver_cancelled_while_its_message_arrives_leaves_it_to_the_next(
    run: Run, config: Config, wait: int
) -> None:
    """Cancelled after so many turns of the loop, among them the one in which it was woken and had not run yet."""

    async def main() -> None:
        async with linked(config) as link:
            for number in range(20):
                message = b"%d" % number
                receiving = asyncio.create_task(link.there.recv())
                await turns(2)
                await link.here.send(message)
                await turns(wait)
                receiving.cancel()
                await asyncio.wait([receiving])
                got = await link.there.recv() if receiving.cancelled() else receiving.result()
                assert got == message

    run(main)


def test_the_wake_up_of_a_receiver_cancelled_meanwhile_reaches_the_next_in_line(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            first, second = (asyncio.create_task(link.there.recv()) for _ in range(2))
            await turns()
            await link.here.send(b"for one of you")
            waiting = link.there._receivers
            assert waiting is not None
            await settled(lambda: waiting._line[0].done())  # woken by the message, not run yet
            first.cancel()
            assert await second == b"for one of you"
            assert first.cancelled()

    run(main)


def test_a_cancelled_send_has_sent_all_or_nothing(run: Run, config: Config) -> None:
    """Messages of many tasks, cancelled at random: each that was accepted arrives once, whole, in its task's order."""
    rng = random.Random(5)

    async def main() -> None:
        async with linked(config.replace(**SMALL)) as link:
            accepted: list[tuple[int, int]] = []

            async def sender(task: int) -> None:
                for number in range(200):
                    await link.here.send(b"%d %d " % (task, number) + bytes(rng.randrange(8000)))
                    accepted.append((task, number))

            senders = [asyncio.create_task(sender(task)) for task in range(6)]
            received: list[tuple[int, int]] = []

            async def receive(limit: int) -> None:
                while len(received) < limit:
                    task, number, _ = (await link.there.recv()).split(b" ", 2)
                    received.append((int(task), int(number)))

            for round_number in range(5):
                await receive((round_number + 1) * 20)
                victim = senders[round_number]
                victim.cancel()
                await asyncio.wait([victim])
                assert victim.cancelled()
            await receive(150)
            senders[5].cancel()
            await asyncio.wait([senders[5]])
            await link.here.send(b"9 9 ")
            while received[-1] != (9, 9):
                await receive(len(received) + 1)
            assert sorted(received[:-1]) == sorted(accepted)
            for task in range(6):
                numbers = [number for who, number in received if who == task]
                assert numbers == sorted(numbers)
            await still_works(link)

    run(main)


def test_a_cancelled_send_many_has_sent_whole_messages_from_the_front(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL)) as link:
            messages = [b"%04d" % number + bytes(1000) for number in range(100)]
            sending = asyncio.create_task(link.here.send_many(messages))
            await settled(lambda: bool(link.here._senders))
            sending.cancel()
            await asyncio.wait([sending])
            await link.here.send(b"end")
            received = [await link.there.recv()]
            while received[-1] != b"end":
                received += await link.there.recv_many()
            received.pop()
            assert 0 < len(received) < 100
            assert received == messages[: len(received)]
            await still_works(link)

    run(main)


def test_a_cancelled_write_has_sent_a_prefix_and_the_stream_goes_on(run: Run, config: Config) -> None:
    async def main() -> None:
        data = random.Random(3).randbytes(200_000)
        async with linked(config.replace(**SMALL)) as link:
            here, there = await link.stream()
            writing = asyncio.create_task(here.write(data))
            received = await there.read(10_000)
            writing.cancel()
            await asyncio.wait([writing])
            assert writing.cancelled()
            await here.write(b"after the cancelled one")
            await here.finish()
            received += b"".join([chunk async for chunk in there])
            prefix = received.removesuffix(b"after the cancelled one")
            assert prefix != received
            assert data.startswith(prefix)
            assert len(prefix) < len(data)
            await still_works(link)

    run(main)


@pytest.mark.parametrize("call", ["read", "readinto"])
def test_a_cancelled_reader_has_taken_nothing(run: Run, config: Config, call: str) -> None:
    async def main() -> None:
        data = random.Random(4).randbytes(300_000)
        rng = random.Random(6)
        async with linked(config) as link:
            here, there = await link.stream()
            received = bytearray()
            buffer = bytearray(5000)

            async def read() -> None:
                if call == "read":
                    received.extend(await there.read(5000))
                else:
                    received.extend(memoryview(buffer)[: await there.readinto(buffer)])

            await cancelled(read())
            writing = asyncio.create_task(here.write(data))
            cancellations = 0
            while len(received) < len(data):
                reading = asyncio.create_task(read())
                await turns(rng.randrange(4))
                reading.cancel()
                await asyncio.wait([reading])
                cancellations += reading.cancelled()
                if reading.cancelled():
                    await read()
            await writing
            assert cancellations
            assert received == data
            await still_works(link)

    run(main)


def test_a_cancelled_open_stream_leaves_the_allowance_to_the_next(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(max_streams=1)) as link:
            first = await link.here.open_stream()
            await first.write(b"x")
            first_waiter, second_waiter = (asyncio.create_task(link.here.open_stream()) for _ in range(2))
            await turns()
            first_waiter.cancel()
            await asyncio.wait([first_waiter])
            await first.finish()
            async with await anext(link.there.incoming_streams()) as there:
                assert [chunk async for chunk in there] == [b"x"]
            assert await first.read(1) == b""
            second = await second_waiter
            await second.write(b"y")
            assert await (await anext(link.there.incoming_streams())).read(1) == b"y"

    run(main)


def test_streams_that_are_over_before_anybody_accepts_them_take_no_place_from_one_that_is_meant(
    run: Run, config: Config
) -> None:
    """As tasks of the peer leave them that are cancelled at once: empty, ended, and nothing wanted back."""

    async def main() -> None:
        async with linked(config.replace(max_streams=2)) as link:
            for _ in range(6):
                empty = await link.here.open_stream()
                empty.stop()
                await empty.finish()
            stream = await link.here.open_stream()
            await stream.write(b"meant")
            await stream.finish()
            await settled(lambda: stream.id in link.there._core.streams.open)
            streams = link.there.incoming_streams()
            there = await anext(streams)
            while there.id != stream.id:  # the last empty ones may still be there
                there = await anext(streams)
            assert await there.read(10) == b"meant"
            assert link.there.stats()["streams_refused"] >= 4
            await there.finish()
            assert await stream.read(1) == b""
            await still_works(link)

    run(main)


def test_a_cancelled_acceptor_leaves_connections_and_streams_to_the_next(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):
            await cancelled(anext(b.incoming()))
            first, second = (asyncio.create_task(anext(b.incoming())) for _ in range(2))
            await turns()
            here = await a.connect(b.local_address, b.public_key)
            await settled(lambda: b._backlog._getters._line[0].done() or second.done())
            first.cancel()
            await asyncio.wait([first])
            there = await second if first.cancelled() else first.result()
            second.cancel()
            await asyncio.wait([second])
            link = Link(a, b, here, there)
            await cancelled(anext(there.incoming_streams()))
            await still_works(link)

    run(main)


def test_a_cancelled_connect_ends_the_attempt_at_once(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):
            nobody = KeyPair.generate().public
            await cancelled(a.connect(b.local_address, nobody), after=5)
            assert a.stats()["attempts"] == 0
            assert not a._attempts

    run(main)


def test_a_connect_cancelled_at_any_moment_leaves_no_connection_here(run: Run, config: Config) -> None:
    """Wherever in the handshake it is cancelled, nothing stays behind, and the next connect works."""

    async def main() -> None:
        async with endpoints(config) as (a, b):
            outcomes = set()
            for wait in range(40):
                connecting = asyncio.create_task(a.connect(b.local_address, b.public_key))
                await turns(wait)
                connecting.cancel()
                await asyncio.wait([connecting])
                outcomes.add(connecting.cancelled())
                if not connecting.cancelled():
                    await connecting.result().close()
                assert not a._attempts
                assert a.stats()["attempts"] == 0
                open_ones = [core for core in a._driver.protocol.connections.values() if core.error is None]
                assert not open_ones
            assert True in outcomes
            await (await a.connect(b.local_address, b.public_key)).close()

    run(main)


def test_a_cancelled_close_goes_on_by_itself(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(close_timeout=30.0)) as link:
            await link.here.send(b"on its way")
            closing = asyncio.create_task(link.here.close(4))
            await turns(1)
            closing.cancel()
            await asyncio.wait([closing])
            await link.there.wait_closed()
            assert await link.there.recv() == b"on its way"
            assert isinstance(await link.here.wait_closed(), LocallyClosed)

    run(main)


def test_a_cancelled_endpoint_close_goes_on_by_itself(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config.replace(close_timeout=0.2)) as (a, b):
            here = await a.connect(b.local_address, b.public_key)
            await anext(b.incoming())
            with deaf(b):
                await here.send(b"never acknowledged")
                await cancelled(a.close())
                assert await here.wait_closed()
                await settled(lambda: a.closed)

    run(main)
