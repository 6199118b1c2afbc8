"""Two reports of the benchmarks against each other: what is a regression, and what is noise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

FAST = [100.0, 101.0, 99.0]
SLOW = [80.0, 81.0, 79.0]
WIDE = [70.0, 80.0, 100.0]


def report(path: Path, **figures: Any) -> Path:
    """A report with figures of which more is better; a dict of `rounds` and `better` for others."""
    rows = []
    for name, given in figures.items():
        each = given if isinstance(given, dict) else {"rounds": given}
        rows.append({"name": name, "unit": "MB/s", "better": "more", **each})
    path.write_text(json.dumps({"machine": {}, "tables": [], "figures": rows}))
    return path


def compare(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.compare", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The verdict of each figure that the table shows, by its name."""
    lines = [line.split() for line in done.stdout.splitlines() if "MB/s" in line]
    return {words[0]: words[-1] for words in lines}


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    def judge(old: Any, new: Any, *options: str) -> tuple[str, int]:
        done = compare(
            report(tmp_path / "old.json", figure=old), report(tmp_path / "new.json", figure=new), "--all", *options
        )
        return verdicts(done)["figure"], done.returncode

    return judge


def test_slower_than_any_round_before_is_a_regression(judged: Any) -> None:
    assert judged(FAST, SLOW) == ("WORSE", 1)


def test_faster_than_any_round_before_is_an_improvement(judged: Any) -> None:
    assert judged(SLOW, FAST) == ("better", 0)


def test_where_less_is_better_more_is_a_regression(judged: Any) -> None:
    old, new = ({"rounds": rounds, "better": "less", "unit": "MB/s"} for rounds in (SLOW, FAST))
    assert judged(old, new) == ("WORSE", 1)
    assert judged(new, old) == ("better", 0)


def test_rounds_that_overlap_are_noise_however_far_the_medians_are_apart(judged: Any) -> None:
    assert judged(FAST, WIDE) == ("noise", 0)


def test_medians_within_the_threshold_are_the_same_even_when_no_round_overlaps(judged: Any) -> None:
    assert judged([100.0, 100.1], [99.0, 99.1]) == ("same", 0)
    assert judged([100.0, 100.1], [99.0, 99.1], "--threshold", "0.001") == ("WORSE", 1)


def test_a_single_round_must_differ_by_much_more(judged: Any) -> None:
    assert judged([100.0], SLOW) == ("same", 0)
    assert judged([100.0], [60.0]) == ("WORSE", 1)
    assert judged([100.0], [80.0], "--single", "0.1") == ("WORSE", 1)


def test_a_figure_of_zero_can_become_worse(judged: Any) -> None:
    old, new = ({"rounds": rounds, "better": "less", "unit": "MB/s"} for rounds in ([0.0, 0.0], [3.0, 4.0]))
    assert judged(old, new) == ("WORSE", 1)


def test_reports_with_other_figures_are_compared_by_what_both_have(tmp_path: Path) -> None:
    old = report(tmp_path / "old.json", kept=FAST, dropped=FAST)
    new = report(tmp_path / "new.json", kept=SLOW, added=FAST)
    done = compare(old, new, "--all")
    assert verdicts(done) == {"kept": "WORSE", "dropped": "gone", "added": "new"}
    assert done.returncode == 1


def test_only_what_changed_is_shown_and_the_worst_first(tmp_path: Path) -> None:
    old = report(tmp_path / "old.json", steady=FAST, risen=SLOW, fallen=FAST, plunged=FAST)
    new = report(tmp_path / "new.json", steady=FAST, risen=FAST, fallen=SLOW, plunged=[1.0, 2.0])
    done = compare(old, new)
    assert list(verdicts(done)) == ["plunged", "fallen", "risen"]
    assert "2 WORSE, 1 better, 1 same" in done.stdout


def test_what_is_no_report_is_said_to_be_none(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"figures": [{"name": "x"}]}')
    good = report(tmp_path / "good.json", figure=FAST)
    for pair in ((good, other), (good, tmp_path / "absent.json")):
        done = compare(*pair)
        assert done.returncode == 2
        assert "is no report" in done.stderr
        assert "Traceback" not in done.stderr
