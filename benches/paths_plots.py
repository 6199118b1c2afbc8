"""Plots of the runs of `benches.paths`, as SVG and PNG: what the flows got and the queue they left, over time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from benches.paths_runs import Measured
from benches.report import say

__all__ = ["draw"]

COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#9065b0", "#c4554d", "#b8a13a", "#555555", "#b8b8b8")
SMOOTH = 5
"""Samples of which a line shows the mean."""


def draw(found: dict[str, list[Measured]], folder: Path) -> list[Path]:
    """The steady state of each controller at 100 ms, and each contest; the files written, none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        say("no plots: matplotlib is not installed")
        return []
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "burstwire", "figure.dpi": 120}
    )
    import matplotlib.pyplot as plt

    steady = {name: runs[0] for name, runs in found.items() if name.startswith("steady") and name.endswith(" 0.1")}
    contests = {name: runs[0] for name, runs in found.items() if name.startswith(("beside", "alone"))}
    equal = {name: runs[0] for name, runs in found.items() if name.startswith("equal")}
    written: list[Path] = []
    for name, runs in (("steady", steady), ("contests", contests), ("equal-flows", equal)):
        if not runs:
            continue
        figure = _over_time(runs, plt)
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            figure.savefig(path, bbox_inches="tight")
            written.append(path)
        plt.close(figure)
    return written


def _over_time(runs: dict[str, Measured], plt: Any) -> Any:
    """A column for each run: rates above, the queue below."""
    figure, axes = plt.subplots(2, len(runs), figsize=(4.2 * len(runs), 5), sharex="col", squeeze=False)
    for column, (name, run) in enumerate(runs.items()):
        times = [time for time, _, _ in run.samples]
        above, below = axes[0][column], axes[1][column]
        for flow, controller in enumerate(run.scene.controllers):
            rates = _smoothed([rates[flow] * 8e-6 for _, _, rates in run.samples])
            label = controller if len(run.scene.controllers) <= 3 else None
            above.plot(times, rates, color=COLOURS[flow % len(COLOURS)], linewidth=1, label=label)
        below.fill_between(
            times, [queue * 1e3 for _, queue, _ in run.samples], color=COLOURS[0], alpha=0.4, linewidth=0
        )
        above.axhline(run.scene.rate * 8e-6, color="#999999", linestyle=":", linewidth=1)
        above.set_title(name.removesuffix(" 0.1"), loc="left", fontweight="bold")
        above.set_ylim(bottom=0)
        below.set_ylim(bottom=0)
        below.set_xlabel("seconds")
        if run.scene.controllers and len(run.scene.controllers) <= 3:
            above.legend(frameon=False)
    axes[0][0].set_ylabel("Mbit/s")
    axes[1][0].set_ylabel("queue, ms")
    figure.tight_layout()
    return figure


def _smoothed(values: list[float]) -> list[float]:
    return [
        sum(values[max(0, at - SMOOTH + 1) : at + 1]) / (at + 1 - max(0, at - SMOOTH + 1)) for at in range(len(values))
    ]
