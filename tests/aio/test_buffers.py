"""Any buffer is taken as its bytes."""

from __future__ import annotations

from array import array

import pytest

from burstwire.aio.buffers import byte_view, writable_view

numbers = array("I", [1, 2, 3])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[2:4], b"cd"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
        (memoryview(b"abc").cast("c"), b"abc"),
        (numbers, numbers.tobytes()),
        (memoryview(numbers)[1:], numbers[1:].tobytes()),
        (array("I"), b""),
        (b"", b""),
    ],
)
def test_a_buffer_is_seen_as_its_bytes(data: bytes, expected: bytes) -> None:
    view = byte_view(data)
    assert (view.format, view.ndim, view.tobytes()) == ("B", 1, expected)
    assert len(view) == len(expected)


@pytest.mark.parametrize("data", ["text", 7, None, [1, 2]])
def test_what_is_not_a_buffer_is_refused_by_its_type(data: object) -> None:
    with pytest.raises(TypeError, match=type(data).__name__):
        byte_view(data)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=type(data).__name__):
        writable_view(data)  # type: ignore[arg-type]


def test_a_writable_view_writes_through() -> None:
    target = array("H", [0, 0])
    writable_view(target)[:] = b"\x01\x00\x02\x00"
    assert target.tobytes() == b"\x01\x00\x02\x00"
    assert len(writable_view(array("H"))) == 0


def test_a_buffer_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(TypeError, match="read-only"):
        writable_view(b"abc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one piece"):
        writable_view(memoryview(bytearray(6))[::2])
