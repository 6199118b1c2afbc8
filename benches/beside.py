"""The same work on everything that a Python program could use instead, in turn, with ratios."""

from __future__ import annotations

from benches.harness import BenchError, compare, middle, missing, servers
from benches.peers import CATALOGUE, PeerChoice
from benches.report import Report, Table, ratio, say

__all__ = ["run"]

MIB = 1 << 20
BASE = "burstwire 1200"
"""Whose figures stand over the others' in the ratios."""


def run(report: Report, *, quick: bool) -> None:
    """Measure and print; a peer that fails is reported as such, and the rest go on."""
    choices = []
    for choice in CATALOGUE.values():
        reason = missing(choice)
        if reason:
            say(f"peers: without {choice.name}: {reason}")
        else:
            choices.append(choice)
    scale = 4 if quick else 1
    rounds = 1 if quick else 3
    work: list[tuple[str, str, str, float, dict[bool, int]]] = [
        # task, title, key, factor, how much by whether the peer is slow
        ("bulk", "Bulk, MB/s", "rate", 1e-6, {False: 256 * MIB // scale, True: 16 * MIB // scale}),
        ("echo", "Request and response of 100 bytes, p50 in µs", "p50", 1e6, {False: 4000 // scale, True: 4000 // scale}),
        ("messages", "Messages of 100 bytes a second, one call each", "rate", 1, {False: 100_000 // scale, True: 40_000 // scale}),
        ("many", "Messages of 100 bytes a second, many a call", "rate", 1, {False: 200_000 // scale, True: 40_000 // scale}),
        ("handshakes", "Handshakes a second, one after another", "rate", 1, {False: 400 // scale, True: 200 // scale}),
    ]
    with servers(choices) as running:
        for task, title, key, factor, amounts in work:
            _one(report, running, choices, task, title, key, factor, amounts, rounds)


def _one(report, running, choices: list[PeerChoice], task, title, key, factor, amounts, rounds) -> None:  # type: ignore[no-untyped-def]
    table = Table(title, ["transport", "amount", title.rpartition(", ")[2], "worst", "best", "burstwire 1200 is", "p99, µs"])
    taking = [choice for choice in choices if task in choice.tasks]
    say(f"peers: {task}")
    results = {}
    for choice in list(taking):
        counts = {choice.name: amounts[choice.slow]}
        try:
            if task == "bulk":
                running[choice.name].run("bulk", min(amounts[choice.slow], 16 * MIB), "--hash-all")
            results.update(compare({choice.name: running[choice.name]}, task, counts, 1))
        except BenchError as error:
            say(f"peers: {error}")
            table.notes.append(f"{choice.name} failed: {str(error).splitlines()[0][:160]}")
            taking.remove(choice)
    counts = {choice.name: amounts[choice.slow] for choice in taking}
    if rounds > 1:
        # The first round found out who works at all; it counts as a warm-up.
        results = compare({choice.name: running[choice.name] for choice in taking}, task, counts, rounds)
    base = middle(results[BASE], key) * factor if BASE in results else 0.0
    for name, each in results.items():
        value = middle(each, key) * factor
        single = sorted(result[key] * factor for result in each)
        better_is_more = key == "rate"
        worst, best = (single[0], single[-1]) if better_is_more else (single[-1], single[0])
        p99 = middle(each, "p99") * 1e6 if "p99" in each[0] else "–"
        table.add(name, counts[name], value, worst, best, ratio(base, value), p99)
    report.raw[f"peers_{task}"] = results
    report.add(table)
