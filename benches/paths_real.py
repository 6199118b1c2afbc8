"""burstwire on shaped links between network namespaces: beside the kernel's TCP, alone, lossy, narrow, and moving.

    python -m benches.paths_real                      all sections, about 25 minutes
    python -m benches.paths_real --section beside     one of them; may be given several times

Each flow is two processes, the link is one more (benches/shaped/link.c). What is to be reached is printed as "holds" or
"FAILS" and changes no exit code. It takes root; see `benches.shaped`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benches.harness import ROOT, BenchError
from benches.report import Report, Table, say
from benches.shaped import (
    Dialler,
    Home,
    Link,
    Listener,
    Namespace,
    Shape,
    ShapedError,
    behind_nat,
    missing,
)
from burstwire.config import CONGESTION_CONTROLLERS

__all__ = ["SECTIONS", "TABLES", "main", "run"]

TABLES = tuple(f"paths-real-{what}" for what in ("beside", "alone", "transfer", "packets", "moves"))

RATE = 100e6
RTT = 0.040
BDP = int(RATE * RTT / 8)
WIDE = Shape(rate=RATE, delay=RTT / 2, queue=BDP)
"""The link of the figures: 100 Mbit/s, 40 ms, and a queue of what it carries in one round trip."""

WIDE_WORDS = f"100 Mbit/s, 40 ms round trip, no loss, a queue of {BDP:,} bytes (one bandwidth x delay) each way"

Samples = list[list[float]]


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is measured."""

    rounds: int
    seconds: float
    warm: float
    """Seconds that do not count, at the beginning."""
    alone_seconds: float
    outage: float


FULL = Amounts(rounds=3, seconds=40, warm=10, alone_seconds=25, outage=30)
QUICK = Amounts(rounds=1, seconds=6, warm=3, alone_seconds=6, outage=2)


def _controllers() -> list[str]:
    """Those that are meant to hold their own beside others."""
    return [name for name in ("cubic", "bbr") if name in CONGESTION_CONTROLLERS]


def _name(kind: str, controller: str) -> str:
    return f"{'burstwire' if kind == 'ours' else 'kernel TCP'} {controller}"


def _at(samples: Samples, when: float) -> float:
    """Bytes that had come by then, between two samples in proportion."""
    before: list[float] = [when, 0.0]
    for sample in samples:
        if sample[0] >= when:
            span = sample[0] - before[0]
            part = (when - before[0]) / span if span > 0 else 0.0
            return before[1] + part * (sample[1] - before[1])
        before = sample
    return before[1]


def _rate(samples: Samples, start: float, end: float) -> float:
    """Bits per second in between."""
    return 8 * (_at(samples, end) - _at(samples, start)) / (end - start)


def _whole(sent: dict[str, Any], got: dict[str, Any], what: str) -> None:
    if (sent["digest"], sent["bytes"]) != (got["digest"], got["bytes"]):
        raise BenchError(f"{what}: {got['bytes']:,} bytes came, {sent['bytes']:,} were sent, or others")


@dataclass(frozen=True, slots=True)
class Steady:
    """What flows over one link did between warm-up and end: each in bit/s, and what the link saw meanwhile."""

    rates: list[float]
    use: float
    queue: float
    """Seconds that a packet waited, on average."""
    dropped: float
    """Share of the packets that the queue dropped."""
    late: float
    """Seconds that the link's process was late, on average."""
    sent: list[dict[str, Any]]
    samples: list[Samples]


