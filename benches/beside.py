"""The same work on everything that a Python program could use instead, in turn, with ratios.

Each peer runs as two processes. A first round finds out who works at all (bulk is hashed whole) and how much each gets
to do, so that everyone is measured for about the same time; then come the rounds that count, all peers in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benches.harness import MIB, Result, ServerProcess, compare, middle, present, rehearse, rounds_of, servers
from benches.machine import conditions_of
from benches.peers import CATALOGUE, choose
from benches.report import Better, Report, Table, ratio, say

__all__ = ["run"]

QUICK = ("burstwire", "asyncio TLS", "uvloop TLS", "aioquic", "ZeroMQ CURVE")
"""Those that a quick run compares."""

BASE = "burstwire"
"""Whose figures stand over the others' in the ratios: burstwire as a user gets it without any setting."""


@dataclass(frozen=True)
class Work:
    """One table.

    Attributes:
        task: of `benches.peers.tasks`.
        name: of the table. title: of the table. unit: what its figures are.
        key: the figure of a result. factor: what makes it one of that unit. better: which direction is.
        shown: the amount as the table shows it.
    """

    task: str
    name: str
    title: str
    unit: str
    key: str = "rate"
    factor: float = 1.0
    better: Better = "more"
    shown: Callable[[int], object] = int


WORK = (
    Work("bulk", "peers-bulk", "Bulk, one stream", "MB/s", factor=1e-6, shown=lambda count: f"{count // MIB:,} MiB"),
    Work("echo", "peers-echo", "Request and response of 100 bytes", "p50, µs", key="p50", factor=1e6, better="less"),
    Work("messages", "peers-messages", "Messages of 100 bytes, one call each", "a second"),
    Work("many", "peers-many", "Messages of 100 bytes, many a call", "a second"),
    Work("handshakes", "peers-handshakes", "Handshakes, one after another", "a second"),
)


def run(report: Report, *, quick: bool) -> None:
    """Measure and print; a peer that fails is reported as such, and the rest go on."""
    choices = present(choose(list(QUICK)) if quick else CATALOGUE.values(), "peers")
    seconds, rounds = (0.2, 1) if quick else (0.8, 3)
    with servers(choices) as running:
        for work in WORK:
            say(f"peers: {work.title}")
            taking = {choice.name: running[choice.name] for choice in choices if work.task in choice.tasks}
            _one(report, taking, work, seconds, rounds)


def _one(report: Report, running: dict[str, ServerProcess], work: Work, seconds: float, rounds: int) -> None:
    counts, failed = rehearse(running, work.task, seconds)
    results = compare({name: running[name] for name in counts}, work.task, counts, rounds)
    columns = ["transport", "amount", work.unit, "worst", "best", f"{BASE} is", *_more(work)]
    table = Table(work.title, columns, name=work.name)
    base = middle(results[BASE], work.key) * work.factor if BASE in results else 0.0
    for name, each in results.items():
        single = sorted(rounds_of(each, work.key, work.factor), reverse=work.better == "less")
        value = middle(each, work.key) * work.factor
        table.add(name, work.shown(counts[name]), value, single[0], single[-1], ratio(base, value), *_cells(work, each))
        report.figure(f"peers/{work.task}/{name}", single, work.unit, work.better)
    table.notes += [f"{name} failed: {why}" for name, why in failed.items()]
    table.notes.append(f"medians of {rounds} interleaved rounds of about {seconds:g} s, two processes on loopback")
    if work.better == "less":
        table.notes.append(f"{BASE} is: its time over the other's, so below 1 is faster")
    if BASE in results:
        table.notes.append(conditions_of(results[BASE][-1]["about"]))
    for name in ("asyncio TLS", "aioquic", "qh3 uvloop", "ZeroMQ CURVE", "DatagramProtocol uvloop"):
        if name in results:
            table.notes.append(f"{name}: {_about(results[name][-1])}")
    report.raw[f"peers_{work.task}"] = results
    report.add(table)


def _more(work: Work) -> list[str]:
    if work.task == "bulk":
        return ["AEAD of burstwire"]
    if work.task == "echo":
        return ["p99, µs"]
    if work.task == "handshakes":
        return ["p99, µs", "proves"]
    return []


def _cells(work: Work, results: list[Result]) -> list[object]:
    about = results[-1]["about"]
    if work.task == "bulk":
        return [about.get("aead", "–")]
    if work.task == "echo":
        return [middle(results, "p99") * 1e6]
    if work.task == "handshakes":
        return [middle(results, "p99") * 1e6, about["proven"]]
    return []


def _about(result: Result) -> str:
    return ", ".join(f"{name} {value}" for name, value in result["about"].items())
