"""The figures to reach: each with what it is measured against in the same run, its ratio, and whether it holds.

A ratio is taken round by round (both sides in turn, two processes each, loopback, AES-128-GCM) and judged by its
median; one round before, which finds out how much each side can do, does not count. Which back end sealed the packets
and which receive buffer the kernel granted stands beside each figure. A figure that was not reached is reported as
such; it does not fail the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from benches import level0_nonce, level2_endpoints, level2_sockets
from benches.contest import Contest
from benches.harness import (
    MIB,
    BenchError,
    Result,
    ServerProcess,
    compare,
    missing,
    rehearse,
    rounds_of,
    servers,
)
from benches.memory import idle_cost
from benches.peers import BULK, PeerChoice, choose, ours
from benches.pipe_c import available
from benches.relation import calls_of, count_calls
from benches.report import Better, Report, Table, say
from burstwire.crypto import aead_libcrypto
from burstwire.crypto.aead import backends

__all__ = ["GROUPS", "Line", "c_pipe", "judge", "pipe", "run"]

ROUNDS = 3
SECONDS = 0.8
"""About how long each side of a round takes."""

FLAT = 4 * MIB
"""Bytes by which the resident set may grow over the last gigabytes of a transfer: a thousandth of what went by."""


@dataclass(frozen=True)
class Line:
    """One figure to reach.

    Attributes:
        name: the same in every report.
        what: in words. unit: of the figure.
        least: the limit for the ratio, or for the figure itself where it is compared with nothing; None: only reported.
        values: the figure, round by round. beside: what it is compared with, as words. ratios: round by round.
        better: whether `least` is a lower or an upper limit.
        conditions: AEAD back end, and the granted receive buffer.
        aim: what would be better still, in words.
    """

    name: str
    what: str
    unit: str
    least: float | None
    values: list[float]
    beside: str = "–"
    ratios: tuple[float, ...] = ()
    better: Better = "more"
    conditions: tuple[str, str] = ("–", "–")
    aim: str = ""

    @property
    def judged(self) -> float:
        """What `least` is a limit for."""
        return float(median(self.ratios or self.values))

    @property
    def holds(self) -> bool | None:
        """Whether it does; None when there is no limit."""
        if self.least is None:
            return None
        return self.judged >= self.least if self.better == "more" else self.judged <= self.least


def judge(report: Report, lines: Iterable[Line], notes: Iterable[str] = ()) -> None:
    """Print the table, and each verdict."""
    columns = [
        "what",
        "unit",
        "measured",
        "lowest",
        "highest",
        "beside",
        "ratio",
        "to reach",
        "holds",
        "AEAD",
        "SO_RCVBUF",
    ]
    table = Table("Figures to reach", columns, name="figures")
    for line in lines:
        limit = "–" if line.least is None else f"{'≥' if line.better == 'more' else '≤'} {_number(line)}"
        verdict = "–" if line.holds is None else "holds" if line.holds else "FAILS"
        ratio = f"{line.judged:.2f}x" if line.ratios else "–"
        table.add(
            line.what, line.unit, median(line.values), min(line.values), max(line.values), line.beside, ratio,
            limit + (f", aim {line.aim}" if line.aim else ""), verdict, *line.conditions,
        )  # fmt: skip
        report.figure(
            f"figures/{line.name}", line.ratios or line.values, "x" if line.ratios else line.unit, line.better
        )
        if line.holds is not None:
            report.target(
                f"{line.what}: {limit} (measured {ratio if line.ratios else _shown(line.judged)})", line.holds
            )
    table.notes += [f"ratio, to reach: of medians of {ROUNDS} interleaved rounds, ratio by round", *notes]
    table.notes.append("SO_RCVBUF: as granted, in bytes; SO_SNDBUF is granted as much; AEAD: who does AES-128-GCM")
    report.add(table)


def _number(line: Line) -> str:
    assert line.least is not None
    return f"{line.least:g}x" if line.ratios else _shown(line.least)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- what is compared ------------------------------------------------------------------------------------------------


def pipe(size: int, aead: str) -> PeerChoice:
    """The same pipe without reliability, in Python."""
    options = ("--datagram", str(size), "--aead", aead)
    return PeerChoice(f"pipe {size} {aead}", "benches.pipe", options, tasks=BULK)


def c_pipe(size: int, aead: str) -> PeerChoice:
    """The same in C."""
    options = ("--datagram", str(size), "--aead", aead)
    return PeerChoice(f"C pipe {size} {aead}", "benches.pipe_c", options, tasks=BULK)


class Round:
    """One task on several peers in turn."""

    def __init__(self, task: str, choices: Iterable[PeerChoice], key: str = "rate", factor: float = 1.0) -> None:
        self._key = key
        self._factor = factor
        taking = [choice for choice in choices if not missing(choice)]
        say(f"figures: {task} on {', '.join(choice.name for choice in taking)}")
        with servers(taking) as running:
            counts, self.failed = rehearse(running, task, SECONDS)
            self.results = compare({name: running[name] for name in counts}, task, counts, ROUNDS)

    def __contains__(self, name: str) -> bool:
        return name in self.results

    def values(self, name: str) -> list[float]:
        """The figure of each round."""
        return rounds_of(self.results[name], self._key, self._factor)

    def line(
        self, name: str, what: str, unit: str, mine: str, other: str, least: float | None, **more: Any
    ) -> Iterable[Line]:
        """A line when both peers could do their work."""
        if mine not in self or other not in self:
            lacking = ", ".join(each for each in (mine, other) if each not in self)
            say(f"figures: no line {name!r}: {lacking} is not there")
            return
        own, base = self.values(mine), self.values(other)
        ratios = tuple(a / b for a, b in zip(own, base, strict=True))
        beside = f"{other}: {median(base):,.0f}"
        yield Line(name, what, unit, least, own, beside, ratios, conditions=_conditions(self.results[mine][-1]), **more)


def _conditions(result: Result) -> tuple[str, str]:
    about = result["about"]
    return str(about.get("aead", "–")), f"{about['receive_buffer']:,}" if about.get("receive_buffer") else "–"


def _contest(name: str, what: str, unit: str, contest: Contest, way: str, **more: Any) -> Line:
    """A line from a contest of the levels."""
    way_: Any = contest.ways[way]
    contest.measured()
    about = way_.about() if hasattr(way_, "about") else {}
    beside = f"{contest.base}: {contest.value(contest.base):,.4g}"
    values, ratios = contest.values(way), tuple(contest.ratios(way))
    return Line(
        name, what, unit, values=values, beside=beside, ratios=ratios, conditions=_conditions({"about": about}), **more
    )


# --- the lines -------------------------------------------------------------------------------------------------------


def bulk() -> Iterable[Line]:
    """One stream, by back end and yardstick."""
    present = backends()
    narrow = {aead: ours(f"1,200 {aead}", datagram=1200, aead=aead) for aead in present}
    wide = ours("MTU discovered, cryptography", aead="cryptography")
    others = choose(["asyncio TLS", "uvloop TLS", "aioquic"])
    native = [aead for aead in present if not available(aead)]
    pipes = [pipe(1200, "cryptography"), *[c_pipe(1200, aead) for aead in native]]
    run = Round("bulk", [*narrow.values(), wide, *others, *pipes], factor=1e-6)
    unit = "MB/s"
    what = "bulk, 1,200 bytes, cryptography"
    own = narrow["cryptography"].name
    yield from run.line("bulk-cryptography-tls", f"{what}, beside asyncio TLS", unit, own, "asyncio TLS", 1.3)
    yield from run.line("bulk-cryptography-aioquic", f"{what}, beside aioquic", unit, own, "aioquic", 30)
    yield from run.line("bulk-cryptography-pipe", f"{what}, beside the pipe", unit, own, "pipe 1200 cryptography", 0.85)
    if "libcrypto" in present:
        what, own = "bulk, 1,200 bytes, libcrypto", narrow["libcrypto"].name
        new = _libcrypto_version() >= (3, 5)
        yield from run.line(
            "bulk-libcrypto-pipe", f"{what}, beside the C pipe", unit, own, "C pipe 1200 libcrypto", 0.75
        )
        least, aim = (2.2, "3x") if new else (1.1, "")
        yield from run.line("bulk-libcrypto-tls", f"{what}, beside uvloop TLS", unit, own, "uvloop TLS", least, aim=aim)
    if "ipsec-mb" in present:
        what, own = "bulk, 1,200 bytes, ipsec-mb", narrow["ipsec-mb"].name
        yield from run.line("bulk-ipsec-mb-tls", f"{what}, beside uvloop TLS", unit, own, "uvloop TLS", 2.2, aim="3x")
        yield from run.line("bulk-ipsec-mb-pipe", f"{what}, beside the C pipe", unit, own, "C pipe 1200 ipsec-mb", None)
    what = "bulk, MTU discovered, cryptography"
    yield from run.line("bulk-discovered-tls", f"{what}, beside uvloop TLS", unit, wide.name, "uvloop TLS", 2.0)


def _libcrypto_version() -> tuple[int, int]:
    words = aead_libcrypto.version().split()
    major, minor = words[1].split(".")[:2] if len(words) > 1 else ("0", "0")
    return int(major), int(minor)


def buffer() -> Iterable[Line]:
    """A receive buffer as small as most systems grant it."""
    for title, contest in (
        ("1,200 bytes", level2_endpoints.SMALL_PINNED),
        ("MTU discovered", level2_endpoints.SMALL_FOUND),
    ):
        way = f"{title}, SO_RCVBUF 212,992"
        name = f"bulk-small-buffer-{'1200' if contest is level2_endpoints.SMALL_PINNED else 'discovered'}"
        chosen = contest.only(way, rounds=ROUNDS)
        yield _contest(name, f"bulk, {title}, SO_RCVBUF at 212,992", "MB/s", chosen, way, least=0.5)


def busy() -> Iterable[Line]:
    """A thread of the application that computes all the time."""
    contest = level2_endpoints.BUSY.only(level2_endpoints.BUSY_PINNED.name, rounds=ROUNDS)
    what = "bulk, 1,200 bytes, beside a busy thread in the same process"
    yield _contest("bulk-busy", what, "MB/s", contest, level2_endpoints.BUSY_PINNED.name, least=3.0)


def batches() -> Iterable[Line]:
    """Datagrams a second without any protocol."""
    contest = level2_sockets.BATCHES.only(level2_sockets.BARE, "gso, 64", rounds=5)
    unit = "packets/s"
    yield _contest("packets-batched", "packets in batches of 64", unit, contest, "gso, 64", least=5.0, aim="10x")
    own, bare = contest.values(contest.base), contest.values(level2_sockets.BARE)
    ratios = tuple(a / b for a, b in zip(own, bare, strict=True))
    beside = f"{level2_sockets.BARE}: {median(bare):,.0f}"
    yield Line("packets-one-by-one", "packets one by one", unit, 0.8, own, beside, ratios)


def calls() -> Iterable[Line]:
    """System calls for each datagram."""
    say("figures: system calls in bulk")
    counted = [count_calls(256 * MIB) for _ in range(ROUNDS)]
    for side, word in (("client", "send"), ("server", "receive")):
        values = [everything / datagrams for datagrams, everything in (calls_of(each, side) for each in counted)]
        what = f"system calls a datagram in bulk, to {word}"
        conditions = _conditions(counted[-1])
        yield Line(f"calls-{word}", what, "calls", 0.1, values, better="less", conditions=conditions)


def crowd() -> Iterable[Line]:
    """Many peers, one socket."""
    for title, contest in (
        ("1,200 bytes", level2_endpoints.PEERS_PINNED),
        ("MTU discovered", level2_endpoints.PEERS_FOUND),
    ):
        name = f"peers-32-{'1200' if contest is level2_endpoints.PEERS_PINNED else 'discovered'}"
        chosen = contest.only("32 peers", rounds=ROUNDS)
        yield _contest(name, f"32 peers with one socket, {title}, in sum", "MB/s", chosen, "32 peers", least=0.9)


def messages() -> Iterable[Line]:
    """Small messages."""
    own = ours("burstwire uvloop", loop="uvloop")
    run = Round("messages", [own, *choose(["qh3 uvloop"])])
    what = "messages of 100 bytes received, one send and one recv each"
    yield from run.line("messages", what, "a second", own.name, "qh3 uvloop", 1.5)
    run = Round("many", [own])
    if own.name in run:
        what = "messages of 100 bytes received, send_many and recv_many"
        conditions = _conditions(run.results[own.name][-1])
        yield Line("messages-many", what, "a second", 1_500_000, run.values(own.name), conditions=conditions)


def echo() -> Iterable[Line]:
    """Request and response."""
    present = {aead: ours(f"burstwire {aead} uvloop", aead=aead, loop="uvloop") for aead in backends()}
    run = Round("echo", [*present.values(), *choose(["uvloop TLS", "ZeroMQ CURVE"])], key="p50", factor=1e6)
    zeromq = median(run.values("ZeroMQ CURVE")) if "ZeroMQ CURVE" in run else None
    aim = f"ZeroMQ CURVE's {zeromq:.0f} µs" if zeromq else ""
    for aead, choice in present.items():
        least = 1.0 if aead == "cryptography" else 0.9
        what = f"request and response of 100 bytes, p50 on uvloop, {aead}"
        yield from run.line(f"echo-{aead}", what, "µs", choice.name, "uvloop TLS", least, better="less", aim=aim)


def handshakes() -> Iterable[Line]:
    """New connections."""
    own = ours("burstwire")
    run = Round("handshakes", [own, *choose(["ZeroMQ CURVE", "aioquic"])])
    what = "handshakes, one after another, both sides proven"
    yield from run.line("handshakes-zeromq", f"{what}, beside ZeroMQ CURVE", "a second", own.name, "ZeroMQ CURVE", 1.0)
    yield from run.line("handshakes-aioquic", f"{what}, beside aioquic", "a second", own.name, "aioquic", 4.0)


def idle() -> Iterable[Line]:
    """Memory of connections that do nothing."""
    say("figures: idle connections")
    costs = [idle_cost(ours("burstwire"), 1000) for _ in range(ROUNDS)]
    for side in ("accepting", "dialling"):
        values = [cost[side] / 1024 for cost in costs]
        what = f"memory of an idle connection, {side} side"
        conditions = _conditions(costs[-1])
        yield Line(f"idle-{side}", what, "KiB", 16, values, better="less", conditions=conditions)


def nonces() -> Iterable[Line]:
    """Counters against random numbers."""
    one = level0_nonce.ONE_BY_ONE.only("connection ID and counter", rounds=15)
    yield _contest("nonce", "counter nonce, one by one", "ns", one, "connection ID and counter", least=4.0)
    run = level0_nonce.BY_RUN.only("reserved by one C call", rounds=15)
    yield _contest("nonce-run", "counter nonce, of a run", "ns each", run, "reserved by one C call", least=50.0)


def steady() -> Iterable[Line]:
    """A long transfer, after it has warmed up."""
    say("figures: 4 GiB of steady bulk")
    size, warm = 4608 * MIB, 512 * MIB
    with ServerProcess(ours("burstwire")) as server:
        results = [server.run("bulk", size, "--warm", str(warm)) for _ in range(ROUNDS)]
    for side in ("sender", "receiver"):
        each = [result if side == "sender" else result["far"] for result in results]
        what, conditions = f"steady bulk over 4 GiB, {side}", _conditions(results[-1])
        blocks, rss = rounds_of(each, "blocks_grown"), rounds_of(each, "rss_grown", 1 / MIB)
        name = f"steady-{side}"
        yield Line(
            f"{name}-blocks", f"{what}: allocated blocks", "more", 1000, blocks, better="less", conditions=conditions
        )
        yield Line(f"{name}-rss", f"{what}: RSS", "MiB more", FLAT / MIB, rss, better="less", conditions=conditions)


GROUPS: dict[str, Callable[[], Iterable[Line]]] = {
    "bulk": bulk,
    "buffer": buffer,
    "busy": busy,
    "batches": batches,
    "calls": calls,
    "crowd": crowd,
    "messages": messages,
    "echo": echo,
    "handshakes": handshakes,
    "idle": idle,
    "nonces": nonces,
    "steady": steady,
}
"""What can be measured by itself, with `--line`."""


def run(report: Report, *, quick: bool, lines: Iterable[str] = ()) -> None:
    """Measure and judge; a group that fails does not keep the others from being measured."""
    if quick and not lines:
        say("figures are left to the full run")
        return
    found: list[Line] = []
    broken: list[str] = []
    for name in lines or GROUPS:
        try:
            found += GROUPS[name]()
        except (BenchError, AssertionError) as error:
            say(f"figures: {name}: {error}")
            broken.append(f"{name}: {str(error).splitlines()[0][:200]}")
    judge(report, found, [f"without {what}" for what in broken])
    if broken:
        raise BenchError("; ".join(broken))
