"""Packet protection in C: what the back ends behind csrc/aead.c have in common.

A run is one C call with the GIL released; many runs are one call, too, when a `ProtectTable` names their ciphers by
`handle`.
"""

from __future__ import annotations

from typing import Any, Final, Self

from burstwire.core._burstwire import ffi, lib
from burstwire.core._errno import describe
from burstwire.core.ring import BufferRing
from burstwire.errors import CryptoError

__all__ = ["NUMBERS", "NativeAead"]

NUMBERS: Final = {"aes-128-gcm": 0, "aes-256-gcm": 1, "chacha20-poly1305": 2}
"""What C calls them."""

_ADDRESS: Final = ffi.typeof("uintptr_t")


class NativeAead:
    """One key of one packet protection, for runs in slots. Back ends derive from it.

    Attributes:
        handle: the address of the C cipher, valid as long as this object lives.
    """

    __slots__ = ("_cipher", "handle")

    def __init__(self, cipher: Any, name: str) -> None:
        """Takes over a `bw_cipher *`; raises CryptoError if it is NULL."""
        if not cipher:
            raise CryptoError(f"{type(self).__name__} made no cipher for {name}")
        self._cipher = ffi.gc(cipher, lib.bw_cipher_free)
        self.handle = int(ffi.cast(_ADDRESS, cipher))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, key …>"

    def for_size(self, size: int) -> Self:
        """Itself, whatever the packet's size."""
        return self

    def seal_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        """Seal in place; raises CryptoError, and then nothing of the run may be sent."""
        code = lib.bw_seal_run(self._cipher, ring.handle, slot, start, size, count, last)
        if code:
            raise CryptoError(f"a run of {count} packets was not sealed: {describe(code)}")

    def open_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        """Open in place what `mask` names; the mask of what verified."""
        opened: int = lib.bw_open_run(self._cipher, ring.handle, slot, start, size, count, last, mask)
        return opened
