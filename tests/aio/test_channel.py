"""The bounded channel: order, bounds, policies, closing, cancellation."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loops import Run, cancelled, turns

from burstwire.aio.channel import Channel, ChannelClosed, WhenFull
from burstwire.errors import ConfigError


def test_items_come_out_in_the_order_in_which_they_went_in(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        await channel.put(0)
        assert await channel.put_many(range(1, 5)) == 4
        assert [await channel.get(), await channel.get()] == [0, 1]
        assert await channel.get_many(2) == [2, 3]
        assert await channel.get_many() == [4]

    run(main)


def test_a_full_channel_makes_its_producers_wait_in_turn(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2)
        await channel.put_many((0, 1))
        first = asyncio.create_task(channel.put_many((2, 3, 4)))
        second = asyncio.create_task(channel.put(5))
        await turns()
        assert len(channel) == 2
        assert not channel.put_nowait(99)
        got = []
        for _ in range(6):
            got.append(await channel.get())
            await turns()
            assert len(channel) <= 2
        assert got == [0, 1, 2, 3, 4, 5]
        assert await first == 3
        assert await second is True

    run(main)


def test_what_is_removed_makes_room_for_those_who_wait_to_put_and_keeps_the_order(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(4)
        await channel.put_many(range(4))
        waiting = asyncio.create_task(channel.put_many((10, 12)))
        await turns()
        assert channel._remove(lambda item: item % 2 == 0) == 2
        assert channel._remove(lambda item: item > 100) == 0
        assert await waiting == 2
        assert await channel.get_many() == [1, 3, 10, 12]
        await channel.put(5)
        draining = asyncio.create_task(channel.drain())
        await turns()
        assert channel._remove(lambda item: True) == 1
        await draining

    run(main)


def test_put_nowait_does_not_overtake_a_producer_that_waits(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        await channel.put(0)
        waiting = asyncio.create_task(channel.put(1))
        await turns()
        assert channel.get_nowait() == [0]
        assert not channel.put_nowait(2)
        await waiting
        assert await channel.get() == 1

    run(main)


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop-newest", [0, 1, 2]), ("drop-oldest", [2, 3, 4])], ids=["newest", "oldest"]
)
def test_a_full_channel_drops_by_its_policy_and_counts(run: Run, policy: WhenFull, kept: list[int]) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(3, policy)
        taken = await channel.put_many(range(4)) + await channel.put(4)
        assert await channel.get_many() == kept
        assert channel.dropped == 2
        assert taken == (3 if policy == "drop-newest" else 5)

    run(main)


def test_a_closed_channel_is_emptied_before_it_says_so(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        await channel.put_many((1, 2))
        channel.close()
        assert channel.closed
        assert [item async for item in channel] == [1, 2]
        with pytest.raises(ChannelClosed):
            await channel.get()
        with pytest.raises(ChannelClosed):
            await channel.put(3)
        with pytest.raises(ChannelClosed):
            channel.put_nowait(3)

    run(main)


def test_closing_wakes_everybody_who_waits(run: Run) -> None:
    async def main() -> None:
        empty: Channel[int] = Channel()
        full: Channel[int] = Channel(1)
        await full.put(0)
        getters = [asyncio.create_task(empty.get()) for _ in range(3)]
        putters = [asyncio.create_task(full.put(number)) for number in (1, 2)]
        drain = asyncio.create_task(full.drain())
        await turns()
        empty.close()
        full.close(discard=True)
        results = await asyncio.gather(*getters, *putters, return_exceptions=True)
        assert [type(result) for result in results] == [ChannelClosed] * 5
        await drain

    run(main)


def test_a_channel_closed_with_an_error_raises_it_to_each_a_copy(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        cause = ConnectionResetError("gone")
        await channel.put(1)
        channel.close(cause)
        caught: list[BaseException] = []
        for _ in range(2):
            try:
                async for item in channel:
                    assert item == 1
            except ConnectionResetError as error:
                caught.append(error)
        assert [str(error) for error in caught] == ["gone", "gone"]
        assert len({id(error) for error in (*caught, cause)}) == 3
        assert cause.__traceback__ is None

    run(main)


def test_drain_waits_until_the_last_item_was_taken(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        await channel.drain()
        await channel.put_many((1, 2))
        drain = asyncio.create_task(channel.drain())
        await channel.get()
        await turns()
        assert not drain.done()
        await channel.get()
        await drain

    run(main)


def test_a_cancelled_put_has_put_nothing_and_a_cancelled_get_taken_nothing(run: Run) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        await cancelled(channel.get())
        await channel.put(1)
        await cancelled(channel.put(2))
        assert await channel.get() == 1
        assert len(channel) == 0
        await cancelled(channel.get_many())
        await channel.put(3)
        assert await channel.get_many() == [3]

    run(main)


def test_out_of_range_arguments_are_refused(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="capacity is 0"):
            Channel(0)
        with pytest.raises(ConfigError, match="when_full"):
            Channel(1, "explode")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="limit is 0"):
            await Channel[int]().get_many(0)

    run(main)


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 4)),
            st.tuples(st.just("get"), st.integers(1, 4)),
            st.tuples(st.just("cancel"), st.integers(0, 15)),
            st.tuples(st.just("turn"), st.just(1)),
        ),
        max_size=50,
    ),
)
def test_nothing_is_lost_or_doubled_or_reordered_whatever_is_cancelled(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    """Every put puts consecutive numbers; what comes out is increasing, and misses only numbers of cancelled puts."""

    async def main() -> None:
        channel: Channel[int] = Channel(capacity)
        got: list[int] = []
        tasks: list[asyncio.Task[None]] = []
        wanted: dict[int, range] = {}
        next_number = 0

        async def put(numbers: range) -> None:
            await channel.put_many(numbers)

        async def get(limit: int) -> None:
            got.extend(await channel.get_many(limit))

        for kind, argument in steps:
            if kind == "put":
                numbers = range(next_number, next_number + argument)
                next_number += argument
                wanted[len(tasks)] = numbers
                tasks.append(asyncio.create_task(put(numbers)))
            elif kind == "get":
                tasks.append(asyncio.create_task(get(argument)))
            elif kind == "cancel" and argument < len(tasks):
                tasks[argument].cancel()
            else:
                await turns(1)
            assert len(channel) <= capacity
        await turns(200)
        for task in tasks:
            if not task.done() and tasks.index(task) not in wanted:
                task.cancel()  # getters for whom there is nothing
        await turns(3)
        while len(channel):
            got += channel.get_nowait()
            await turns(5)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert got == sorted(set(got))
        for index, numbers in wanted.items():
            arrived = [number for number in numbers if number in got]
            assert arrived == list(numbers)[: len(arrived)]
            if not tasks[index].cancelled():
                assert len(arrived) == len(numbers)

    asyncio.run(main())  # many examples: without the checks of `run`
