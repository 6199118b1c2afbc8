"""Virtual time: a heap of calls to be made, in the order of their times and, at the same time, of their making."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

__all__ = ["Clock", "StandStill", "Timer"]

MAX_CALLS_AT_ONCE = 200_000
"""Calls without time moving after which a run is taken for a loop; a window of 64 MiB in one instant needs fewer."""


class StandStill(RuntimeError):
    """Calls go on and on while time does not move: something always asks to be called at once."""


class Timer:
    """One call to be made.

    Attributes:
        when: the time of the call, in seconds.
    """

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Have the call not made. Harmless when it was made already."""
        self.callback = None


class Clock:
    """Virtual time in seconds; it moves only from one call to the next, and never back.

    Attributes:
        now: the time. It starts off zero, so that nothing passes for a time by being falsy.
        calls: calls made since the start.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.calls = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0
        self._at_once = 0

    @property
    def next_time(self) -> float | None:
        """When the next call is due; None when there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heappop(heap)
        return heap[0][0] if heap else None

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called at `when`; a time that has passed means now, after what is due already."""
        timer = Timer(max(when, self.now), callback)
        self._made += 1
        heappush(self._heap, (timer.when, self._made, timer))
        return timer

    def step(self) -> bool:
        """Make the next call; False when there is none. Raises `StandStill`, and whatever the call raises."""
        when = self.next_time
        if when is None:
            return False
        callback = heappop(self._heap)[2].callback
        if when > self.now:
            self.now = when
            self._at_once = 0
        self._at_once += 1
        if self._at_once > MAX_CALLS_AT_ONCE:
            raise StandStill(f"{self._at_once:,} calls at {self.now:.6f} s, the next: {callback!r}")
        self.calls += 1
        if callback is not None:
            callback()
        return True

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Make all calls up to the time `until`, or until `stop()`, which is asked after each.

        Returns:
            whether `stop` ended it; time stands at `until` otherwise.
        """
        if stop is not None and stop():
            return True
        while (when := self.next_time) is not None and when <= until:
            self.step()
            if stop is not None and stop():
                return True
        if until > self.now:
            self.now = until
            self._at_once = 0
        return False
