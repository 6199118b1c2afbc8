"""A bounded queue between tasks of one event loop, with batch operations.

The transport itself has no queue between socket and connection. A `Channel` stands only where the application meets
it: accepted connections, streams that the peer opened, and whatever node code wants to pass on in batches.

What happens when it is full is chosen once:

- ``"wait"``: `put` waits for room (the producer is slowed down);
- ``"drop-newest"``: `put` throws away what it was given;
- ``"drop-oldest"``: `put` throws away what has waited longest.

Drops are counted in `dropped`. Producers and consumers are served first come first served, and a cancelled one has
either put (got) its item or not: nothing is lost or doubled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Generic, Literal, TypeVar

from burstwire.aio.failing import fresh
from burstwire.aio.waiting import WaitLine
from burstwire.errors import ConfigError, TransportError

__all__ = ["DEFAULT_CAPACITY", "Channel", "ChannelClosed", "WhenFull"]

T = TypeVar("T")

WhenFull = Literal["wait", "drop-newest", "drop-oldest"]

DEFAULT_CAPACITY = 1024
"""Enough that a batch of what one wake-up brings (8 trains of 64 packets) fits twice over; see benches/level1."""


class ChannelClosed(TransportError):
    """The channel takes nothing more, and what it held has been taken out."""


class Channel(Generic[T]):
    """A bounded first-in-first-out queue for the tasks of one event loop.

    Args:
        capacity: items held at most, at least 1.
        when_full: what `put` does with a full channel.
    """

    __slots__ = ("_closed", "_drained", "_error", "_getters", "_items", "_putters", "capacity", "dropped", "when_full")

    def __init__(self, capacity: int = DEFAULT_CAPACITY, when_full: WhenFull = "wait") -> None:
        if capacity < 1:
            raise ConfigError(f"capacity is {capacity}; a channel holds at least 1 item")
        if when_full not in ("wait", "drop-newest", "drop-oldest"):
            raise ConfigError(f"when_full is {when_full!r}; choose wait, drop-newest or drop-oldest")
        self.capacity = capacity
        self.when_full: WhenFull = when_full
        self.dropped = 0
        self._items: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None
        self._getters = WaitLine()
        self._putters = WaitLine()
        self._drained = WaitLine()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether `close` was called; items may still be there."""
        return self._closed

    # producers

    def put_nowait(self, item: T) -> bool:
        """Put an item if there is room, or if the policy makes some; False when it was not taken.

        With the policy "wait", False means full (or that others wait to put theirs) and nothing is counted.
        Raises `ChannelClosed`.
        """
        if self._closed:
            raise self._ended()
        if len(self._items) >= self.capacity or self._putters:
            if self.when_full == "wait":
                return False
            self.dropped += 1
            if self.when_full == "drop-newest":
                return False
            self._items.popleft()
        self._items.append(item)
        self._getters.wake()
        return True

    async def put(self, item: T) -> bool:
        """Put one item, waiting for room if that is the policy; False when the policy dropped it.

        Raises `ChannelClosed`; also when the channel is closed while waiting.
        """
        if self.put_nowait(item):
            return True
        if self.when_full != "wait":
            return False
        pending = deque((item,))
        await self._putters.until(lambda: self._move(pending))
        return True

    async def put_many(self, items: Iterable[T]) -> int:
        """Put items in order, side by side, and return how many were taken.

        With the policy "wait" that is all of them. Cancelled while waiting, those that fitted stay put.
        Raises `ChannelClosed`; what was put before the channel closed can still be taken out.
        """
        pending = deque(items)
        if self.when_full != "wait":
            return sum([self.put_nowait(item) for item in pending])
        count = len(pending)
        await self._putters.until(lambda: self._move(pending))
        return count

    def _move(self, pending: deque[T]) -> bool | None:
        """Move what fits from the front of `pending` into the channel; True once nothing is left of it."""
        if self._closed:
            raise self._ended()
        room = self.capacity - len(self._items)
        if room >= len(pending):
            self._items.extend(pending)
            pending.clear()
        else:
            for _ in range(room):
                self._items.append(pending.popleft())
        if self._items:
            self._getters.wake()
        return None if pending else True

    # consumers

    async def get(self) -> T:
        """The item that has waited longest. Once closed and empty, raises `ChannelClosed` or what `close` was given."""
        return (await self._getters.until(lambda: self._take(1)))[0]

    async def get_many(self, limit: int | None = None) -> list[T]:
        """At least one item and at most `limit`: what is there, without waiting for more. Raises as `get`."""
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; ask for at least 1 item")
        return await self._getters.until(lambda: self._take(limit))

    def get_nowait(self) -> list[T]:
        """Everything that is there, possibly nothing; nothing while others wait. Raises as `get`."""
        return [] if self._getters else self._take(None) or []

    def _take(self, limit: int | None) -> list[T] | None:
        items = self._items
        if not items:
            if self._closed:
                raise self._ended()
            return None
        if limit is None or limit >= len(items):
            taken = list(items)
            items.clear()
        elif limit == 1:
            taken = [items.popleft()]
        else:
            taken = list(islice(items, limit))
            for _ in range(limit):
                items.popleft()
        self._putters.wake()
        if not items:
            self._drained.wake()
        return taken

    def _remove(self, unwanted: Callable[[T], bool]) -> int:
        """Throw away the items that nobody needs any more; how many they were. For who knows more about them."""
        wanted = [item for item in self._items if not unwanted(item)]
        removed = len(self._items) - len(wanted)
        if removed:
            self._items = deque(wanted)
            self._putters.wake()
            if not wanted:
                self._drained.wake()
        return removed

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except ChannelClosed:
            raise StopAsyncIteration from None

    # the end

    def close(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Take nothing more; whoever waits to put gets `ChannelClosed`.

        Consumers get what is there (nothing, with `discard`), then `error`, or `ChannelClosed` without one; iteration
        then ends, or raises `error`. Closing twice changes nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._error = error
        if discard:
            self._items.clear()
        for line in (self._getters, self._putters, self._drained):
            line.wake()

    async def drain(self) -> None:
        """Wait until everything that was put has been taken out."""
        await self._drained.until(lambda: None if self._items else True)

    def _ended(self) -> BaseException:
        return ChannelClosed("the channel is closed") if self._error is None else fresh(self._error)
