"""Cancels a coroutine at its k-th suspension, for every k: wherever it can be cancelled, it is.

A task is cancelled in one of two states, and both are tried at every suspension: while it *waits*, and when it was
*woken*, what it waited for being done, and had no turn yet: whoever hands something to a waiting task loses it in the
second. `again` cancels it at every further suspension as well, while it cleans up after the first.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal, TypeVar

__all__ = ["HOWS", "MOST", "Cut", "How", "everywhere"]

How = Literal["waiting", "woken", "again"]
HOWS: tuple[How, ...] = ("waiting", "woken", "again")

MOST = 1000
"""Suspensions of one scenario; more are a scenario without end."""

T = TypeVar("T")
Given = TypeVar("Given")


@dataclass
class Cut:
    """One cancellation to come: `await cut(coroutine)` runs it in a task of its own.

    Attributes:
        at: which suspension, from 0 on.
        how: in which state it is cancelled.
        seen: suspensions so far.
        place: where it was cancelled: function and line of each coroutine, the innermost last; empty: it ran through.
        cancelled: whether it ended by that.
    """

    at: int
    how: How
    seen: int = 0
    place: str = ""
    cancelled: bool = False
    _task: asyncio.Task[Any] | None = field(default=None, repr=False)

    async def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """What it returned or raised; None and `cancelled` if it was cancelled."""

        async def counted() -> T:
            return await _counted(coroutine, self._suspended)

        task = self._task = asyncio.create_task(counted())
        await asyncio.wait([task])
        self._task = None
        self.cancelled = task.cancelled()
        if self.cancelled:
            assert self.place, "it was cancelled by somebody else"
            return None
        return task.result()

    def _suspended(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        number, self.seen = self.seen, self.seen + 1
        assert number < MOST, "it suspends without end"
        if number < self.at or (number > self.at and self.how != "again"):
            return
        if not self.place:
            self.place = _place(coroutine)
        if self.how == "woken" and isinstance(awaited, asyncio.Future):
            awaited.add_done_callback(self._cancel)  # comes before the task's own, which wakes it
        else:
            self._cancel(awaited)

    def _cancel(self, _: object) -> None:
        assert self._task is not None
        self._task.cancel()


@types.coroutine
def _counted(
    coroutine: Coroutine[Any, Any, T], suspended: Callable[[Coroutine[Any, Any, T], Any], None]
) -> Generator[Any, Any, T]:
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            value: T = stop.value
            return value
        suspended(coroutine, awaited)
        try:
            yield awaited
            error = None
        except BaseException as thrown:
            error = thrown


def _place(coroutine: Any) -> str:
    places = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        coroutine = getattr(coroutine, "cr_await", None)
    return " > ".join(places)


async def everywhere(
    scenario: Callable[[Given, Cut], Awaitable[None]],
    given: Callable[[], AbstractAsyncContextManager[Given]],
    hows: tuple[How, ...] = HOWS,
) -> list[str]:
    """Runs a scenario with what `given()` gives, cancelled at every suspension in its turn, until it runs through.

    Returns where it was cancelled, one entry for each time.
    """
    places = []
    for how in hows:
        for at in count():
            cut = Cut(at, how)
            try:
                async with given() as it:
                    await scenario(it, cut)
                    del it  # so that `given` may look whether anything else still refers to it
            except BaseException as error:
                error.add_note(f"cancelled at suspension {at} ({how}) {cut.place or 'that never came'}")
                raise
            if not cut.place:
                assert at, "it never waited, so there was nothing to cancel"
                break
            places.append(cut.place)
    return places
