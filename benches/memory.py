"""How much memory a receiver of a long stream takes, and an endpoint with many idle connections."""

from __future__ import annotations

from benches.harness import BenchError, ServerProcess, missing
from benches.peers import PeerChoice, choose
from benches.report import Report, Table, say

__all__ = ["run"]

MIB = 1 << 20
RECEIVER_LIMIT = 150e6
IDLE_LIMIT = 100e6
OTHERS = ("asyncio TLS", "uvloop TLS", "aioquic")

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
    )
    stream.add("receiver", size // MIB, receiver["rss_peak"] / 1e6, before["rss"] / 1e6, RECEIVER_LIMIT / 1e6)
    stream.add("sender", size // MIB, result["client"]["rss_peak"] / 1e6, "–", "–")
    report.add(stream)
    report.raw["memory_stream"] = {"before": before, "after": receiver, "run": result}
    peak = receiver["rss_peak"]
    report.verdict(
        f"the receiver of {size // MIB:,} MiB peaks below 150 MB ({peak / 1e6:.1f} MB)", peak < RECEIVER_LIMIT
    )
    _idle(report, 200 if quick else 1000)


def _idle(report: Report, count: int) -> None:
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
    )
    raw = report.raw["memory_idle"] = {}
    for choice in [OURS, *choose(list(OTHERS))]:
        reason = missing(choice)
        if reason:
            say(f"memory: without {choice.name}: {reason}")
            continue
        say(f"memory: {count:,} idle connections of {choice.name}")
        with ServerProcess(choice) as server:
            server.run("handshakes", 2)  # what is made on first use is there before the count begins
            before = server.report()
            with server.idle(count) as client:
                after = server.report()
        if client["connections"] != count or after["links"] - before["links"] != count:
            raise BenchError(f"{choice.name}: {after['links'] - before['links']:,} of {count:,} connections came to be")
        accepting = (after["rss"] - before["rss"]) / count / 1024
        dialling = (client["after"]["rss"] - client["before"]["rss"]) / count / 1024
        limit: float | str = IDLE_LIMIT / 1e6 if choice is OURS else "–"
        table.add(choice.name, count, accepting, dialling, after["rss"] / 1e6, limit)
        raw[choice.name] = {"before": before, "after": after, "client": client}
        if choice is OURS:
            rss = after["rss"]
            report.verdict(
                f"an endpoint with {count:,} idle connections stays below 100 MB ({rss / 1e6:.1f} MB)", rss < IDLE_LIMIT
            )
    table.notes.append("growth of the resident set, by process; every connection has carried one message each way")
    report.add(table)
