"""What a run of `python -m benches` consists of, in its order, and the tables that each part makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benches import backpressure, beside, figures, hostile, levels, memory, packet_path, pipes, relation
from benches.report import slug

__all__ = ["PARTS", "Part", "table_names"]


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        run: measures, and adds tables, figures and verdicts to a report.
        tables: the names of its tables, by which documents quote them.
        seconds: about how long a full run takes. quick_seconds: the same of a quick one.
    """

    run: Callable[..., None]
    tables: tuple[str, ...]
    seconds: float
    quick_seconds: float


PARTS: dict[str, Part] = {
    "relation": Part(relation.run, relation.TABLES, 40, 12),
    "memory": Part(memory.run, memory.TABLES, 60, 10),
    "backpressure": Part(
        backpressure.run,
        (slug("Accepted from the writer and delivered to the reader, when the last write returned"),),
        5,
        2,
    ),
    "hostile": Part(hostile.run, (slug("Hostile datagrams at an endpoint with a live connection"),), 60, 10),
    "levels": Part(levels.run, levels.TABLES, 400, 40),
    "path": Part(
        packet_path.run,
        (
            slug("The way out of a packet of 1,364 bytes"),
            slug("What the design claims, and what it comes to in Python"),
        ),
        30,
        10,
    ),
    "figures": Part(figures.run, figures.TABLES, 300, 0),
    "pipes": Part(pipes.run, pipes.TABLES, 90, 15),
    "peers": Part(beside.run, beside.TABLES, 300, 25),
}
"""Those with limits first."""


def table_names() -> set[str]:
    """Every table that a full run makes."""
    return {name for part in PARTS.values() for name in part.tables}
