"""Level 2: endpoint to endpoint, in two processes over loopback, through the public API.

What size of packet, a small receive buffer, a busy thread and many peers make of bulk; and small messages, requests and
handshakes beside the old way (`benches.oldway`), where it has them. How it compares with other transports is in
`benches.beside`; the processes and tasks are those of `benches.peers`, which check what arrives.
"""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import Any

import pytest

from benches.contest import Contest
from benches.harness import ServerProcess
from benches.many import transfer
from benches.peers import PeerChoice

MIB = 1 << 20
SMALL_BUFFER = 212_992
"""Bytes that most Linux systems grant at most, without being asked twice: net.core.rmem_max."""

PINNED = ("--datagram", "1200")
SMALL = ("--set", f"socket_receive_buffer={SMALL_BUFFER // 2}")
"""Linux grants twice what it is asked for, up to its limit."""

OLD = PeerChoice("one packet at a time", "oldway")


class Task:
    """A task of the peers, as a way of a contest; `factor` times as much of it, for one that is slow."""

    def __init__(self, choice: PeerChoice, task: str, factor: float = 1) -> None:
        self._choice = choice
        self._task = task
        self._factor = factor
        self._results: list[dict[str, Any]] = []

    def __call__(self, count: int) -> float:
        amount = max(1, int(count * self._factor))
        # Small amounts are those of a run that only has to work: there every byte is hashed.
        extra = ("--hash-all",) if self._task == "bulk" and amount <= 4 * MIB else ()
        with ServerProcess(self._choice) as server:
            result = server.run(self._task, amount, *extra)
        assert result["count"] == amount
        self._results.append(result)
        return float(result["seconds"]) * count / amount

    def about(self) -> dict[str, Any]:
        """AEAD and granted buffers; the percentiles, where the task has them, as medians of the rounds."""
        known = self._results[1:] or self._results  # the first one only warms up
        times = {
            f"{key}_us": median(result[key] for result in known) * 1e6 for key in ("p50", "p99") if key in known[-1]
        }
        return {**known[-1]["about"], **times}


class Peers:
    """So many endpoints of one process, all sending to one socket at once; the same bytes in sum, however many."""

    def __init__(self, endpoints: int, **settings: Any) -> None:
        self._endpoints = endpoints
        self._settings = settings
        self._about: dict[str, Any] = {}

    def __call__(self, count: int) -> float:
        outcome = transfer(
            endpoints=self._endpoints,
            size=count // self._endpoints,
            hash_all=count <= 8 * MIB,
            settings=self._settings,
        )
        self._about = outcome.about
        return outcome.seconds * count / outcome.bytes

    def about(self) -> dict[str, Any]:
        """Granted buffers."""
        return self._about


def _ours(name: str, *options: str) -> PeerChoice:
    return PeerChoice(name, "ours", options)


SIZES = {
    choice.name: choice
    for choice in (
        OLD,
        _ours("1,200 bytes", *PINNED),
        _ours("1,452 bytes", "--datagram", "1452"),
        _ours("MTU discovered"),
        _ours("1,200 bytes, cryptography", *PINNED, "--aead", "cryptography"),
        _ours("MTU discovered, cryptography", "--aead", "cryptography"),
    )
}
BULK = Contest(
    "bulk by size of the packets",
    "mb_per_second",
    {name: Task(choice, "bulk", 0.125 if choice is OLD else 1) for name, choice in SIZES.items()},
    base=OLD.name,
    count=256 * MIB,
    quick_count=2 * MIB,
    scale=1e-6,
    rate=True,
    rounds=3,
)

BUFFERS = {
    choice.name: choice
    for choice in (
        _ours("1,200 bytes, full buffer", *PINNED),
        _ours("1,200 bytes, SO_RCVBUF 212,992", *PINNED, *SMALL),
        _ours("MTU discovered, full buffer"),
        _ours("MTU discovered, SO_RCVBUF 212,992", *SMALL),
    )
}


def _buffers(title: str) -> Contest:
    full, small = f"{title}, full buffer", f"{title}, SO_RCVBUF 212,992"
    return Contest(
        f"bulk with a small receive buffer, {title}",
        "mb_per_second",
        {name: Task(BUFFERS[name], "bulk") for name in (full, small)},
        base=full,
        count=256 * MIB,
        quick_count=2 * MIB,
        scale=1e-6,
        rate=True,
        rounds=5,
        targets={small: 0.5},
    )


