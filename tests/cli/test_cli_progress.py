"""What a user sees while a file goes: a bar on a terminal, few lines in a log, nothing beside JSON."""

from __future__ import annotations

import io
import os
import pty
import threading

import pytest
from processes import Bench
from rich.console import Console

from burstwire.cli import progress as progress_module
from burstwire.cli.exits import ExitCode
from burstwire.cli.output import Output
from burstwire.cli.progress import BarProgress, LineProgress


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_a_long_transfer_makes_few_lines_and_they_are_right(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(Output(json=False))
    progress.begin("file", 36_000_000_000)
    for _ in range(36_000 - 1):  # an hour at 10 MB/s
        clock.now += 0.1
        progress.advance(1_000_000)
    progress.advance(1_000_000)
    progress.end()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("file: 0% of 36.0 GB, 10.0 MB/s, ")
    assert lines[8] == "file: 5% of 36.0 GB, 10.0 MB/s, 56:56 min left"
    assert 50 < len(lines) < 80
    assert all("10.0 MB/s" in line for line in lines)


def test_a_quick_transfer_makes_no_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(Output(json=False))
    progress.begin("file", 1000)
    clock.now += 0.4
    progress.advance(1000)
    progress.end()
    assert capsys.readouterr().out == ""


def test_the_rate_of_a_resumed_transfer_counts_only_what_moves(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = LineProgress(Output(json=False))
    progress.begin("file", 2_000_000)
    progress.checking()
    clock.now += 500
    progress.resume(1_000_000)
    clock.now += 10
    progress.advance(100_000)
    comparing, resuming, line = capsys.readouterr().out.splitlines()
    assert "already has" in comparing
    assert "after 1.00 MB of 2.00 MB" in resuming
    assert line == "file: 55% of 2.00 MB, 10.0 kB/s, 1:30 min left"


def test_the_bar_survives_every_name_and_size_and_goes_in_the_end(clock: Clock) -> None:
    written = io.StringIO()
    progress = BarProgress(Console(file=written, force_terminal=True, width=120))
    for name, size in (("[red]not markup[/]", 1000), ("\x1b]0;title\x07", 0), ("x" * 300, 1 << 50)):
        progress.begin(name, size)
        progress.checking()
        progress.resume(0)
        clock.now += 1
        progress.advance(size)
        progress.confirming()
        progress.end()
        progress.end()
    assert "[red]not markup[/]" in written.getvalue()
    assert "\x1b]0;" not in written.getvalue()


def test_a_terminal_gets_a_bar_and_the_result_stays_on_stdout(bench: Bench) -> None:
    (bench.folder / "file.bin").write_bytes(os.urandom(8 << 20))
    receiver = bench.receiver("--once")
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(master, 65536):
                shown.extend(data)
        except OSError:  # EIO: the other side is closed
            pass

    sender = bench.start(
        "send", str(bench.folder / "file.bin"), *receiver.at, stderr=slave, environment={"TERM": "xterm"}
    )
    os.close(slave)
    reader = threading.Thread(target=read)
    reader.start()
    outcome = sender.finish()
    reader.join()
    os.close(master)
    assert outcome.code == ExitCode.OK
    assert b"file.bin" in shown
    assert b"\x1b[" in shown
    assert outcome.stdout.startswith("file.bin: sent 8.39 MB in ")
    assert "\x1b" not in outcome.stdout
