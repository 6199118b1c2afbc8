"""Lone packets for tests: the bytes of one header and payload, sealed and opened by way of a slot."""

from __future__ import annotations

from burstwire.core import BufferRing
from burstwire.crypto.aead import Aead
from burstwire.wire.header import DATA_OVERHEAD, HEADER_SIZE, TAG


def seal(aead: Aead, header: bytes, plain: bytes) -> bytes:
    """Ciphertext and tag of a packet; the nonce is in the header."""
    ring, size = _slot(header + plain + bytes(TAG))
    aead.seal_run(ring, 0, 0, size, 1, size)
    return bytes(ring.views[0][HEADER_SIZE:size])


def open_sealed(aead: Aead, header: bytes, sealed: bytes) -> bytes | None:
    """The payload, or None when the tag does not verify."""
    ring, size = _slot(header + sealed)
    if not aead.open_run(ring, 0, 0, size, 1, size, 1):
        return None
    return bytes(ring.views[0][HEADER_SIZE : size - TAG])


def _slot(packet: bytes) -> tuple[BufferRing, int]:
    assert len(packet) >= DATA_OVERHEAD
    ring = BufferRing(1, 1 << 12)
    ring.lease()
    ring.views[0][: len(packet)] = packet
    return ring, len(packet)
