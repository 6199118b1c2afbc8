"""Tables: printed while the benchmarks run, written as Markdown and JSON when they are done.

Beside the tables, which are for people, a report holds *figures*: each a name that stays the same over versions, a
unit, and the rounds that were measured. `benches.compare` reads those.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benches.machine import conditions, describe

__all__ = ["Figure", "Report", "Table", "percentage", "ratio", "say", "slug"]

Better = Literal["more", "less"]


def slug(title: str) -> str:
    """A title as a name: small letters and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


@dataclass
class Figure:
    """One quantity that a run measured several times.

    Attributes:
        name: the same in every report, e.g. `peers/bulk/asyncio TLS`.
        unit: of the rounds.
        better: which direction is an improvement.
        rounds: every round, in the order of measuring.
    """

    name: str
    unit: str
    better: Better
    rounds: list[float]

    @property
    def middle(self) -> float:
        """The median of the rounds."""
        return float(median(self.rounds))


@dataclass
class Table:
    """One table.

    Attributes:
        title: a short name.
        columns: what stands in each column, with its unit; the first names the row.
        rows: cells as they are shown.
        notes: what one has to know to read it.
        name: what documents quote it by; made of the title when none is given.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or slug(self.title)

    def add(self, *cells: object) -> None:
        """Append a row; numbers get separators and as many digits as mean something."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([_show(cell) for cell in cells])

    def markdown(self) -> str:
        """The table as GitHub shows it, under its title."""
        return f"## {self.title}\n\n{self.body()}\n"

    def body(self) -> str:
        """The rows and notes alone: what a document quotes under a heading of its own."""
        lines = [_row(self.columns), _row(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_row(row) for row in self.rows]
        if self.notes:
            lines += ["", *[f"- {note}" for note in self.notes]]
        return "\n".join(lines) + "\n"

    def show(self) -> None:
        """Print it, with lines around it when somebody looks at a terminal and rich is there."""
        if not sys.stdout.isatty():
            self._show_plain()
            return
        try:
            from rich.console import Console
            from rich.table import Table as RichTable
        except ImportError:
            self._show_plain()
            return
        table = RichTable(title=self.title, title_justify="left", caption="\n".join(self.notes), caption_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)

    def _show_plain(self) -> None:
        widths = [max(len(cell) for cell in column) for column in zip(self.columns, *self.rows, strict=True)]
        print(f"\n{self.title}\n")
        for row in [self.columns, ["-" * width for width in widths], *self.rows]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            print("  ".join(cells).rstrip())
        for note in self.notes:
            print(f"  {note}")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _show(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)


def ratio(value: float, base: float) -> str:
    """`value` in multiples of `base`."""
    return f"{value / base:.2f}x" if base else "–"


def percentage(value: float, base: float) -> str:
    """`value` as a share of `base`."""
    return f"{100 * value / base:.0f} %" if base else "–"


def say(text: str) -> None:
    """Progress, on standard error, so that tables can be redirected."""
    print(f"· {text}", file=sys.stderr, flush=True)


class Report:
    """Everything that one run of `python -m benches` measured."""

    def __init__(self) -> None:
        self.machine = describe()
        self.tables: list[Table] = []
        self.raw: dict[str, Any] = {}
        self.figures: dict[str, Figure] = {}
        self.seconds: dict[str, float] = {}
        """How long each part took."""
        self.verdicts: dict[str, bool] = {}
        """Limits: one that does not hold fails the run."""
        self.targets: dict[str, bool] = {}
        """Figures to reach: they are reported, and fail nothing."""

    def add(self, table: Table) -> None:
        """Print a table and keep it. One that does not say under which conditions it was made gets the default ones."""
        if not any("SO_RCVBUF" in note for note in table.notes):
            table.notes.append(conditions())
        table.show()
        self.tables.append(table)

    def figure(self, name: str, rounds: Sequence[float], unit: str, better: Better = "more") -> None:
        """Keep a figure for comparisons with other reports. Raises `ValueError` when it has no rounds."""
        if not rounds:
            raise ValueError(f"{name}: no rounds")
        self.figures[name] = Figure(name, unit, better, [float(value) for value in rounds])

    def verdict(self, what: str, holds: bool) -> None:
        """Note and print whether a limit holds."""
        self.verdicts[what] = holds
        print(f"{'holds' if holds else 'FAILS'}: {what}", flush=True)

    def target(self, what: str, holds: bool) -> None:
        """Note and print whether a figure to reach was reached."""
        self.targets[what] = holds
        print(f"{'holds' if holds else 'FAILS'}: {what}", flush=True)

    def write(self, folder: Path) -> list[Path]:
        """Write report.md and report.json; returns both."""
        folder.mkdir(parents=True, exist_ok=True)
        markdown = folder / "report.md"
        lines = ["# Benchmarks", "", *[f"- {name}: {value}" for name, value in self.machine.items()], ""]
        lines += [table.markdown() for table in self.tables]
        judged = {**self.targets, **self.verdicts}
        lines += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in judged.items()]
        _replace(markdown, "\n".join(lines) + "\n")
        _replace(folder / "report.json", self.json())
        return [markdown, folder / "report.json"]

    def json(self) -> str:
        """Everything, as report.json has it."""
        data = {
            "machine": self.machine,
            "tables": [asdict(table) for table in self.tables],
            "figures": [asdict(figure) for figure in self.figures.values()],
            "seconds": self.seconds,
            "verdicts": self.verdicts,
            "targets": self.targets,
            "raw": self.raw,
        }
        return json.dumps(data, indent=1) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
