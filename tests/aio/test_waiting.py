"""Waiting in line: fair, and no wake-up is lost to a cancelled task."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loops import Run, turns

from burstwire.aio.waiting import WaitLine


class Shelf:
    """What is waited for: things that `take` removes, one each."""

    def __init__(self) -> None:
        self.things: list[int] = []
        self.group: set[WaitLine] = set()
        self.line = WaitLine(self.group)

    def take(self) -> int | None:
        return self.things.pop(0) if self.things else None

    def put(self, *things: int) -> None:
        self.things += things
        self.line.wake()

    async def get(self) -> int:
        return await self.line.until(self.take)


def test_who_finds_something_does_not_wait(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.things = [1]
        coroutine = shelf.get()
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        assert end.value.value == 1
        assert not shelf.group

    run(main)


def test_one_event_serves_as_many_as_there_is_something_for_in_order(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        got: list[tuple[int, int]] = []

        async def taker(number: int) -> None:
            got.append((number, await shelf.get()))

        tasks = [asyncio.create_task(taker(number)) for number in range(4)]
        await turns()
        assert shelf.group == {shelf.line}
        shelf.put(10, 11, 12)
        await turns()
        assert got == [(0, 10), (1, 11), (2, 12)]
        assert len(shelf.line) == 1
        shelf.put(13)
        await asyncio.gather(*tasks)
        assert got[-1] == (3, 13)
        assert not shelf.group

    run(main)


def test_a_newcomer_does_not_overtake_a_task_that_was_woken(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        first = asyncio.create_task(shelf.get())
        await turns()
        shelf.put(1)  # `first` is woken, and has not run yet
        second = asyncio.create_task(shelf.get())
        shelf.things.append(2)
        assert await first == 1
        assert await second == 2

    run(main)


def test_a_cancelled_waiter_passes_its_wake_up_on(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        first, second = asyncio.create_task(shelf.get()), asyncio.create_task(shelf.get())
        await turns()
        shelf.put(1)
        first.cancel()  # after its wake-up, before it could use it
        assert await second == 1
        assert first.cancelled()

    run(main)


def test_a_waiter_cancelled_in_the_middle_leaves_the_others_in_order(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        tasks = [asyncio.create_task(shelf.get()) for _ in range(3)]
        await turns()
        tasks[1].cancel()
        await turns()
        shelf.put(1, 2)
        assert await tasks[0] == 1
        assert await tasks[2] == 2

    run(main)


def test_what_the_attempt_raises_goes_to_its_task_and_the_next_one_tries(run: Run) -> None:
    async def main() -> None:
        outcomes: list[int | Exception | None] = []
        line = WaitLine()

        def attempt() -> int | None:
            outcome = outcomes.pop(0) if outcomes else None
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        tasks = [asyncio.create_task(line.until(attempt)) for _ in range(2)]
        await turns()
        outcomes += [KeyError("lost"), 7]
        line.wake()
        with pytest.raises(KeyError):
            await tasks[0]
        assert await tasks[1] == 7

    run(main)


def test_a_wake_up_during_the_attempt_is_not_lost(run: Run) -> None:
    """An attempt may send something, and that may lead to an event for the very line that it stands in."""

    async def main() -> None:
        line = WaitLine()
        tries = 0

        def attempt() -> int | None:
            nonlocal tries
            tries += 1
            if tries == wakes_itself:
                line.wake()
            return tries if tries > wakes_itself else None

        for wakes_itself in (1, 2, 3):
            tries = 0
            task = asyncio.create_task(line.until(attempt))
            await turns()
            line.wake()
            assert await task == wakes_itself + 1

    run(main)


def test_waking_an_empty_line_is_not_remembered(run: Run) -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.line.wake()
        task = asyncio.create_task(shelf.get())
        await turns()
        assert not task.done()
        shelf.put(5)
        assert await task == 5

    run(main)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just("get"), st.just("put"), st.just("turn"), st.integers(0, 20)), max_size=60))
def test_whatever_is_cancelled_nothing_is_lost_and_order_is_kept(steps: list[str | int]) -> None:
    """Numbers cancel the task of that index. In the end as many puts as gets that live are matched, in order."""

    async def main() -> None:
        shelf = Shelf()
        numbers = itertools.count()
        tasks: list[asyncio.Task[int]] = []
        for step in steps:
            if step == "get":
                tasks.append(asyncio.create_task(shelf.get()))
            elif step == "put":
                shelf.put(next(numbers))
            elif step == "turn":
                await turns(1)
            elif isinstance(step, int) and step < len(tasks):
                tasks[step].cancel()
        await turns(200)
        served = [task.result() for task in tasks if task.done() and not task.cancelled()]
        assert served == sorted(served)
        assert sorted(served + shelf.things) == list(range(next(numbers)))
        waiting = [task for task in tasks if not task.done()]
        assert not (waiting and shelf.things), "somebody waits for what is there"
        assert len(shelf.line) == len(waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not shelf.group

    asyncio.run(main())  # many examples: without the checks of `run`
