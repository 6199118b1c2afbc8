"""Compares two reports: which figures became worse, or better, by more than the noise.

    python -m benches.compare old.json new.json [--threshold 0.05] [--all]

A figure has changed when the medians of its rounds differ by more than the threshold *and* the ranges of the rounds do
not overlap: then no round of the one looks like any round of the other. A figure with a single round has no range that
would say anything; there the medians must differ by more than `--single`, 25 % unless told otherwise.

Exit code 1 when something became worse, 2 when a file is no report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.report import Figure, Table

__all__ = ["SINGLE", "THRESHOLD", "Change", "compare", "load", "main"]

THRESHOLD = 0.05
"""Share by which medians differ at least: less is not worth a look, even when it is no noise."""

SINGLE = 0.25
"""The same where one side has one round only."""

VERDICTS = ("WORSE", "better", "same", "noise", "gone", "new")
"""In the order in which they are shown. noise: medians differ by more than the threshold, but the rounds overlap."""


@dataclass(frozen=True)
class Change:
    """One figure in both reports, or in one of them.

    Attributes:
        name: of the figure.
        old: what it was, or None. new: what it is, or None.
        verdict: one of `VERDICTS`.
    """

    name: str
    old: Figure | None
    new: Figure | None
    verdict: str

    @property
    def ratio(self) -> float | None:
        """The new median over the old one, where there are both and the old one is not zero."""
        if self.old is None or self.new is None or not self.old.middle:
            return None
        return self.new.middle / self.old.middle


def load(path: Path) -> dict[str, Figure]:
    """The figures of a report; raises `ValueError` when the file is none."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(**each) for each in data["figures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of `python -m benches`: {error}") from None
    return {figure.name: figure for figure in figures}


def compare(
    old: dict[str, Figure], new: dict[str, Figure], threshold: float = THRESHOLD, single: float = SINGLE
) -> list[Change]:
    """Every figure of either report: what became worse first, each kind by how much it changed."""
    changes = [
        Change(name, old.get(name), new.get(name), _verdict(old.get(name), new.get(name), threshold, single))
        for name in {**old, **new}
    ]
    return sorted(changes, key=lambda change: (VERDICTS.index(change.verdict), -_size(change)))


def _verdict(old: Figure | None, new: Figure | None, threshold: float, single: float) -> str:
    if old is None:
        return "new"
    if new is None:
        return "gone"
    before, after = old.middle, new.middle
    alone = min(len(old.rounds), len(new.rounds)) == 1
    if abs(after - before) <= (max(threshold, single) if alone else threshold) * abs(before):
        return "same"
    if not alone and max(min(old.rounds), min(new.rounds)) <= min(max(old.rounds), max(new.rounds)):
        return "noise"
    return "better" if (after > before) == (new.better == "more") else "WORSE"


def _size(change: Change) -> float:
    ratio = change.ratio
    if ratio is None:
        return 0.0
    return max(ratio, 1 / ratio) if ratio > 0 else float("inf")


def table(changes: Iterable[Change]) -> Table:
    """For people: medians, the range of the rounds on each side, and the verdict."""
    shown = Table("Compared", ["figure", "unit", "old", "its rounds", "new", "its rounds", "new is", "verdict"])
    for change in changes:
        figure = change.new or change.old
        assert figure is not None
        ratio = "–" if change.ratio is None else f"{change.ratio:.2f}x"
        shown.add(change.name, figure.unit, *_side(change.old), *_side(change.new), ratio, change.verdict)
    return shown


def _side(figure: Figure | None) -> tuple[object, str]:
    if figure is None:
        return "–", "–"
    low, high = min(figure.rounds), max(figure.rounds)
    return figure.middle, f"{low:,.4g} … {high:,.4g}" if len(figure.rounds) > 1 else "one"


def main(arguments: list[str] | None = None) -> int:
    """What `python -m benches.compare` does."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="least share by which medians differ")
    parser.add_argument("--single", type=float, default=SINGLE, help="the same for figures of a single round")
    parser.add_argument("--all", action="store_true", help="show what did not change, too")
    options = parser.parse_args(arguments)
    try:
        old, new = load(options.old), load(options.new)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    changes = compare(old, new, options.threshold, options.single)
    counts = {verdict: sum(change.verdict == verdict for change in changes) for verdict in VERDICTS}
    wanted = [change for change in changes if options.all or change.verdict in ("WORSE", "better")]
    if wanted:
        table(wanted).show()
        print()
    print(", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count) or "no figures")
    return 1 if counts["WORSE"] else 0


if __name__ == "__main__":
    sys.exit(main())
