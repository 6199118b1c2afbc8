"""The watch over those who wait to send, by a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Run, turns

from burstwire import PeerStalled
from burstwire.aio.deadlines import LOOKS, SendLine, Watch
from burstwire.aio.waiting import WaitLine


class Clock:
    """What a watch uses of a loop."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.due = callback
        return self

    def tick(self, seconds: float) -> None:
        """Time passes, and the timer fires."""
        self.now += seconds
        due, self.due = self.due, None
        assert due is not None, "it does not look again"
        due()


def test_whoever_was_just_woken_in_vain_when_the_others_are_told_of_a_stall_is_told_with_the_next_look(
    run: Run,
) -> None:
    """A cancelled waiter wakes the next one. If that is when the watch looks, it must not be forgotten."""

    async def main() -> None:
        clock, lines = Clock(), set[WaitLine]()
        line = SendLine(lines, lambda: "nothing moves", lambda: "it does not read")
        watch = Watch(clock, 4.0, lines, lambda: "the peer")  # type: ignore[arg-type]
        waiting = [asyncio.create_task(line.wait(lambda: None)) for _ in range(3)]
        await turns()
        watch.start()
        for _ in range(LOOKS):
            clock.tick(4.0 / LOOKS)
        await turns()
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        line.wake()  # as the cancelled one did: the second has not run since
        clock.tick(4.0 / LOOKS)
        with pytest.raises(PeerStalled, match="it does not read"):
            await waiting[2]
        assert not waiting[1].done()
        assert watch.active
        clock.tick(4.0 / LOOKS)
        with pytest.raises(PeerStalled):
            await waiting[1]
        clock.tick(4.0 / LOOKS)
        assert not watch.active, "nobody waits any more"

    run(main)
