"""The one relation that holds in one run: burstwire beside asyncio's TLS and aioquic, and what a datagram costs.

Loopback, two processes, one stream, packets of 1,200 bytes, AES-128-GCM by `cryptography`. Rates are medians of
interleaved runs; calls are counted in a run of their own, because counting slows it.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from benches.harness import BenchError, ServerProcess, compare, middle, missing, servers
from benches.peers import PeerChoice, choose
from benches.report import Report, Table, ratio, say

__all__ = ["run"]

MIB = 1 << 20
OVER_TLS = 0.6
OVER_AIOQUIC = 10.0
SYSCALLS = 0.1
C_CALLS = 0.3

OURS = PeerChoice("burstwire", "ours", ("--datagram", "1200", "--aead", "cryptography"))


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    size = (128 if quick else 512) * MIB
    small = (8 if quick else 32) * MIB
    rounds = 3 if quick else 5
    peers = [OURS, *[choice for choice in choose(["asyncio TLS", "aioquic"]) if not _absent(choice)]]
    counts = {choice.name: small if choice.slow else size for choice in peers}
    with servers(peers) as running:
        for name, server in running.items():
            say(f"relation: {name}: every byte of {min(counts[name], 64 * MIB) // MIB} MiB is hashed")
            server.run("bulk", min(counts[name], 64 * MIB), "--hash-all")
        say(f"relation: {rounds} rounds of bulk")
        results = compare(running, "bulk", counts, rounds)
        about = results[OURS.name][-1]["about"]
    say("relation: the counted run")
    with ServerProcess(OURS, "--count-calls") as server:
        counted = server.run("bulk", size, "--syscalls")
    report.raw["relation"] = {"bulk": results, "counted": counted}
    _rates(report, results, about)
    _calls(report, counted)


def _absent(choice: PeerChoice) -> bool:
    reason = missing(choice)
    if reason:
        say(f"relation: without {choice.name}: {reason}")
    return bool(reason)


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
    )
    for name, rounds in results.items():
        single = [result["rate"] for result in rounds]
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
    buffers = f"SO_RCVBUF {about['receive_buffer']:,}, SO_SNDBUF {about['send_buffer']:,} granted"
    table.notes.append(f"AEAD of burstwire: AES-128-GCM by {about['aead']}; {buffers}")
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
    )
    for side, direction in (("client", "sent"), ("server", "received")):
        used = counted[side]
        datagrams = used[f"socket_datagrams_{direction}"]
        if datagrams * 1200 < counted["count"]:
            raise BenchError(f"the {side} counts {datagrams:,.0f} datagrams for {counted['count']:,} bytes")
        known = used["socket_send_calls"] + used["socket_recv_calls"] + used["selects"]
        everything = max(used.get("syscalls", 0), known)
        name = "sender" if side == "client" else "receiver"
        table.add(
            name, int(datagrams), int(used["c_calls"]), used["c_calls"] / datagrams, int(used["socket_send_calls"]),
            int(used["socket_recv_calls"]), int(used["selects"]), int(everything), everything / datagrams,
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
    table.notes.append(f"all system calls: {source}; the rate in this run was {counted['rate'] / 1e6:,.0f} MB/s")
    report.add(table)
