"""Level 0: one packet (id, list of acknowledged ids, payload) to bytes and back, by everything one would think of.

The general formats make and read an object for each packet. burstwire frames a whole run in one C call, payloads copied
to their places, and sends what is acknowledged once for the run instead of once in each packet; for lone packets it has
frames written in Python. Every way is checked to give back the id, the acknowledged ids and the payload.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import cbor2
import msgpack
import msgspec
import pytest

from benches.contest import Contest, Way
from burstwire.core import ANY_LOCAL, BufferRing, FillTable, GatherTable, RunTable, StreamRing, pack_address
from burstwire.wire import frames
from burstwire.wire.header import DATA, HEADER

PAYLOAD = 1232
NUMBER = 123_456
ACKS = list(range(123_400, 123_416, 2))
"""Eight, each on its own: a range would be no list."""

DATAGRAM = PAYLOAD + 42
RUN = 50
MSGPACK = "msgpack"
OURS = "C framing of a run"

_payload = bytes(range(256)) * (PAYLOAD // 256) + bytes(PAYLOAD % 256)
_head = struct.Struct(">QH")


class Packet(msgspec.Struct, array_like=True):
    """The same three fields, typed."""

    number: int
    acks: list[int]
    payload: bytes


def _struct_encode() -> bytes:
    return _head.pack(NUMBER, len(ACKS)) + struct.pack(f">{len(ACKS)}Q", *ACKS) + _payload


def _struct_decode(data: bytes) -> tuple[int, list[int], bytes]:
    number, count = _head.unpack_from(data)
    return number, list(struct.unpack_from(f">{count}Q", data, _head.size)), data[_head.size + 8 * count :]


def _frames_encode() -> bytes:
    ranges = [(number, number) for number in reversed(ACKS)]
    return HEADER.pack(DATA, 7, NUMBER) + frames.encode_ack(ranges, 0) + frames.encode_run_stream(4, 0, _payload)


def _frames_decode(data: bytes) -> tuple[int, list[int], bytes]:
    _, _, number = HEADER.unpack_from(data)
    ack, stream = frames.parse(memoryview(data)[HEADER.size :])
    return number, [low for low, _ in reversed(ack[3])], bytes(stream[3])


_packet = Packet(NUMBER, ACKS, _payload)
_encode_typed = msgspec.msgpack.Encoder().encode
_decode_typed = msgspec.msgpack.Decoder(Packet).decode
_tuple = (NUMBER, ACKS, _payload)

Codec = tuple[Callable[[], bytes], Callable[[bytes], Any]]

CODECS: dict[str, Codec] = {
    MSGPACK: (lambda: msgpack.packb(_tuple), msgpack.unpackb),
    "struct": (_struct_encode, _struct_decode),
    "CBOR (cbor2)": (lambda: cbor2.dumps(_tuple), cbor2.loads),
    "pickle": (lambda: pickle.dumps(_tuple, pickle.HIGHEST_PROTOCOL), pickle.loads),
    "msgspec, msgpack": (lambda: _encode_typed(_packet), _decode_typed),
    "frames in Python": (_frames_encode, _frames_decode),
}


def _encoding(encode: Callable[[], bytes], decode: Callable[[bytes], Any]) -> Way:
    def way(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            data = encode()
        seconds = time.perf_counter() - started
        _check(decode(data))
        return seconds

    return way


def _decoding(encode: Callable[[], bytes], decode: Callable[[bytes], Any]) -> Way:
    def way(count: int) -> float:
        data = encode()
        started = time.perf_counter()
        for _ in repeat(None, count):
            packet = decode(data)
        seconds = time.perf_counter() - started
        _check(packet)
        return seconds

    return way


def _check(packet: Any) -> None:
    if isinstance(packet, Packet):
        packet = packet.number, packet.acks, packet.payload
    number, acks, payload = packet
    assert (number, list(acks), payload) == (NUMBER, ACKS, _payload)


class _Run:
    """A run of 50 such packets from the stream's ring into a slot, from the slot into a stream's ring."""

    def __init__(self) -> None:
        self.source, self.target = StreamRing(1 << 16), StreamRing(1 << 16)
        self.length = RUN * PAYLOAD
        self.data = (_payload * RUN)[: self.length]
        self.source.write(0, self.data)
        self.ring = BufferRing(1)
        self.slot = self.ring.lease()
        self.fill, self.gather, self.runs = FillTable(), GatherTable(), RunTable()
        self.path = pack_address("127.0.0.1", 1) + ANY_LOCAL
        self.ranges = [(number, number) for number in reversed(ACKS)]
        self.ack = b""

    def encode(self, count: int) -> float:
        fill, ring, source = self.fill, self.ring, self.source
        runs = count // RUN + 1
        started = time.perf_counter()
        for _ in repeat(None, runs):
            fill.clear()
            fill.append(NUMBER, 0, source.address, source.mask, 7, 4, self.slot, 0, self.length, DATAGRAM, RUN, 0)
            fill.run(ring)
            self.ack = frames.encode_ack(self.ranges, 0)
        seconds = time.perf_counter() - started
        self._decode_once()
        return seconds * count / (runs * RUN)

    def decode(self, count: int) -> float:
        self.encode(RUN)
        runs = count // RUN + 1
        started = time.perf_counter()
        for _ in repeat(None, runs):
            self._read()
        seconds = time.perf_counter() - started
        self._decode_once()
        return seconds * count / (runs * RUN)

    def _read(self) -> tuple[Any, ...]:
        runs, gather, target, ring = self.runs, self.gather, self.target, self.ring
        runs.clear()
        runs.parse(ring, self.slot, RUN * DATAGRAM, DATAGRAM, self.path, 0)
        (record,) = runs.records()
        counter, _, slot, start, size, last, count, _, _, _ = record
        gather.clear()
        gather.append(
            (1 << count) - 1, 0, target.address, target.mask, 0, self.length, 4, slot, start, size, last, count
        )
        gather.run(ring)
        runs.release(ring)
        self.slot = ring.lease()
        return counter, count, gather.result(0), frames.parse(self.ack)

    def _decode_once(self) -> None:
        self.target.write(0, bytes(self.length))
        counter, count, result, (ack,) = self._read()
        assert (counter, count) == (NUMBER, RUN)
        assert result == ((1 << RUN) - 1, 0)
        assert ack[3] == self.ranges
        assert self.target.read(0, self.length) == self.data


_run = _Run()

ENCODE = Contest(
    "serialise a packet: encode",
    "ns_per_packet",
    {**{name: _encoding(*codec) for name, codec in CODECS.items()}, OURS: _run.encode},
    base=MSGPACK,
    count=4000,
)

DECODE = Contest(
    "serialise a packet: decode",
    "ns_per_packet",
    {**{name: _decoding(*codec) for name, codec in CODECS.items()}, OURS: _run.decode},
    base=MSGPACK,
    count=4000,
)


@pytest.mark.parametrize(("contest", "way"), Contest.rows(ENCODE, DECODE), ids=str)
def test_a_packet(benchmark: Any, contest: Contest, way: str) -> None:
    size = DATAGRAM if way == OURS else len(CODECS[way][0]())
    contest.report(benchmark, way, payload_bytes=PAYLOAD, acks=len(ACKS), packet_bytes=size)
