"""The sent log against a model that keeps one entry for each packet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.proto.sent import SentLog, SentRecord, bit_runs


@given(st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_bit_runs_cover_exactly_the_ones(mask):
    rebuilt = 0
    previous = -1
    for low, high in bit_runs(mask):
        assert previous < low < high, "runs are in order, not empty and not adjacent"
        rebuilt |= (1 << high) - (1 << low)
        previous = high
    assert rebuilt == mask


@st.composite
def histories(draw):
    """Records with gaps in their numbers, then ACK frames over numbers that were sent."""
    records = []
    number = 0
    for _ in range(draw(st.integers(1, 8))):
        number += draw(st.integers(0, 3))
        count = draw(st.integers(1, 64))
        records.append((number, count, draw(st.integers(30, 1500))))
        number += count
    acks = draw(
        st.lists(
            st.lists(st.tuples(st.integers(0, number - 1), st.integers(0, 80)), min_size=1, max_size=6), max_size=6
        )
    )
    return records, acks


def as_ranges(pairs, largest):
    """Inclusive ranges, descending and disjoint, as an ACK frame has them."""
    numbers = sorted({n for low, span in pairs for n in range(low, min(low + span, largest) + 1)})
    ranges = []
    for n in numbers:
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1] = (ranges[-1][0], n)
        else:
            ranges.append((n, n))
    return ranges[::-1]


@settings(max_examples=200)
@given(histories(), st.integers(1, 5))
def test_every_packet_leaves_the_flight_exactly_once_whatever_is_acknowledged_or_lost(history, threshold):
    records, acks = history
    log = SentLog()
    state = {}  # number: [size, "pending" | "lost" | "acked", order]
    for first, count, size in records:
        for i in range(count):
            state[first + i] = [size, "pending", len(state)]
        log.add(SentRecord(first, count, log.sent, size, 0.0))
    largest_sent = max(state)
    largest_acked = largest_order = -1
    for pairs in acks:
        ranges = as_ranges(pairs, largest_sent)
        named = {n for low, high in ranges for n in range(low, high + 1)} & state.keys()
        news = log.acknowledge(ranges)
        told_pending = {r.first + i for r, pending, _ in news for i in range(r.count) if pending >> i & 1}
        told_lost = {r.first + i for r, _, late in news for i in range(r.count) if late >> i & 1}
        assert told_pending == {n for n in named if state[n][1] == "pending"}
        assert told_lost == {n for n in named if state[n][1] == "lost"}
        for n in named:
            state[n][1] = "acked"
        largest_acked = max(largest_acked, ranges[0][1])
        largest_order = max((entry[2] for n, entry in state.items() if n <= largest_acked), default=-1)
        lost, deadline = log.detect(now=1.0, delay=10.0, threshold=threshold)
        told = {r.first + i for r, mask in lost for i in range(r.count) if mask >> i & 1}
        expected = {
            n
            for n, (_, what, order) in state.items()
            if what == "pending" and n < largest_acked and order <= largest_order - threshold
        }
        assert told == expected
        for n in told:
            state[n][1] = "lost"
        waiting = any(what == "pending" and n < largest_acked for n, (_, what, _) in state.items())
        assert (deadline is not None) == waiting
        assert log.in_flight == sum(size for size, what, _ in state.values() if what == "pending")


def test_packets_sent_long_before_an_acknowledged_one_are_lost_by_time():
    log = SentLog()
    log.add(SentRecord(0, 1, 0, 1200, 1.0))
    log.add(SentRecord(1, 1, 1, 1200, 2.0))
    log.acknowledge([(1, 1)])
    lost, deadline = log.detect(now=1.5, delay=1.0, threshold=3)
    assert (lost, deadline) == ([], 2.0)
    lost, deadline = log.detect(now=2.0, delay=1.0, threshold=3)
    assert [(record.first, mask) for record, mask in lost] == [(0, 1)]
    assert deadline is None
    assert log.in_flight == 0


def test_a_lost_packet_is_remembered_for_a_late_acknowledgement_until_it_expires():
    log = SentLog()
    for number in range(5):
        log.add(SentRecord(number, 1, number, 100, float(number)))
    log.acknowledge([(4, 4)])
    lost, _ = log.detect(now=4.0, delay=100.0, threshold=3)
    assert [record.first for record, _ in lost] == [0, 1]
    assert [(record.first, late) for record, _, late in log.acknowledge([(0, 0)])] == [(0, 1)]
    log.expire(before=3.0)
    assert log.acknowledge([(1, 1)]) == []


def test_a_skipped_number_in_an_ack_is_found():
    log = SentLog()
    log.skipped.append(7)
    assert log.acks_unsent([(8, 9), (0, 6)]) is None
    assert log.acks_unsent([(0, 9)]) == 7


@pytest.mark.parametrize("count", [1, 64])
def test_discarding_settles_everything(count):
    log = SentLog()
    log.add(SentRecord(0, count, 0, 1200, 0.0))
    log.discard()
    assert log.in_flight == 0
    assert log.acknowledge([(0, count - 1)]) == []
