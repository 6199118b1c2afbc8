"""Level 0: the books that are kept for every run: ranges of numbers, slots leased and returned."""

from __future__ import annotations

import time
from itertools import repeat
from typing import Any

import pytest

from benches.contest import Contest, Way, note
from burstwire.core import BufferRing
from burstwire.proto.ranges import RangeSet, ReceivedNumbers

RUN = 54


def test_ranges_in_order(benchmark: Any) -> None:
    benchmark.group = "note 1,000 runs"

    def work() -> RangeSet:
        ranges = RangeSet()
        for at in range(0, 1000 * RUN, RUN):
            ranges.add(at, at + RUN)
        return ranges

    assert list(benchmark(work)) == [(0, 1000 * RUN)]
    note(benchmark, "RangeSet, in order", "ns_per_run", 1e9 / 1000)


def test_packets_in_a_set(benchmark: Any) -> None:
    """What a design without runs keeps: every number."""
    benchmark.group = "note 1,000 runs"

    def work() -> set[int]:
        seen: set[int] = set()
        for number in range(1000 * RUN):
            if number not in seen:
                seen.add(number)
        return seen

    assert len(benchmark(work)) == 1000 * RUN
    note(benchmark, "a set of numbers", "ns_per_run", 1e9 / 1000)


def test_received_numbers_in_order(benchmark: Any) -> None:
    benchmark.group = "note 1,000 runs"

    def work() -> ReceivedNumbers:
        numbers = ReceivedNumbers()
        for at in range(0, 1000 * RUN, RUN):
            numbers.note(at, numbers.new_mask(at, RUN))
        return numbers

    assert benchmark(work).ack_ranges() == [(0, 1000 * RUN - 1)]
    note(benchmark, "ReceivedNumbers, in order", "ns_per_run", 1e9 / 1000)


def test_ranges_with_holes(benchmark: Any) -> None:
    """Every tenth run is missing and comes late."""
    benchmark.group = "note 1,000 runs"

    def work() -> RangeSet:
        ranges = RangeSet()
        for late in (False, True):
            for index in range(1000):
                if (index % 10 == 0) == late:
                    ranges.add(index * RUN, index * RUN + RUN)
        return ranges

    assert list(benchmark(work)) == [(0, 1000 * RUN)]
    note(benchmark, "RangeSet, every tenth late", "ns_per_run", 1e9 / 1000)


SLOT = 1 << 16
FRESH = "bytearray, allocated and freed"


def _leased(slots: int) -> Way:
    """Leased, written to, and given back."""
    ring = BufferRing(16)

    def work(count: int) -> float:
        leases = ring.leases
        started = time.perf_counter()
        for _ in repeat(None, count // slots):
            leased = [ring.lease() for _ in range(slots)]
            for slot in leased:
                ring.views[slot][0] = 1
                ring.release(slot)
        seconds = time.perf_counter() - started
        assert ring.leases - leases == count // slots * slots
        assert ring.leased == 0
        assert ring.high_water == slots
        return seconds

    return work


def _allocated(slots: int) -> Way:
    """A new buffer each time: allocated, cleared, written to, freed."""

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count // slots):
            buffers = [bytearray(SLOT) for _ in range(slots)]
            for buffer in buffers:
                buffer[0] = 1
        seconds = time.perf_counter() - started
        assert [len(buffer) for buffer in buffers] == [SLOT] * slots
        return seconds

    return work


BUFFERS = [
    Contest(
        f"buffers of 64 KiB, {slots} at a time",
        "ns_per_buffer",
        {FRESH: _allocated(slots), "BufferRing, leased and returned": _leased(slots)},
        base=FRESH,
        count=2_000,
        quick_count=80,
    )
    for slots in (1, 8)
]


@pytest.mark.parametrize(("contest", "way"), Contest.rows(*BUFFERS), ids=str)
def test_buffers(benchmark: Any, contest: Contest, way: str) -> None:
    contest.report(benchmark, way)
