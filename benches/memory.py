"""How much memory a receiver of a long stream takes, and an endpoint with many idle connections."""

from __future__ import annotations

from typing import Any

from benches.harness import MIB, BenchError, ServerProcess, present
from benches.machine import conditions_of
from benches.peers import PeerChoice, choose
from benches.report import Report, Table, say

__all__ = ["idle_cost", "run"]

RECEIVER_LIMIT = 150e6
IDLE_LIMIT = 100e6
OTHERS = ("asyncio TLS", "uvloop TLS", "aioquic", "qh3 uvloop", "ZeroMQ CURVE")
QUICK_OTHERS = ("asyncio TLS", "aioquic")

OURS = PeerChoice("burstwire", "ours")


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    size = (256 if quick else 1024) * MIB
    say(f"memory: a stream of {size // MIB:,} MiB")
    with ServerProcess(OURS) as server:
        before = server.report()
        result = server.run("bulk", size)
        receiver = server.report()
    stream = Table(
        "Memory of the receiver of one stream",
        ["process", "MiB received", "peak RSS, MB", "RSS before, MB", "limit, MB"],
        name="memory-stream",
    )
    stream.add("receiver", size // MIB, receiver["rss_peak"] / 1e6, before["rss"] / 1e6, RECEIVER_LIMIT / 1e6)
    stream.add("sender", size // MIB, result["client"]["rss_peak"] / 1e6, "–", "–")
    stream.notes.append(conditions_of(result["about"]))
    report.figure("memory/stream/receiver peak", [receiver["rss_peak"] / 1e6], "MB", "less")
    report.add(stream)
    report.raw["memory_stream"] = {"before": before, "after": receiver, "run": result}
    peak = receiver["rss_peak"]
    report.verdict(
        f"the receiver of {size // MIB:,} MiB peaks below 150 MB ({peak / 1e6:.1f} MB)", peak < RECEIVER_LIMIT
    )
    _idle(report, 200 if quick else 1000, QUICK_OTHERS if quick else OTHERS)


def idle_cost(choice: PeerChoice, count: int) -> dict[str, Any]:
    """What `count` idle connections take: `accepting` and `dialling` bytes each, and the accepting side's `rss`.

    Raises `BenchError` when some connection did not come to be.
    """
    with ServerProcess(choice) as server:
        server.run("handshakes", 2)  # what is made on first use is there before the count begins
        before = server.report()
        with server.idle(count) as client:
            after = server.report()
    came = after["links"] - before["links"]
    if client["connections"] != count or came != count:
        raise BenchError(f"{choice.name}: {came:,} of {count:,} connections came to be")
    return {
        "accepting": (after["rss"] - before["rss"]) / count,
        "dialling": (client["after"]["rss"] - client["before"]["rss"]) / count,
        "rss": after["rss"],
        "about": after["about"],
    }


def _idle(report: Report, count: int, others: tuple[str, ...]) -> None:
    table = Table(
        "Idle connections",
        [
            "transport",
            "connections",
            "accepting side, KiB each",
            "dialling side, KiB each",
            "accepting RSS, MB",
            "limit, MB",
        ],
        name="memory-idle",
    )
    raw = report.raw["memory_idle"] = {}
    for choice in [OURS, *present(choose(list(others)), "memory")]:
        say(f"memory: {count:,} idle connections of {choice.name}")
        try:
            cost = raw[choice.name] = idle_cost(choice, count)
        except BenchError as error:
            if choice is OURS:
                raise
            table.notes.append(f"{choice.name} failed: {str(error).splitlines()[-1][:160]}")
            continue
        accepting, dialling = cost["accepting"] / 1024, cost["dialling"] / 1024
        limit: float | str = IDLE_LIMIT / 1e6 if choice is OURS else "–"
        table.add(choice.name, count, accepting, dialling, cost["rss"] / 1e6, limit)
        report.figure(f"memory/idle/{choice.name}/accepting", [accepting], "KiB", "less")
        report.figure(f"memory/idle/{choice.name}/dialling", [dialling], "KiB", "less")
        if choice is OURS:
            rss = cost["rss"]
            table.notes.append(conditions_of(cost["about"]))
            report.verdict(
                f"an endpoint with {count:,} idle connections stays below 100 MB ({rss / 1e6:.1f} MB)", rss < IDLE_LIMIT
            )
    table.notes.append("growth of the resident set, by process; every connection has carried one message each way")
    report.add(table)
