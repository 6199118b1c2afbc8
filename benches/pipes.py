"""Bulk by packet size and back end, beside the same pipe without reliability in Python, and all in C.

The pipes say what framing, sealing, the kernel, opening and copying cost on their own: see `benches.pipe`. What is
missing to them is the price of being reliable, and of the event loop.
"""

from __future__ import annotations

from benches.figures import c_pipe, pipe
from benches.harness import compare, middle, missing, rehearse, rounds_of, servers
from benches.machine import conditions_of
from benches.peers import PeerChoice, ours
from benches.pipe_c import available
from benches.report import Report, Table, percentage, say
from burstwire.crypto.aead import backends

__all__ = ["run"]

SIZES = (1200, 1452, 8900, 65507)
QUICK_SIZES = (1200,)
"""Bytes of a datagram: the least, an Ethernet path's, a jumbo one's, and the most that UDP carries."""


def run(report: Report, *, quick: bool) -> None:
    """Measure and print."""
    rounds, seconds = (1, 0.2) if quick else (3, 0.5)
    for aead in backends():
        reason = available(aead)
        if reason:
            say(f"pipes: no C pipe on {aead}: {reason}")
    columns = ["datagram", "AEAD", "burstwire, MB/s", "pipe, MB/s", "burstwire is", "C pipe, MB/s", "burstwire is"]
    table = Table("Bulk by size of the datagrams, beside the pipes", columns, name="bulk-by-size")
    raw = report.raw["pipes"] = []
    about = None
    for size in QUICK_SIZES if quick else SIZES:
        say(f"pipes: datagrams of {size:,} bytes")
        choices: dict[tuple[str, str], PeerChoice] = {}
        for aead in backends():
            choices[aead, "burstwire"] = ours(f"burstwire {size} {aead}", datagram=size, aead=aead)
            choices[aead, "pipe"] = pipe(size, aead)
            if not available(aead):
                choices[aead, "C pipe"] = c_pipe(size, aead)
        with servers([choice for choice in choices.values() if not missing(choice)]) as running:
            counts, failed = rehearse(running, "bulk", seconds)
            results = compare({name: running[name] for name in counts}, "bulk", counts, rounds)
        table.notes += [f"{name} failed: {why}" for name, why in failed.items()]
        for aead in backends():
            rates: dict[str, float] = {}
            for kind in ("burstwire", "pipe", "C pipe"):
                choice = choices.get((aead, kind))
                if choice is not None and choice.name in results:
                    rates[kind] = middle(results[choice.name], "rate") / 1e6
                    each = rounds_of(results[choice.name], "rate", 1e-6)
                    report.figure(f"pipes/{choice.name}", each, "MB/s")
                    about = results[choice.name][-1]["about"] if kind == "burstwire" else about
            raw.append({"size": size, "aead": aead, "rates": rates})
            own = rates.get("burstwire", 0.0)
            cells: list[object] = [own]
            for kind in ("pipe", "C pipe"):
                cells += [rates.get(kind, "–"), percentage(own, rates.get(kind, 0.0))]
            table.add(f"{size:,} bytes", aead, *cells)
    table.notes.append(f"medians of {rounds} interleaved rounds, two processes on loopback, one flow")
    if about is not None:
        table.notes.append(conditions_of(about).replace(f"by {about['aead']}", "by the back end of the row"))
    report.add(table)
