"""Level 1: queues between two tasks of one event loop, by capacity; and the old pipeline without a socket.

Items through `asyncio.Queue`, one `put` and one `get` each; through our `Channel` likewise; and through `Channel` with
`put_many` and `get_many`. The pipeline is what a packet passes in `benches.oldway`: four queues, serialised, sealed,
handed over in memory, opened, deserialised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from benches.contest import Contest, Way
from benches.oldway import PAYLOAD, Cipher, decode, encode
from burstwire.aio.channel import DEFAULT_CAPACITY, Channel

CAPACITIES = (1, 10, 64, 100, 1000)
BATCH = 256
"""Items handed over by one `put_many`, about what one wake-up brings."""


def _queue(capacity: int) -> Way:
    async def work(count: int) -> float:
        queue: asyncio.Queue[int] = asyncio.Queue(capacity)

        async def put() -> None:
            for item in range(count):
                await queue.put(item)

        return await _timed(put, _get_each(queue.get, count), count)

    return _under_asyncio(work)


def _channel(capacity: int) -> Way:
    async def work(count: int) -> float:
        channel: Channel[int] = Channel(capacity)

        async def put() -> None:
            for item in range(count):
                await channel.put(item)

        return await _timed(put, _get_each(channel.get, count), count)

    return _under_asyncio(work)


def _channel_many(capacity: int) -> Way:
    async def work(count: int) -> float:
        channel: Channel[int] = Channel(capacity)

        async def put() -> None:
            for first in range(0, count, BATCH):
                await channel.put_many(range(first, min(first + BATCH, count)))

        async def get() -> int:
            right = number = 0
            while number < count:
                for item in await channel.get_many():
                    right += item == number
                    number += 1
            return right

        return await _timed(put, get, count)

    return _under_asyncio(work)


def _get_each(get: Callable[[], Any], count: int) -> Callable[[], Any]:
    async def work() -> int:
        right = 0
        for number in range(count):
            right += await get() == number
        return right

    return work


async def _timed(put: Callable[[], Any], get: Callable[[], Any], count: int) -> float:
    started = time.perf_counter()
    putting = asyncio.create_task(put())
    right = await get()
    seconds = time.perf_counter() - started
    await putting
    assert right == count
    return seconds


def _under_asyncio(work: Callable[[int], Any]) -> Way:
    return lambda count: asyncio.run(work(count))


def _pipeline(capacity: int) -> Way:
    """The stages of the old way, each a task with a bounded queue in front of it."""
    payload = bytes(range(256)) * (PAYLOAD // 256 + 1)
    payload = payload[:PAYLOAD]
    cipher = Cipher(bytes(16))

    async def work(count: int) -> float:
        outgoing, to_socket, incoming, delivered = (asyncio.Queue(capacity) for _ in range(4))  # type: ignore[var-annotated]

        async def put() -> None:
            for _ in range(count):
                await outgoing.put(payload)

        async def seal() -> None:
            for number in range(count):
                await to_socket.put(cipher.seal(encode(number, [], await outgoing.get())))

        async def carry() -> None:
            for _ in range(count):
                await incoming.put(await to_socket.get())

        async def unseal() -> None:
            for _ in range(count):
                await delivered.put(decode(cipher.open(await incoming.get())))

        started = time.perf_counter()
        tasks = [asyncio.create_task(stage()) for stage in (put, seal, carry, unseal)]
        right = 0
        for number in range(count):
            right += await delivered.get() == (number, [], payload)
        seconds = time.perf_counter() - started
        await asyncio.gather(*tasks)
        assert right == count
        return seconds

    return _under_asyncio(work)


BASE = "asyncio.Queue of 1"
BEST = f"Channel of {DEFAULT_CAPACITY:,}, put_many and get_many"

ITEMS = Contest(
    "items through a channel",
    "ns_per_item",
    {
        **{f"asyncio.Queue of {capacity}": _queue(capacity) for capacity in CAPACITIES},
        **{f"Channel of {capacity}": _channel(capacity) for capacity in CAPACITIES},
        **{f"Channel of {capacity}, put_many and get_many": _channel_many(capacity) for capacity in CAPACITIES},
        BEST: _channel_many(DEFAULT_CAPACITY),
    },
    base=BASE,
    count=10_000,
    quick_count=300,
    rounds=9,
    targets={BEST: 27.0},
    claims={"asyncio.Queue of 100": 27.0},
)

PIPELINE = Contest(
    "packets through the old pipeline, no socket",
    "packets_per_second",
    {f"queues of {capacity}": _pipeline(capacity) for capacity in CAPACITIES},
    base="queues of 1",
    count=2_000,
    quick_count=100,
    scale=1.0,
    rate=True,
    rounds=9,
    claims={"queues of 100": 27.0},
)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(ITEMS, PIPELINE), ids=str)
def test_channel(benchmark: Any, contest: Contest, way: str) -> None:
    extra = {"mb_per_second": contest.value(way) * PAYLOAD / 1e6} if contest.rate and not benchmark.disabled else {}
    contest.report(benchmark, way, **extra)
