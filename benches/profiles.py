"""Where the time of both sides goes, by py-spy: beside every figure to reach that is not reached, what it is spent on.

Each task runs in two processes as it does elsewhere; while it is under way, both are sampled at the same time. A stack
is counted when its thread runs, in the kernel or out of it, so the shares are shares of processor time. Sampling stops
a process for each sample and slows it: the shares are worth quoting, not the rates.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.categories import CATEGORIES, count
from benches.harness import MIB, BenchError, Result, ServerProcess, present, watch
from benches.level2_endpoints import SMALL, SMALL_BUFFER
from benches.machine import conditions_of
from benches.peers import PeerChoice, ours
from benches.report import Report, Table, say
from burstwire.crypto.aead import backends

__all__ = ["Sampled", "add_table", "run", "sample"]

RATE = 400
"""Samples a second. Each stops the process and wakes it from waiting for its socket, which then looks like work of the
loop: at a thousand a second that share came out twice as large."""

SECONDS = 3

SETTLE = 0.3
"""Seconds of work before the sampling: slow start and the search for the packet size are over by then."""

SLACK = 2.0
"""Seconds of work beyond the sampling: py-spy takes a while to begin, and bulk gets faster than its first runs were."""

WAITS = 20.0
"""Seconds beyond the sampling that py-spy may take."""

Sides = dict[str, Counter[str]]


@dataclass
class Sampled:
    """One task, profiled.

    Attributes:
        name: what columns call it; "" when the table has one task only.
        samples: by side ("client", "server") and category.
        cpu: processor seconds by side. count: requests that these were for, or 0 where shares say enough.
        about: what the peer says about itself.
        notes: what one has to know beside it.
    """

    name: str
    samples: Sides
    cpu: dict[str, float] = field(default_factory=dict)
    count: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Crowd:
    """So many endpoints of one process against one of another, in packets of `datagram` bytes (0: discovered)."""

    endpoints: int
    datagram: int = 0


@dataclass(frozen=True)
class Profile:
    """One table. `unit` is what a request is called, or "" where microseconds each would say nothing."""

    name: str
    title: str
    task: str
    sides: tuple[str, str]
    choices: tuple[tuple[str, PeerChoice | Crowd], ...]
    unit: str = ""


def _profiles() -> list[Profile]:
    flow, asked = ("sender", "receiver"), ("client", "server")
    uvloop = (("", ours("burstwire uvloop", loop="uvloop")),)
    pinned = tuple((aead, ours(f"1,200 {aead}", datagram=1200, aead=aead)) for aead in backends())
    wide = (("", ours("MTU discovered, cryptography", aead="cryptography")),)
    buffers = (
        ("1,200", ours("1,200 bytes, small buffer", datagram=1200, more=SMALL)),
        ("discovered", ours("MTU discovered, small buffer", more=SMALL)),
    )
    crowds = (("1 peer", Crowd(1, 1200)), ("32 peers", Crowd(32, 1200)), ("32, discovered", Crowd(32)))
    shares = "shares of processor time"
    return [
        Profile("profile-bulk-1200", f"Bulk, 1,200-byte packets: {shares}", "bulk", flow, pinned),
        Profile("profile-bulk-discovered", f"Bulk, MTU discovered, cryptography: {shares}", "bulk", flow, wide),
        Profile("profile-buffer", f"Bulk, SO_RCVBUF at {SMALL_BUFFER:,}: {shares}", "bulk", flow, buffers),
        Profile("profile-crowd", f"Bulk of many peers with one socket: {shares}", "bulk", flow, crowds),
        Profile("profile-echo", "Requests of 100 bytes on uvloop: processor time", "echo", asked, uvloop, "request"),
        Profile(
            "profile-messages", "Messages of 100 bytes, one call each, on uvloop: processor time", "messages", flow,
            uvloop, "message",
        ),
        Profile(
            "profile-handshakes", "Handshakes, one after another: processor time", "handshakes", asked,
            (("", ours("burstwire")),), "handshake",
        ),
    ]  # fmt: skip


def run(report: Report, *, quick: bool) -> None:
    """Sample every task; where py-spy is missing or may not attach, the tables say so and hold nothing."""
    if quick:
        say("profiles: not in a quick run; they take their time")
        return
    for profile in _profiles():
        sampled: list[Sampled] = []
        reason = ""
        for name, choice in profile.choices:
            if isinstance(choice, Crowd):
                say(f"profiles: {name}, {choice.datagram or 'discovered'}")
                found = sample_crowd(choice, name, SECONDS)
                if isinstance(found, str):
                    reason = found
                    break
                sampled.append(found)
                continue
            if not present([choice], "profiles"):
                reason = f"{choice.needs} is not installed"
                continue
            with ServerProcess(choice) as server:
                reason = obstacle(server.pid)
                if reason:
                    break
                say(f"profiles: {profile.task}, {choice.name}")
                sampled.append(sample(server, name, profile.task, SECONDS, count_requests=bool(profile.unit)))
        if reason:
            say(f"profiles: no {profile.name}: {reason}")
        add_table(report, profile.name, profile.title, profile.sides, profile.unit, sampled, reason)


def obstacle(pid: int) -> str:
    """Why the process cannot be sampled, or ""."""
    program = _program()
    if program is None:
        return "py-spy is not installed"
    done = subprocess.run([program, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"py-spy may not attach here ({lines[0] if lines else f'it ended with {done.returncode}'})"


def _program() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def sample(server: ServerProcess, name: str, task: str, seconds: int, *, count_requests: bool) -> Sampled:
    """Sample a task that is made long enough; raises `BenchError` when py-spy brings nothing."""
    amount = server.rehearse(task, 0.5)
    # The first runs are too short to tell the rate of the steady state.
    amount = max(int(server.run(task, amount)["rate"] * (seconds + SETTLE + SLACK)), 1)
    before = server.report()
    samples: Sides = {}
    ended_early: list[bool] = []

    def meanwhile(client: int, _: str) -> None:
        time.sleep(SETTLE)
        samples.update(_record({"client": client, "server": server.pid}, seconds))
        ended_early.append(_has_ended(client))

    result = server.watch(task, amount, meanwhile)
    after = server.report()
    empty = [side for side in ("client", "server") if not samples.get(side)]
    if empty:
        raise BenchError(f"{server.choice.name}: py-spy brought no samples of the {' and the '.join(empty)}")
    cpu = {"client": _cpu(result["client"]), "server": _cpu(after) - _cpu(before)}
    notes = [f"{name or task}: the work ended before the sampling did"] if any(ended_early) else []
    return Sampled(name, samples, cpu, amount if count_requests else 0, result["about"], notes)


def sample_crowd(crowd: Crowd, name: str, seconds: int) -> Sampled | str:
    """Sample `benches.many`, or say why it may not be sampled; raises `BenchError` when that brings nothing."""
    command = [sys.executable, "-m", "benches.many", "--announce", "--endpoints", str(crowd.endpoints)]
    command += ["--datagram", str(crowd.datagram)]
    samples: Sides = {}
    reason = ended_early = ""

    def meanwhile(client: int, said: str) -> None:
        nonlocal reason, ended_early
        hub = int(said)
        reason = obstacle(hub)
        if not reason:
            time.sleep(SETTLE)
            samples.update(_record({"client": client, "server": hub}, seconds))
            ended_early = "the work ended before the sampling did" if _has_ended(client) else ""

    rate = watch([*command, "--mib", "512"], name, lambda client, said: None)["rate"]
    amount = max(int(rate * (seconds + SETTLE + SLACK)) // MIB, 1)
    result = watch([*command, "--mib", str(amount)], name, meanwhile)
    if reason:
        return reason
    if not samples.get("client") or not samples.get("server"):
        raise BenchError(f"{name}: py-spy brought no samples")
    lost = "{packets_lost:,} of {packets_sent:,} packets lost".format(**result["about"])
    return Sampled(
        name, samples, about=result["about"], notes=[f"{name}: {note}" for note in (lost, ended_early) if note]
    )


def _record(pids: dict[str, int], seconds: int) -> Sides:
    """Sample these processes at the same time."""
    program = _program()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as folder:
        processes = {}
        for side, pid in pids.items():
            command = [program, "record", "--rate", str(RATE), "--duration", str(seconds)]
            command += ["--full-filenames", "--format", "raw", "--output", str(Path(folder) / side), "--pid", str(pid)]
            processes[side] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        samples: Sides = {}
        try:
            for side, process in processes.items():
                said, _ = process.communicate(timeout=seconds + WAITS)
                path = Path(folder) / side
                if process.returncode or not path.exists():
                    raise BenchError(f"py-spy failed on the {side}: {said.strip()[-500:]}")
                with path.open(encoding="utf-8") as lines:
                    samples[side] = count(lines)
        except subprocess.TimeoutExpired:
            raise BenchError("py-spy does not end") from None
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    return samples


def _has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _cpu(used: Result) -> float:
    return float(used["cpu_user"] + used["cpu_system"])


def add_table(
    report: Report, name: str, title: str, sides: tuple[str, str], unit: str, sampled: Sequence[Sampled], reason: str
) -> None:
    """One row a category, the columns of each task side by side. Without tasks, a table that only says the reason."""
    columns = ["where the time goes"]
    for each in sampled:
        for side in sides:
            columns.append(f"{each.name} {side} %".strip())
            if unit:
                columns.append(f"{side} µs a {unit}")
    table = Table(title, columns, name=name)
    seen = [category for category in CATEGORIES if any(c[category] for s in sampled for c in s.samples.values())]
    for category in [*seen, ""] if sampled else []:
        cells: list[object] = []
        for each in sampled:
            for side in ("client", "server"):
                share = each.samples[side][category] / each.samples[side].total() if category else 1.0
                cells.append(f"{100 * share:.1f}")
                if unit:
                    cells.append(f"{1e6 * share * each.cpu[side] / each.count:.2f}")
        table.add(category or "together", *cells)
    for each in sampled:
        numbers = " and ".join(f"{each.samples[side].total():,}" for side in ("client", "server"))
        words = conditions_of(each.about)
        table.notes.append(f"{each.name + ': ' if each.name else ''}{numbers} samples; {words}")
        table.notes += each.notes
    if unit and sampled:
        table.notes.append(f"µs a {unit}: the share, of the side's processor time while it was sampled and around it")
    if reason:
        table.notes.append(f"not measured: {reason}" if not sampled else f"not all: {reason}")
    report.raw.setdefault("profiles", {})[name] = [
        {"name": each.name, "samples": each.samples, "cpu": each.cpu, "count": each.count} for each in sampled
    ]
    report.add(table)
