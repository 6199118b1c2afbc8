"""Plots of a report, as SVG and PNG beside it.

    python -m benches.plots build/bench/report.json

draws those again of a report that was written before. What a report lacks is not drawn; nothing is, where matplotlib
is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benches.report import Report, say

__all__ = ["PLOTS", "draw", "draw_data"]

Data = dict[str, Any]

OURS, OTHERS, GREY = "#0b6e99", "#b8b8b8", "#555555"
COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#9065b0", "#c4554d", "#b8a13a")
STYLES = {"burstwire": "-", "pipe": "--", "C pipe": ":"}


def draw(report: Report, folder: Path) -> list[Path]:
    """Every plot that the report has the figures for; the files written."""
    return draw_data(json.loads(report.json()), folder)


def draw_data(data: Data, folder: Path) -> list[Path]:
    """The same from a report as it was read from a file."""
    if importlib.util.find_spec("matplotlib") is None:
        say("no plots: matplotlib is not installed")
        return []
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.axisbelow": True,
            "svg.hashsalt": "burstwire",
            "figure.dpi": 120,
        }
    )
    import matplotlib.pyplot as plt

    written: list[Path] = []
    for name, plot in PLOTS.items():
        figure = plot(data, plt)
        if figure is None:
            continue
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            figure.savefig(path, bbox_inches="tight")
            written.append(path)
        plt.close(figure)
    return written


def _figures(data: Data, prefix: str) -> dict[str, tuple[float, float, float]]:
    """(median, lowest, highest) of the figures whose names begin with a prefix, by the rest of the name."""
    return {
        each["name"].removeprefix(prefix): (median(each["rounds"]), min(each["rounds"]), max(each["rounds"]))
        for each in data["figures"]
        if each["name"].startswith(prefix)
    }


def by_size(data: Data, plt: Any) -> Any:
    """Throughput by size of the datagrams, for each back end, with the pipes beside it."""
    rows = data["raw"].get("pipes", [])
    if len({row["size"] for row in rows}) < 2:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.5))
    backends = list(dict.fromkeys(row["aead"] for row in rows))
    for aead, colour in zip(backends, COLOURS, strict=False):
        for kind, style in STYLES.items():
            points = [(row["size"], row["rates"][kind]) for row in rows if row["aead"] == aead and kind in row["rates"]]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=f"{kind}, {aead}")
    sizes = sorted({row["size"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes of a datagram")
    axes.set_ylabel("MB/s")
    axes.set_title("Bulk by size of the datagrams and AEAD back end")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    return figure


def peers(data: Data, plt: Any) -> Any:
    """Bulk and latency of everything that was compared."""
    parts = [
        ("Bulk, one stream", "MB/s (more is better)", _figures(data, "peers/bulk/"), True),
        ("Request and response", "µs, p50 (less is better)", _figures(data, "peers/echo/"), False),
    ]
    parts = [part for part in parts if part[2]]
    if not parts:
        return None
    most = max(len(part[2]) for part in parts)
    figure, all_axes = plt.subplots(1, len(parts), figsize=(6.5 * len(parts), 1 + 0.3 * most), squeeze=False)
    for axes, (title, unit, found, more) in zip(all_axes[0], parts, strict=True):
        _bars(axes, found, more=more)
        axes.set_title(title)
        axes.set_xlabel(unit)
    figure.tight_layout()
    return figure


def _bars(axes: Any, found: dict[str, tuple[float, float, float]], *, more: bool) -> None:
    """Horizontal bars, the best on top, with the range of the rounds."""
    order = sorted(found, key=lambda name: found[name][0], reverse=not more)
    values = [found[name][0] for name in order]
    ranges = [[found[name][0] - found[name][1] for name in order], [found[name][2] - found[name][0] for name in order]]
    colours = [OURS if name.startswith("burstwire") else OTHERS for name in order]
    axes.barh(order, values, xerr=ranges, color=colours, ecolor=GREY, capsize=2)
    room = max(high for _, _, high in found.values())
    for place, name in enumerate(order):
        axes.text(found[name][2] + 0.015 * room, place, f"{found[name][0]:,.0f}", va="center", fontsize=8)
    axes.set_xlim(0, 1.15 * room)
    axes.grid(axis="x", alpha=0.3)


def channels(data: Data, plt: Any) -> Any:
    """Time of an item through a channel, by its capacity."""
    found = _figures(data, "level1_channel/items through a channel/")
    series: dict[str, list[tuple[int, float]]] = {}
    for label, (middle, _, _) in found.items():
        parsed = re.fullmatch(r"(.+) of (\d[\d,]*?)(,? .*)?", label)
        if parsed:
            series.setdefault(parsed[1] + (parsed[3] or ""), []).append((int(parsed[2].replace(",", "")), middle))
    if not series:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        axes.plot(*zip(*sorted(points), strict=True), marker="o", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("capacity of the channel, items")
    axes.set_ylabel("ns an item (less is better)")
    axes.set_title("Items through a channel, by its capacity")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def packet_path(data: Data, plt: Any) -> Any:
    """Where the time of a packet goes: one packet at a time, and by the run."""
    ways = data["raw"].get("packet_path")
    if not ways:
        return None
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.7 * len(ways)))
    names = list(ways)[::-1]
    steps = [step for step, value in next(iter(ways.values())).items() if isinstance(value, int | float)]
    left = [0.0] * len(names)
    for step, colour in zip(steps, COLOURS, strict=False):
        widths = [ways[name].get(step, 0.0) for name in names]
        axes.barh(names, widths, left=left, color=colour, label=step)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total + 0.01 * max(left), place, f"{total:.2f} µs", va="center", fontsize=8)
    axes.set_xlim(0, 1.12 * max(left))
    axes.set_xlabel("µs a packet of 1,364 bytes, on its way out")
    axes.set_title("Where a packet's time goes")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, ncols=3, bbox_to_anchor=(0, -0.28), loc="upper left")
    return figure


PLOTS: dict[str, Callable[[Data, Any], Any]] = {
    "bulk-by-size": by_size,
    "peers": peers,
    "channels": channels,
    "packet-path": packet_path,
}
"""By the name of their files."""


def main() -> int:
    """Draw the plots of a report again."""
    path = Path(sys.argv[1])
    for written in draw_data(json.loads(path.read_text(encoding="utf-8")), path.parent):
        print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
