"""Alternatives measured in turn, in one run, so that what disturbs the machine disturbs all of them alike.

pytest-benchmark measures one alternative after the other; on a shared machine a ratio of two such figures says little.
A `Contest` runs all alternatives of a group once in each round and keeps the median of each; every alternative is still
a benchmark of its own, with its share of the result in `extra_info`:

- the figure itself, under the name that the contest gives it (`ns_per_nonce`), its `values` and their number, `rounds`;
- `ratio` (how many times as fast as the base) and `ratio_to` (the base's name);
- `target`, the least ratio that we want, and `claimed`, the ratio that the design we started from claims, where there
  is one.

With `--benchmark-disable` every alternative does a small amount once, checks it, and measures nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import repeat
from statistics import median
from typing import Any

__all__ = ["Contest", "Way", "each", "note"]

QUICK = "BENCH_QUICK"
"""Environment variable: 1 for an eighth of the work and at most two rounds."""

Way = Callable[[int], float]
"""Does its work so many times, checks that it was done, and returns the seconds that count."""


def each(call: Callable[..., Any], *arguments: Any) -> Way:
    """A way that makes the same call again and again."""

    def way(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            call(*arguments)
        return time.perf_counter() - started

    return way


def note(benchmark: Any, way: str, figure: str = "ns_per_call", scale: float = 1e9) -> None:
    """The figure of a benchmark that stands by itself, under the names that a contest would give it."""
    if benchmark.stats is not None:  # None when nothing is measured
        benchmark.extra_info.update({"way": way, figure: benchmark.stats.stats.median * scale})


class Contest:
    """Alternatives that do the same work.

    Args:
        group: names the table.
        figure: the name of the figure, with its unit.
        ways: the alternatives by name.
        base: the one that the others are compared with.
        count: how often a way does its work in one round; quick_count with `--benchmark-disable`.
        scale: the figure is seconds x scale / count; with `rate` it is count x scale / seconds.
        targets: least ratios that we want, by the alternative's name. claims: ratios claimed by others.
    """

    def __init__(
        self,
        group: str,
        figure: str,
        ways: dict[str, Way],
        *,
        base: str,
        count: int,
        quick_count: int = 10,
        scale: float = 1e9,
        rate: bool = False,
        rounds: int = 15,
        targets: dict[str, float] | None = None,
        claims: dict[str, float] | None = None,
    ) -> None:
        if {base, *(targets or {}), *(claims or {})} - ways.keys():
            raise ValueError(f"{group}: base, targets and claims must be among {', '.join(ways)}")
        self.group = group
        self.figure = figure
        self.ways = ways
        self.base = base
        self.rate = rate
        quick = os.environ.get(QUICK) == "1"
        self._count = max(quick_count, count // 8) if quick else count
        self._quick_count = quick_count
        self._scale = scale
        self._rounds = min(rounds, 2) if quick else rounds
        self._targets = targets or {}
        self._claims = claims or {}
        self._seconds: dict[str, list[float]] = {}

    def __str__(self) -> str:
        return self.group

    def measured(self) -> dict[str, list[float]]:
        """Seconds of each round, by alternative; measured once."""
        if not self._seconds:
            for way in self.ways.values():
                way(self._quick_count)  # warm
            seconds: dict[str, list[float]] = {name: [] for name in self.ways}
            for _ in range(self._rounds):
                for name, way in self.ways.items():
                    seconds[name].append(way(self._count))
            self._seconds = seconds
        return self._seconds

    def value(self, name: str) -> float:
        """The figure of an alternative."""
        return median(self.values(name))

    def values(self, name: str) -> list[float]:
        """The same of each round."""
        measured = self.measured()[name]
        return [
            self._count * self._scale / each if self.rate else each * self._scale / self._count for each in measured
        ]

    def ratios(self, name: str) -> list[float]:
        """How many times as fast as the base, round by round."""
        measured = self.measured()
        return [base / own for base, own in zip(measured[self.base], measured[name], strict=True)]

    def ratio(self, name: str, base: str | None = None) -> float:
        """How many times as fast as the base, or another: the median of the rounds' ratios."""
        measured = self.measured()
        return median(other / own for other, own in zip(measured[base or self.base], measured[name], strict=True))

    def report(self, benchmark: Any, name: str, **extra: Any) -> None:
        """Let `benchmark` be the row of the alternative `name`, with `extra` beside its figures."""
        benchmark.group = self.group
        way = self.ways[name]
        if benchmark.disabled:
            benchmark.pedantic(way, (self._quick_count,), rounds=1)
            return
        self.measured()
        benchmark.pedantic(way, (self._count,), rounds=1)  # the row's own time; the figures are those of the contest
        benchmark.extra_info.update(
            {
                "way": name,
                self.figure: self.value(name),
                "values": self.values(name),
                "ratio": self.ratio(name),
                "ratio_to": self.base,
                "rounds": self._rounds,
                **extra,
            }
        )
        for key, known in (("target", self._targets), ("claimed", self._claims)):
            if name in known:
                benchmark.extra_info[key] = known[name]

    def only(self, *names: str, rounds: int) -> Contest:
        """A smaller contest among some of the ways and the base."""
        ways = {name: way for name, way in self.ways.items() if name in (self.base, *names)}
        return Contest(
            self.group,
            self.figure,
            ways,
            base=self.base,
            count=self._count,
            quick_count=self._quick_count,
            scale=self._scale,
            rate=self.rate,
            rounds=rounds,
        )

    @staticmethod
    def rows(*contests: Contest) -> list[tuple[Contest, str]]:
        """Every alternative of every contest, for `pytest.mark.parametrize`."""
        return [(contest, name) for contest in contests for name in contest.ways]
