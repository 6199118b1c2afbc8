"""`python -m benches.paths`: congestion controllers on simulated paths, in virtual time.

Prints tables and, with each figure to reach, whether it holds; writes report.md, report.json and plots under
build/bench/paths/. A figure that is missed is reported and changes no exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benches.harness import ROOT
from benches.paths_plots import draw
from benches.paths_runs import Measured, Scene, jain, measure
from benches.report import Report, Table, say
from burstwire.config import CONGESTION_CONTROLLERS

__all__ = ["TABLES", "main", "run", "scenes"]

SEEDS = 3
EQUAL_SEEDS = 9
"""Of equal flows: from one seed to the next Jain's index differs by several hundredths, and three show luck."""
ROUND_TRIPS = (0.01, 0.05, 0.1, 0.2)
LOSSES = (0.01, 0.02)
FLOWS = 8

LEAST_USE = 0.9
LEAST_BACKGROUND = 0.8
"""Of the link, for the flow of CUBIC beside one of LEDBAT++, and for LEDBAT++ alone."""
LEAST_JAIN = 0.95
MOST_QUEUE = 0.5
"""Of CUBIC's mean queue, for BBR."""

TABLES = ("paths-use", "paths-queue", "paths-loss", "paths-sharing", "paths-fairness")

SIMULATED = (
    "simulated, in virtual time: nothing depends on the machine, its AEAD back end or SO_RCVBUF; 40 Mbit/s, datagrams "
    "of 1,472 bytes, medians of {} seeds"
)
CONDITIONS = SIMULATED.format(SEEDS)


def steady(controller: str, rtt: float, loss: float = 0.0) -> Callable[[int], Scene]:
    """One flow alone, measured over several periods of its controller; those grow with the round trip."""
    return lambda seed: Scene((controller,), rtt, seed, loss=loss, settle=5 + 50 * rtt, seconds=10 + 100 * rtt)


def scenes(controllers: Iterable[str]) -> dict[str, Callable[[int], Scene]]:
    """Everything that is run, by its name."""
    known = list(controllers)
    found: dict[str, Callable[[int], Scene]] = {}
    for name in known:
        for rtt in ROUND_TRIPS:
            found[f"steady {name} {rtt}"] = steady(name, rtt)
            for loss in LOSSES:
                if name in ("cubic", "bbr"):
                    found[f"lossy {name} {rtt} {loss}"] = steady(name, rtt, loss)
        # Fair shares are found over many losses; the start of each flow is left to chance.
        found[f"equal {name}"] = lambda seed, name=name: Scene(  # type: ignore[misc]
            (name,) * FLOWS, 0.05, seed, settle=20, seconds=30, spread=4
        )
    if "ledbat" in known:
        found["beside ledbat"] = lambda seed: Scene(
            ("cubic", "ledbat"), 0.05, seed, queue=0.15, settle=20, seconds=40, spread=2
        )
        found["alone ledbat"] = lambda seed: Scene(("ledbat",), 0.05, seed, queue=0.15, settle=20, seconds=40)
    if "bbr" in known:
        found["beside bbr"] = lambda seed: Scene(("cubic", "bbr"), 0.05, seed, settle=20, seconds=40, spread=2)
    return found


def measured(chosen: dict[str, Callable[[int], Scene]], seeds: int, jobs: int) -> dict[str, list[Measured]]:
    """Runs all of them, in as many processes as asked for."""
    work = [
        (name, make(seed))
        for name, make in chosen.items()
        for seed in range(EQUAL_SEEDS if seeds == SEEDS and name.startswith("equal ") else seeds)
    ]
    work.sort(key=lambda each: -(each[1].settle + each[1].seconds))  # the long ones first, so that none ends alone
    results: dict[str, list[Measured]] = {name: [] for name in chosen}
    with get_context("fork").Pool(jobs) as pool:
        for (name, _), result in zip(work, pool.imap(measure, [scene for _, scene in work]), strict=True):
            results[name].append(result)
    return results


