"""Tables: printed while the benchmarks run, written as Markdown and JSON when they are done."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benches.machine import describe

__all__ = ["Report", "Table", "ratio", "say"]


@dataclass
class Table:
    """One table.

    Attributes:
        title: a short name.
        columns: what stands in each column, with its unit; the first names the row.
        rows: cells as they are shown.
        notes: what one has to know to read it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; numbers get separators and as many digits as mean something."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([_show(cell) for cell in cells])

    def markdown(self) -> str:
        """The table as GitHub shows it."""
        lines = [f"## {self.title}", "", _row(self.columns), _row(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", *[f"- {note}" for note in self.notes], ""])

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


def say(text: str) -> None:
    """Progress, on standard error, so that tables can be redirected."""
    print(f"· {text}", file=sys.stderr, flush=True)


class Report:
    """Everything that one run of `python -m benches` measured."""

    def __init__(self) -> None:
        self.machine = describe()
        self.tables: list[Table] = []
        self.raw: dict[str, Any] = {}
        self.verdicts: dict[str, bool] = {}

    def add(self, table: Table) -> None:
        """Print a table and keep it."""
        table.show()
        self.tables.append(table)

    def verdict(self, what: str, holds: bool) -> None:
        """Note and print whether a limit holds."""
        self.verdicts[what] = holds
        print(f"{'holds' if holds else 'FAILS'}: {what}", flush=True)

    def write(self, folder: Path) -> list[Path]:
        """Write report.md and report.json; returns both."""
        folder.mkdir(parents=True, exist_ok=True)
        markdown = folder / "report.md"
        lines = ["# Benchmarks", "", *[f"- {name}: {value}" for name, value in self.machine.items()], ""]
        lines += [table.markdown() for table in self.tables]
        lines += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in self.verdicts.items()]
        _replace(markdown, "\n".join(lines) + "\n")
        data = {
            "machine": self.machine,
            "tables": [asdict(table) for table in self.tables],
            "verdicts": self.verdicts,
            "raw": self.raw,
        }
        _replace(folder / "report.json", json.dumps(data, indent=1) + "\n")
        return [markdown, folder / "report.json"]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
