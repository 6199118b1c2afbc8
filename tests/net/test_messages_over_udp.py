"""Messages between two endpoints on the loopback interface."""

from __future__ import annotations

import asyncio
import random
from array import array
from contextlib import nullcontext

import pytest
from linked import Link, linked
from support.loops import Run, settled, turns

from burstwire import Config, MessageTooLarge, PeerClosed

SIZES = [0, 1, 63, 64, 1100, 1158, 1159, 16383, 16384, 65536, 1 << 20]


def test_messages_of_every_size_arrive_whole_and_in_order(run: Run, config: Config) -> None:
    async def main() -> None:
        messages = [random.Random(size).randbytes(size) for size in SIZES]
        async with linked(config) as link:
            for message in messages:
                await link.here.send(message)
            for message in messages:
                assert await link.there.recv() == message
            await link.there.send_many(messages)
            received: list[bytes] = []
            while len(received) < len(messages):
                received += await link.here.recv_many()
            assert received == messages

    run(main)


def test_a_message_larger_than_every_window_arrives(run: Run, config: Config) -> None:
    async def main() -> None:
        message = random.Random(1).randbytes(16 << 20)
        async with linked(config) as link:
            sending = asyncio.create_task(link.here.send(message))
            assert await link.there.recv() == message
            await sending

    run(main)


def test_any_buffer_is_a_message_and_may_be_changed_afterwards(run: Run, config: Config) -> None:
    async def main() -> None:
        numbers = array("d", [1.0, 2.0])
        changing = bytearray(b"before")
        async with linked(config) as link:
            await link.here.send(numbers)
            await link.here.send(changing)
            changing[:] = b"after!"
            changing.append(0)  # nothing holds on to it
            await link.here.send_many([memoryview(b"abcdef")[::2], b""])
            assert await link.there.recv() == numbers.tobytes()
            assert await link.there.recv() == b"before"
            assert await link.there.recv() == b"ace"
            assert await link.there.recv() == b""
            with pytest.raises(TypeError, match="str"):
                await link.here.send("text")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="int"):
                await link.here.send_many(b"bytes are not messages")  # type: ignore[arg-type]

    run(main)


def test_a_message_beyond_the_peers_limit_is_refused_and_nothing_of_the_batch_sent(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config, config.replace(max_message_size=1000)) as link:
            await link.here.send(bytes(1000))
            with pytest.raises(MessageTooLarge) as caught:
                await link.here.send(bytes(1001))
            assert (caught.value.size, caught.value.limit) == (1001, 1000)
            with pytest.raises(MessageTooLarge):
                await link.here.send_many([b"one", bytes(1001)])
            await link.here.send(b"end")
            assert await link.there.recv() == bytes(1000)
            assert await link.there.recv() == b"end"

    run(main)


def test_each_message_goes_to_one_receiver_and_they_take_turns(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            got: list[tuple[int, bytes]] = []

            async def receiver(number: int) -> None:
                for _ in range(10):
                    got.append((number, await link.there.recv()))

            tasks = [asyncio.create_task(receiver(number)) for number in range(3)]
            await turns()
            await link.here.send_many([b"%d" % number for number in range(30)])
            await asyncio.gather(*tasks)
            assert [message for _, message in got] == [b"%d" % number for number in range(30)]
            assert [number for number, _ in got] == [0, 1, 2] * 10

    run(main)


def test_senders_that_wait_are_served_in_turn(run: Run, config: Config) -> None:
    """A peer that does not read fills the buffers; when it reads, nobody who waits is passed over."""
    small = config.replace(send_buffer=16384, stream_window=16384, connection_window=16384)

    async def main() -> None:
        async with linked(small) as link:
            order: list[int] = []

            async def sender(number: int) -> None:
                for _ in range(5):
                    await link.here.send(bytes([number]) * 10_000)
                    order.append(number)

            tasks = [asyncio.create_task(sender(number)) for number in range(4)]
            await settled(lambda: len(link.here._senders or ()) == 4)
            already = len(order)
            messages = [await link.there.recv() for _ in range(20)]
            await asyncio.gather(*tasks)
            assert [message[0] for message in messages] == order
            assert all(len(set(message)) == 1 for message in messages)
            waiting = order[already:]
            assert sorted(waiting[:4]) == [0, 1, 2, 3], "each of the four that waited comes once before any comes twice"

    run(main)


def test_what_arrived_is_handed_out_before_the_end_is_raised(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            await link.here.send_many([b"one", b"two", b"three"])
            await link.here.close(9, "done")
            await link.there.wait_closed()
            assert await link.there.recv() == b"one"
            assert await link.there.recv_many() == [b"two", b"three"]
            for _ in range(2):
                with pytest.raises(PeerClosed) as caught:
                    await link.there.recv()
                assert (caught.value.code, caught.value.reason) == (9, "done")

    run(main)


def test_iteration_ends_with_a_clean_close_and_raises_any_other(run: Run, config: Config) -> None:
    async def main() -> None:
        for code in (0, 1):
            async with linked(config) as link:
                await link.here.send_many([b"1", b"2"])
                await link.here.close(code)
                received: list[bytes] = []

                async def collect(link: Link = link, received: list[bytes] = received) -> None:
                    async for message in link.there:
                        received.append(message)

                with pytest.raises(PeerClosed) if code else nullcontext():
                    await collect()
                assert received == [b"1", b"2"]

    run(main)


def test_datagrams_arrive_and_the_oldest_gives_way(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(max_datagrams=4)) as link:
            link.here.send_datagram(b"ping")
            assert await link.there.recv_datagram() == b"ping"
            with pytest.raises(MessageTooLarge) as caught:
                link.here.send_datagram(bytes(65_000))
            link.here.send_datagram(bytes(caught.value.limit))
            assert await link.there.recv_datagram() == bytes(caught.value.limit)
            for number in range(10):
                link.there.send_datagram(b"%d" % number)
            await link.there.send(b"behind them")
            await link.here.recv()
            dropped = link.there.stats()["datagrams_dropped_sending"] + link.here.stats()["datagrams_dropped_receiving"]
            left = [await link.here.recv_datagram() for _ in range(10 - int(dropped))]
            assert left[-1] == b"9"
            assert left == sorted(left)
            assert len(left) <= 4 + 1, "four wait, and one may have been sent before the queue filled"

    run(main)
