"""Levels 0 to 3: each `benches/level*.py` in a pytest process of its own, its benchmarks as one table.

A level file says what it measured in the `extra_info` of its benchmarks: any number with a name that holds its unit
(`ns_per_packet`, `packets_per_second`), and, where alternatives were measured in turn, `way`, `ratio`, `ratio_to` and
`target`. Whatever there is becomes columns; nothing here knows a single benchmark.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benches.contest import QUICK
from benches.harness import ROOT, BenchError
from benches.report import Better, Report, Table, say

__all__ = ["TABLES", "Bench", "collect", "files", "run"]

TIMEOUT = 600.0
"""Seconds after which a level file is given up."""

SLOW = ("level2_endpoints", "level2_round_trip", "level3")
"""What a quick run leaves out: minutes of whole transfers, most of which its other parts have, too."""

FOLDER = ROOT / "benches"

WORDS = frozenset({"way", "ratio", "ratio_to", "rounds", "values", "target", "claimed"})

SAID_ELSEWHERE = frozenset({"burstwire", "send_buffer", "cipher"})
"""Of what a peer says about itself: what needs no repeating in every row."""
"""Keys of `extra_info` that are no figures."""

FEW = 100
"""A benchmark with so few rounds keeps each of them; one with more is a microbenchmark, whose rounds are medians of
whole runs."""


def files() -> list[str]:
    """The level files, without `.py`, in the order of their names."""
    return sorted(path.stem for path in FOLDER.glob("level[0-3]_*.py"))


def table_name(stem: str) -> str:
    """`level0_aead` is quoted as `level0-aead`."""
    return stem.replace("_", "-")


TABLES = tuple(table_name(stem) for stem in files())


@dataclass
class Bench:
    """One benchmark, over all runs of its file.

    Attributes:
        group: what it is compared within. label: what it is called there.
        seconds: its time, a median for each run, or each round where there were few.
        figures: what it says it measured, a value for each run.
        ratios: how many times as fast as `ratio_to`, for each run; empty when it is compared with nothing.
        target: the least ratio that is to be reached. claimed: the one that the design claims.
        words: what else it says, e.g. its AEAD back end. values: every round of the first figure, where it tells.
    """

    group: str
    label: str
    seconds: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    ratio_to: str = ""
    target: float | None = None
    claimed: float | None = None
    words: dict[str, str] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)

    @property
    def figure(self) -> tuple[str, list[float]]:
        """The name and rounds of what stands first."""
        for name, rounds in self.figures.items():
            if self.values:
                return name, self.values
            if len(rounds) == 1 < len(self.seconds):  # one figure for all rounds: each round's share of it
                middle = median(self.seconds)
                shares = [middle / each if better(name) == "more" else each / middle for each in self.seconds]
                return name, [rounds[0] * share for share in shares]
            return name, rounds
        return "µs_a_call", [value * 1e6 for value in self.seconds]


def collect(stem: str, *, quick: bool, repeats: int = 1) -> list[Bench]:
    """Run one level file so many times; raises `BenchError` with what pytest said when it fails."""
    found: dict[str, Bench] = {}
    for _ in range(repeats):
        for raw in _pytest(stem, quick=quick):
            bench = found.setdefault(raw["fullname"], Bench(raw["group"] or stem, _label(raw)))
            _add(bench, raw)
    return list(found.values())


def _pytest(stem: str, *, quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="bench-level-") as folder:
        output = Path(folder) / "benchmarks.json"
        command = [
            sys.executable, "-m", "pytest", f"benches/{stem}.py", "-q", "-p", "no:cacheprovider", "--benchmark-only",
            f"--benchmark-json={output}", f"--benchmark-max-time={0.02 if quick else 0.25}",
            f"--benchmark-min-rounds={3 if quick else 5}", "--benchmark-warmup=off", "--benchmark-disable-gc",
            # Soaks are long on purpose; looking at a busy process from beside it has crashed the interpreter.
            "-o", "faulthandler_timeout=0",
        ]  # fmt: skip
        environment = {**os.environ, **({QUICK: "1"} if quick else {})}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{stem} took more than {TIMEOUT:g} s") from None
        if done.returncode:
            raise BenchError(f"{stem} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        benchmarks: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))["benchmarks"]
        return benchmarks


def _label(raw: dict[str, Any]) -> str:
    if "way" in raw["extra_info"]:
        return str(raw["extra_info"]["way"])
    name, _, parameters = raw["name"].removeprefix("test_").partition("[")
    words = name.replace("_", " ")
    return f"{words}, {parameters.removesuffix(']')}" if parameters else words


def _add(bench: Bench, raw: dict[str, Any]) -> None:
    stats, extra = raw["stats"], raw["extra_info"]
    data = stats.get("data") or []
    bench.seconds += data if 1 < len(data) <= FEW else [stats["median"]]
    for name, value in extra.items():
        if name in WORDS or name in SAID_ELSEWHERE:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            bench.figures.setdefault(name, []).append(float(value))
        else:
            bench.words[name] = str(value)
    bench.values += extra.get("values", [])
    if "ratio" in extra:
        bench.ratios.append(float(extra["ratio"]))
        bench.ratio_to = str(extra["ratio_to"])
    bench.target = extra.get("target", bench.target)
    bench.claimed = extra.get("claimed", bench.claimed)


def better(figure: str) -> Better:
    """Which direction of a figure is an improvement, by its name."""
    return "more" if re.search(r"per_second|a_second|rate|mb_s", figure) else "less"


def run(report: Report, *, quick: bool) -> None:
    """Measure and print every level file; one that fails does not keep the others from running."""
    broken = []
    for stem in files():
        if quick and stem.startswith(SLOW):
            say(f"levels: {stem} is left to the full run")
            continue
        try:
            _one(report, stem, quick=quick)
        except BenchError as error:
            say(str(error))
            broken.append(str(error).splitlines()[0])
    if broken:
        raise BenchError("; ".join(broken))


def _one(report: Report, stem: str, *, quick: bool) -> None:
    say(f"levels: {stem}")
    repeats = 3 if stem.startswith("level0") and not quick else 1
    benches = collect(stem, quick=quick, repeats=repeats)
    title = _title(stem)
    columns = ["what", "figure", "value", "lowest", "highest", "times as fast", "as", "target", "also"]
    table = Table(title, columns, name=table_name(stem))
    for bench in benches:
        name, rounds = bench.figure
        unit = name.replace("_", " ")
        report.figure(f"{stem}/{bench.group}/{bench.label}", rounds, unit, better(name))
        ratio = f"{median(bench.ratios):.2f}x" if bench.ratios else "–"
        row = [f"{bench.group}: {bench.label}", unit, median(rounds), min(rounds), max(rounds), ratio]
        target = "–" if bench.target is None else f"{bench.target:g}x"
        table.add(*row, bench.ratio_to or "–", target, "; ".join(_others(bench)) or "–")
    table.notes.append(f"medians; benchmarks of one group do the same work; runs of the file: {repeats}")
    report.add(table)


def _others(bench: Bench) -> Iterator[str]:
    if bench.claimed is not None:
        yield f"claimed {bench.claimed:g}x" if isinstance(bench.claimed, int | float) else f"claimed {bench.claimed}"
    for name, rounds in list(bench.figures.items())[1:]:
        value = median(rounds)
        shown = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
        yield f"{name.replace('_', ' ')} {shown}"
    for name, words in bench.words.items():
        yield f"{name.replace('_', ' ')} {words}"


def _title(stem: str) -> str:
    """The first sentence of the file's docstring."""
    text = (FOLDER / f"{stem}.py").read_text(encoding="utf-8")
    found = re.match(r'"""(.*?\.)(\s|""")', text, re.S)
    return " ".join(found[1].rstrip(".").split()) if found else stem
