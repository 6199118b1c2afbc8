"""Sets of numbers kept as ranges: bytes of a stream, and the packet numbers that arrived.

Invariant of both classes: two lists of equal length hold the ascending, disjoint, non-touching half-open
ranges `[lo, hi)`. Everything is O(log n + ranges touched); at the high end, the usual case, it is O(1).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["MAX_RECEIVED_RANGES", "RangeSet", "ReceivedNumbers"]

MAX_RECEIVED_RANGES = 512
"""Ranges of packet numbers remembered for each connection. Every lost packet leaves a hole for ever (numbers
are not used twice), so the table must forget; 512 holes are some round trips of heavy loss in 8 KiB."""

NOTHING: list[int] = []
"""In place of the lists of a set that holds nothing, as most of a connection's do; never changed."""


class RangeSet:
    """A set of integers >= 0 for dense numbers such as stream offsets.

    Truth value: whether it holds anything. Iteration gives the ranges `(lo, hi)` upwards, `len` counts them.

    Attributes:
        total: how many numbers are in the set.
    """

    __slots__ = ("_his", "_los", "total")

    def __init__(self) -> None:
        self._los = self._his = NOTHING
        self.total = 0

    def __repr__(self) -> str:
        return f"RangeSet({', '.join(f'{lo}..{hi}' for lo, hi in self)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._los == other._los and self._his == other._his

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._los, self._his, strict=True)

    def __len__(self) -> int:
        return len(self._los)

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._his, number)
        return i < len(self._los) and self._los[i] <= number

    @property
    def first(self) -> int:
        """The lowest number; IndexError when empty."""
        return self._los[0]

    @property
    def last(self) -> int:
        """The highest number (inclusive); IndexError when empty."""
        return self._his[-1] - 1

    def contains_range(self, lo: int, hi: int) -> bool:
        """Whether every number of `[lo, hi)` is in the set (an empty range always is)."""
        if lo >= hi:
            return True
        i = bisect_right(self._his, lo)
        return i < len(self._los) and self._los[i] <= lo and hi <= self._his[i]

    def end_from(self, lo: int) -> int:
        """The end (exclusive) of the unbroken stretch that starts at `lo`; `lo` when it is not in the set."""
        i = bisect_right(self._his, lo)
        return self._his[i] if i < len(self._los) and self._los[i] <= lo else lo

    def add(self, lo: int, hi: int) -> int:
        """Add `[lo, hi)`; how many of its numbers were new. An empty range adds nothing."""
        if lo >= hi:
            return 0
        los, his = self._los, self._his
        if his is NOTHING:
            self._los, self._his = [lo], [hi]
            self.total = hi - lo
            return hi - lo
        if not his or lo > his[-1]:
            los.append(lo)
            his.append(hi)
            self.total += hi - lo
            return hi - lo
        if lo >= los[-1]:
            fresh = hi - his[-1]
            if fresh <= 0:
                return 0
            his[-1] = hi
            self.total += fresh
            return fresh
        i = bisect_left(his, lo)  # the first range that reaches up to lo, or touches it
        j = bisect_right(los, hi, i)  # the first one that starts beyond hi
        if i == j:
            los.insert(i, lo)
            his.insert(i, hi)
            self.total += hi - lo
            return hi - lo
        old = sum(his[i:j]) - sum(los[i:j])
        lo, hi = min(lo, los[i]), max(hi, his[j - 1])
        los[i:j] = (lo,)
        his[i:j] = (hi,)
        self.total += hi - lo - old
        return hi - lo - old

    def remove(self, lo: int, hi: int) -> int:
        """Take `[lo, hi)` out; how many numbers went."""
        los, his = self._los, self._his
        if lo >= hi or not his or lo >= his[-1]:
            return 0
        i = bisect_right(his, lo)  # the first range that ends beyond lo
        j = bisect_left(los, hi, i)  # the first one that starts at or beyond hi
        if i == j:
            return 0
        gone = sum(his[i:j]) - sum(los[i:j])
        new_los: list[int] = []
        new_his: list[int] = []
        if los[i] < lo:
            new_los.append(los[i])
            new_his.append(lo)
            gone -= lo - los[i]
        if hi < his[j - 1]:
            new_los.append(hi)
            new_his.append(his[j - 1])
            gone -= his[j - 1] - hi
        los[i:j] = new_los
        his[i:j] = new_his
        self.total -= gone
        return gone

    def missing(self, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """The gaps of `[lo, hi)`, upwards, as `(lo, hi)`. The set must not change meanwhile."""
        i = bisect_right(self._his, lo)
        while lo < hi:
            if i == len(self._los) or self._los[i] >= hi:
                yield lo, hi
                return
            if lo < self._los[i]:
                yield lo, self._los[i]
            lo = self._his[i]
            i += 1

    def pop_first(self, n: int) -> tuple[int, int] | None:
        """Take out at most `n` numbers, the lowest of the lowest range, as `(lo, hi)`; None when empty."""
        if not self._los or n <= 0:
            return None
        lo, hi = self._los[0], self._his[0]
        if hi - lo > n:
            hi = lo + n
            self._los[0] = hi
        else:
            del self._los[0], self._his[0]
        self.total -= hi - lo
        return lo, hi

    def clear(self) -> None:
        """Take everything out."""
        self._los.clear()
        self._his.clear()
        self.total = 0


class ReceivedNumbers:
    """The packet numbers that arrived on one connection: duplicate suppression and the source of ACK frames.

    Numbers below `floor` count as seen. At most `limit` ranges are kept: one more drops the lowest and raises
    `floor` to its end, so a very late packet may be dropped unseen but none is ever taken twice
    (RFC 9000 §13.2.3).

    A duplicate must be dropped before it is opened, and a number may be noted only after that: ask `new_mask`
    first, open, then `note` what verified. `note` gives back what was new at that moment; two copies in one
    batch are told apart there.

    Attributes:
        floor: nothing below is accepted any more.
        largest: the highest number noted, -1 before the first.
    """

    __slots__ = ("_his", "_limit", "_los", "floor", "largest")

    def __init__(self, limit: int = MAX_RECEIVED_RANGES) -> None:
        self._los: list[int] = []
        self._his: list[int] = []
        self._limit = limit
        self.floor = 0
        self.largest = -1

    def __len__(self) -> int:
        return len(self._los)

    def __contains__(self, number: int) -> bool:
        """Whether `number` was noted and is still remembered."""
        i = bisect_right(self._his, number)
        return i < len(self._los) and self._los[i] <= number

    def new_mask(self, counter: int, count: int) -> int:
        """Which of `count` numbers from `counter` on are new: bit i stands for counter + i."""
        mask = (1 << count) - 1
        if counter > self.largest:
            return mask
        if counter < self.floor:
            mask = mask >> (self.floor - counter) << (self.floor - counter)
        los, his = self._los, self._his
        end = counter + count
        i = bisect_right(his, counter)
        while i < len(los) and los[i] < end:
            lo, hi = max(los[i], counter), min(his[i], end)
            mask &= ~(((1 << (hi - lo)) - 1) << (lo - counter))
            i += 1
        return mask

    def note(self, counter: int, mask: int) -> int:
        """Remember counter + i for every bit i of `mask`; the bits that were new."""
        if not mask:
            return 0
        if counter > self.largest:
            if not mask & (mask + 1):  # no hole: the usual case
                end = counter + mask.bit_length()
                if self._his and counter == self._his[-1]:
                    self._his[-1] = end
                else:
                    self._los.append(counter)
                    self._his.append(end)
                    if len(self._los) > self._limit:
                        self._forget()
                self.largest = end - 1
                return mask
        else:
            mask &= self.new_mask(counter, mask.bit_length())
            if not mask:
                return 0
        rest, base = mask, counter
        while rest:
            zeros = (rest & -rest).bit_length() - 1
            rest >>= zeros
            base += zeros
            ones = (~rest & (rest + 1)).bit_length() - 1
            rest >>= ones
            self._add(base, base + ones)
            base += ones
        self.largest = max(self.largest, base - 1)
        if len(self._los) > self._limit:
            self._forget()
        return mask

    def ack_ranges(self, limit: int = 64, low: int = 0) -> list[tuple[int, int]]:
        """What to acknowledge: at most `limit` ranges `(lo, hi)`, inclusive, downwards (RFC 9000 §19.3.1).

        Ranges that lie wholly below `low` are left out: the peer knows them, once it acknowledged an ACK of
        ours that named them (RFC 9000 §13.2.4).
        """
        los, his = self._los, self._his
        if len(los) == 1:  # nothing was ever lost
            return [(los[0], his[0] - 1)]
        first = max(0, len(los) - limit, bisect_right(his, low) if low else 0)
        return [(los[i], his[i] - 1) for i in range(len(los) - 1, first - 1, -1)]

    def _add(self, lo: int, hi: int) -> None:
        """Add `[lo, hi)`, none of which is in the set."""
        los, his = self._los, self._his
        i = bisect_left(his, lo)
        left = i < len(his) and his[i] == lo
        k = i + 1 if left else i
        right = k < len(los) and los[k] == hi
        if left and right:
            his[i] = his[k]
            del los[k], his[k]
        elif left:
            his[i] = hi
        elif right:
            los[k] = lo
        else:
            los.insert(i, lo)
            his.insert(i, hi)

    def _forget(self) -> None:
        """Drop the lowest ranges beyond the limit."""
        excess = len(self._los) - self._limit
        self.floor = max(self.floor, self._his[excess - 1])
        del self._los[:excess], self._his[:excess]
