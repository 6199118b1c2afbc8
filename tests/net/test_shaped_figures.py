"""What `benches.paths_real` measures with: flows as processes, and how their samples become figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benches.paths_real import SECTIONS, TABLES, _at, _rate
from benches.shaped import Dialler, Link, Listener, Namespace, Shape, ShapedError
from support.shaped import shaped

ROOT = Path(__file__).resolve().parents[2]
COUNT = 300_000


def test_what_had_come_between_two_samples_is_in_proportion() -> None:
    samples = [[10.0, 100], [12.0, 300], [12.0, 400], [20.0, 800]]
    assert [_at(samples, when) for when in (9, 10, 11, 12, 16, 99)] == [0, 100, 200, 300, 600, 800]
    assert _rate(samples, 12.0, 20.0) == 8 * 500 / 8


def test_the_document_quotes_each_table_of_the_part_once() -> None:
    text = (ROOT / "docs" / "paths-real.md").read_text(encoding="utf-8")
    assert re.findall(r"^<!-- table: (\S+) -->$", text, re.M) == list(TABLES)
    assert [f"paths-real-{name}" for name in SECTIONS] == list(TABLES)
    marks = re.findall(r"^<!-- (table|end)\b", text, re.M)
    assert marks == ["table", "end"] * len(TABLES)


@shaped
@pytest.mark.parametrize("upload", [True, False], ids=["client sends", "server sends"])
@pytest.mark.parametrize("kind", ["ours", "tcp"])
def test_both_ends_of_a_flow_tell_the_same(kind: str, upload: bool) -> None:
    shape = Shape(rate=50e6, delay=0.002, queue=64_000)
    with (
        Namespace() as client,
        Namespace() as server,
        Link(client, server, shape) as link,
        Listener(server, kind, link.addresses[1], source=not upload) as listener,
        Dialler(client, listener) as dialler,
    ):
        source, sink = (dialler, listener) if upload else (listener, dialler)
        source.go(count=COUNT)
        sent, got = source.line(), sink.line()
        crossed = link.counters()[0 if upload else 1]["udp" if kind == "ours" else "tcp"]
    assert (sent["bytes"], got["bytes"]) == (COUNT, COUNT)
    assert sent["digest"] == got["digest"]
    assert got["samples"][-1][1] <= COUNT
    assert sent["started"] <= got["ended"]
    assert crossed["bytes"] > COUNT


@shaped
def test_a_flow_that_ends_early_is_an_error() -> None:
    with Namespace() as host, pytest.raises(ShapedError, match="ended"):
        Listener(host, "tcp", "192.0.2.1")  # nobody's address
