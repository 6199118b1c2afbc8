"""Level 0: headers, varints and frames, and the ways to cut a stream into packets."""

from __future__ import annotations

import time
from itertools import repeat
from typing import Any

import pytest

from benches.contest import Contest, Way, note
from burstwire.core import BufferRing, FillTable, GatherTable, RunTable, StreamRing
from burstwire.wire import frames, varint
from burstwire.wire.header import DATA, HEADER

PACKET = 1200
PAYLOAD = PACKET - 42
RUN = 54
"""Packets of a run that fills a slot."""

PATH = bytes(48)


@pytest.mark.parametrize("value", [1, 1000, 1 << 20, 1 << 40], ids=("1 byte", "2 bytes", "4 bytes", "8 bytes"))
def test_varint_there_and_back(benchmark: Any, value: int) -> None:
    benchmark.group = "varint"
    assert benchmark(lambda: varint.decode(varint.encode(value), 0)[0]) == value
    note(benchmark, f"{len(varint.encode(value))} bytes there and back")


def test_header_there_and_back(benchmark: Any) -> None:
    benchmark.group = "header"
    buffer = bytearray(PACKET)

    def work() -> Any:
        HEADER.pack_into(buffer, 0, DATA, 7, 12345)
        return HEADER.unpack_from(buffer)

    assert benchmark(work) == (DATA, 7, 12345)
    note(benchmark, "there and back")


@pytest.mark.parametrize("ranges", [1, 8, 64])
def test_ack_there_and_back(benchmark: Any, ranges: int) -> None:
    benchmark.group = "ACK frame"
    named = [(10_000 - 20 * index - 9, 10_000 - 20 * index) for index in range(ranges)]
    parsed = benchmark(lambda: frames.parse(frames.encode_ack(named, 100)))
    assert parsed[0][3] == named
    note(benchmark, f"{ranges} ranges there and back")


def test_stream_frame_there_and_back(benchmark: Any) -> None:
    benchmark.group = "STREAM frame"
    data = bytes(PAYLOAD)
    parsed = benchmark(lambda: frames.parse(frames.encode_stream(4, 1 << 20, data)))
    assert bytes(parsed[0][3]) == data
    note(benchmark, f"{PAYLOAD:,} bytes there and back")


def test_parse_a_run(benchmark: Any) -> None:
    """One C call finds the runs of a train, however many packets it has."""
    benchmark.group = "54 headers"
    ring, table = BufferRing(1), RunTable()
    slot = ring.lease()
    for index in range(RUN):
        HEADER.pack_into(ring.views[slot], index * PACKET, DATA, 7, 100 + index)

    def work() -> Any:
        table.clear()
        table.parse(ring, slot, RUN * PACKET, PACKET, PATH, 0)
        found = list(table.records())
        table.release(ring)
        ring.lease()
        return found

    found = benchmark(work)
    assert [(record[0], record[6]) for record in found] == [(100, RUN)]
    note(benchmark, "RunTable, one C call", "ns_per_packet", 1e9 / RUN)


def test_parse_packet_by_packet(benchmark: Any) -> None:
    benchmark.group = "54 headers"
    train = b"".join(HEADER.pack(DATA, 7, 100 + index) + bytes(PACKET - 13) for index in range(RUN))

    def work() -> list[tuple[int, ...]]:
        return [HEADER.unpack_from(train, at) for at in range(0, len(train), PACKET)]

    assert benchmark(work)[-1] == (DATA, 7, 100 + RUN - 1)
    note(benchmark, "struct, packet by packet", "ns_per_packet", 1e9 / RUN)


SIZES = (4 << 10, 64 << 10, 1 << 20)
SLICES = "slices, new bytes"


def _slices(size: int) -> Way:
    """Each packet a new `bytes`: header, frame, a slice of the data."""
    data = _pattern(size)

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            packets = []
            for number, at in enumerate(range(0, size, PAYLOAD)):
                piece = data[at : at + PAYLOAD]
                packets.append(HEADER.pack(DATA, 7, number) + frames.encode_run_stream(4, at, piece))
        seconds = time.perf_counter() - started
        assert b"".join([packet[26:] for packet in packets]) == data
        return seconds

    return work