class Judge:
    """Adds cells to a table, and figures and targets to a report."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def cell(self, name: str, values: list[float], unit: str = "%", scale: float = 100) -> str:
        """A figure as its median."""
        self.report.figure(f"paths/{name}", [value * scale for value in values], unit)
        return f"{median(values) * scale:.1f}"

    def verdict(self, what: str, value: float, limit: float, *, least: bool = True) -> str:
        """Whether it holds, as a cell."""
        holds = value >= limit if least else value <= limit
        self.report.target(f"{what}: {'≥' if least else '≤'} {limit:g} (measured {value:.3f})", holds)
        return "holds" if holds else "FAILS"


def use_tables(report: Report, found: dict[str, list[Measured]], controllers: list[str]) -> None:
    """Link use and queue of one flow on a clean bottleneck."""
    judge = Judge(report)
    trips = [f"{rtt * 1e3:g} ms" for rtt in ROUND_TRIPS]
    use = Table(
        "Link use of one flow on a clean bottleneck, %", ["controller", *trips, "to reach", "holds"], name=TABLES[0]
    )
    queue = Table("The queue it leaves, mean, ms", ["controller", *trips, "to reach", "holds"], name=TABLES[1])
    for name in controllers:
        runs = {rtt: found[f"steady {name} {rtt}"] for rtt in ROUND_TRIPS}
        uses = {rtt: [run.use for run in each] for rtt, each in runs.items()}
        worst = min(median(each) for each in uses.values())
        judged = name in ("cubic", "bbr")
        verdict = judge.verdict(f"link use of {name} at its worst round trip", worst, LEAST_USE) if judged else "–"
        cells = [judge.cell(f"use/{name}/{rtt * 1e3:g} ms", each) for rtt, each in uses.items()]
        use.add(name, *cells, f"≥ {LEAST_USE:.0%}" if judged else "–", verdict)
        waits = {rtt: median(run.queue for run in each) for rtt, each in runs.items()}
        limit, verdict = "–", "–"
        if name == "bbr":
            shares = [waits[rtt] / median(run.queue for run in found[f"steady cubic {rtt}"]) for rtt in ROUND_TRIPS]
            limit = f"≤ {MOST_QUEUE:g} of CUBIC's"
            verdict = judge.verdict(
                "queue of bbr in shares of cubic's, at its worst", max(shares), MOST_QUEUE, least=False
            )
        cells = [
            judge.cell(f"queue/{name}/{rtt * 1e3:g} ms", [run.queue for run in each], "ms", 1e3)
            for rtt, each in runs.items()
        ]
        queue.add(name, *cells, limit, verdict)
    for table in (use, queue):
        table.notes += ["drop-tail, room for one round trip of the rate (at least 16 datagrams)", CONDITIONS]
        report.add(table)


def loss_table(report: Report, found: dict[str, list[Measured]], controllers: list[str]) -> None:
    """Link use where datagrams are lost by chance."""
    judge = Judge(report)
    trips = [f"{rtt * 1e3:g} ms" for rtt in ROUND_TRIPS]
    table = Table(
        "Link use with losses by chance, %", ["controller", "loss", *trips, "to reach", "holds"], name=TABLES[2]
    )
    for name in controllers:
        for loss in LOSSES:
            if f"lossy {name} {ROUND_TRIPS[0]} {loss}" not in found:
                continue
            uses = {rtt: [run.use for run in found[f"lossy {name} {rtt} {loss}"]] for rtt in ROUND_TRIPS}
            # What is lost behind the bottleneck has used it; nobody can deliver more than the rest.
            worst = min(median(each) for each in uses.values()) / (1 - loss)
            judged = name == "bbr" and loss == LOSSES[0]
            what = f"link use of {name} with {loss:.0%} of loss, of what can arrive, at its worst round trip"
            verdict = judge.verdict(what, worst, LEAST_USE) if judged else "–"
            cells = [judge.cell(f"loss/{name}/{loss:.0%}/{rtt * 1e3:g} ms", each) for rtt, each in uses.items()]
            table.add(name, f"{loss:.0%}", *cells, f"≥ {LEAST_USE:.0%}" if judged else "–", verdict)
    table.notes += ["bytes of datagrams that arrived, of those that the bottleneck could have carried", CONDITIONS]
    report.add(table)


def sharing_table(report: Report, found: dict[str, list[Measured]]) -> None:
    """Two flows, of different controllers, at one bottleneck; LEDBAT++ alone."""
    judge = Judge(report)
    table = Table(
        "Beside each other, at 50 ms",
        ["flows", "queue", "use, %", "CUBIC's share, %", "to reach", "holds"],
        name=TABLES[3],
    )
    if "beside ledbat" in found:
        runs = found["beside ledbat"]
        shares = [run.rates[0] / sum(run.rates) for run in runs]
        verdict = judge.verdict("share of CUBIC beside ledbat", median(shares), LEAST_BACKGROUND)
        table.add(
            "cubic, ledbat", "150 ms", judge.cell("beside/ledbat/use", [run.use for run in runs]),
            judge.cell("beside/ledbat/cubic", shares), f"≥ {LEAST_BACKGROUND:.0%} for CUBIC", verdict,
        )  # fmt: skip
        uses = [run.use for run in found["alone ledbat"]]
        verdict = judge.verdict("link use of ledbat alone", median(uses), LEAST_BACKGROUND)
        table.add(
            "ledbat alone", "150 ms", judge.cell("alone/ledbat/use", uses), "–",
            f"≥ {LEAST_BACKGROUND:.0%} of the link", verdict,
        )  # fmt: skip
    if "beside bbr" in found:
        runs = found["beside bbr"]
        shares = [run.rates[0] / sum(run.rates) for run in runs]
        table.add(
            "cubic, bbr", "50 ms", judge.cell("beside/bbr/use", [run.use for run in runs]),
            judge.cell("beside/bbr/cubic", shares), "reported", "–",
        )  # fmt: skip
    table.notes += ["shares of the bytes that both streams carried", CONDITIONS]
    if table.rows:
        report.add(table)


def fairness_table(report: Report, found: dict[str, list[Measured]], controllers: list[str]) -> None:
    """Jain's index of equal flows."""
    judge = Judge(report)
    columns = ["controller", "Jain's index", "least to most, Mbit/s", "use, %", "queue, ms", "to reach", "holds"]
    table = Table(f"{FLOWS} equal flows, at 50 ms", columns, name=TABLES[4])
    for name in controllers:
        runs = found[f"equal {name}"]
        indices = [jain(run.rates) for run in runs]
        report.figure(f"paths/jain/{name}", indices, "")
        rates = sorted(rate * 8e-6 for run in runs for rate in run.rates)
        table.add(
            name, f"{median(indices):.3f}", f"{rates[0]:.2f} – {rates[-1]:.2f}",
            judge.cell(f"equal/{name}/use", [run.use for run in runs]),
            judge.cell(f"equal/{name}/queue", [run.queue for run in runs], "ms", 1e3),
            f"≥ {LEAST_JAIN:g}" if name != "fixed" else "–",
            judge.verdict(f"Jain's index of {FLOWS} flows of {name}", median(indices), LEAST_JAIN)
            if name != "fixed" else "–",
        )  # fmt: skip
    table.notes += [
        "the flows begin within 4 s; measured over 30 s from the 20th second on; the median of Jain's indices",
        SIMULATED.format(len(found[f"equal {controllers[0]}"])),
    ]
    if "fixed" in controllers:
        table.notes.insert(1, "fixed: each flow was given an eighth of the rate, so nothing is judged")
    report.add(table)


