"""A stream ring holds what was written to it, wherever it wraps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.core import StreamRing


@given(st.integers(0, 1 << 61), st.binary(max_size=64), st.binary(max_size=64))
def test_what_was_written_is_read_wherever_it_wraps(offset: int, first: bytes, second: bytes) -> None:
    ring = StreamRing(128)
    ring.write(offset, memoryview(first))
    ring.write(offset + len(first), second)
    whole = first + second
    assert ring.read(offset, len(whole)) == whole
    target = bytearray(len(whole))
    ring.readinto(offset, memoryview(target))
    assert target == whole


@given(st.integers(0, 1 << 61), st.binary(max_size=64), st.sampled_from([64, 128, 1024]))
def test_growing_keeps_the_bytes_at_their_offsets(offset: int, data: bytes, size: int) -> None:
    ring = StreamRing(64)
    ring.write(offset, data)
    grown = ring.grown(size, offset, offset + len(data))
    assert (grown.size, grown.mask) == (size, size - 1)
    assert grown.read(offset, len(data)) == data


@pytest.mark.parametrize("size", [0, 3, 100, -8, 1 << 40])
def test_only_powers_of_two_are_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        StreamRing(size)


def test_more_than_the_ring_is_refused_and_changes_nothing() -> None:
    ring = StreamRing(8)
    ring.write(3, b"12345678")
    with pytest.raises(ValueError, match="9 bytes"):
        ring.write(3, b"987654321")
    with pytest.raises(ValueError, match="hold 9"):
        ring.read(3, 9)
    with pytest.raises(ValueError, match="hold 9"):
        ring.readinto(3, memoryview(bytearray(9)))
    with pytest.raises(ValueError, match="cannot become"):
        ring.grown(4, 3, 5)
    with pytest.raises(ValueError, match="cannot become"):
        ring.grown(16, 3, 12)
    assert ring.read(3, 8) == b"12345678"
