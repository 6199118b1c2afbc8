"""Attacks and faults: small amounts in `make test`, all of them with `make test-hard`, whose outcomes are a report.

`python -m benches.quote build/hard/report.json docs/security.md` puts that report into the document.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from benches.report import Report, Table

Kind = Literal["attacks", "faults", "demands"]

TITLES: dict[Kind, str] = {"attacks": "Attacks", "faults": "Faults", "demands": "Statements"}
REPORT = Path("build/hard")

_rows = pytest.StashKey[dict[Kind, list[tuple[str, str, str]]]]()


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this run is `make test-hard`, with the amounts that documents speak of; otherwise small ones."""
    return bool(request.config.getoption("--hard"))


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Callable[[Kind, str, str], None]:
    """`outcome(kind, what, figures)`: one row of a table in docs/security.md, also printed (`pytest -s` shows it).

    `what` is the attack or fault in words, `figures` what was measured, with units: load held, memory, time to recover.
    """
    path, _, name = request.node.nodeid.partition("::")
    name = name.partition("[")[0]

    def note(kind: Kind, what: str, figures: str) -> None:
        print(f"{what}: {figures}")
        rows = request.config.stash.setdefault(_rows, {kind: [] for kind in TITLES})
        rows[kind].append((what, f"`{path}::{name}`", figures))

    return note


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash.get(_rows, None)
    if rows is None or not session.config.getoption("--hard"):
        return
    report = Report()
    for kind, title in TITLES.items():
        table = Table(title, ["what", "test", "measured"], name=f"hard-{kind}")
        for row in rows[kind]:
            table.add(*row)
        report.tables.append(table)
    report.write(REPORT)
