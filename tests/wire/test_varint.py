"""Varints: shortest on writing, any length on reading, only FrameEncodingError for what is cut short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.wire import varint
from burstwire.wire.errors import FrameEncodingError, TransportCode

values = st.one_of(
    st.integers(0, varint.MAX),
    st.sampled_from([0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, varint.MAX]),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("c2197c5eff14e88c", 151288809941952652),
        ("9d7f3e7d", 494878333),
        ("7bbd", 15293),
        ("25", 37),
    ],
)
def test_the_examples_of_rfc_9000_appendix_a1_read_and_write(text: str, value: int) -> None:
    raw = bytes.fromhex(text)
    assert varint.decode(raw, 0) == (value, len(raw))
    assert varint.encode(value) == raw


def test_a_longer_encoding_than_necessary_is_read() -> None:
    assert varint.decode(bytes.fromhex("4025"), 0) == (37, 2)


@given(values, st.binary(max_size=4), st.booleans())
def test_what_is_written_is_read_back_from_any_position(value: int, before: bytes, as_view: bool) -> None:
    raw = before + varint.encode(value) + b"\xff"
    buffer = memoryview(raw) if as_view else raw
    assert varint.decode(buffer, len(before)) == (value, len(raw) - 1)


@given(values)
def test_size_says_how_long_the_encoding_is(value: int) -> None:
    assert len(varint.encode(value)) == varint.size(value)


@pytest.mark.parametrize(
    ("value", "size"), [(63, 1), (64, 2), (16383, 2), (16384, 4), ((1 << 30) - 1, 4), (1 << 30, 8)]
)
def test_the_shortest_encoding_is_written(value: int, size: int) -> None:
    assert len(varint.encode(value)) == size


@given(values, st.booleans())
def test_a_cut_varint_is_a_frame_encoding_error(value: int, as_view: bool) -> None:
    raw = varint.encode(value)
    for length in range(len(raw)):
        buffer = memoryview(raw)[:length] if as_view else raw[:length]
        with pytest.raises(FrameEncodingError) as caught:
            varint.decode(buffer, 0)
        assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


@pytest.mark.parametrize("value", [-1, varint.MAX + 1])
def test_a_value_outside_the_range_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="varint"):
        varint.encode(value)
    with pytest.raises(ValueError, match="varint"):
        varint.size(value)
