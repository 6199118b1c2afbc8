"""The bytes that bulk carries, and how the receiver knows them again without slowing the transport down.

The sender repeats `PERIOD` fixed bytes, so that it costs it nothing to make them. In timed runs the receiver compares
both ends of each chunk with what belongs at that offset of the stream, and counts; once in each comparison, outside
the timing, it hashes every byte instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256, shake_128
from typing import Any

__all__ = ["BLOCK", "Checker", "blocks", "digest"]

BLOCK = 256 * 1024
"""Bytes handed over by one write."""

COUNT = 5
PERIOD = COUNT * BLOCK
"""1.25 MiB: no power of two, so that nothing aligned to a ring's size passes for its neighbour; and it stays in a
cache."""

SAMPLE = 32
"""Bytes compared at each end of a chunk."""

_cache: list[bytes] = []


def _blocks() -> list[bytes]:
    if not _cache:
        whole = shake_128(b"burstwire benches").digest(PERIOD)
        _cache.extend(whole[at : at + BLOCK] for at in range(0, PERIOD, BLOCK))
    return _cache


def blocks(size: int) -> Iterator[bytes]:
    """`size` bytes in blocks; the last may be shorter."""
    known = _blocks()
    for index in range(size // BLOCK):
        yield known[index % COUNT]
    if size % BLOCK:
        yield known[size // BLOCK % COUNT][: size % BLOCK]


def digest(size: int) -> str:
    """SHA-256 of `blocks(size)`."""
    hasher = sha256()
    for block in blocks(size):
        hasher.update(block)
    return hasher.hexdigest()


class Checker:
    """The sink of a bulk transfer: counts and compares; raises `AssertionError` at the first wrong byte it looks at."""

    def __init__(self, *, hash_all: bool) -> None:
        self.size = 0
        self.chunks = 0
        self._hasher = sha256() if hash_all else None
        whole = b"".join(_blocks())
        self._expected = whole + whole[:SAMPLE]

    def __call__(self, chunk: Any, size: int) -> None:
        at = self.size % PERIOD
        n = min(SAMPLE, size)
        if chunk[:n] != self._expected[at : at + n]:
            raise AssertionError(f"wrong bytes at offset {self.size:,} of the stream")
        self.size += size
        at = (self.size - n) % PERIOD
        if chunk[size - n : size] != self._expected[at : at + n]:
            raise AssertionError(f"wrong bytes at offset {self.size - n:,} of the stream")
        self.chunks += 1
        if self._hasher is not None:
            self._hasher.update(memoryview(chunk)[:size])

    def hexdigest(self) -> str:
        """SHA-256 of everything, or "" when only samples were compared."""
        return "" if self._hasher is None else self._hasher.hexdigest()
