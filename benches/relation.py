"""The one relation that holds in one run: burstwire beside asyncio's TLS and aioquic, and what a datagram costs.

Loopback, two processes, one stream, packets of 1,200 bytes, AES-128-GCM by `cryptography`. Rates are medians of
interleaved runs; calls are counted in a run of their own, because counting slows it.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benches.harness import (
    MIB,
    BenchError,
    Result,
    ServerProcess,
    compare,
    middle,
    present,
    rehearse,
    rounds_of,
    servers,
)
from benches.machine import conditions_of
from benches.peers import choose, ours
from benches.report import Report, Table, ratio, say

__all__ = ["calls_of", "count_calls", "run"]

OVER_TLS = 0.6
OVER_AIOQUIC = 10.0
SYSCALLS = 0.1
C_CALLS = 0.3

OURS = ours("burstwire", datagram=1200, aead="cryptography")


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    seconds, rounds = (0.3, 3) if quick else (1.0, 5)
    peers = [OURS, *present(choose(["asyncio TLS", "aioquic"]), "relation")]
    with servers(peers) as running:
        say("relation: a first round, in which every byte is hashed")
        counts, failed = rehearse(running, "bulk", seconds)
        if failed:
            raise BenchError("; ".join(failed.values()))
        say(f"relation: {rounds} rounds of bulk")
        results = compare(running, "bulk", counts, rounds)
    say("relation: the counted run")
    counted = count_calls((64 if quick else 512) * MIB)
    report.raw["relation"] = {"bulk": results, "counted": counted}
    _rates(report, results, results[OURS.name][-1]["about"])
    _calls(report, counted)


def count_calls(size: int) -> Result:
    """One bulk run of `size` bytes in which C calls and system calls of both sides are counted, which slows it."""
    with ServerProcess(OURS, "--count-calls") as server:
        return server.run("bulk", size, "--syscalls")


def calls_of(counted: Result, side: str) -> tuple[int, int]:
    """(data datagrams, system calls) of the "client" or the "server"; raises `BenchError` when it counts too few."""
    used = counted[side]
    datagrams = int(used[f"socket_datagrams_{'sent' if side == 'client' else 'received'}"])
    if datagrams * 1200 < counted["count"]:
        raise BenchError(f"the {side} counts {datagrams:,} datagrams for {counted['count']:,} bytes")
    known = used["socket_send_calls"] + used["socket_recv_calls"] + used["selects"]
    return datagrams, int(max(used.get("syscalls", 0), known))


def _rates(report: Report, results: dict[str, list[dict[str, Any]]], about: dict[str, Any]) -> None:
    rates = {name: middle(rounds, "rate") for name, rounds in results.items()}
    ours = rates[OURS.name]
    table = Table(
        "Bulk, one stream over loopback, 1,200-byte packets",
        [
            "transport",
            "MiB",
            "MB/s",
            "slowest",
            "fastest",
            "burstwire is",
            "CPU s/GB send",
            "receive",
            "MB/s of one core",
        ],
        name="relation-bulk",
    )
    for name, rounds in results.items():
        single = rounds_of(rounds, "rate")
        report.figure(f"relation/bulk/{name}", rounds_of(rounds, "rate", 1e-6), "MB/s")
        sending, receiving = (_cpu(rounds, side) for side in ("client", "server"))
        table.add(
            name,
            rounds[0]["count"] // MIB,
            rates[name] / 1e6,
            min(single) / 1e6,
            max(single) / 1e6,
            ratio(ours, rates[name]),
            sending,
            receiving,
            1e3 / max(sending, receiving),
        )
    table.notes.append(conditions_of(about))
    table.notes.append(
        "MB/s of one core: what the busier side's processor time would allow, were the machine not shared"
    )
    table.notes.append("medians of interleaved runs; the receiver checks both ends of every chunk and the length")
    for name in ("asyncio TLS", "aioquic"):
        if name in results:
            table.notes.append(f"{name}: {results[name][-1]['about']}")
    report.add(table)
    for name, least in (("asyncio TLS", OVER_TLS), ("aioquic", OVER_AIOQUIC)):
        if name in rates:
            report.verdict(
                f"bulk is at least {least:g}x {name} ({ratio(ours, rates[name])})", ours >= least * rates[name]
            )


def _cpu(rounds: list[dict[str, Any]], side: str) -> float:
    each = [(r[side]["cpu_user"] + r[side]["cpu_system"]) / (r["count"] / 1e9) for r in rounds]
    return float(median(each))


def _calls(report: Report, counted: dict[str, Any]) -> None:
    table = Table(
        "Calls a datagram in bulk, acknowledgements included",
        ["side", "data datagrams", "C calls", "a datagram", "send", "recv", "select", "all system calls", "a datagram"],
        name="relation-calls",
    )
    for side in ("client", "server"):
        used = counted[side]
        datagrams, everything = calls_of(counted, side)
        report.figure(f"relation/calls/{side}", [everything / datagrams], "system calls a datagram", "less")
        name = "sender" if side == "client" else "receiver"
        table.add(
            name, datagrams, int(used["c_calls"]), used["c_calls"] / datagrams, int(used["socket_send_calls"]),
            int(used["socket_recv_calls"]), int(used["selects"]), everything, everything / datagrams,
        )  # fmt: skip
        report.verdict(
            f"{name}: at most {SYSCALLS:g} system calls a datagram ({everything / datagrams:.3f})",
            everything <= SYSCALLS * datagrams,
        )
        report.verdict(
            f"{name}: at most {C_CALLS:g} C calls a datagram ({used['c_calls'] / datagrams:.3f})",
            used["c_calls"] <= C_CALLS * datagrams,
        )
        each = {key[7:]: int(value) for key, value in used.items() if key.startswith("c_call_") and value}
        table.notes.append(
            f"{name}: {', '.join(f'{key} {value:,}' for key, value in sorted(each.items(), key=lambda x: -x[1]))}"
        )
    source = (
        "counted by perf"
        if "syscalls" in counted["client"]
        else "socket calls and selects only: perf cannot count here"
    )
    table.notes.append(conditions_of(counted["about"]))
    table.notes.append(f"all system calls: {source}; the rate in this run was {counted['rate'] / 1e6:,.0f} MB/s")
    report.add(table)
