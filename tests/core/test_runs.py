"""Trains become runs: the C parser against a plain model, packet by packet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from burstwire.core import ANY_LOCAL, BufferRing, RunTable, pack_address
from burstwire.core._burstwire import ffi
from burstwire.core.run import DATA, FILL, GATHER, NO_PACKET, RUN, TRAIN, RunRecord

PATH = pack_address("192.0.2.1", 4000) + pack_address("198.51.100.2", 0)
OTHER = pack_address("192.0.2.1", 4001) + ANY_LOCAL


def data(cid: int, counter: int, size: int = 60) -> bytes:
    return struct.pack(">BIQ", DATA, cid, counter).ljust(size, b"x")[:size]


def model(datagrams: list[bytes], slot: int, ecn: int, path: bytes, start: int = 0) -> list[RunRecord]:
    """The rules of a run, one packet at a time."""
    runs: list[list[int]] = []
    at = start
    for datagram in datagrams:
        n = len(datagram)
        cid = int.from_bytes(datagram[1:5]) if n >= 5 else 0
        kind, counter = datagram[0], 0
        if kind == DATA:
            counter = int.from_bytes(datagram[5:13])
            if n < 29 or counter >= 1 << 62:
                kind, counter = NO_PACKET, 0
        if kind == DATA and runs and runs[-1][7] == DATA:
            first, run_cid, _, _, size, last, count, _ = runs[-1]
            if (
                (cid, counter) == (run_cid, first + count)
                and counter >> 22 == first >> 22
                and last == size >= n
                and count < 64
            ):
                runs[-1][5:7] = [n, count + 1]
                at += n
                continue
        runs.append([counter, cid, slot, at, n, n, 1, kind])
        at += n
    return [(*run, ecn, path) for run in runs]  # type: ignore[misc]


def parse(datagrams: list[bytes], ecn: int = 0, capacity: int = 1024) -> tuple[RunTable, BufferRing, int]:
    ring = BufferRing(2, 65536)
    slot = ring.lease()
    whole = b"".join(datagrams)
    ring.views[slot][: len(whole)] = whole
    table = RunTable(capacity)
    table.parse(ring, slot, len(whole), len(datagrams[0]), PATH, ecn)
    return table, ring, slot


@st.composite
def trains(draw: st.DrawFn) -> list[bytes]:
    """Equal sizes and a short tail, with counters that mostly follow one another."""
    size = draw(st.integers(1, 90))
    count = draw(st.integers(1, 150))
    counter = draw(st.sampled_from([0, 5, (1 << 22) - 3, (1 << 62) - 4, (1 << 62) + 1, (1 << 64) - 900]))
    cid = draw(st.integers(0, (1 << 32) - 1))
    kind = DATA
    datagrams = []
    for _ in range(count):
        change = draw(st.sampled_from(["", "", "", "", "", "", "counter", "cid", "type"]))
        if change == "counter":
            counter = max(0, counter + draw(st.integers(-2, 3)))
        elif change == "cid":
            cid ^= 1
        elif change == "type":
            kind = draw(st.sampled_from([DATA, DATA, 1, 2, 3, 5, 0, 0xFF]))
        packet = struct.pack(">BIQ", kind, cid, counter).ljust(size, b"x")
        datagrams.append(packet[:size])
        counter += 1
    datagrams[-1] = datagrams[-1][: draw(st.integers(1, size))]
    return datagrams


@given(trains(), st.integers(0, 3))
@example([data(7, 10, 40)] * 3, 1)
@example([data(7, i, 40) for i in range(130)], 0)
@example([data(7, i, 29) for i in range(3)] + [data(7, 3, 28)], 0)
def test_runs_are_those_of_the_model(datagrams: list[bytes], ecn: int) -> None:
    table, ring, slot = parse(datagrams, ecn)
    assert list(table.records()) == model(datagrams, slot, ecn, PATH)
    table.release(ring)
    assert ring.leased == 0


def test_a_full_train_is_one_run_and_its_tail_may_be_shorter() -> None:
    datagrams = [data(3, 100 + i, 1200) for i in range(53)] + [data(3, 153, 700)]
    table, _, slot = parse(datagrams, 2)
    assert list(table.records()) == [(100, 3, slot, 0, 1200, 700, 54, DATA, 2, PATH)]


def test_a_run_ends_at_64_packets_and_at_a_key_generation() -> None:
    table, _, _ = parse([data(3, i, 40) for i in range(65)])
    assert [(run[0], run[6]) for run in table.records()] == [(0, 64), (64, 1)]
    edge = 1 << 22
    table, _, _ = parse([data(3, edge - 2 + i, 40) for i in range(4)])
    assert [(run[0], run[6]) for run in table.records()] == [(edge - 2, 2), (edge, 2)]


def test_trains_of_one_slot_join_only_on_the_same_path_with_the_same_mark() -> None:
    def runs(second_path: bytes, second_ecn: int, gap: int = 0) -> list[tuple[int, int, int]]:
        ring = BufferRing(1, 65536)
        slot = ring.lease()
        ring.views[slot][:80] = data(9, 1, 40) + data(9, 2, 40)
        ring.views[slot][80 + gap : 160 + gap] = data(9, 3, 40) + data(9, 4, 40)
        table = RunTable()
        table.parse(ring, slot, 80, 40, PATH, 1)
        table.parse(ring, slot, 80, 40, second_path, second_ecn, start=80 + gap)
        return [(run[0], run[3], run[6]) for run in table.records()]

    assert runs(PATH, 1) == [(1, 0, 4)]
    assert runs(OTHER, 1) == [(1, 0, 2), (3, 80, 2)]
    assert runs(PATH, 3) == [(1, 0, 2), (3, 80, 2)]
    assert runs(PATH, 1, gap=8) == [(1, 0, 2), (3, 88, 2)]


def test_a_packet_behind_a_short_one_starts_its_own_run() -> None:
    ring = BufferRing(1, 65536)
    slot = ring.lease()
    ring.views[slot][:110] = data(9, 1, 40) + data(9, 2, 30) + data(9, 3, 40)
    table = RunTable()
    table.parse(ring, slot, 70, 40, PATH, 0)
    table.parse(ring, slot, 40, 0, PATH, 0, start=70)
    assert [(run[0], run[6], run[5]) for run in table.records()] == [(1, 2, 30), (3, 1, 40)]


def test_what_does_not_fit_the_table_is_dropped_and_counted() -> None:
    table, ring, _ = parse([bytes([1]) + bytes(39)] * 10, capacity=4)
    assert table.count == 4
    assert table.overflow == 6
    table.release(ring)
    assert ring.leased == 0


def test_clearing_forgets_runs_and_releasing_returns_slots_once() -> None:
    table, ring, slot = parse([data(1, 1)])
    table.clear()
    assert (table.count, table.held, ring.leased) == (0, [slot], 1)
    table.release(ring)
    table.release(ring)
    assert (table.held, ring.leased) == ([], 0)


def test_releasing_a_slot_that_was_returned_before_is_an_error() -> None:
    table, ring, slot = parse([data(1, 1)])
    ring.release(slot)
    with pytest.raises(ValueError, match="given back before"):
        table.release(ring)


def test_trains_that_lie_nowhere_are_refused() -> None:
    ring = BufferRing(2, 4096)
    slot = ring.lease()
    table = RunTable(16, held=1)
    for where, length, segment, path, ecn, start in [
        (slot, 4097, 0, PATH, 0, 0),
        (slot, 1, 0, PATH, 0, 4096),
        (slot, 0, 0, PATH, 0, 0),
        (slot, 40, 0, PATH, 4, 0),
        (slot, 40, 0, PATH[:47], 0, 0),
        (slot, 40, 65536, PATH, 0, 0),
        (slot, -1, 0, PATH, 0, 0),
        (1 - slot, 40, 0, PATH, 0, 0),
        (7, 40, 0, PATH, 0, 0),
    ]:
        with pytest.raises(ValueError, match=r"."):
            table.parse(ring, where, length, segment, path, ecn, start)
    assert (table.count, table.held) == (0, [])
    table.parse(ring, slot, 40, 0, PATH, 0)
    with pytest.raises(ValueError, match="ENOBUFS"):
        table.parse(ring, ring.lease(), 40, 0, PATH, 0)


def test_structs_have_the_same_size_on_both_sides() -> None:
    sizes = {"bw_run": (RUN, 80), "bw_train": (TRAIN, 72), "bw_fill": (FILL, 72), "bw_gather": (GATHER, 80)}
    for name, (layout, size) in sizes.items():
        assert layout.size == size == ffi.sizeof(name)
