"""The command as its users have it: real processes, real files, exit codes and what they print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "burstwire")
LIMIT = 120.0
"""Seconds after which any process is killed: a hang fails a test, it does not stop the suite."""


@dataclass(frozen=True)
class Outcome:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    @property
    def complaint(self) -> str:
        """The one line on stderr; anything but one line fails the test."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("burstwire: ")
        return lines[0]


class Running:
    """A process that is under way; stdout and stderr are collected in the background."""

    def __init__(self, arguments: tuple[str, ...], home: Path, **options: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BURSTWIRE_")}
        environment |= {"XDG_CONFIG_HOME": str(home), "HOME": str(home), "COLUMNS": "200"}
        environment |= options.pop("environment", {})
        self.process = subprocess.Popen(
            (*COMMAND, *arguments),
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._changed.notify_all()

    def wait_line(self, wanted: Callable[[str], bool], errors: bool = False) -> str:
        """The first line that is `wanted`; AssertionError when the process ends or the time is up without one."""
        lines = self.errors if errors else self.lines
        deadline = time.monotonic() + LIMIT
        with self._changed:
            while True:
                for line in lines:
                    if wanted(line):
                        return line
                alive = any(reader.is_alive() for reader in self._readers)
                assert alive, f"ended without the line: {self.lines} {self.errors}"
                assert time.monotonic() < deadline, f"no such line: {self.lines} {self.errors}"
                self._changed.wait(0.1)

    def wait_event(self, event: str) -> dict[str, Any]:
        """The first JSON line of this kind."""
        found: dict[str, Any] = json.loads(self.wait_line(lambda line: line.startswith(f'{{"event": "{event}"')))
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> Outcome:
        """Wait for its end."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end: {self.lines} {self.errors}") from None
        for reader in self._readers:
            reader.join(LIMIT)
        return Outcome(code, "".join(f"{line}\n" for line in self.lines), "".join(f"{line}\n" for line in self.errors))


class Bench:
    """A place for processes: every one that is started here is ended here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self._running: list[Running] = []

    def start(self, *arguments: str, who: str = "user", **options: Any) -> Running:
        """Start a command as `who`, who has a home directory, and so an identity, of their own."""
        home = self.folder / f"home-{who}"
        home.mkdir(exist_ok=True)
        running = Running(arguments, home, **options)
        self._running.append(running)
        return running

    def run(self, *arguments: str, who: str = "user", **options: Any) -> Outcome:
        """Run a command to its end."""
        return self.start(*arguments, who=who, **options).finish()

    def receiver(self, *arguments: str, directory: Path | None = None, **options: Any) -> Receiver:
        """A receiver that listens on a free port of 127.0.0.1."""
        fixed = ("receive", str(directory or self.inbox), "--listen", "127.0.0.1:0", "--json")
        return Receiver(self.start(*fixed, *arguments, who="receiver", **options))

    def close(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
            running.finish()


class Receiver:
    """A receiver that is ready."""

    def __init__(self, running: Running) -> None:
        self.running = running
        listening = running.wait_event("listening")
        self.address: str = listening["reachable"]
        self.key: str = listening["key"]
        self.listening = listening

    @property
    def at(self) -> tuple[str, str, str, str]:
        """What `send` and `ping` need."""
        return ("--to", self.address, "--key", self.key)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def through(self, address: tuple[str, int]) -> tuple[str, str, str, str]:
        """The same by way of a relay."""
        return ("--to", f"{address[0]}:{address[1]}", "--key", self.key)


@contextmanager
def bench_in(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder)
    try:
        yield bench
    finally:
        bench.close()
