"""The report of attacks and faults itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

INNER = "def test_inner(outcome, full):\n    outcome('attacks', 'many things', '5 MiB' if full else '1 MiB')\n"


@pytest.mark.parametrize(("options", "expected"), [((), None), (("--hard",), "5 MiB")])
def test_only_full_runs_write_a_report_and_it_names_the_test(
    pytester: pytest.Pytester, options: tuple[str, ...], expected: str | None
) -> None:
    for name in ("conftest.py", "hard/conftest.py"):
        path = pytester.path / "tests" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((Path(__file__).parent.parent / name).read_text(encoding="utf-8"), encoding="utf-8")
    (pytester.path / "tests/hard/test_example.py").write_text(INNER, encoding="utf-8")
    pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-o", f"pythonpath={Path(__file__).parent.parent.parent}", "tests", *options
    ).assert_outcomes(passed=1)
    report = pytester.path / "build/hard/report.json"
    if expected is None:
        assert not report.exists()
        return
    tables = {table["name"]: table["rows"] for table in json.loads(report.read_text(encoding="utf-8"))["tables"]}
    assert tables["hard-attacks"] == [["many things", "`tests/hard/test_example.py::test_inner`", expected]]