SMALL_PINNED, SMALL_FOUND = _buffers("1,200 bytes"), _buffers("MTU discovered")

BUSY_OLD = PeerChoice("one packet at a time, busy", "busy", ("oldway",))
BUSY_PINNED = PeerChoice("1,200 bytes, busy", "busy", ("ours", *PINNED))
BUSY_FOUND = PeerChoice("MTU discovered, busy", "busy", ("ours",))
BUSY = Contest(
    "bulk beside a busy thread in each process",
    "mb_per_second",
    {
        BUSY_OLD.name: Task(BUSY_OLD, "bulk", 1 / 32),
        BUSY_PINNED.name: Task(BUSY_PINNED, "bulk"),
        BUSY_FOUND.name: Task(BUSY_FOUND, "bulk"),
    },
    base=BUSY_OLD.name,
    count=32 * MIB,
    quick_count=MIB,
    scale=1e-6,
    rate=True,
    rounds=3,
    targets={BUSY_PINNED.name: 3.0, BUSY_FOUND.name: 3.0},
)

OURS, OURS_UVLOOP = _ours("asyncio"), _ours("uvloop", "--loop", "uvloop")


def _small(title: str, task: str, figure: str, count: int, *, old: bool = True) -> Contest:
    choices = [*([OLD] if old else []), OURS, OURS_UVLOOP]
    rate = figure.endswith("_per_second")
    return Contest(
        title,
        figure,
        {choice.name: Task(choice, task, 0.25 if choice is OLD else 1) for choice in choices},
        base=choices[0].name,
        count=count,
        quick_count=200 if task != "handshakes" else 5,
        scale=1.0 if rate else 1e6,
        rate=rate,
        rounds=3,
    )


MESSAGES = _small("messages of 100 bytes, one call each", "messages", "messages_per_second", 80_000)
MANY = _small("messages of 100 bytes, send_many", "many", "messages_per_second", 400_000, old=False)
ECHO = _small("request and response of 100 bytes", "echo", "us_per_request", 2_000)
HANDSHAKES = _small("handshakes, one after another", "handshakes", "handshakes_per_second", 200, old=False)


def _peers_contest(title: str, **settings: Any) -> Contest:
    return Contest(
        f"32 peers against one, {title}",
        "mb_per_second",
        {"1 peer": Peers(1, **settings), "32 peers": Peers(32, **settings)},
        base="1 peer",
        count=1024 * MIB,
        quick_count=8 * MIB,
        scale=1e-6,
        rate=True,
        rounds=5,
        targets={"32 peers": 0.9},
    )


PEERS_PINNED = _peers_contest("1,200 bytes", max_datagram_size=1200)
PEERS_FOUND = _peers_contest("MTU discovered")

CONTESTS = (BULK, SMALL_PINNED, SMALL_FOUND, BUSY, MESSAGES, MANY, ECHO, HANDSHAKES, PEERS_PINNED, PEERS_FOUND)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(*CONTESTS), ids=str)
def test_endpoint_to_endpoint(benchmark: Any, contest: Contest, way: str) -> None:
    contest.report(benchmark, way)
    done: Any = contest.ways[way]
    about = done.about()
    benchmark.extra_info.update(about)
    if "212,992" in way:
        assert about["receive_buffer"] == SMALL_BUFFER


@cache
def _idle_bytes(count: int) -> tuple[float, float]:
    """Growth of the resident set by idle connection: the accepting and the dialling side."""
    with ServerProcess(OURS) as server:
        server.run("handshakes", 2)  # what is made on first use is there before the count begins
        before = server.report()
        with server.idle(count) as client:
            after = server.report()
    assert client["connections"] == count
    assert after["links"] - before["links"] == count
    return (after["rss"] - before["rss"]) / count, (client["after"]["rss"] - client["before"]["rss"]) / count


@pytest.mark.parametrize("side", ["accepting", "dialling"])
def test_memory_of_an_idle_connection(benchmark: Any, side: str) -> None:
    benchmark.group = "memory of an idle connection"
    count = 20 if benchmark.disabled else 1000
    accepting, dialling = benchmark.pedantic(_idle_bytes, (count,), rounds=1)
    benchmark.extra_info.update(
        way=side,
        kib_per_connection=(accepting if side == "accepting" else dialling) / 1024,
        connections=count,
        limit=16,
    )