def _views(size: int) -> Way:
    """Each packet written into one preallocated buffer."""
    data = _pattern(size)
    source = memoryview(data)
    packets = -(-size // PAYLOAD)
    target = memoryview(bytearray(packets * PACKET))
    prefix = frames.encode_run_stream(4, 0, b"")[:5]

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            to = 0
            for number, at in enumerate(range(0, size, PAYLOAD)):
                piece = source[at : at + PAYLOAD]
                HEADER.pack_into(target, to, DATA, 7, number)
                target[to + 13 : to + 18] = prefix
                target[to + 18 : to + 26] = (at | 3 << 62).to_bytes(8, "big")
                target[to + 26 : to + 26 + len(piece)] = piece
                to += PACKET
        seconds = time.perf_counter() - started
        framed = [bytes(target[at + 26 : at + 26 + PAYLOAD]) for at in range(0, packets * PACKET, PACKET)]
        assert b"".join(framed)[:size] == data
        return seconds

    return work


def _filled(size: int) -> Way:
    """All packets of all trains in one C call, from the stream's ring."""
    data = _pattern(size)
    source = StreamRing(size)
    source.write(0, data)
    ring = BufferRing(size // (RUN * PAYLOAD) + 1)
    slots = [ring.lease() for _ in range(ring.slots)]
    table = FillTable()

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            table.clear()
            at = number = 0
            for slot in slots:
                length = min(RUN * PAYLOAD, size - at)
                packets = -(-length // PAYLOAD)
                table.append(number, at, source.address, source.mask, 7, 4, slot, 0, length, PACKET, packets, 0)
                at += length
                number += packets
            table.run(ring)
        seconds = time.perf_counter() - started
        framed = [
            bytes(ring.views[slot][to + 26 : to + 26 + PAYLOAD])
            for slot in slots
            for to in range(0, RUN * PACKET, PACKET)
        ]
        assert b"".join(framed)[:size] == data
        return seconds

    return work


def _pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


FRAGMENT = [
    Contest(
        f"cut {size >> 10:,} KiB into packets",
        "us_per_block",
        {SLICES: _slices(size), "memoryview into one buffer": _views(size), "FillTable, one C call": _filled(size)},
        base=SLICES,
        count=max(4, (2 << 20) // size),
        quick_count=2,
        scale=1e6,
    )
    for size in SIZES
]


def _sliced_back() -> Way:
    packets = [
        HEADER.pack(DATA, 7, number) + frames.encode_run_stream(4, number * PAYLOAD, bytes(PAYLOAD))
        for number in range(RUN)
    ]

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            data = b"".join([bytes(frames.parse(packet[13:])[0][3]) for packet in packets])
        seconds = time.perf_counter() - started
        assert len(data) == RUN * PAYLOAD
        return seconds

    return work


def _gathered() -> Way:
    source, target = StreamRing(1 << 16), StreamRing(1 << 16)
    source.write(0, _pattern(1 << 16))
    ring = BufferRing(1)
    slot = ring.lease()
    fill, gather = FillTable(), GatherTable()
    length, mask = RUN * PAYLOAD, (1 << RUN) - 1
    fill.append(0, 0, source.address, source.mask, 7, 4, slot, 0, length, PACKET, RUN, 0)
    fill.run(ring)

    def work(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            gather.clear()
            gather.append(mask, 0, target.address, target.mask, 0, length, 4, slot, 0, PACKET, PACKET, RUN)
            gather.run(ring)
        seconds = time.perf_counter() - started
        assert gather.result(0) == (mask, 0)
        assert target.read(0, length) == source.read(0, length)
        return seconds

    return work


GATHER = Contest(
    f"{RUN} packets back into a stream",
    "us_per_run",
    {SLICES: _sliced_back(), "GatherTable, one C call": _gathered()},
    base=SLICES,
    count=200,
    quick_count=2,
    scale=1e6,
)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(*FRAGMENT, GATHER), ids=str)
def test_packets_of_a_stream(benchmark: Any, contest: Contest, way: str) -> None:
    contest.report(benchmark, way)
