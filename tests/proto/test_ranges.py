"""RangeSet and ReceivedNumbers against plain Python sets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from burstwire.proto.ranges import MAX_RECEIVED_RANGES, RangeSet, ReceivedNumbers

TOP = 200
number = st.integers(0, TOP)
damage = st.one_of(st.just(0), st.integers(0, 2**64 - 1))  # packets of a run that do not open


def ranges_of(numbers: set[int]) -> list[tuple[int, int]]:
    """The half-open ranges of a set, found the slow way."""
    found: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == n:
            found[-1] = (found[-1][0], n + 1)
        else:
            found.append((n, n + 1))
    return found


class RangeSetModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.real = RangeSet()
        self.model: set[int] = set()

    @rule(lo=number, length=st.integers(-2, 60))
    def add(self, lo: int, length: int) -> None:
        new = set(range(lo, lo + length))
        assert self.real.add(lo, lo + length) == len(new - self.model)
        self.model |= new

    @rule(length=st.integers(1, 20), gap=st.integers(0, 3))
    def add_at_the_end(self, length: int, gap: int) -> None:
        self.add(max(self.model, default=-1) + 1 + gap, length)

    @rule(lo=number, length=st.integers(-2, 60))
    def remove(self, lo: int, length: int) -> None:
        gone = set(range(lo, lo + length))
        assert self.real.remove(lo, lo + length) == len(gone & self.model)
        self.model -= gone

    @rule(n=st.integers(0, 40))
    def pop_first(self, n: int) -> None:
        popped = self.real.pop_first(n)
        if not self.model or n == 0:
            assert popped is None
            return
        lo, hi = ranges_of(self.model)[0]
        assert popped == (lo, min(hi, lo + n))
        self.model -= set(range(*popped))

    @rule(lo=number, length=st.integers(0, 80))
    def ask(self, lo: int, length: int) -> None:
        asked = set(range(lo, lo + length))
        assert self.real.contains_range(lo, lo + length) == (asked <= self.model)
        assert list(self.real.missing(lo, lo + length)) == ranges_of(asked - self.model)
        assert (lo in self.real) == (lo in self.model)
        end = lo
        while end in self.model:
            end += 1
        assert self.real.end_from(lo) == end

    @rule()
    def clear(self) -> None:
        self.real.clear()
        self.model.clear()

    @invariant()
    def same(self) -> None:
        assert list(self.real) == ranges_of(self.model)
        assert self.real.total == len(self.model)
        assert len(self.real) == len(ranges_of(self.model))
        assert bool(self.real) == bool(self.model)
        if self.model:
            assert (self.real.first, self.real.last) == (min(self.model), max(self.model))


TestRangeSetModel = RangeSetModel.TestCase
TestRangeSetModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def bits(counter: int, mask: int) -> set[int]:
    return {counter + i for i in range(mask.bit_length()) if mask >> i & 1}


class ReceivedModel(RuleBasedStateMachine):
    """Few ranges are allowed, so that the floor rises often."""

    @initialize(limit=st.integers(1, 12))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.real = ReceivedNumbers(limit)
        self.seen: set[int] = set()
        self.model: set[int] = set()

    def arrive(self, counter: int, count: int, damaged: int) -> None:
        floor = self.real.floor
        fresh = self.real.new_mask(counter, count)
        asked = set(range(counter, counter + count))
        assert bits(counter, fresh) == {n for n in asked - self.model if n >= floor}
        opened = fresh & ~damaged
        assert not bits(counter, opened) & self.seen, "a number was accepted twice"
        assert self.real.note(counter, opened) == opened
        self.seen |= bits(counter, opened)
        self.model |= bits(counter, opened)
        excess = len(ranges_of(self.model)) - self.limit
        if excess > 0:
            end = ranges_of(self.model)[excess - 1][1]
            self.model = {n for n in self.model if n >= end}
            assert self.real.floor == end
        else:
            assert self.real.floor == floor

    @rule(count=st.integers(1, 64), gap=st.integers(0, 3), damaged=damage)
    def in_order(self, count: int, gap: int, damaged: int) -> None:
        self.arrive(self.real.largest + 1 + gap, count, damaged)

    @rule(back=st.integers(0, 300), count=st.integers(1, 64), damaged=damage)
    def late(self, back: int, count: int, damaged: int) -> None:
        self.arrive(max(0, self.real.largest - back), count, damaged)

    @rule(back=st.integers(0, 100), count=st.integers(1, 64))
    def a_copy_in_the_same_batch_is_not_new_again(self, back: int, count: int) -> None:
        counter = max(0, self.real.largest - back)
        both = self.real.new_mask(counter, count)
        self.arrive(counter, count, 0)
        assert self.real.note(counter, both) == 0

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "real"):
            return
        expected = ranges_of(self.model)
        assert self.real.ack_ranges(1000) == [(lo, hi - 1) for lo, hi in reversed(expected)]
        assert self.real.ack_ranges(3) == [(lo, hi - 1) for lo, hi in reversed(expected)][:3]
        assert self.real.largest == max(self.seen, default=-1)
        assert len(self.real) == len(expected) <= self.limit
        for n in list(self.model)[:5]:
            assert n in self.real


TestReceivedModel = ReceivedModel.TestCase
TestReceivedModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.permutations(range(40)), st.integers(1, 5))
def test_every_order_of_arrival_ends_in_one_range(order: list[int], size: int) -> None:
    received = ReceivedNumbers()
    for n in order:
        assert received.new_mask(n * size, size) == (1 << size) - 1
        assert received.note(n * size, (1 << size) - 1) == (1 << size) - 1
        assert received.new_mask(n * size, size) == 0
    assert received.ack_ranges() == [(0, 40 * size - 1)]


def test_a_hole_a_packet_never_needs_more_than_the_limit() -> None:
    received = ReceivedNumbers()
    for n in range(0, 10_000, 2):
        received.note(n, 1)
    assert len(received) == MAX_RECEIVED_RANGES
    kept = range(10_000 - 2 * MAX_RECEIVED_RANGES, 10_000, 2)
    assert received.floor == kept[0] - 1
    assert received.new_mask(received.floor - 3, 6) == 0b101000  # the floor itself is a hole
    assert len(received.ack_ranges()) == 64


def test_what_the_peer_knows_is_left_out_of_the_ack() -> None:
    received = ReceivedNumbers()
    for n in (1, 5, 6, 9):
        received.note(n, 1)
    assert received.ack_ranges(low=6) == [(9, 9), (5, 6)]
    assert received.ack_ranges(low=7) == [(9, 9)]
    assert received.ack_ranges(low=10) == []


def test_the_largest_numbers_of_the_protocol_fit() -> None:
    received = ReceivedNumbers()
    top = 2**62 - 64
    assert received.note(top, 2**64 - 1) == 2**64 - 1
    assert received.ack_ranges() == [(top, 2**62 - 1)]
    assert received.new_mask(top - 1, 64) == 1


def test_an_empty_set_has_no_first() -> None:
    with pytest.raises(IndexError):
        _ = RangeSet().first
