"""What a run of the benchmarks ends with: its exit code, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

RUN = """
import sys, types
from benches import __main__ as program, parts
from benches.harness import BenchError
from benches.report import Report, Table

def run(report, *, quick):
    table = Table("A table", ["what", "MB/s"], name="known")
    table.add("burstwire", 1234.5)
    report.add(table)
    report.figure("part/burstwire", [1.0, 2.0, 4.0], "MB/s")
    {body}

sys.modules["benches.pretended"] = types.SimpleNamespace(run=run)
parts.PARTS.clear()
parts.PARTS["pretended"] = parts.Part("pretended", ("known",), 1, 1)
sys.argv = ["benches", "--output", {output!r}]
sys.exit(program.main())
"""


@pytest.fixture
def end(tmp_path: Path) -> Any:
    """Run a pretended part with these lines at its end: the exit code, what was printed, the report."""

    def run(body: str) -> tuple[int, str, dict[str, Any]]:
        code = RUN.format(body=body, output=str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, json.loads((tmp_path / "report.json").read_text())

    return run


def test_a_limit_that_holds_ends_well_and_the_report_has_everything(end: Any) -> None:
    code, printed, report = end('report.verdict("fast", True)')
    assert code == 0
    assert "holds: fast" in printed
    (table,) = report["tables"]
    assert table["rows"] == [["burstwire", "1,234"]]
    assert report["figures"] == [
        {"name": "part/burstwire", "unit": "MB/s", "better": "more", "rounds": [1.0, 2.0, 4.0]}
    ]


def test_a_limit_that_does_not_hold_ends_with_1(end: Any) -> None:
    code, printed, report = end('report.verdict("fast", False)')
    assert (code, report["verdicts"]) == (1, {"fast": False})
    assert "FAILS: fast" in printed


def test_a_figure_that_is_not_reached_is_reported_and_ends_well(end: Any) -> None:
    code, printed, report = end('report.target("fast", False)')
    assert (code, report["targets"]) == (0, {"fast": False})
    assert "FAILS: fast" in printed


@pytest.mark.parametrize("error", ["BenchError", "ZeroDivisionError"])
def test_a_part_that_could_not_do_its_work_ends_with_2_and_leaves_a_report(end: Any, error: str) -> None:
    code, printed, report = end(f'report.verdict("fast", False); raise {error}("lost bytes")')
    assert code == 2
    assert "BROKEN: pretended" in printed
    assert report["tables"]


def test_a_table_that_documents_could_not_know_of_is_an_error(end: Any) -> None:
    code, _, _ = end('report.add(Table("Another", ["what"]))')
    assert code == 2


def test_a_table_says_which_back_end_and_buffers_there_were(end: Any) -> None:
    _, printed, report = end("pass")
    (note,) = report["tables"][0]["notes"]
    assert "AES-128-GCM by" in note
    assert "SO_RCVBUF" in note
    assert note in printed


LINE = """
from benches.figures import Line
line = Line("name", "what", "MB/s", {least}, {values}, ratios={ratios}, better={better!r})
print(json.dumps(line.holds))
"""


@pytest.mark.parametrize(
    ("least", "values", "ratios", "better", "holds"),
    [
        (2.0, [9.0], (1.0, 2.0, 5.0), "more", True),
        (2.0, [9.0], (1.0, 1.9, 5.0), "more", False),
        (0.9, [9.0], (0.8, 0.9, 2.0), "less", True),
        (0.9, [9.0], (0.8, 1.0, 2.0), "less", False),
        (16.0, [1.0, 15.0, 90.0], (), "less", True),
        (16.0, [1.0, 17.0, 18.0], (), "less", False),
        (None, [1.0], (5.0,), "more", None),
    ],
)
def test_a_figure_is_judged_by_the_median_of_its_rounds(
    least: float | None, values: list[float], ratios: tuple[float, ...], better: str, holds: bool | None
) -> None:
    code = "import json\n" + LINE.format(least=least, values=values, ratios=ratios, better=better)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == holds
