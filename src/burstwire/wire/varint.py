"""Variable-length integers (RFC 9000 §16): 1, 2, 4 or 8 bytes, the two top bits of the first say which."""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812  (an exception class with a lower-case name)
from typing import Final

from burstwire.wire.errors import FrameEncodingError

__all__ = ["MAX", "TRUNCATED", "decode", "encode", "read", "size"]

MAX: Final = (1 << 62) - 1
"""The largest value a varint can carry."""

TRUNCATED: Final = (IndexError, StructError)
"""What `read` raises past the end of its buffer."""

_pack_u16 = Struct(">H").pack
_pack_u32 = Struct(">I").pack
_pack_u64 = Struct(">Q").pack
_u32_at = Struct(">I").unpack_from
_u64_at = Struct(">Q").unpack_from
_ONE_BYTE: Final = tuple(bytes([value]) for value in range(0x40))


def encode(value: int) -> bytes:
    """The shortest encoding of `value`; raises ValueError unless 0 <= value <= 2**62 - 1."""
    if 0 <= value < 0x40:
        return _ONE_BYTE[value]
    if 0 <= value < 0x4000:
        return _pack_u16(0x4000 | value)
    if 0 <= value < 0x4000_0000:
        return _pack_u32(0x8000_0000 | value)
    if 0 <= value <= MAX:
        return _pack_u64(0xC000_0000_0000_0000 | value)
    raise ValueError(f"{value} does not fit a varint; it must be from 0 to 2**62 - 1")


def size(value: int) -> int:
    """How many bytes `encode(value)` has; raises ValueError like it."""
    if 0 <= value < 0x40:
        return 1
    if 0 <= value < 0x4000:
        return 2
    if 0 <= value < 0x4000_0000:
        return 4
    if 0 <= value <= MAX:
        return 8
    raise ValueError(f"{value} does not fit a varint; it must be from 0 to 2**62 - 1")


def read(buffer: bytes | memoryview, position: int) -> tuple[int, int]:
    """`decode` for callers that catch `TRUNCATED` once around many reads."""
    first = buffer[position]
    if first < 0x40:
        return first, position + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | buffer[position + 1], position + 2
    if first < 0xC0:
        return _u32_at(buffer, position)[0] & 0x3FFF_FFFF, position + 4
    return _u64_at(buffer, position)[0] & MAX, position + 8


def decode(buffer: bytes | memoryview, position: int) -> tuple[int, int]:
    """The value at `position` (>= 0) and the position after it; raises FrameEncodingError when cut short.

    Encodings longer than necessary are read like the shortest (RFC 9000 §16).
    """
    try:
        return read(buffer, position)
    except TRUNCATED:
        raise FrameEncodingError("a varint is cut short") from None
