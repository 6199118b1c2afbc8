"""Packet counters, the half of each nonce that must never repeat under a key.

A counter only grows; reserving a range is one atomic step in C, so that threads never get the same number;
and the memory is wiped in the child of a fork (MADV_WIPEONFORK), so that a child can never continue its
parent's counters.
"""

from __future__ import annotations

import errno
from typing import Any

from burstwire.core._burstwire import ffi, lib
from burstwire.core._errno import describe
from burstwire.errors import CryptoError

__all__ = ["COUNTER_LIMIT", "CounterPool"]

COUNTER_LIMIT = 1 << 62
"""Counters are smaller: a packet number must fit the varint of an ACK frame (RFC 9000 §16)."""

_MEANING = {
    -errno.EOWNERDEAD: "this process is the child of a fork, and counters never cross one",
    -errno.ENOENT: "the counter is not in use",
    -errno.ERANGE: "there is no such counter",
    -errno.EBADF: "the pool is closed",
}


class CounterPool:
    """Counters by index; the memory grows by chunks of at least `capacity`.

    `reserve`, `skip_to` and `peek` may be called by any thread, `acquire` and `release` by one at a time.
    """

    def __init__(self, capacity: int = 511) -> None:
        """The default fills one page. Raises `ValueError` unless 1 <= capacity <= 2^24."""
        if not 1 <= capacity <= 1 << 24:
            raise ValueError(f"a chunk holds from 1 to 16,777,216 counters, not {capacity:,}")
        self._capacity = capacity
        self._chunks: list[Any] = []
        self._chunk_size = 0
        self._free: list[int] = []
        self._grow()

    def acquire(self) -> int:
        """The index of a counter that starts at 0. Raises `CryptoError` in the child of a fork."""
        if not self._free:
            self._grow()
        index = self._free[-1]
        self._check(lib.bw_counter_start(*self._place(index)), index)
        self._free.pop()
        return index

    def release(self, index: int) -> None:
        """Stop a counter: its key is gone, and the index will be handed out again."""
        self._check(lib.bw_counter_stop(*self._place(index)), index)
        self._free.append(index)

    def reserve(self, index: int, n: int) -> int:
        """The first of `n` consecutive counters that nobody else gets.

        Raises `CryptoError` when 2^62 would be reached, in the child of a fork, or when the counter is not in
        use.
        """
        if not 1 <= n < 1 << 32:
            raise ValueError(f"from 1 to 2^32 - 1 counters can be reserved, not {n:,}")
        size = self._chunk_size
        if not 0 <= index < size * len(self._chunks):
            raise CryptoError(f"counter {index}: there is no such counter")
        first = lib.bw_counter_reserve(self._chunks[index // size], index % size, n)
        if first < 0:
            self._check(first, index)
        return first

    def skip_to(self, index: int, value: int) -> None:
        """Let the next counter be `value`. Raises `ValueError` when that is a step back, `CryptoError` as
        `reserve`.
        """
        if not 0 <= value <= COUNTER_LIMIT:
            raise ValueError(f"a counter is from 0 to 2^62, not {value:,}")
        self._check(lib.bw_counter_skip(*self._place(index), value), index)

    def peek(self, index: int) -> int:
        """The counter that the next `reserve` returns, if nobody else reserves before."""
        value = lib.bw_counter_peek(*self._place(index))
        self._check(value, index)
        return value

    def _place(self, index: int) -> tuple[Any, int]:
        chunk, rest = divmod(index, self._chunk_size)
        if not 0 <= chunk < len(self._chunks):
            raise CryptoError(f"counter {index}: there is no such counter")
        return self._chunks[chunk], rest

    def _grow(self) -> None:
        chunk = lib.bw_counters_new(self._capacity)
        if chunk == ffi.NULL:
            raise MemoryError(f"no memory for {self._capacity:,} counters")
        self._chunks.append(ffi.gc(chunk, lib.bw_counters_free))
        self._chunk_size = lib.bw_counters_capacity(chunk)
        first = self._chunk_size * (len(self._chunks) - 1)
        self._free.extend(range(first + self._chunk_size - 1, first - 1, -1))

    @staticmethod
    def _check(code: int, index: int) -> None:
        if code >= 0:
            return
        if code == -errno.EINVAL:
            raise ValueError(f"counter {index} cannot go back: that would repeat nonces")
        if code == -errno.EOVERFLOW:
            raise CryptoError(f"counter {index} is used up: 2^62 packets under one key are the limit")
        raise CryptoError(f"counter {index}: {_MEANING.get(code) or describe(code)}")
