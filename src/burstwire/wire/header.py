"""Packet types and the DATA header.

Byte 0 of every packet is its type; every packet for an existing connection has the receiver's
connection ID in bytes 1-4. A DATA packet is::

    type u8 = 0x10 | dst_cid u32 | counter u64 | ciphertext | tag 16

Bytes 1-12 as they lie are the AEAD nonce, bytes 0-12 the associated data.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

__all__ = [
    "COOKIE",
    "DATA",
    "DATA_OVERHEAD",
    "HEADER",
    "HEADER_SIZE",
    "INITIATE",
    "MAX_COUNTER",
    "MIN_DATA_SIZE",
    "MIN_INITIATE_SIZE",
    "RESET",
    "RESPOND",
    "RUN_OVERHEAD",
    "TAG",
    "VERSION",
    "VERSIONS",
]

VERSION: Final = 1
"""The protocol version that this package speaks."""

INITIATE: Final = 0x01
RESPOND: Final = 0x02
COOKIE: Final = 0x03
VERSIONS: Final = 0x04
RESET: Final = 0x05
DATA: Final = 0x10

HEADER: Final = Struct(">BIQ")
"""The DATA header: type, dst_cid, counter."""

HEADER_SIZE: Final = 13
TAG: Final = 16
"""Bytes of the tag; the same for all three AEADs."""

DATA_OVERHEAD: Final = HEADER_SIZE + TAG
"""29 bytes of every DATA packet that are not frames."""

RUN_OVERHEAD: Final = DATA_OVERHEAD + 13
"""42 bytes of every packet of a run that are not stream data; the 13 are type, 4-byte id, 8-byte offset."""

MIN_DATA_SIZE: Final = DATA_OVERHEAD + 1
"""A DATA packet carries at least one byte of frames (RFC 9000 §12.4)."""

MIN_INITIATE_SIZE: Final = 1200
"""Bytes of UDP payload of every INITIATE, in all versions: the path then carries as much (RFC 9000 §14.1)."""

MAX_COUNTER: Final = 1 << 62
"""Counters are below this: a packet number must fit a varint in an ACK frame."""
