"""`burstwire plot`: a picture of what a trace shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burstwire.cli.exits import ExitCode, Failure, describe_os_error
from burstwire.cli.output import Output
from burstwire.cli.series import Bins, Curve, Series, collect
from burstwire.cli.text import format_duration, format_size, printable
from burstwire.cli.traces import NotATrace, TraceFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SUFFIXES", "PlotOptions", "draw", "plot"]

SUFFIXES = (".svg", ".png")
"""Kinds of pictures."""

COLOURS = {
    "congestion-window": "#1b6ca8",
    "bytes-in-flight": "#e08e2b",
    "ssthresh": "#888888",
    "rtt-latest": "#a9c9e4",
    "rtt-smoothed": "#1b6ca8",
    "rtt-minimum": "#2f8f5b",
    "throughput-acknowledged": "#2f8f5b",
    "throughput-received": "#8a5ea8",
    "losses": "#c0392b",
}
"""By series; an SVG has a group of each name."""


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """What the command line says.

    Attributes:
        trace: the qlog file.
        output: the picture; its suffix is one of `SUFFIXES`.
        json: the result as a JSON line.
    """

    trace: Path
    output: Path
    json: bool


def plot(options: PlotOptions) -> ExitCode:
    """Draw the trace; raises `Failure` (exit code 4)."""
    name = printable(str(options.trace))
    for package in ("matplotlib", "ijson"):
        try:
            __import__(package)
        except ImportError:
            line = f"plot needs the package {package!r}; install it with: pip install 'burstwire[plot]'"
            raise Failure(ExitCode.LOCAL, line) from None
    try:
        file = TraceFile(options.trace)
        series = collect(file.events(), file.milliseconds)
    except NotATrace as error:
        raise Failure(ExitCode.LOCAL, f"{name} is no qlog that can be read: {error}") from None
    except OSError as error:
        raise Failure(ExitCode.LOCAL, f"cannot read {name}: {describe_os_error(error)}") from error
    if not series.events:
        raise Failure(ExitCode.LOCAL, f"{name} has no events")
    picture = draw(series, file.title or options.trace.name, options.output.suffix.lower().removeprefix("."))
    try:
        options.output.write_bytes(picture)
    except OSError as error:
        line = f"cannot write {printable(str(options.output))}: {describe_os_error(error)}"
        raise Failure(ExitCode.LOCAL, line) from error
    _report(options, file, series)
    return ExitCode.OK


def draw(series: Series, title: str, kind: str) -> bytes:
    """The picture, as "svg" or "png". The same series make the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "burstwire",  # names do not depend on chance
    }
    with matplotlib.rc_context(style):
        # No pyplot, so no display is looked for: a figure by itself draws into memory.
        figure = Figure(figsize=(10, 9), layout="constrained")
        panels: Any = figure.subplots(4, 1, sharex=True, height_ratios=(3, 2, 2, 1))
        figure.suptitle(title)
        window, rtt, throughput, losses = panels
        end = series.duration
        _curve(window, series.window, end, "congestion-window", "congestion window", 1e3)
        _curve(window, series.in_flight, end, "bytes-in-flight", "in flight", 1e3)
        _curve(window, series.threshold, end, "ssthresh", "slow start threshold", 1e3)
        _finish(window, "kB")
        _curve(rtt, series.latest, end, "rtt-latest", "latest", 1e-3)
        _curve(rtt, series.smoothed, end, "rtt-smoothed", "smoothed", 1e-3)
        _curve(rtt, series.minimum, end, "rtt-minimum", "least", 1e-3)
        _finish(rtt, "round trip, ms")
        _rate(throughput, series.acknowledged, end, "throughput-acknowledged", "acknowledged")
        _rate(throughput, series.received, end, "throughput-received", "received")
        _finish(throughput, "MB/s")
        stretches = series.lost.shown(end)
        hit = [(start, amount) for start, amount in stretches if amount]
        starts, amounts = [start for start, _ in hit], [amount for _, amount in hit]
        middle = [start + series.lost.width / 2 for start in starts]
        drawn = losses.vlines(middle, 0, amounts, color=COLOURS["losses"], label="lost packets")
        drawn.set_gid("losses")
        _finish(losses, "packets", names=bool(hit))
        losses.set_xlabel("seconds")
        losses.set_xlim(0, end or 1)
        for panel in panels:
            for moment in series.moves:
                panel.axvline(moment, color="#555555", linestyle=":", linewidth=1)
        picture = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(picture, format=kind, dpi=120, metadata=metadata)
    return picture.getvalue()


def _curve(panel: Axes, curve: Curve, end: float, name: str, label: str, unit: float) -> None:
    """A value holds until the next one, the last one to the end: only changes are in a trace."""
    if curve.points:
        times = [*(time for time, _ in curve.points), end]
        values = [value / unit for _, value in (*curve.points, curve.points[-1])]
        panel.plot(times, values, drawstyle="steps-post", color=COLOURS[name], linewidth=1, label=label, gid=name)


def _rate(panel: Axes, bins: Bins, duration: float, name: str, label: str) -> None:
    stretches = bins.shown(duration)
    if stretches:
        times = [start for start, _ in stretches]
        values = [amount / bins.width / 1e6 for _, amount in stretches]
        panel.plot(times, values, drawstyle="steps-post", color=COLOURS[name], linewidth=1, label=label, gid=name)


def _finish(panel: Axes, unit: str, names: bool = True) -> None:
    panel.set_ylabel(unit)
    panel.set_ylim(bottom=0)
    if names and panel.get_legend_handles_labels()[1]:
        panel.legend(loc="upper right", fontsize=8)
    else:
        panel.text(0.5, 0.5, "nothing in this trace", transform=panel.transAxes, ha="center", va="center", alpha=0.5)


def _report(options: PlotOptions, file: TraceFile, series: Series) -> None:
    output = Output(options.json)
    lost = int(series.lost.total)
    output.say(
        f"{printable(str(options.output))}: {series.events:,} events in {format_duration(series.duration)}, "
        f"{series.packets_sent:,} packets sent, {lost:,} lost, "
        f"{format_size(series.acknowledged.total)} acknowledged, {format_size(series.received.total)} received"
    )
    if file.truncated:
        output.say("the last record is cut off: whoever wrote the trace did not come to its end")
    if file.damaged:
        output.say(f"{file.damaged:,} records could not be read and are left out")
    if file.more:
        output.say("the file holds several traces; the first one was drawn")
    output.event(
        "plot",
        output=str(options.output),
        events=series.events,
        seconds=round(series.duration, 6),
        packets_sent=series.packets_sent,
        packets_received=series.packets_received,
        packets_lost=lost,
        bytes_acknowledged=int(series.acknowledged.total),
        bytes_received=int(series.received.total),
        truncated=file.truncated,
        damaged=file.damaged,
    )
