"""The same work on everything that a Python program could use instead, in turn, with ratios."""

from __future__ import annotations

from dataclasses import dataclass

from benches.harness import BenchError, Result, ServerProcess, compare, middle, missing, servers
from benches.peers import CATALOGUE, PeerChoice, choose
from benches.report import Report, Table, ratio, say

__all__ = ["run"]

MIB = 1 << 20
QUICK = ("burstwire 1200", "burstwire", "asyncio TLS", "uvloop TLS", "aioquic", "ZeroMQ CURVE")
"""Those that a quick run compares."""

BASE = "burstwire 1200"
"""Whose figures stand over the others' in the ratios."""


def run(report: Report, *, quick: bool) -> None:
    """Measure and print; a peer that fails is reported as such, and the rest go on."""
    choices = []
    for choice in choose(list(QUICK)) if quick else CATALOGUE.values():
        reason = missing(choice)
        if reason:
            say(f"peers: without {choice.name}: {reason}")
        else:
            choices.append(choice)
    rounds = 1 if quick else 3
    with servers(choices) as running:
        for work in _work(4 if quick else 1):
            _one(report, running, choices, work, rounds)


@dataclass(frozen=True)
class Work:
    """One table.

    Attributes:
        task: of `benches.peers.tasks`.
        title: of the table. unit: what its figures are.
        key: the figure of a result. factor: what makes it one of that unit.
        amount: bytes, requests, messages or handshakes. slow_amount: the same for slow peers.
    """

    task: str
    title: str
    unit: str
    key: str
    factor: float
    amount: int
    slow_amount: int

    def amount_for(self, choice: PeerChoice) -> int:
        """What this peer is given to do."""
        return self.slow_amount if choice.slow else self.amount


def _work(scale: int) -> list[Work]:
    each = "Messages of 100 bytes, one call each"
    many = "Messages of 100 bytes, many a call"
    return [
        Work("bulk", "Bulk, one stream", "MB/s", "rate", 1e-6, 256 * MIB // scale, 16 * MIB // scale),
        Work("echo", "Request and response of 100 bytes", "p50, µs", "p50", 1e6, 4000 // scale, 4000 // scale),
        Work("messages", each, "a second", "rate", 1, 100_000 // scale, 40_000 // scale),
        Work("many", many, "a second", "rate", 1, 200_000 // scale, 40_000 // scale),
        Work("handshakes", "Handshakes, one after another", "a second", "rate", 1, 400 // scale, 200 // scale),
    ]


def _one(report: Report, running: dict[str, ServerProcess], choices: list[PeerChoice], work: Work, rounds: int) -> None:
    table = Table(work.title, ["transport", "amount", work.unit, "worst", "best", f"{BASE} is", "p99, µs"])
    say(f"peers: {work.title}")
    taking: dict[str, ServerProcess] = {}
    counts: dict[str, int] = {}
    results: dict[str, list[Result]] = {}
    for choice in choices:
        if work.task not in choice.tasks:
            continue
        server = running[choice.name]
        amount = work.amount_for(choice)
        try:
            # The first round finds out who works at all, and hashes every byte; it counts only when it is the only one.
            if work.task == "bulk":
                server.run("bulk", min(amount, 16 * MIB), "--hash-all")
            results[choice.name] = [server.run(work.task, amount)]
        except BenchError as error:
            say(f"peers: {error}")
            table.notes.append(f"{choice.name} failed: {str(error).splitlines()[-1][:160]}")
            continue
        taking[choice.name] = server
        counts[choice.name] = amount
    if rounds > 1:
        results = compare(taking, work.task, counts, rounds)
    base = middle(results[BASE], work.key) * work.factor if BASE in results else 0.0
    for name, each in results.items():
        value = middle(each, work.key) * work.factor
        single = sorted((result[work.key] * work.factor for result in each), reverse=work.key != "rate")
        p99 = middle(each, "p99") * 1e6 if "p99" in each[0] else "–"
        table.add(name, counts[name], value, single[0], single[-1], ratio(base, value), p99)
    report.raw[f"peers_{work.task}"] = results
    report.add(table)
