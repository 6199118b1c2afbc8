"""Starts peers as processes, runs tasks against them in turn, and takes medians."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Self

from benches.peers import PeerChoice
from benches.peers.certificate import use_aes_128
from benches.report import say

__all__ = [
    "MIB",
    "ROOT",
    "BenchError",
    "Result",
    "ServerProcess",
    "compare",
    "middle",
    "missing",
    "present",
    "rehearse",
    "rounds_of",
    "servers",
    "watch",
]

MIB = 1 << 20

ROOT = Path(__file__).resolve().parent.parent

DISTRIBUTION_MODULES = {"uvloop": "uvloop", "aioquic": "aioquic", "qh3": "qh3", "pyzmq": "zmq", "msgpack": "msgpack"}

TIMEOUT = 300.0
"""Seconds after which one task is given up: a peer that hangs must not hang the report."""

_FIRST = {"bulk": 8 * MIB, "echo": 500, "messages": 20_000, "many": 20_000, "handshakes": 50}
"""What each task begins with, to find out how fast a peer is."""

Result = dict[str, Any]


class BenchError(Exception):
    """A peer did not do its work; the message says which, and what it printed."""


def missing(choice: PeerChoice) -> str:
    """Why this peer cannot run here, or ""."""
    module = DISTRIBUTION_MODULES.get(choice.needs, "burstwire")
    if importlib.util.find_spec(module) is None:
        return f"{choice.needs or module} is not installed"
    if importlib.util.find_spec(choice.path) is None:
        return f"{choice.path} does not exist"
    return ""


def present(choices: Iterable[PeerChoice], part: str) -> list[PeerChoice]:
    """Those that can run here; for the others it is said why not."""
    found = []
    for choice in choices:
        reason = missing(choice)
        if reason:
            say(f"{part}: without {choice.name}: {reason}")
        else:
            found.append(choice)
    return found


def _environment() -> dict[str, str]:
    global _openssl
    if _openssl is None:
        _openssl = use_aes_128()
    return {**os.environ, "OPENSSL_CONF": str(_openssl), "PYTHONUNBUFFERED": "1"}


_openssl: Path | None = None


def _command(choice: PeerChoice, extra: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", choice.path, *choice.options, *extra]


class ServerProcess:
    """The answering side of a peer, as long as the `with` block runs."""

    def __init__(self, choice: PeerChoice, *extra: str) -> None:
        self.choice = choice
        self.extra = extra
        self._process: subprocess.Popen[str] | None = None
        self.info = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*_command(self.choice, self.extra), "serve"],
            cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.info = self._line()
        return self

    def _line(self, timeout: float = 30.0) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise BenchError(f"{self.choice.name}: the server ended with code {process.wait()}")
        return line

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def report(self) -> Result:
        """Counters and memory of the server now; raises `BenchError` when one of its connections failed."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write("report\n")
        process.stdin.flush()
        report: Result = json.loads(self._line())
        if report["failures"]:
            raise BenchError(f"{self.choice.name}: on the server {'; '.join(report['failures'][:3])}")
        return report

    def rehearse(self, task: str, seconds: float) -> int:
        """Runs a task twice outside the count, bulk once with every byte hashed; the amount that takes about `seconds`.

        So every peer gets as much as it can do in the same time, and a run is never too short to be measured.
        """
        first = _FIRST[task]
        result = self.run(task, first, *(("--hash-all",) if task == "bulk" else ()))
        if task == "bulk" and result["rate"] > first:
            result = self.run(task, 8 * first)
        grain = MIB if task == "bulk" else 100
        return max(int(result["rate"] * seconds) // grain, 1) * grain

    def run(self, task: str, count: int, *extra: str, timeout: float = TIMEOUT) -> Result:
        """One task from a new client process."""
        command = [*_command(self.choice, self.extra), "run", task, "--info", self.info, "--count", str(count), *extra]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.choice.name}: {task} took more than {timeout:g} s") from None
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            raise BenchError(f"{self.choice.name}: {task} failed: {done.stderr.strip()[-2000:] or done.returncode}")
        result: Result = json.loads(lines[-1])
        return result

    def watch(self, task: str, count: int, meanwhile: Callable[[int, str], None]) -> Result:
        """One task from a new client process; `meanwhile` is called with its id when the work has begun."""
        extra = ("run", task, "--info", self.info, "--count", str(count), "--announce")
        return watch(_command(self.choice, (*self.extra, *extra)), f"{self.choice.name}: {task}", meanwhile)

    @contextlib.contextmanager
    def idle(self, count: int) -> Iterator[Result]:
        """`count` idle connections from a client process, as long as the block runs."""
        command = [*_command(self.choice, self.extra), "run", "idle", "--info", self.info, "--count", str(count)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
            if not line:
                raise BenchError(f"{self.choice.name}: the client of idle connections ended with {process.wait()}")
            yield json.loads(line)
        finally:
            timer.cancel()
            _end(process)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            _end(self._process)


def watch(command: list[str], who: str, meanwhile: Callable[[int, str], None]) -> Result:
    """The result of a process that says a line when its work begins, and JSON in its last one.

    `meanwhile` is called between the two, with the process id and the first line. Raises `BenchError`.
    """
    with subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            said = process.stdout.readline()
            if said:
                meanwhile(process.pid, said)
            line = process.stdout.readline()
        finally:
            timer.cancel()
            if sys.exc_info()[0] is not None:
                process.kill()
    if process.returncode or not line:
        raise BenchError(f"{who} ended with {process.returncode} while it was watched")
    result: Result = json.loads(line)
    return result


def _end(process: subprocess.Popen[str]) -> None:
    """Closing its input ends a peer; one that does not listen is killed."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def servers(choices: list[PeerChoice], *extra: str) -> Iterator[dict[str, ServerProcess]]:
    """The servers of all these peers, by name. They idle while it is not their turn."""
    with contextlib.ExitStack() as stack:
        yield {choice.name: stack.enter_context(ServerProcess(choice, *extra)) for choice in choices}


def compare(
    running: dict[str, ServerProcess], task: str, counts: dict[str, int], rounds: int, *extra: str
) -> dict[str, list[Result]]:
    """The same task on every peer in turn, `rounds` times: what disturbs the machine disturbs all of them."""
    results: dict[str, list[Result]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, server in running.items():
            results[name].append(server.run(task, counts[name], *extra))
    return results


def rehearse(running: dict[str, ServerProcess], task: str, seconds: float) -> tuple[dict[str, int], dict[str, str]]:
    """The amount for each peer by name, and why those fail that are not among them."""
    counts: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name, server in running.items():
        try:
            counts[name] = server.rehearse(task, seconds)
        except BenchError as error:
            say(str(error))
            failed[name] = str(error).splitlines()[-1][:160]
    return counts, failed


def rounds_of(results: list[Result], key: str, factor: float = 1.0) -> list[float]:
    """One figure of every round."""
    return [float(result[key]) * factor for result in results]


def middle(results: list[Result], key: str) -> float:
    """The median of one figure."""
    return float(median(result[key] for result in results))
