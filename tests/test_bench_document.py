"""docs/benchmarks.md takes its tables from a report: each place names one that a run makes, and is filled whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"

PAGE = """# Page

<!-- machine -->
<!-- end -->

## One

<!-- table: one -->
an old table
<!-- end -->

Words that stay.

<!-- table: two -->
<!-- end -->
"""


def table(name: str, cell: str) -> dict[str, Any]:
    return {"title": name, "columns": ["what", "MB/s"], "rows": [["burstwire", cell]], "notes": [], "name": name}


def python(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def quote(report: Path, document: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.quote", str(report), str(document), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def write(path: Path, *tables: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"machine": {"processor": "of some kind"}, "tables": tables, "figures": []}))
    return path


def test_every_place_in_the_document_names_a_table_that_a_run_makes() -> None:
    known = python("from benches.parts import table_names; print(json.dumps(sorted(table_names())))")
    named = re.findall(r"^<!-- table: (\S+) -->$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert named
    assert sorted(set(named)) == sorted(named), "a table is quoted twice"
    assert set(named) <= set(known)


def test_every_place_in_the_document_ends() -> None:
    marks = re.findall(r"^<!-- (table|machine|end)\b", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert marks[::2].count("end") == 0
    assert set(marks[1::2]) == {"end"}


def test_the_document_quotes_the_tables_that_a_reader_comes_for() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("figures", "peers-bulk", "bulk-by-size", "relation-calls", "memory-idle"):
        assert f"<!-- table: {name} -->" in text


def test_tables_go_to_their_places_and_the_rest_stays(tmp_path: Path, page: Path) -> None:
    done = quote(write(tmp_path / "report.json", table("one", "11"), table("two", "22")), page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    one, _, two = text.partition("Words that stay.")
    assert "| burstwire | 11 |" in one
    assert "| burstwire | 22 |" in two
    assert "an old table" not in text
    assert "- processor: of some kind" in one


def test_filling_twice_changes_nothing_more(tmp_path: Path, page: Path) -> None:
    report = write(tmp_path / "report.json", table("one", "11"), table("two", "22"))
    quote(report, page)
    once = page.read_text()
    quote(report, page)
    assert page.read_text() == once


def test_a_report_without_a_table_that_is_named_fills_nothing(tmp_path: Path, page: Path) -> None:
    report = write(tmp_path / "report.json", table("one", "11"))
    done = quote(report, page)
    assert (done.returncode, page.read_text()) == (1, PAGE)
    assert "two" in done.stderr


def test_the_rest_can_be_filled_all_the_same(tmp_path: Path, page: Path) -> None:
    report = write(tmp_path / "report.json", table("one", "11"))
    assert quote(report, page, "--partial").returncode == 0
    assert "| burstwire | 11 |" in page.read_text()
    assert "<!-- table: two -->\n<!-- end -->" in page.read_text()
