"""The ring's promise: every slot has at most one owner, and the books balance."""

from __future__ import annotations

import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from burstwire.core import BufferRing


class Books(RuleBasedStateMachine):
    """Leases and releases in any order, against a model that is a plain stack."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = BufferRing(slots=4, slot_size=256)
        self.free = [3, 2, 1, 0]
        self.leased: set[int] = set()
        self.high_water = 0
        self.exhausted = 0

    @rule()
    def lease(self) -> None:
        slot = self.ring.lease()
        if not self.free:
            self.exhausted += 1
            assert slot == -1
            return
        assert slot == self.free.pop()
        self.leased.add(slot)
        self.high_water = max(self.high_water, len(self.leased))

    @rule(slot=st.integers(-2, 6))
    def release(self, slot: int) -> None:
        if slot in self.leased:
            self.ring.release(slot)
            self.leased.remove(slot)
            self.free.append(slot)
        else:
            with pytest.raises(ValueError, match=f"slot {slot}"):
                self.ring.release(slot)

    @invariant()
    def books_balance(self) -> None:
        assert self.ring.leased == len(self.leased)
        assert self.ring.high_water == self.high_water
        assert self.ring.exhausted == self.exhausted


TestBooks = Books.TestCase


def test_a_slot_is_returned_only_once() -> None:
    ring = BufferRing(2, 256)
    slot = ring.lease()
    ring.release(slot)
    with pytest.raises(ValueError, match="not leased"):
        ring.release(slot)
    assert ring.leased == 0


def test_the_slot_returned_last_is_leased_next() -> None:
    ring = BufferRing(8, 256)
    first, second = ring.lease(), ring.lease()
    ring.release(first)
    ring.release(second)
    assert [ring.lease(), ring.lease()] == [second, first]


def test_views_do_not_overlap_and_are_writable() -> None:
    ring = BufferRing(3, 4096)
    for i, view in enumerate(ring.views):
        assert len(view) == 4096
        view[:] = bytes([i + 1]) * 4096
    assert [set(view) for view in ring.views] == [{1}, {2}, {3}]


def test_a_view_keeps_the_memory_alive_after_the_ring_is_gone() -> None:
    ring = BufferRing(2, 65536)
    view = ring.views[1]
    view[:4] = b"abcd"
    ring.close()
    del ring
    assert bytes(view[:4]) == b"abcd"
    view[-1] = 7


def test_a_closed_ring_says_so() -> None:
    ring = BufferRing(2, 256)
    ring.close()
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.lease()
    with pytest.raises(ValueError, match="closed"):
        ring.release(0)


@pytest.mark.parametrize(("slots", "size"), [(0, 256), (4097, 256), (1, 63), (1, (1 << 20) + 1), (-1, 256)])
def test_impossible_rings_are_refused(slots: int, size: int) -> None:
    with pytest.raises(ValueError, match="slots"):
        BufferRing(slots, size)


def test_threads_never_share_a_slot() -> None:
    ring = BufferRing(8, 256)
    owners = [0] * 8
    wrong: list[int] = []

    def work(me: int) -> None:
        for _ in range(3000):
            slot = ring.lease()
            if slot < 0:
                continue
            owners[slot] = me
            if owners[slot] != me:
                wrong.append(slot)
            ring.release(slot)

    threads = [threading.Thread(target=work, args=(i + 1,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert ring.leased == 0


def test_packet_views_lie_where_the_packets_do() -> None:
    ring = BufferRing(2, 4096)
    ring.views[1][:] = bytes(i % 251 for i in range(4096))
    whole = bytes(ring.views[1])
    for start in (0, 77):
        views = ring.packets(1, start, 100, 5)
        assert len(views) >= 5
        for i, (nonce, header, plain, sealed) in enumerate(views[:5]):
            packet = whole[start + 100 * i : start + 100 * (i + 1)]
            assert bytes(nonce) == packet[1:13]
            assert bytes(header) == packet[:13]
            assert bytes(plain) == packet[13:84]
            assert bytes(sealed) == packet[13:]


def test_packet_views_are_reused_for_two_sizes_and_a_lone_packet_evicts_none() -> None:
    ring = BufferRing(2, 4096)
    first = ring.packets(0, 0, 100, 4)
    second = ring.packets(0, 0, 120, 4)
    ring.packets(0, 0, 60, 1)
    ring.packets(0, 50, 70, 3)
    assert ring.packets(0, 0, 100, 4) is first
    assert ring.packets(0, 0, 120, 2) is second
    assert ring.packets(0, 0, 100, 9)[3][0] is first[3][0]
    ring.packets(0, 0, 140, 2)
    assert ring.packets(0, 0, 100, 4) is not first


def test_packet_views_never_leave_the_slot() -> None:
    ring = BufferRing(2, 4096)
    for start, size, count in ((0, 100, 41), (4000, 100, 1), (0, 28, 1), (-1, 100, 1)):
        with pytest.raises(ValueError, match="do not fit"):
            ring.packets(0, start, size, count)
