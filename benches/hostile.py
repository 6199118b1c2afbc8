"""A flood of hostile datagrams at an endpoint that has a live connection.

    python -m benches.hostile --count 1000000

Asserts that the endpoint lives and takes new connections, that every message of the live connection came back
unchanged, that each datagram is accounted for, and that memory and tables stay flat. Loopback only; count and time
are bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benches.harness import ROOT, BenchError, ServerProcess
from benches.peers import PeerChoice
from benches.report import Report, Table, say

__all__ = ["flood", "main", "run"]

MEMORY = 16 << 20
"""Bytes by which the endpoint may grow: its bounded tables of handshakes fill up, and the allocator's slack."""

PAUSE = 0.02
"""Seconds between two messages of the live connection."""

PATIENCE = 10.0
"""Seconds that one of them may take."""

ACCOUNTED = (
    "socket_empty",
    "socket_overflow",
    "malformed",
    "datagrams_unknown",
    "initiates_received",
    "responds_unmatched",
    "responds_invalid",
    "responds_postponed",
    "cookies_received",
    "cookies_invalid",
    "versions_received",
    "versions_ignored",
    "resets_received",
    "resets_unmatched",
    "connection_packets_received",
    "connection_packets_duplicate",
    "connection_packets_invalid",
    "connection_packets_unopened",
)
"""What can become of a datagram: exactly one of these."""

OURS = PeerChoice("burstwire", "ours")

Result = dict[str, Any]


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    count = 50_000 if quick else 1_000_000
    say(f"hostile: {count:,} datagrams")
    result = flood(count, seed=1)
    report.raw["hostile"] = result
    sent, seen, live = result["attack"], result["counted"], result["live"]
    table = Table("Hostile datagrams at an endpoint with a live connection", ["what", "count"])
    for name in ("random", "headers", "recorded"):
        table.add(f"sent: {name}", sent[name])
    table.add("sent: legitimate, relayed", sent["forwarded"])
    table.add("seen by the socket", int(seen["socket_datagrams_received"]))
    table.add("dropped by the kernel", int(sent["dropped"]))
    for name, value in seen.items():
        if value and not name.startswith(("socket_", "loop_", "cpu_", "switches_")):
            table.add(f"counted: {name}", int(value))
    table.add("answers to strangers", sent["answered"])
    table.add("bytes answered for a byte received", f"{sent['answered_bytes'] / sent['bytes']:.5f}")
    table.add("datagrams a second", sent["sent"] / sent["seconds"])
    table.add("messages of the live connection", live["messages"])
    table.add("their p50, ms", live["p50"] * 1e3)
    table.add("the slowest, ms", live["slowest"] * 1e3)
    table.add("endpoint's RSS before, MB", result["rss"][0] / 1e6)
    table.add("endpoint's RSS after, MB", result["rss"][1] / 1e6)
    report.add(table)
    for what, holds in result["verdicts"].items():
        report.verdict(f"hostile: {what}", holds)


def flood(count: int, seed: int, seconds: float = 240.0) -> Result:
    """Attack an endpoint in a process of its own with `count` datagrams, for at most so many seconds.

    Returns counters, latencies and verdicts; raises `BenchError` when a process died or the live connection did.
    """
    with ServerProcess(OURS) as server:
        return asyncio.run(_flood(server, count, seed, seconds))


async def _flood(server: ServerProcess, count: int, seed: int, seconds: float) -> Result:
    import burstwire as bw

    info = json.loads(server.info)
    public = bw.PublicKey.parse(info["key"])
    attack = _Attack(info["port"], bytes(public), count, seed, seconds)
    try:
        endpoint = await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=bw.Config(idle_timeout=60))
        async with endpoint:
            connection = await endpoint.connect(("127.0.0.1", attack.port), public)
            await connection.send(json.dumps({"task": "live"}).encode())
            live = _Live(connection)
            for _ in range(50):  # so that there is something to record
                await live.once()
            live.times.clear()
            before = server.report()
            attack.start()
            sent = asyncio.get_running_loop().run_in_executor(None, attack.result, seconds + 30)
            while not sent.done():
                await live.once()
                await asyncio.sleep(PAUSE)
            totals: Result = await sent
            await live.once()
            after = server.report()
            newcomer = await endpoint.connect(("127.0.0.1", info["port"]), public)
            await newcomer.send(json.dumps({"task": "handshakes"}).encode())
            welcome = await asyncio.wait_for(newcomer.recv(), PATIENCE)
            await newcomer.close()
            await connection.send(b"stop")
            stopped = await asyncio.wait_for(connection.recv(), PATIENCE) == b"stop"
    finally:
        attack.end()
    return _judge(before, after, totals, live, stopped and len(welcome) == 100)


