"""Handshake packets and RESET: exact layout, and WireError for whatever cannot be one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.wire import header
from burstwire.wire.errors import WireError
from burstwire.wire.packets import Cookie, Initiate, Reset, Respond, Versions, initiate_header

u32 = st.integers(0, (1 << 32) - 1)
mac = st.binary(min_size=16, max_size=16)
KINDS: list[Any] = [Initiate, Respond, Cookie, Versions, Reset]

initiates = st.builds(Initiate, u32, u32, st.integers(0, 255), st.binary(min_size=1158, max_size=1300), mac, mac)
anything = st.one_of(
    initiates,
    st.builds(Respond, u32, u32, st.binary(min_size=48, max_size=200)),
    st.builds(Cookie, u32, mac, st.binary(min_size=32, max_size=32)),
    st.builds(Versions, u32, mac, st.lists(u32, min_size=1, max_size=9).map(tuple)),
    st.builds(Reset, u32, mac),
)


@given(anything, st.booleans())
def test_every_packet_written_is_read_back(packet: Any, as_view: bool) -> None:
    raw = packet.encode()
    assert type(packet).parse(memoryview(raw) if as_view else raw) == packet


@given(anything, st.data())
def test_a_cut_or_mutated_packet_parses_or_raises_wire_error(packet: Any, data: st.DataObject) -> None:
    raw = bytearray(packet.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    expect_packet_or_wire_error(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@given(st.sampled_from([1, 2, 3, 4, 5, 16]), st.binary(max_size=100), st.integers(0, 1300))
def test_random_bytes_parse_or_raise_wire_error(kind: int, body: bytes, padding: int) -> None:
    expect_packet_or_wire_error(bytes([kind]) + body + bytes(padding))


def expect_packet_or_wire_error(raw: bytes) -> None:
    for kind in KINDS:
        for data in (raw, memoryview(raw)):
            try:
                packet = kind.parse(data)
            except WireError:
                pass
            else:
                assert packet.encode() == raw


def test_an_initiate_is_laid_out_as_the_invariants_say() -> None:
    message = bytes(range(32)) + bytes(1126)
    raw = Initiate(0x01020304, 0xA1A2A3A4, 1, message, b"m" * 16, b"n" * 16).encode()
    assert raw[:10].hex() == "0101020304a1a2a3a401"
    assert raw[:10] == initiate_header(0x01020304, 0xA1A2A3A4, 1)
    assert raw[10:42] == bytes(range(32)) == Initiate.parse(raw).ephemeral
    assert raw[-32:] == b"m" * 16 + b"n" * 16
    assert len(raw) == header.MIN_INITIATE_SIZE


@given(initiates)
def test_each_mac_covers_everything_before_it(packet: Initiate) -> None:
    raw = packet.encode()
    assert packet.mac1_input == raw[:-32]
    assert packet.mac2_input == raw[:-16]
    assert packet.header == raw[: Initiate.HEADER_SIZE]
    assert len(raw) == Initiate.OVERHEAD + len(packet.message)


def test_the_other_packets_are_laid_out_as_in_the_table() -> None:
    assert Respond(1, 2, b"x" * 48).encode() == bytes.fromhex("020000000100000002") + b"x" * 48
    assert Cookie(1, b"s" * 16, b"c" * 32).encode() == bytes.fromhex("0300000001") + b"s" * 16 + b"c" * 32
    assert Versions(1, b"e" * 16, (1, 2)).encode() == b"\x04\0\0\0\1" + b"e" * 16 + b"\0\0\0\1\0\0\0\2"
    assert Reset(1, b"t" * 16).encode() == b"\x05\0\0\0\1" + b"t" * 16


def test_an_initiate_below_1200_bytes_is_refused() -> None:
    raw = Initiate(1, 2, 0, bytes(1157)).encode()
    assert len(raw) == 1199
    with pytest.raises(WireError, match="1200"):
        Initiate.parse(raw)


def test_an_initiate_of_an_unknown_version_can_be_read() -> None:
    assert Initiate.parse(Initiate(0xFFFFFFFF, 2, 77, bytes(1158)).encode()).version == 0xFFFFFFFF


@pytest.mark.parametrize(
    "raw",
    [
        Respond(1, 2, bytes(47)).encode(),
        Cookie(1, bytes(16), bytes(31)).encode(),
        Cookie(1, bytes(16), bytes(33)).encode(),
        Versions(1, bytes(16), ()).encode(),
        Versions(1, bytes(16), (1,)).encode() + b"\0",
        Reset(1, bytes(15)).encode(),
        Reset(1, bytes(17)).encode(),
    ],
)
def test_a_packet_of_an_impossible_size_is_refused(raw: bytes) -> None:
    for kind in KINDS:
        with pytest.raises(WireError):
            kind.parse(raw)


def test_a_reset_is_shorter_than_any_data_packet() -> None:
    assert Reset.SIZE < header.MIN_DATA_SIZE
    assert header.HEADER.size == header.HEADER_SIZE == 13
