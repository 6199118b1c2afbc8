"""Level 0: where nonces come from. Random ones, as a library's example would make them; counters, one by one; a
run's."""

from __future__ import annotations

import itertools
import os
import secrets
from typing import Any

import pytest

from burstwire.core import BufferRing, CounterPool, FillTable, StreamRing

RUN = 64
SIZE = 1000


@pytest.mark.parametrize("source", [os.urandom, secrets.token_bytes], ids=("urandom", "secrets"))
def test_random_nonce(benchmark: Any, source: Any) -> None:
    benchmark.group = "one nonce"
    assert len(benchmark(source, 12)) == 12


def test_counter_nonce_in_python(benchmark: Any) -> None:
    benchmark.group = "one nonce"
    counter = itertools.count()
    prefix = bytes(4)

    def nonce() -> bytes:
        return prefix + next(counter).to_bytes(8, "big")

    assert len(benchmark(nonce)) == 12


def test_counter_reserved_from_c(benchmark: Any) -> None:
    benchmark.group = "one nonce"
    pool = CounterPool()
    index = pool.acquire()
    before = pool.peek(index)
    last = benchmark(pool.reserve, index, 1)
    assert pool.peek(index) == last + 1 > before


def test_random_nonces_of_a_run(benchmark: Any) -> None:
    benchmark.group = "64 nonces"
    made = benchmark(lambda: [os.urandom(12) for _ in range(RUN)])
    assert len(set(made)) == RUN


def test_counters_of_a_run(benchmark: Any) -> None:
    """One reservation; the nonces are the header bytes that framing writes anyway, so they cost nothing more."""
    benchmark.group = "64 nonces"
    pool = CounterPool()
    index = pool.acquire()
    last = benchmark(pool.reserve, index, RUN)
    assert pool.peek(index) == last + RUN


def test_counters_and_framing_of_a_run(benchmark: Any) -> None:
    """The same with the headers, frames and 64 KB of payload that go with it."""
    benchmark.group = "64 nonces"
    pool = CounterPool()
    index = pool.acquire()
    ring = BufferRing(1)
    slot = ring.lease()
    source = StreamRing(1 << 16)
    table = FillTable()

    def work() -> int:
        first = pool.reserve(index, RUN)
        table.clear()
        table.append(first, 0, source.address, source.mask, 7, 4, slot, 0, RUN * (SIZE - 42), SIZE, RUN, 0)
        table.run(ring)
        return first

    first = benchmark(work)
    for packet in range(RUN):
        header = bytes(ring.views[slot][packet * SIZE : packet * SIZE + 13])
        assert header == b"\x10" + (7).to_bytes(4, "big") + (first + packet).to_bytes(8, "big")
