"""A value that changes at given times, and what flows through a link whose rate does so."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import floor, inf

from burstwire.errors import ConfigError

__all__ = ["Steps"]


class Steps:
    """A value that stays the same from one step to the next; before the first step it is that of the first.

    Args:
        steps: (seconds, value), the seconds ascending from the time that the owner says.
        period: seconds after which everything begins again; None: the last value stays.

    Raises `ConfigError` when there is no step, a time does not ascend, or the period ends before the last step.
    """

    __slots__ = ("_period", "_times", "_values")

    def __init__(self, steps: Iterable[tuple[float, float]], period: float | None = None) -> None:
        found = list(steps)
        self._times = [time for time, _ in found]
        self._values = [float(value) for _, value in found]
        self._period = period
        if not found or any(a >= b for a, b in zip(self._times, self._times[1:], strict=False)):
            raise ConfigError(f"steps need times that ascend, not {self._times}")
        if period is not None and (period <= self._times[-1] or self._times[0] < 0):
            raise ConfigError(f"steps up to {self._times[-1]:g} s do not fit into a period of {period:g} s")

    def __repr__(self) -> str:
        steps = ", ".join(f"({time:g}, {value:g})" for time, value in zip(self._times, self._values, strict=True))
        return f"Steps([{steps}]" + (f", period={self._period:g})" if self._period is not None else ")")

    @property
    def least(self) -> float:
        """The least value there is."""
        return min(self._values)

    @property
    def greatest(self) -> float:
        """The greatest."""
        return max(self._values)

    def at(self, time: float) -> float:
        """The value at `time`."""
        return self._stretch(time)[0]

    def passing(self, start: float, amount: float) -> float:
        """When `amount` has passed at these rates (per second), from `start` on."""
        time = start
        while True:
            rate, end = self._stretch(time)
            if amount <= rate * (end - time):
                return time + amount / rate
            amount -= rate * (end - time)
            time = end

    def passed(self, start: float, end: float) -> float:
        """What passes at these rates from `start` to `end`."""
        total, time = 0.0, start
        while time < end:
            rate, until = self._stretch(time)
            until = min(until, end)
            total += rate * (until - time)
            time = until
        return total

    def _stretch(self, time: float) -> tuple[float, float]:
        """The value at a time, and until when it stays: always later than `time`, whatever rounding does."""
        base = 0.0
        if self._period is not None:
            base = floor(time / self._period) * self._period
        place = bisect_right(self._times, time - base)
        value = self._values[max(0, place - 1)]
        while True:
            if place < len(self._times):
                end = base + self._times[place]
            else:
                end = inf if self._period is None else base + self._period
            if end > time:
                return value, end
            if place < len(self._times):
                value = self._values[place]
                place += 1
            else:
                base, place, value = end, 0, self._values[0]
                if self._times[0] <= 0:
                    place = 1