def _steady(kinds: list[tuple[str, str]], shape: Shape, seconds: float, warm: float) -> Steady:
    """Flows of (kind, controller) that begin together on one link."""
    with Namespace() as client, Namespace() as server, Link(client, server, shape) as link, ExitStack() as stack:
        receivers = [
            stack.enter_context(Listener(server, kind, link.addresses[1], controller)) for kind, controller in kinds
        ]
        senders = [stack.enter_context(Dialler(client, peer)) for peer in receivers]
        started = time.monotonic()
        for sender in senders:
            sender.go(seconds=seconds)
        time.sleep(warm)
        before, begun = link.counters()[0], time.monotonic()
        time.sleep(max(0.0, started + seconds - time.monotonic()))
        after, ended = link.counters()[0], time.monotonic()
        sent = [sender.line() for sender in senders]
        got = [receiver.line() for receiver in receivers]
    for (kind, controller), one, other in zip(kinds, sent, got, strict=True):
        _whole(one, other, f"{kind} {controller}")

    def change(name: str) -> float:
        """Of all packets whatever their protocol."""
        return float(sum(after[kind][name] - before[kind][name] for kind in ("udp", "tcp", "other")))

    arrivals = max(after["arrivals"] - before["arrivals"], 1)
    return Steady(
        rates=[_rate(each["samples"], begun, ended) for each in got],
        use=8 * change("delivered_bytes") / (ended - begun) / shape.rate,
        queue=8 * (after["queued"] - before["queued"]) / arrivals / shape.rate,
        dropped=change("full") / max(change("packets"), 1),
        late=(after["late"] - before["late"]) / max(change("delivered"), 1) / 1e9,
        sent=sent,
        samples=[each["samples"] for each in got],
    )


# --- sections --------------------------------------------------------------------------------------------------------


def beside(report: Report, amounts: Amounts) -> None:
    """A connection and a kernel TCP (CUBIC) connection on the same link."""
    table = Table(
        "Beside a kernel TCP (CUBIC) on one link",
        ["flow", "its Mbit/s", "TCP, Mbit/s", "share, %", "lowest", "highest", "link use, %",
         "queue, ms", "dropped, %", "to reach", "reached"],
        name="paths-real-beside",
    )  # fmt: skip
    for kind, controller, other in (
        *(("ours", name, "cubic") for name in _controllers()),
        ("ours", "cubic", "cubic-paced"),
        ("tcp", "cubic", "cubic"),
    ):
        rounds = []
        name = f"{_name(kind, controller)}{', TCP paced' if other != 'cubic' else ''}"
        for _ in range(amounts.rounds):
            rounds.append(_steady([(kind, controller), ("tcp", other)], WIDE, amounts.seconds, amounts.warm))
            say(f"beside: {name}: {' '.join(f'{rate / 1e6:.1f}' for rate in rounds[-1].rates)} Mbit/s")
        shares = [100 * each.rates[0] / sum(each.rates) for each in rounds]
        share = median(shares)
        judged = (kind, controller, other) == ("ours", "cubic", "cubic")
        holds = 100 / 3 <= share <= 200 / 3
        table.add(
            name, *(median(each.rates[flow] for each in rounds) / 1e6 for flow in (0, 1)),
            share, min(shares), max(shares), *_link_cells(rounds),
            "33–67 %" if judged else "–", ("yes" if holds else "NO") if judged else "–",
        )  # fmt: skip
        report.figure(f"paths-real/beside/{name}", shares, "% of both")
        report.raw[f"paths_real_beside_{kind}_{controller}_{other}"] = [
            [each.rates, each.use, each.sent, each.samples] for each in rounds
        ]
        if judged:
            report.target(f"{controller} beside a kernel TCP takes {share:.0f} % of both, a third to two thirds", holds)
    table.notes += [
        f"one link of {WIDE_WORDS}; both begin together; {amounts.seconds:g} s, of which the first {amounts.warm:g} do"
        f" not count; medians of {amounts.rounds} rounds",
        "Mbit/s of application bytes that arrived; link use of IP bytes that left the queue",
        "the last row says what a kernel TCP takes beside one that is the same; TCP paced: as it is under the queueing"
        " discipline fq, instead of in bursts of a millisecond",
        f"the link's process was late by {1e6 * max(each.late for each in rounds):.0f} µs a packet on average",
    ]
    report.add(table)


def _link_cells(rounds: list[Steady]) -> list[float]:
    return [
        100 * median(each.use for each in rounds),
        1e3 * median(each.queue for each in rounds),
        100 * median(each.dropped for each in rounds),
    ]


