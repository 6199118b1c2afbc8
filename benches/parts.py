"""What a run of `python -m benches` consists of, in its order, and the tables that each part makes.

Parts are imported when they run: what knows their names needs none of the packages that they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from benches import pytests
from benches.report import Report, slug

__all__ = ["PARTS", "Part", "table_names"]


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        module: of this package; its `run` measures, and adds tables, figures and verdicts to a report.
        tables: the names of its tables, by which documents quote them.
        seconds: about how long a full run takes. quick_seconds: the same of a quick one.
    """

    module: str
    tables: tuple[str, ...]
    seconds: float
    quick_seconds: float

    def run(self, report: Report, *, quick: bool) -> None:
        """Measure; raises `ValueError` when it makes a table that is not among `tables`."""
        before = len(report.tables)
        import_module(f"benches.{self.module}").run(report, quick=quick)
        unknown = {table.name for table in report.tables[before:]} - set(self.tables)
        if unknown:
            raise ValueError(f"{self.module} makes tables that it does not name: {', '.join(sorted(unknown))}")


PARTS: dict[str, Part] = {
    "relation": Part("relation", ("relation-bulk", "relation-calls"), 40, 15),
    "memory": Part("memory", ("memory-stream", "memory-idle"), 40, 7),
    "backpressure": Part(
        "backpressure",
        (slug("Accepted from the writer and delivered to the reader, when the last write returned"),),
        5,
        1,
    ),
    "hostile": Part("hostile", (slug("Hostile datagrams at an endpoint with a live connection"),), 60, 2),
    "levels": Part("pytests", pytests.TABLES, 480, 35),
    "path": Part(
        "packet_path",
        (
            slug("The way out of a packet of 1,364 bytes"),
            slug("What the design claims, and what it comes to in Python"),
        ),
        30,
        8,
    ),
    "figures": Part("figures", ("figures",), 200, 0),
    "pipes": Part("pipes", ("bulk-by-size",), 120, 13),
    "profiles": Part(
        "profiles",
        tuple(
            f"profile-{what}"
            for what in ("bulk-1200", "bulk-discovered", "buffer", "crowd", "echo", "messages", "handshakes")
        ),
        85,
        0,
    ),
    "peers": Part(
        "beside", tuple(f"peers-{task}" for task in ("bulk", "echo", "messages", "many", "handshakes")), 420, 30
    ),
}
"""Those with limits first."""


def table_names() -> set[str]:
    """Every table that a full run makes."""
    return {name for part in PARTS.values() for name in part.tables}
