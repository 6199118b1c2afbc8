"""Level 0: the books that are kept for every run: ranges of numbers, slots leased and returned."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_received_numbers_in_order(benchmark: Any) -> None:
    benchmark.group = "note 1,000 runs"

    def work() -> ReceivedNumbers:
        numbers = ReceivedNumbers()
        for at in range(0, 1000 * RUN, RUN):
            numbers.note(at, numbers.new_mask(at, RUN))
        return numbers

    assert benchmark(work).ack_ranges() == [(0, 1000 * RUN - 1)]


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


@pytest.mark.parametrize("slots", [1, 8])
def test_lease_and_return(benchmark: Any, slots: int) -> None:
    benchmark.group = f"{slots} buffers of 64 KiB"
    ring = BufferRing(16)

    def work() -> None:
        leased = [ring.lease() for _ in range(slots)]
        for slot in leased:
            ring.views[slot][0] = 1
            ring.release(slot)

    benchmark(work)
    assert ring.leased == 0
    assert ring.high_water == slots


@pytest.mark.parametrize("slots", [1, 8])
def test_allocate(benchmark: Any, slots: int) -> None:
    """A new buffer each time: allocated, cleared, freed."""
    benchmark.group = f"{slots} buffers of 64 KiB"

    def work() -> list[bytearray]:
        buffers = [bytearray(65536) for _ in range(slots)]
        for buffer in buffers:
            buffer[0] = 1
        return buffers

    assert len(benchmark(work)) == slots