def alone(report: Report, amounts: Amounts) -> None:
    """One flow at a time on the same link, without and with random loss."""
    table = Table(
        "Alone on a link",
        ["flow", "random loss, %", "Mbit/s", "lowest", "highest", "link use, %", "queue, ms", "dropped, %", "to reach",
         "reached"],
        name="paths-real-alone",
    )  # fmt: skip
    flows = [*(("ours", name) for name in _controllers()), ("tcp", "cubic")]
    for loss in (0.0, 0.01):
        for kind, controller in flows:
            shape = Shape(rate=RATE, delay=RTT / 2, queue=BDP, loss=loss)
            rounds = [
                _steady([(kind, controller)], shape, amounts.alone_seconds, min(amounts.warm, 5))
                for _ in range(amounts.rounds)
            ]
            name = _name(kind, controller)
            rates = [each.rates[0] / 1e6 for each in rounds]
            cells = _link_cells(rounds)
            judged = kind == "ours" and (not loss or controller == "bbr")
            say(f"alone: {name} at {100 * loss:g} %: {' '.join(f'{rate:.1f}' for rate in rates)} Mbit/s")
            table.add(
                name, 100 * loss, median(rates), min(rates), max(rates), *cells,
                "≥ 90 %" if judged else "–", ("yes" if cells[0] >= 90 else "NO") if judged else "–",
            )  # fmt: skip
            report.figure(f"paths-real/alone/{name}/{100 * loss:g} %", rates, "Mbit/s")
            report.raw[f"paths_real_alone_{kind}_{controller}_{loss}"] = [each.sent for each in rounds]
            if judged:
                words = f"{name} alone uses {cells[0]:.0f} % of the link at {100 * loss:g} % loss, at least 90 %"
                report.target(words, cells[0] >= 90)
    table.notes += [
        f"{WIDE_WORDS} but for the random loss, which is of both directions; {amounts.alone_seconds:g} s, of which the"
        f" first {min(amounts.warm, 5):g} do not count; medians of {amounts.rounds} rounds",
    ]
    report.add(table)


def transfer(report: Report, amounts: Amounts) -> None:
    """2.3 MB over 135 ms at 20 Mbit/s (statement 4 of what users of such transports ask for)."""
    table = Table(
        "2.3 MB over 20 Mbit/s and 135 ms",
        ["flow", "random loss, %", "seconds", "best", "worst", "packets lost", "PTOs", "to reach", "reached"],
        name="paths-real-transfer",
    )
    count, rate, delay = 2_300_000, 20e6, 0.135
    queue = int(rate * delay / 8)
    limits = {0.0: 3.0, 0.02: 10.0}
    for loss, limit in limits.items():
        for kind, controller in [*(("ours", name) for name in _controllers()), ("tcp", "cubic")]:
            seconds, lost, expired = [], [], []
            for seed in range(1, amounts.rounds + 1):
                shape = Shape(rate=rate, delay=delay / 2, queue=queue, loss=loss)
                with Namespace() as client, Namespace() as server, Link(client, server, shape, seed=seed) as link:
                    sent, got = _one(client, server, link.addresses[1], kind, controller, count)
                seconds.append(got["ended"] - sent["started"])
                lost.append(sent.get("stats", {}).get("packets_lost", 0))
                expired.append(sent.get("stats", {}).get("pto_expired", 0))
            name = _name(kind, controller)
            holds = max(seconds) <= limit
            ours = kind == "ours"
            say(f"transfer: {name} at {100 * loss:g} %: {' '.join(f'{value:.2f}' for value in seconds)} s")
            table.add(
                name, 100 * loss, median(seconds), min(seconds), max(seconds), median(lost) if ours else "–",
                median(expired) if ours else "–", f"≤ {limit:g} s" if ours else "–",
                ("yes" if holds else "NO") if ours else "–",
            )  # fmt: skip
            report.figure(f"paths-real/transfer/{name}/{100 * loss:g} %", seconds, "s", "less")
            if ours:
                words = (
                    f"{name}: 2.3 MB at {100 * loss:g} % loss take {max(seconds):.2f} s at worst, at most {limit:g} s"
                )
                report.target(words, holds)
    table.notes += [
        f"from the first write to the last byte read, on a connection just made; a queue of {queue:,} bytes; random"
        f" loss in both directions; {amounts.rounds} seeds, the worst one is judged",
    ]
    report.add(table)


