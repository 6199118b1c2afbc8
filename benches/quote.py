"""Puts the tables of a report into a document, so that no figure in it was typed by hand.

    python -m benches.quote build/bench/report.json docs/benchmarks.md

What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced by the table of that name;
`<!-- machine -->` … `<!-- end -->` by what the report was measured on. Exit code 1, and nothing written, when the
report lacks a table that the document names, unless `--partial` is given.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benches.report import Table

__all__ = ["MARKER", "main", "quoted", "replace"]

MARKER = re.compile(
    r"^<!-- (?:table: (?P<name>[a-z0-9-]+)|(?P<machine>machine)) -->\n(?P<old>.*?)^<!-- end -->$", re.M | re.S
)
"""One place for a table, with what stands there now."""


def quoted(document: str) -> list[str]:
    """The names of the tables that a document quotes."""
    return [found["name"] for found in MARKER.finditer(document) if found["name"]]


def replace(document: str, report: dict[str, Any], *, partial: bool = False) -> str:
    """The document with the tables of the report; raises `KeyError` naming those that the report does not have.

    With `partial`, the places of those stay as they are.
    """
    tables = {each["name"]: Table(**each) for each in report["tables"]}
    lacking = sorted(set(quoted(document)) - tables.keys())
    if lacking and not partial:
        raise KeyError(f"the report has no table {', '.join(lacking)}")

    def fill(found: re.Match[str]) -> str:
        if found["machine"]:
            body = "\n".join(f"- {name}: {value}" for name, value in report["machine"].items()) + "\n"
            head = "<!-- machine -->"
        elif found["name"] in tables:
            table = tables[found["name"]]
            body, head = f"**{table.title}**\n\n{table.body()}", f"<!-- table: {found['name']} -->"
        else:
            return found[0]
        return f"{head}\n\n{body}\n<!-- end -->"

    return MARKER.sub(fill, document)


def main(arguments: list[str] | None = None) -> int:
    """What `python -m benches.quote` does."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.quote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("document", type=Path)
    parser.add_argument("--partial", action="store_true", help="leave tables that the report lacks as they are")
    options = parser.parse_args(arguments)
    report = json.loads(options.report.read_text(encoding="utf-8"))
    before = options.document.read_text(encoding="utf-8")
    try:
        after = replace(before, report, partial=options.partial)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    options.document.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
