"""How a transfer goes, for people: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from burstwire.cli.output import Output
from burstwire.cli.text import format_duration, format_rate, format_size, printable

__all__ = ["BarProgress", "LineProgress", "SilentProgress", "choose_progress"]

REDRAW = 0.1
"""Seconds between two redraws. The event loop draws: a thread beside it would cost it the GIL."""

FIRST_LINE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds until the first plain line; every pause is twice the one before, up to the longest."""


class SilentProgress:
    """Keeps count and says nothing; the others say what it counts."""

    def __init__(self) -> None:
        self.name = ""
        self.size = 0
        self.offset = 0
        self.done = 0

    def begin(self, name: str, size: int) -> None:
        """See `burstwire.cli.sender.Progress`, as for the rest."""
        self.name, self.size, self.offset, self.done = printable(name, 40), size, 0, 0

    def checking(self) -> None:
        """Nothing moves yet."""

    def resume(self, offset: int) -> None:
        """Count what need not travel as done."""
        self.offset = self.done = offset

    def advance(self, count: int) -> None:
        """Count what was handed over."""
        self.done += count

    def confirming(self) -> None:
        """Nothing moves any more."""

    def end(self) -> None:
        """Nothing to tidy."""


class LineProgress(SilentProgress):
    """A line on stdout after half a second, one more, two more, …: logs stay short however long it takes."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self._started = self._next = 0.0
        self._pause = FIRST_LINE

    def begin(self, name: str, size: int) -> None:
        """Start the clock."""
        super().begin(name, size)
        self._started = time.monotonic()
        self._pause = FIRST_LINE
        self._next = self._started + self._pause

    def checking(self) -> None:
        """Say why no bytes move."""
        self._output.say(f"{self.name}: comparing what the receiver already has")

    def resume(self, offset: int) -> None:
        """Say what is saved."""
        super().resume(offset)
        self._started = time.monotonic()
        if 0 < offset < self.size:
            self._output.say(f"{self.name}: resuming after {format_size(offset)} of {format_size(self.size)}")

    def advance(self, count: int) -> None:
        """Say how far it is, when it is time to."""
        super().advance(count)
        now = time.monotonic()
        if now < self._next or self.done >= self.size:
            return
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._next = now + self._pause
        moved, seconds = self.done - self.offset, now - self._started
        left = format_duration((self.size - self.done) * seconds / max(moved, 1))
        self._output.say(
            f"{self.name}: {self.done / self.size:.0%} of {format_size(self.size)}, "
            f"{format_rate(moved, seconds)}, {left} left"
        )


class BarProgress(SilentProgress):
    """A bar on stderr with the rate and the time left; it is gone when the file is done."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._drawn = 0.0

    def begin(self, name: str, size: int) -> None:
        """Draw an empty bar."""
        super().begin(name, size)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(self.name, total=size)
        self._bar.start()
        self._draw()

    def checking(self) -> None:
        """Say why no bytes move."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self.name} (comparing)")
            self._draw()

    def resume(self, offset: int) -> None:
        """Start the bar, and its clock, where the receiver left off."""
        super().resume(offset)
        if self._bar is not None:
            self._bar.reset(self._task, completed=offset, description=self.name)
            self._draw()

    def advance(self, count: int) -> None:
        """Move the bar, at most ten times a second."""
        super().advance(count)
        if self._bar is not None and time.monotonic() - self._drawn >= REDRAW:
            self._draw()

    def confirming(self) -> None:
        """Say why a full bar stays: the last bytes travel, and the receiver flushes them to its disk."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self.name} (being stored)")
            self._draw()

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._draw()
            self._bar.stop()
            self._bar = None

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            self._bar.refresh()
            self._drawn = time.monotonic()


def choose_progress(output: Output) -> SilentProgress:
    """A bar if stderr is a terminal, lines if it is not, nothing beside JSON."""
    if output.json:
        return SilentProgress()
    console = Console(stderr=True)
    return BarProgress(console) if console.is_terminal else LineProgress(output)