def run(report: Report, controllers: list[str], *, quick: bool, jobs: int) -> dict[str, list[Measured]]:
    """Measure and add everything to the report; `quick` takes one seed and a fifth of the time."""
    chosen = scenes(controllers)
    if quick:
        chosen = {name: _shorter(make) for name, make in chosen.items()}
    found = measured(chosen, 1 if quick else SEEDS, jobs)
    use_tables(report, found, controllers)
    loss_table(report, found, controllers)
    sharing_table(report, found)
    fairness_table(report, found, controllers)
    return found


def _shorter(make: Callable[[int], Scene]) -> Callable[[int], Scene]:
    def scene(seed: int) -> Scene:
        whole = make(seed)
        return replace(whole, settle=whole.settle / 5, seconds=whole.seconds / 5, rate=whole.rate / 4)

    return scene


def main(arguments: list[str] | None = None) -> int:
    """What `python -m benches.paths` does."""
    parser = argparse.ArgumentParser(prog="python -m benches.paths", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one seed, short runs: shows that it works, and no figures"
    )
    parser.add_argument("--only", action="append", choices=CONGESTION_CONTROLLERS, help="this controller, beside cubic")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "paths", help="folder of the report")
    options = parser.parse_args(arguments)
    controllers = [
        name for name in CONGESTION_CONTROLLERS if not options.only or name == "cubic" or name in options.only
    ]
    started = time.monotonic()
    report = Report()
    found = run(report, controllers, quick=options.quick, jobs=options.jobs)
    report.seconds["paths"] = time.monotonic() - started
    for path in [*report.write(options.output), *draw(found, options.output)]:
        say(f"written: {path}")
    missed = sum(not holds for holds in report.targets.values())
    print(f"figures to reach: {len(report.targets) - missed} hold, {missed} do not; {report.seconds['paths']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
