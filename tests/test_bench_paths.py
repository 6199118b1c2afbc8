"""`python -m benches.paths`: what it measures follows from the path, what it judges from the figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "paths.md"


def python(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_every_place_in_the_document_names_a_table_that_a_run_makes() -> None:
    known = python("from benches.paths import TABLES; print(json.dumps(TABLES))")
    named = re.findall(r"^<!-- table: (\S+) -->$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(known)


def test_a_flow_alone_uses_the_link_and_the_same_seed_measures_the_same() -> None:
    first, second, other = python(
        "from benches.paths_runs import *\n"
        "runs = [measure(Scene(('cubic',), 0.04, seed, rate=5e5, settle=2, seconds=4)) for seed in (1, 1, 2)]\n"
        "print(json.dumps([[run.use, run.queue, run.rates[0], run.longest, len(run.samples)] for run in runs]))"
    )
    assert first == second
    use, queue, rate, longest, samples = first
    assert 0.9 < use < 1.05
    assert 0.9 * 5e5 * (1472 - 42) / 1472 < rate < 5e5
    # sixteen datagrams are more than one round trip of this rate
    assert 0 < queue < longest <= 16 * 1472 / 5e5
    assert samples >= 60
    assert other[4] == samples


def test_losses_behind_the_bottleneck_are_not_counted_as_use() -> None:
    use, lost = python(
        "from benches.paths_runs import *\n"
        "run = measure(Scene(('cubic',), 0.01, 1, rate=5e5, loss=0.2, settle=1, seconds=4))\n"
        "print(json.dumps([run.use, run.lost]))"
    )
    assert 0 < use < 0.8
    assert lost == 0


def test_jains_index_tells_equal_from_starved() -> None:
    assert python("from benches.paths_runs import jain; print(json.dumps([jain([3] * 8), jain([1] + [0] * 7)]))") == [
        1,
        0.125,
    ]


JUDGE = """
from benches.paths import *
from benches import paths
from benches.paths_runs import Measured, Scene
from benches.report import Report

def made(name, rtt, use, queue):
    return [Measured(Scene((name,), rtt, 0), use, queue, queue, (1.0,), 0.0, ())]

def judged(use, queue):
    report = Report()
    found = {}
    for rtt in paths.ROUND_TRIPS:
        found[f"steady cubic {rtt}"] = made("cubic", rtt, 0.95, 0.03)
        found[f"steady bbr {rtt}"] = made("bbr", rtt, use if rtt == 0.1 else 0.95, queue if rtt == 0.2 else 0.01)
    paths.use_tables(report, found, ["cubic", "bbr"])
    return [list(report.targets.values()), [row[-1] for table in report.tables for row in table.rows]]

print(json.dumps([judged(0.92, 0.014), judged(0.89, 0.014), judged(0.92, 0.016)]))
"""


def test_one_bad_round_trip_makes_a_figure_fail() -> None:
    good, slow, queued = python(JUDGE)
    assert good == [[True, True, True], ["holds", "holds", "–", "holds"]]
    assert slow == [[True, False, True], ["holds", "FAILS", "–", "holds"]]
    assert queued == [[True, True, False], ["holds", "holds", "–", "FAILS"]]