def _judge(before: Result, after: Result, totals: Result, live: _Live, newcomers: bool) -> Result:
    counted = {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if isinstance(value, int | float) and name not in ("rss", "rss_peak")
    }
    totals["sent"] = sum(totals[kind] for kind in ("random", "headers", "recorded"))
    arrived = counted["socket_datagrams_received"] + counted["socket_truncated"] + totals["dropped"]
    # What was relayed before the first report is no part of the difference; what is under way at either end neither.
    legitimate = live.messages * 4 + 100
    grown = after["rss"] - before["rss"]
    verdicts = {
        "the endpoint lives and takes new connections": newcomers,
        f"all {live.messages:,} messages of the live connection came back": live.messages > 0
        and live.right == live.messages,
        f"the socket accounts for all {totals['sent']:,} datagrams": 0 <= arrived - totals["sent"] <= legitimate,
        "one connection before, one after": counted["connections"] == 0,
        f"memory grew by at most {MEMORY >> 20} MiB ({grown / 1e6:.1f} MB)": grown <= MEMORY,
        "the send ring's books balance": after["ring_leased"] == 0,
    }
    known = sum(counted.get(name, 0) for name in ACCOUNTED)
    verdicts["the protocol accounts for every datagram that it saw"] = known == counted["socket_datagrams_received"]
    return {
        "attack": totals,
        "counted": counted,
        "uncounted_by_the_protocol": counted["socket_datagrams_received"] - known,
        "live": {"messages": live.messages, "p50": median(live.times), "slowest": max(live.times)},
        "rss": [before["rss"], after["rss"]],
        "verdicts": verdicts,
    }


class _Live:
    """The connection that has to survive."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.messages = 0
        self.right = 0
        self.times: list[float] = []

    async def once(self) -> None:
        """One message there and back."""
        self.messages += 1
        sent = self.messages.to_bytes(8, "big") * (1 + self.messages % 200)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._connection.send(sent)
                received = await self._connection.recv()
        except TimeoutError:
            raise BenchError(f"message {self.messages} of the live connection took more than {PATIENCE:g} s") from None
        self.times.append(time.perf_counter() - started)
        self.right += received == sent


class _Attack:
    """The attacking process."""

    def __init__(self, port: int, public: bytes, count: int, seed: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "benches.attack", "--port", str(port), "--public", public.hex(),
                "--count", str(count), "--seed", str(seed), "--seconds", str(seconds),
            ],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port: int = json.loads(self._line(10))["port"]

    def start(self) -> None:
        """Let it begin."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()

    def result(self, timeout: float) -> Result:
        """What it sent, once it has."""
        result: Result = json.loads(self._line(timeout))
        return result

    def end(self) -> None:
        """Closing its input ends it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _line(self, timeout: float) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        timer = threading.Timer(timeout, self._process.kill)
        timer.start()
        try:
            line = stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise BenchError(f"the attacker ended with code {self._process.wait()}")
        return line


def main() -> int:
    """`python -m benches.hostile`."""
    parser = argparse.ArgumentParser(prog="python -m benches.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=240.0, help="stop attacking after this time in any case")
    parser.add_argument("--json", type=Path, help="write everything there")
    options = parser.parse_args()
    try:
        result = flood(options.count, options.seed, options.seconds)
    except BenchError as error:
        print(f"FAILS: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    for what, holds in result["verdicts"].items():
        print(f"{'holds' if holds else 'FAILS'}: {what}")
    return 0 if all(result["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