def _one(
    client: Namespace,
    server: Namespace,
    address: str,
    kind: str,
    controller: str,
    count: int,
    meanwhile: Callable[[], None] = lambda: None,
    upload: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One flow of so many bytes: what its sender and its receiver say."""
    with (
        Listener(server, kind, address, controller, source=not upload) as listener,
        Dialler(client, listener) as dialler,
    ):
        source, sink = (dialler, listener) if upload else (listener, dialler)
        source.go(count=count)
        meanwhile()
        sent, got = source.line(), sink.line()
    _whole(sent, got, f"{kind} {controller}")
    return sent, got


def packets(report: Report, amounts: Amounts) -> None:
    """Packet sizes: a link of 1,280 bytes, one that becomes narrow, and random loss that is none of that."""
    table = Table(
        "Packet sizes",
        ["link", "MB", "mtu at the end", "least mtu", "IP fragments", "vanished", "silent, ms", "PTOs", "to reach",
         "reached"],
        name="paths-real-packets",
    )  # fmt: skip
    base = Shape(rate=50e6, delay=0.01, queue=125_000)
    megabytes = 100 if amounts.rounds > 1 else 12
    cases: list[tuple[str, float, Shape, dict[str, Any], int, str]] = [
        ("1,280 bytes, IPv4", 10, base, {}, 1280, "no fragment"),
        ("1,280 bytes beyond the first hop", 10, Shape(50e6, 0.01, 125_000, size=1280), {}, 1500, "no fragment"),
        ("a black hole above 1,280 after 1 s", 15, base, {"size": 1280}, 1500, "≤ 3 PTOs"),
        ("15 % random loss after 1 s", megabytes, Shape(50e6, 0.0005, 125_000), {"loss": 0.15}, 1500, "mtu kept"),
    ]
    for name, amount, shape, change, mtu, reach in cases:
        changed = 0.0
        with Namespace() as client, Namespace() as server, Link(client, server, shape, mtu=mtu) as link:

            def meanwhile(link: Link = link, change: dict[str, Any] = change) -> None:
                nonlocal changed
                if change:
                    time.sleep(1)
                    changed = time.monotonic()
                    link.change(**change)

            sent, got = _one(client, server, link.addresses[1], "ours", "cubic", int(amount * 1e6), meanwhile)
            fragments = sum(host.counter("FragCreates") for host in (client, server))
            fragments += sum(each["udp"]["fragments"] for each in link.counters())
            oversize = sum(each["udp"]["oversize"] for each in link.counters())
        if changed >= got["ended"]:
            raise BenchError(f"{name}: everything had arrived before the link changed")
        trace = [each for each in sent["trace"] if each["time"] >= changed] or [sent["stats"]]
        earlier = [each for each in sent["trace"] if each["time"] < changed]
        expired = int(sent["stats"]["pto_expired"] - (earlier[-1]["pto_expired"] if earlier else 0))
        least, found = int(min(each["mtu"] for each in trace)), int(sent["stats"]["mtu"])
        holds = fragments == 0
        if "size" in change:
            holds = holds and expired <= 3 and oversize > 0
        if "loss" in change:
            holds = holds and least >= earlier[-1]["mtu"]
        say(f"packets: {name}: mtu {found}, least {least}, {expired} PTOs, silent for {got['silence'] * 1e3:.0f} ms")
        table.add(
            name, amount, found, least, fragments, oversize, got["silence"] * 1e3, expired, reach,
            "yes" if holds else "NO",
        )  # fmt: skip
        report.target(f"{name}: {reach}", holds)
    table.notes += [
        "50 Mbit/s and 20 ms round trip, with the random loss 1 ms; CUBIC; vanished: packets larger than the link"
        " carries, probes for larger ones among them; PTOs and least mtu from the change on; fragments as both kernels"
        " and the link count them",
    ]
    report.add(table)


def moves(report: Report, amounts: Amounts) -> None:
    """A NAT that forgets its bindings, and a link that is gone for a while, in the middle of a transfer."""
    table = Table(
        "A lost NAT binding, and outages",
        ["what happens", "silent, ms", "best", "worst", "of RTT", "PTOs", "address changes", "to reach", "reached"],
        name="paths-real-moves",
    )
    rate, delay = 30e6, 0.02
    shape = Shape(rate=rate, delay=delay, queue=int(rate * 2 * delay / 8))
    for words, upload in (("new binding, the client sends", True), ("new binding, the client receives", False)):
        silences, expired, moved, limits, trips = [], [], [], [], []
        for seed in range(1, amounts.rounds + 1):
            with behind_nat(shape, seed=seed) as home:
                sent, got, trip, count = _moved(home, 8_000_000, upload, home.rebind)
            silences.append(got["silence"])
            expired.append(count)
            trips.append(trip)
            moved.append(int((got if upload else sent)["stats"]["path_changes"]))
            limits.append(4 * trip + 0.006)  # the PTO: a round trip, at least 1 ms of variance, 5 ms of delayed ACK
        holds = all(each <= limit for each, limit in zip(silences, limits, strict=True)) and set(moved) == {1}
        ratio = median(each / trip for each, trip in zip(silences, trips, strict=True))
        say(f"moves: {words}: silent for {' '.join(f'{1e3 * each:.0f}' for each in silences)} ms")
        table.add(
            words, 1e3 * median(silences), 1e3 * min(silences), 1e3 * max(silences), ratio, max(expired), max(moved),
            "≤ 3 RTT + 1 PTO", "yes" if holds else "NO",
        )  # fmt: skip
        report.figure(f"paths-real/moves/{words}", [1e3 * each for each in silences], "ms", "less")
        report.target(f"{words}: {1e3 * max(silences):.0f} ms at worst, at most 3 RTT + 1 PTO, no byte lost", holds)
    for words, rebind in (("same binding", False), ("new binding", True)):
        with behind_nat(shape) as home:

            def outage(home: Home = home, rebind: bool = rebind) -> None:
                home.link.change(down=True)
                if rebind:
                    home.rebind()
                time.sleep(amounts.outage)
                home.link.change(down=False)

            sent, got, trip, count = _moved(home, 8_000_000, True, outage)
        words = f"{amounts.outage:g} s without a link, {words}"
        holds = got["silence"] <= 2 * amounts.outage + 1
        table.add(
            words, 1e3 * got["silence"], "–", "–", got["silence"] / trip, count, int(got["stats"]["path_changes"]),
            "survived", "yes" if holds else "NO",
        )  # fmt: skip
        report.target(f"{words}: survived, silent for {got['silence']:.1f} s", holds)
    table.notes += [
        "30 Mbit/s, 40 ms round trip, the kernel's NAT (nftables) in a namespace between; 8 MB, after 1 s of which it"
        f" happens; the receiver's longest silence; RTT as the sender knew it then, the queue included;"
        f" {amounts.rounds} rounds, the worst is judged; nobody sends an ICMP message about it",
    ]
    report.add(table)


def _moved(
    home: Home, count: int, upload: bool, happen: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, Any], float, int]:
    """What sender and receiver say, the round trip before it happened, and the PTOs that expired since."""
    when = 0.0

    def meanwhile() -> None:
        nonlocal when
        time.sleep(1)
        when = time.monotonic()
        happen()

    sent, got = _one(home.client, home.server, home.server_address, "ours", "cubic", count, meanwhile, upload)
    before = [each for each in sent["trace"] if each["time"] < when][-1]
    return sent, got, before["rtt"], int(sent["stats"]["pto_expired"] - before["pto_expired"])


SECTIONS: dict[str, Callable[[Report, Amounts], None]] = {
    "beside": beside,
    "alone": alone,
    "transfer": transfer,
    "packets": packets,
    "moves": moves,
}


def run(report: Report, *, quick: bool, sections: list[str] | None = None, amounts: Amounts | None = None) -> None:
    """Measure and print. Raises `BenchError` where there are no shaped links."""
    if why := missing("nft"):
        raise BenchError(f"no shaped links here: {why}")
    for name, section in SECTIONS.items():
        if not sections or name in sections:
            say(f"paths-real: {name}")
            try:
                section(report, amounts or (QUICK if quick else FULL))
            except ShapedError as error:
                raise BenchError(f"{name}: {error}") from error


def main() -> int:
    """What `python -m benches.paths_real` does."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.paths_real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=tuple(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="one short round of everything, about two minutes")
    parser.add_argument("--rounds", type=int, help="instead of 3")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench" / "paths-real", help="for the report")
    options = parser.parse_args()
    amounts = QUICK if options.quick else FULL
    if options.rounds:
        amounts = replace(amounts, rounds=options.rounds)
    report = Report()
    run(report, quick=options.quick, sections=options.section, amounts=amounts)
    for path in report.write(options.output):
        say(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
