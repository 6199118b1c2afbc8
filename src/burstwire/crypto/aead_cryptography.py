"""Packet protection by pyca/cryptography: always there, and the fastest for large packets.

cryptography takes input and output that start at the same byte; it releases the GIL only from 2,048 bytes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import length_hint
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from burstwire.core.ring import BufferRing, PacketViews
from burstwire.crypto.secret import Material

__all__ = ["CryptographyAead"]

Views = Sequence[PacketViews]

_HEADER: Final = 13
_TAG: Final = 16


class CryptographyAead:
    """The back end that is always there: a Python loop over pyca/cryptography.

    The loops run once for each packet of the bulk path: they slice nothing, build nothing and look
    nothing up. cryptography takes input and output that start at the same byte.
    """

    __slots__ = ("_cipher",)

    handle: Final = 0
    """No C cipher: a `ProtectTable` cannot take it."""

    def __init__(self, name: str, key: Material) -> None:
        self._cipher: AESGCM | ChaCha20Poly1305 = ChaCha20Poly1305(key) if name == "chacha20-poly1305" else AESGCM(key)

    def __repr__(self) -> str:
        return f"<CryptographyAead {type(self._cipher).__name__}, key …>"

    def for_size(self, size: int) -> Self:
        """Itself, whatever the packet's size."""
        return self

    def seal_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        encrypt_into = self._cipher.encrypt_into
        for nonce, header, plain, sealed in _views(ring, slot, start, size, count, last):
            encrypt_into(nonce, plain, header, sealed)

    def open_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        decrypt_into = self._cipher.decrypt_into
        views = _views(ring, slot, start, size, count, last)
        whole = (1 << count) - 1
        mask &= whole
        if mask != whole:
            views = [packet for index, packet in enumerate(views) if mask >> index & 1]
        failed: list[int] = []
        remaining = iter(views)
        while True:
            # The try is outside the loop's body, and left only to note a failure: the loop itself is bare.
            try:
                for nonce, header, plain, sealed in remaining:
                    decrypt_into(nonce, sealed, header, plain)
                break
            except InvalidTag:
                failed.append(len(views) - length_hint(remaining) - 1)
        if failed:
            bits = [index for index in range(count) if mask >> index & 1]
            for position in failed:
                mask ^= 1 << bits[position]
        return mask


def _views(ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> Views:
    """Exactly the packets of a run; all but a shorter last one come from the ring's cache."""
    if last == size:
        views = ring.packets(slot, start, size, count)
        return views if len(views) == count else views[:count]
    whole = count - 1
    tail = ring.packets(slot, start + whole * size, last, 1)[0]
    return [*ring.packets(slot, start, size, whole)[:whole], tail] if whole else [tail]
