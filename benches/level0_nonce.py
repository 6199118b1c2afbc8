"""Level 0: where nonces come from. Random ones, as a library's example makes them; counters, one by one; a run's.

A nonce is 12 bytes: a counter alone, or connection ID (4) and counter (8). burstwire makes none of them as objects: one
C call reserves the counters of a run, and the call that frames it writes them as bytes 1 to 12 of each header.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from itertools import repeat
from struct import Struct
from typing import Any

import pytest

from benches.contest import Contest, Way, each
from burstwire.core import BufferRing, CounterPool, FillTable, StreamRing

RUN = 64
SHORTEST = 43
"""Bytes of a packet with one byte of stream data: framing then is little but the header."""

CID = 7
RANDOM = "random, os.urandom"
RUN_GROUP = "nonces of a run of 64"


def _random_run(count: int) -> float:
    started = time.perf_counter()
    for _ in repeat(None, count // RUN + 1):
        made = [os.urandom(12) for _ in range(RUN)]
    assert len(set(made)) == RUN
    return (time.perf_counter() - started) * count / ((count // RUN + 1) * RUN)


def _counter() -> Way:
    counter = itertools.count()
    return each(lambda: next(counter).to_bytes(12, "big"))


def _counter_and_id() -> Way:
    counter = itertools.count()
    pack = Struct(">IQ").pack
    assert pack(CID, 1) == CID.to_bytes(4, "big") + (1).to_bytes(8, "big")
    return each(lambda: pack(CID, next(counter)))


def _counter_run(count: int) -> float:
    """64 nonces as objects, in one comprehension."""
    pack = Struct(">IQ").pack
    first = 0
    started = time.perf_counter()
    for _ in repeat(None, count // RUN + 1):
        made = [pack(CID, number) for number in range(first, first + RUN)]
        first += RUN
    seconds = time.perf_counter() - started
    assert made[-1] == pack(CID, first - 1)
    return seconds * count / first


class _Pool:
    """One counter in C."""

    def __init__(self) -> None:
        self.pool = CounterPool()
        self.index = self.pool.acquire()

    def one_by_one(self, count: int) -> float:
        before = self.pool.peek(self.index)
        seconds = each(self.pool.reserve, self.index, 1)(count)
        assert self.pool.peek(self.index) == before + count
        return seconds

    def by_run(self, count: int) -> float:
        runs = count // RUN + 1
        before = self.pool.peek(self.index)
        seconds = each(self.pool.reserve, self.index, RUN)(runs)
        assert self.pool.peek(self.index) == before + runs * RUN
        return seconds * count / (runs * RUN)


class _Framing(_Pool):
    """The same, and the nonces written: 64 headers, and the frame headers that come with them."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = BufferRing(1)
        self.slot = self.ring.lease()
        self.source = StreamRing(1 << 12)
        self.table = FillTable()

    def by_run(self, count: int) -> float:
        runs = count // RUN + 1
        pool, index, table, ring, slot = self.pool, self.index, self.table, self.ring, self.slot
        address, mask = self.source.address, self.source.mask
        started = time.perf_counter()
        for _ in repeat(None, runs):
            first = pool.reserve(index, RUN)
            table.clear()
            table.append(first, 0, address, mask, CID, 4, slot, 0, RUN, SHORTEST, RUN, 0)
            table.run(ring)
        seconds = time.perf_counter() - started
        for packet in range(RUN):
            header = bytes(ring.views[slot][packet * SHORTEST : packet * SHORTEST + 13])
            assert header == b"\x10" + CID.to_bytes(4, "big") + (first + packet).to_bytes(8, "big")
        return seconds * count / (runs * RUN)


def _random(source: Any) -> Way:
    assert len(source(12)) == 12
    assert source(12) != source(12)
    return each(source, 12)


ONE_BY_ONE = Contest(
    "nonces one by one",
    "ns_per_nonce",
    {
        RANDOM: _random(os.urandom),
        "random, secrets.token_bytes": _random(secrets.token_bytes),
        "counter": _counter(),
        "connection ID and counter": _counter_and_id(),
        "counter reserved in C, no bytes made": _Pool().one_by_one,
    },
    base=RANDOM,
    count=20_000,
    targets={"counter": 4.0, "connection ID and counter": 4.0},
    claims={"connection ID and counter": 5.5},
)

BY_RUN = Contest(
    RUN_GROUP,
    "ns_per_nonce",
    {
        RANDOM: _random_run,
        "connection ID and counter as bytes": _counter_run,
        "reserved by one C call": _Pool().by_run,
        "reserved and written into 64 headers, two C calls": _Framing().by_run,
    },
    base=RANDOM,
    count=200 * RUN,
    targets={"reserved by one C call": 50.0},
)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(ONE_BY_ONE, BY_RUN), ids=str)
def test_nonces(benchmark: Any, contest: Contest, way: str) -> None:
    contest.report(benchmark, way)
