"""Who stays and who goes when the table of half-open handshakes is full or old."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from burstwire.proto.halfopen import HalfOpen, HalfOpenTable


def entry(cid: int, proven: bool = False) -> HalfOpen:
    return HalfOpen(
        cid.to_bytes(32), b"respond", cast(Any, SimpleNamespace(local_cid=cid, path=bytes(48))), None, proven, 0.0
    )


def cids(table: HalfOpenTable) -> list[int]:
    return [cid for cid in range(100) if cid in table]


def test_an_entry_is_found_by_connection_id_and_by_source_until_it_is_removed() -> None:
    table = HalfOpenTable(4, 10.0)
    one = entry(7)
    table.add(one, 0.0)
    assert table.get(7) is one
    assert table.find((7).to_bytes(32), bytes(24)) is one
    assert table.find((7).to_bytes(32), b"x" * 24) is None
    assert table.remove(7) is one
    assert table.remove(7) is None
    assert table.get(7) is None
    assert table.find((7).to_bytes(32), bytes(24)) is None
    assert len(table) == 0
    assert table.next_expiry is None


def test_the_oldest_unproven_entry_goes_before_any_proven_one() -> None:
    table = HalfOpenTable(3, 10.0)
    for cid, proven in ((1, True), (2, False), (3, False)):
        assert not table.add(entry(cid, proven), 0.0)
    assert table.add(entry(4, True), 1.0)
    assert cids(table) == [1, 3, 4]
    assert table.add(entry(5, True), 1.0)
    assert cids(table) == [1, 4, 5]
    assert table.add(entry(6, True), 1.0)
    assert cids(table) == [4, 5, 6]
    assert len(table) == 3


def test_proving_moves_an_entry_out_of_the_first_line_and_renews_it() -> None:
    table = HalfOpenTable(2, 10.0)
    one, two = entry(1), entry(2)
    table.add(one, 0.0)
    table.add(two, 0.0)
    table.prove(one, 5.0)
    table.prove(one, 8.0)  # once is enough
    assert table.add(entry(3, True), 5.0)
    assert cids(table) == [1, 3]
    assert table.expire(14.9) == 0
    assert table.expire(15.0) == 2


def test_entries_expire_in_time_and_the_next_expiry_is_told() -> None:
    table = HalfOpenTable(8, 10.0)
    table.add(entry(1), 0.0)
    table.add(entry(2, True), 1.0)
    table.add(entry(3), 2.0)
    assert table.next_expiry == 10.0
    assert table.expire(9.99) == 0
    assert table.expire(11.0) == 2
    assert cids(table) == [3]
    assert table.next_expiry == 12.0


def test_the_table_is_crowded_when_half_is_unproven_or_all_is_taken() -> None:
    table = HalfOpenTable(4, 10.0)
    assert not table.crowded
    table.add(entry(1), 0.0)
    assert not table.crowded
    table.add(entry(2), 0.0)
    assert table.crowded
    table.remove(1)
    assert not table.crowded
    for cid in (3, 4, 5):
        table.add(entry(cid, True), 0.0)
    assert table.crowded
