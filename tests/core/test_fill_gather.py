"""Stream ranges to packets and back: nothing is lost, nothing foreign is taken, nothing leaves its memory."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ciphers import FailingCipher

from burstwire.config import AEADS
from burstwire.core import BufferRing, FillTable, GatherTable, StreamRing
from burstwire.crypto.aead import Aead, backends, make_aead
from burstwire.errors import CryptoError

OVERHEAD = 42
FILL_FIELDS = "counter offset src mask cid stream slot start length size count fin".split()  # noqa: SIM905
GATHER_FIELDS = "mask offset dst dst_mask low high stream slot start size last count".split()  # noqa: SIM905


def pattern(n: int, seed: int = 0) -> bytes:
    return bytes((i * 131 + (i >> 8) * 7 + seed) & 0xFF for i in range(n))


def varint(value: int, size: int) -> bytes:
    return (value | {4: 0x80 << 24, 8: 0xC0 << 56}[size]).to_bytes(size)


def packets(slot: memoryview, start: int, size: int, count: int, length: int) -> list[bytes]:
    """The packets without the room for their tags."""
    last = length - (count - 1) * (size - OVERHEAD) + OVERHEAD
    ends = [size] * (count - 1) + [last]
    return [bytes(slot[start + i * size : start + i * size + end - 16]) for i, end in enumerate(ends)]


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, int]:
    payload = draw(st.integers(1, 300))
    count = draw(st.integers(1, 64))
    length = (count - 1) * payload + draw(st.integers(1, payload))
    generation = draw(st.integers(0, (1 << 40) - 1)) << 22
    return {
        "counter": generation + draw(st.integers(0, (1 << 22) - count)),
        "offset": draw(st.integers(0, (1 << 62) - 1 - length)),
        "cid": draw(st.integers(0, (1 << 32) - 1)),
        "stream": draw(st.integers(0, (1 << 30) - 1)),
        "start": draw(st.integers(0, 500)),
        "size": payload + OVERHEAD,
        "count": count,
        "length": length,
        "fin": draw(st.integers(0, 1)),
    }


def fill(ring: BufferRing, slot: int, source: StreamRing, **row: int) -> None:
    table = FillTable()
    table.append(
        row["counter"],
        row["offset"],
        source.address,
        source.mask,
        row["cid"],
        row["stream"],
        slot,
        row["start"],
        row["length"],
        row["size"],
        row["count"],
        row["fin"],
    )
    table.run(ring)


@given(ranges())
def test_filled_packets_are_written_as_the_protocol_says(row: dict[str, int]) -> None:
    ring = BufferRing(1, 65536)
    slot = ring.lease()
    source = StreamRing(32768)
    content = pattern(row["length"])
    source.write(row["offset"], content)
    ring.views[slot][:] = b"\xee" * 65536
    fill(ring, slot, source, **row)
    payload = row["size"] - OVERHEAD
    for i, packet in enumerate(packets(ring.views[slot], row["start"], row["size"], row["count"], row["length"])):
        last = i == row["count"] - 1
        assert packet == (
            struct.pack(">BIQ", 0x10, row["cid"], row["counter"] + i)
            + bytes([0x0C | (row["fin"] if last else 0)])
            + varint(row["stream"], 4)
            + varint(row["offset"] + i * payload, 8)
            + content[i * payload : (i + 1) * payload]
        )
    used = row["length"] + row["count"] * OVERHEAD
    assert set(ring.views[slot][: row["start"]]) <= {0xEE}
    assert set(ring.views[slot][row["start"] + used :]) <= {0xEE}


@given(ranges(), st.data())
def test_what_was_filled_is_gathered_inside_the_window_only(row: dict[str, int], data: st.DataObject) -> None:
    ring = BufferRing(1, 65536)
    slot = ring.lease()
    source, target = StreamRing(32768), StreamRing(32768)
    content = pattern(row["length"])
    source.write(row["offset"], content)
    fill(ring, slot, source, **row)
    payload, count, offset = row["size"] - OVERHEAD, row["count"], row["offset"]
    end = offset + row["length"]
    low = data.draw(st.integers(max(0, offset - 100), end))
    high = data.draw(st.integers(low, min(end + 100, low + 32768, 1 << 62)))
    mask = data.draw(st.integers(0, (1 << count) - 1))
    target.view[:] = b"\xee" * 32768

    table = GatherTable()
    last = row["length"] - (count - 1) * payload + OVERHEAD
    index = table.append(
        mask,
        offset,
        target.address,
        target.mask,
        low,
        high,
        row["stream"],
        slot,
        row["start"],
        row["size"],
        last,
        count,
    )
    table.run(ring)
    taken, fin = table.result(index)

    expected = StreamRing(32768)
    expected.view[:] = b"\xee" * 32768
    wanted = 0
    for i in range(count):
        first, behind = offset + i * payload, min(offset + (i + 1) * payload, end)
        if mask >> i & 1 and behind <= high:
            wanted |= 1 << i
            if behind > low:
                part = max(first, low)
                expected.write(part, content[part - offset : behind - offset])
    assert taken == wanted
    assert fin == (row["fin"] if wanted >> (count - 1) & 1 else 0)
    assert target.view == expected.view


def test_a_lone_fin_carries_no_bytes() -> None:
    ring = BufferRing(1, 4096)
    slot = ring.lease()
    source, target = StreamRing(64), StreamRing(64)
    fill(
        ring,
        slot,
        source,
        counter=5,
        offset=77,
        cid=1,
        stream=4,
        start=0,
        size=1200,
        count=1,
        length=0,
        fin=1,
    )
    table = GatherTable()
    table.append(1, 77, target.address, target.mask, 77, 77, 4, slot, 0, OVERHEAD, OVERHEAD, 1)
    table.run(ring)
    assert table.result(0) == (1, 1)


GOOD: dict[str, Any] = {
    "counter": 9,
    "offset": 1000,
    "mask": 4095,
    "cid": 1,
    "stream": 4,
    "slot": 0,
    "start": 10,
    "length": 300,
    "size": 142,
    "count": 3,
    "fin": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"slot": 1},
        {"slot": 9},
        {"start": 4096 - 425},
        {"start": (1 << 32) - 1},
        {"length": 301},
        {"length": 200},
        {"length": 0},
        {"length": 0, "count": 1},
        {"length": (1 << 32) - 1},
        {"size": 42},
        {"size": 0},
        {"size": 41},
        {"count": 0},
        {"count": 65},
        {"count": 65535},
        {"fin": 2},
        {"counter": (1 << 62) - 2},
        {"counter": (1 << 22) - 2},
        {"counter": (1 << 64) - 1},
        {"offset": (1 << 62) - 300},
        {"offset": (1 << 64) - 1},
        {"stream": 1 << 30},
        {"mask": 4094},
        {"mask": 255},
        {"mask": (1 << 64) - 1},
        {"src": 0},
    ],
    ids=str,
)
def test_a_fill_that_would_break_a_rule_is_refused_by_name_and_writes_nothing(change: dict[str, int]) -> None:
    ring = BufferRing(2, 4096)
    assert ring.lease() == 0
    source = StreamRing(4096)
    table = FillTable()
    good = {**GOOD, "src": source.address}
    for row in (good, {**good, **change}):
        table.append(
            row["counter"],
            row["offset"],
            row["src"],
            row["mask"],
            row["cid"],
            row["stream"],
            row["slot"],
            row["start"],
            row["length"],
            row["size"],
            row["count"],
            row["fin"],
        )
    with pytest.raises(ValueError, match="fill row 1 "):
        table.run(ring)
    assert ring.views[0][10] == 0x10
    assert not any(ring.views[1])
    ring.views[0][:] = bytes(4096)
    table.clear()
    table.append(*(({**good, **change})[name] for name in FILL_FIELDS))
    with pytest.raises(ValueError, match="fill row 0 "):
        table.run(ring)
    assert not any(ring.views[0])


GATHER_GOOD: dict[str, Any] = {
    "mask": 7,
    "offset": 1000,
    "dst_mask": 4095,
    "low": 1000,
    "high": 1000 + 4096,
    "stream": 4,
    "slot": 0,
    "start": 10,
    "size": 142,
    "last": 142,
    "count": 3,
}


@pytest.mark.parametrize(
    "change",
    [
        {"slot": 1},
        {"slot": 9},
        {"start": 4096 - 425},
        {"start": (1 << 32) - 1},
        {"last": 143},
        {"count": 0},
        {"count": 65},
        {"mask": 8},
        {"dst_mask": 4094},
        {"dst_mask": (1 << 64) - 1},
        {"high": 999},
        {"high": 1000 + 4097},
        {"high": (1 << 62) + 1, "low": (1 << 62) - 1},
        {"offset": 1 << 62},
        {"stream": 1 << 30},
        {"dst": 0},
    ],
    ids=str,
)
def test_a_gather_that_would_break_a_rule_is_refused_by_name_and_writes_nothing(
    change: dict[str, int],
) -> None:
    ring = BufferRing(2, 4096)
    slot = ring.lease()
    source, target = StreamRing(4096), StreamRing(4096)
    source.write(1000, b"\x55" * 300)
    fill(ring, slot, source, **{name: GOOD[name] for name in GOOD if name not in ("mask", "slot")})
    row = {**GATHER_GOOD, "dst": target.address, **change}
    table = GatherTable()
    table.append(*(row[name] for name in GATHER_FIELDS))
    with pytest.raises(ValueError, match="gather row 0 "):
        table.run(ring)
    assert not any(target.view)
    assert table.result(0) == (0, 0)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (13, 0x0D),  # FIN in the middle of a run
        (13, 0x0E),  # with a length
        (13, 0x08),  # without an offset
        (13, 0x06),
        (14, 0x40),  # another width of the stream id
        (17, 5),  # another stream
        (18, 0x80),  # another width of the offset
        (25, 1),  # another offset
    ],
)
def test_a_packet_that_holds_anything_else_is_left_out_and_its_neighbours_are_taken(at: int, value: int) -> None:
    ring = BufferRing(1, 4096)
    slot = ring.lease()
    source, target = StreamRing(512), StreamRing(512)
    source.write(0, b"\x55" * 300)
    fill(
        ring,
        slot,
        source,
        counter=0,
        offset=0,
        cid=1,
        stream=4,
        start=0,
        size=142,
        count=3,
        length=300,
        fin=0,
    )
    ring.views[slot][142 + at] = value
    table = GatherTable()
    table.append(7, 0, target.address, target.mask, 0, 512, 4, slot, 0, 142, 142, 3)
    table.run(ring)
    assert table.result(0) == (0b101, 0)
    assert bytes(target.view[:300]) == b"\x55" * 100 + bytes(100) + b"\x55" * 100
    assert not any(target.view[300:])


@pytest.mark.parametrize("size", [0, 1, 13, 29, 41])
def test_packets_too_short_for_the_frame_are_left_out(size: int) -> None:
    ring = BufferRing(1, 4096)
    slot = ring.lease()
    target = StreamRing(64)
    table = GatherTable()
    table.append(1, 0, target.address, target.mask, 0, 64, 4, slot, 4096 - size, size, size, 1)
    table.append(3, 0, target.address, target.mask, 0, 64, 4, slot, 0, 100, size, 2)
    table.run(ring)
    assert table.result(0) == (0, 0)
    assert table.result(1) == (0, 0)


def test_full_tables_say_so() -> None:
    fills, gathers = FillTable(1), GatherTable(1)
    fills.append(*[0] * 12)
    gathers.append(*[0] * 12)
    with pytest.raises(IndexError, match="full"):
        fills.append(*[0] * 12)
    with pytest.raises(IndexError, match="full"):
        gathers.append(*[0] * 12)


def test_a_closed_ring_is_named() -> None:
    ring = BufferRing(1, 4096)
    ring.close()
    table = FillTable()
    table.append(*[0] * 12)
    with pytest.raises(ValueError, match="closed"):
        table.run(ring)


# --- sealing while filling ------------------------------------------------------------------------------------------

NATIVE = tuple(name for name in backends() if name != "cryptography")
each_native = pytest.mark.parametrize("backend", NATIVE)


def cipher(name: str, backend: str) -> Aead:
    return make_aead(name, bytes(range(16 if name == "aes-128-gcm" else 32)), backend)


@each_native
@pytest.mark.parametrize("name", AEADS)
@settings(max_examples=40)
@given(row=ranges())
def test_packets_sealed_while_they_are_filled_are_those_sealed_afterwards(
    backend: str, name: str, row: dict[str, int]
) -> None:
    ring = BufferRing(2, 65536)
    slots = [ring.lease(), ring.lease()]
    source = StreamRing(32768)
    source.write(row["offset"], pattern(row["length"]))
    for slot in slots:
        ring.views[slot][:] = b"\xee" * 65536
    aead, other = cipher(name, backend), cipher(name, "cryptography")
    table = FillTable()
    values = {**row, "src": source.address, "mask": source.mask}
    for slot, handle in zip(slots, (aead.handle, 0), strict=True):
        table.append(*({**values, "slot": slot}[field] for field in FILL_FIELDS), handle)
    table.run(ring)
    last = row["length"] - (row["count"] - 1) * (row["size"] - OVERHEAD) + OVERHEAD
    other.seal_run(ring, slots[1], row["start"], row["size"], row["count"], last)
    assert ring.views[slots[0]] == ring.views[slots[1]]


@each_native
def test_rows_of_a_table_are_sealed_by_the_ciphers_that_they_name(backend: str) -> None:
    ring = BufferRing(4, 4096)
    source = StreamRing(4096)
    source.write(1000, pattern(300))
    ciphers = [cipher(name, backend) for name in AEADS]
    table = FillTable()
    for aead in (*ciphers, None):
        row = {**GOOD, "src": source.address, "slot": ring.lease()}
        table.append(*(row[field] for field in FILL_FIELDS), aead.handle if aead else 0)
    table.run(ring)
    plain = bytes(ring.views[3][10 : 10 + 3 * 142])
    for slot, name in enumerate(AEADS):
        assert cipher(name, "cryptography").open_run(ring, slot, 10, 142, 3, 142, 0b111) == 0b111
        for i in range(3):
            at = i * 142
            assert bytes(ring.views[slot][10 + at : 10 + at + 126]) == plain[at : at + 126]


@pytest.mark.parametrize("refused", [0, 2, 3, 5])
def test_a_packet_that_is_not_sealed_ends_the_filling_and_names_its_row(refused: int) -> None:
    ring = BufferRing(3, 4096)
    source = StreamRing(4096)
    failing = FailingCipher(refused)
    table = FillTable()
    for _ in range(3):
        row = {**GOOD, "src": source.address, "slot": ring.lease()}
        table.append(*(row[field] for field in FILL_FIELDS), failing.handle)
    with pytest.raises(CryptoError, match=f"fill row {refused // 3} was not sealed: .*EIO"):
        table.run(ring)
    assert failing.sealed == refused
    assert not any(ring.views[2]), "nothing behind it was written"
