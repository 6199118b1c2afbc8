"""Tasks that wait for the same thing, first come first served.

Every `await` of the driver that depends on the peer goes through a `WaitLine`: waiting for a message, for room, for
the bytes of a stream, for a connection to accept. There is one rule, and cancellation is safe because of it:

- Only the first of the line is ever woken. It tries for itself, synchronously, in its own task; what it gets it
  returns without suspending again. So nothing is ever handed to a task that is cancelled before it runs.
- Whoever leaves the line from its head, served, failed or cancelled, wakes the next, who tries in turn. So a wake-up
  that a cancelled task received is not lost, and one event serves as many tasks as there is something for.
- While anybody waits, a newcomer goes to the end of the line, even if it could be served at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TypeVar

__all__ = ["WaitLine"]

T = TypeVar("T")


class WaitLine:
    """A first-in-first-out line of waiting tasks.

    A line that has waiters is a member of `group`, so that the owner can wake all its lines when everything ends.
    """

    __slots__ = ("_group", "_line")

    def __init__(self, group: set[WaitLine] | None = None) -> None:
        # A list, not a deque: most lines hold one task, and an empty deque takes 600 bytes of every connection.
        self._line: list[asyncio.Future[None]] = []
        self._group = group

    def __len__(self) -> int:
        return len(self._line)

    def wake(self) -> None:
        """Let the first of the line try again; nothing happens when nobody waits."""
        if self._line and not self._line[0].done():
            self._line[0].set_result(None)

    def fail(self, error: Exception) -> None:
        """Have everybody who waits leave with a copy of `error`."""
        for future in self._line:
            if not future.done():
                future.set_exception(copy(error))

    async def until(self, attempt: Callable[[], T | None]) -> T:
        """Wait for one's turn and for `attempt` to return something other than None, and return that.

        `attempt` is called only at the head of the line. What it raises is raised here, and the next in line tries.
        The first call is made at once when nobody is ahead, later ones after each `wake`.
        """
        if not self._line:
            outcome = attempt()
            if outcome is not None:
                return outcome
        return await self.wait(attempt, again=True)

    async def wait(self, attempt: Callable[[], T | None], *, again: bool = False) -> T:
        """As `until`, for who is not the first, or has just tried in vain.

        `again` has the attempt repeated at once by who stands in the line by now: for an attempt that may itself lead
        to a wake-up (it sends something, and that has consequences), which nobody would have heard before.
        """
        line = self._line
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        line.append(future)
        if self._group is not None:
            self._group.add(self)
        try:
            if again and line[0] is future:
                outcome = attempt()
                if outcome is not None:
                    return outcome
            while True:
                await future
                line[0] = future = loop.create_future()  # before the attempt, which may itself lead to a wake-up
                outcome = attempt()
                if outcome is not None:
                    return outcome
        finally:
            if line[0] is future:
                del line[0]
                self.wake()
            else:
                line.remove(future)
            if not line and self._group is not None:
                self._group.discard(self)
