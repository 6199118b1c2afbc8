"""docs/limits.md against the code, and the sum of all limits against what is really taken."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from burstwire import Config, limits

TEXT = (Path(__file__).parent.parent / "docs/limits.md").read_text(encoding="utf-8")
SETTINGS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\| [^|]+ \| `[a-z_]+` \|.*$", TEXT, re.M)
]
NUMBERS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\| [^|]+ \| [\d,]+ \| [a-z_.]+[A-Z_]+ \|.*$", TEXT, re.M)
]
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def number(shown: str) -> float | None:
    """A figure as the document shows it."""
    if shown == "None":
        return None
    figure, _, unit = shown.replace(",", "").partition(" ")
    return float(figure) * UNITS.get(unit, 1)


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_every_setting_is_a_limit_that_is_listed_or_a_choice_that_is_named(field: dataclasses.Field[object]) -> None:
    rows = [row for row in SETTINGS if row[1] == f"`{field.name}`"]
    choices = re.findall(r"`([a-z_]+)`", TEXT.partition("Choices that limit nothing:")[2].partition(".")[0])
    assert (len(rows) == 1) != (field.name in choices)
    if rows:
        assert number(rows[0][2]) == field.default
        assert rows[0][3], "what happens"


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row[2])
def test_every_number_is_that_of_the_code(row: list[str]) -> None:
    module, _, name = row[2].rpartition(".")
    assert getattr(importlib.import_module(f"burstwire.{module}"), name) == number(row[1])


def test_every_bounded_table_of_the_protocol_is_listed() -> None:
    """Constants that are called a maximum are limits."""
    folder = Path(limits.__file__).parent / "proto"
    for path in folder.glob("*.py"):
        for name in re.findall(r"^(MAX_[A-Z_]+)\b.* = ", path.read_text(encoding="utf-8"), re.M):
            place = f"proto.{path.stem}.{name}"
            assert place in TEXT or place in NO_TABLES, f"{place} is not in docs/limits.md"


NO_TABLES = {
    "proto.attempts.MAX_BACKOFF",
    "proto.attempts.MAX_PROMPT_RESENDS",
    "proto.intake.MAX_SPAN",
    "proto.mtu.MAX_PROBES",
    "proto.negotiation.MAX_DATAGRAM_FRAME",
    "proto.pacing.MAX_BURST",
    "proto.negotiation.MAX_REASON",
    "proto.outbox.MAX_SEGMENTS",
    "proto.outbox.MAX_TRAIN",
    "proto.recovery.MAX_BACKOFF",
}
"""Maxima of something else than what is kept."""


def test_no_row_of_the_document_is_overlooked() -> None:
    assert len(SETTINGS) + len(NUMBERS) == sum(line.startswith("| ") for line in TEXT.splitlines()) - 2


def test_smaller_settings_make_the_worst_case_smaller_and_every_one_counts() -> None:
    base = Config()
    worst = limits.worst_case(base)
    assert worst.total == sum(worst.endpoint.values()) + base.max_connections * worst.per_connection
    for name in (
        "max_connections",
        "max_streams",
        "stream_window",
        "connection_window",
        "max_message_size",
        "max_datagrams",
        "datagram_buffer",
        "max_half_open",
        "max_known_initiates",
        "accept_backlog",
        "receive_slots",
        "send_slots",
        "socket_receive_buffer",
        "socket_send_buffer",
    ):
        half = limits.worst_case(base.replace(**{name: getattr(base, name) // 2}))
        assert half.total < worst.total, name
    for name in ("send_buffer", "max_sent_records", "datagram_buffer"):
        half = limits.worst_case(base.replace(**{name: getattr(base, name) // 2}))
        assert sum(half.application.values()) < sum(worst.application.values()), name
    assert "the message in assembly" in str(worst)
