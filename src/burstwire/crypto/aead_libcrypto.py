"""Packet protection by the system's libcrypto: a whole run in one C call, with the GIL released.

The library is opened when it is first asked for; where it is absent, `present` says so and nothing else happens.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from burstwire.core._burstwire import ffi, lib
from burstwire.core._errno import describe
from burstwire.core.ring import BufferRing
from burstwire.errors import CryptoError

__all__ = ["LibcryptoAead", "present", "version"]

SONAMES: Final = (b"libcrypto.so.3",)
"""OpenSSL 3; its soname names the ABI that the C core was written for."""

NUMBERS: Final = {"aes-128-gcm": 0, "aes-256-gcm": 1, "chacha20-poly1305": 2}


@cache
def _library() -> Any:
    """The opened library, or NULL; kept for the life of the process, for ciphers refer to it."""
    for soname in SONAMES:
        found = lib.bw_libcrypto_open(soname)
        if found != ffi.NULL:
            return found
    return ffi.NULL


def present() -> bool:
    """Whether this system has a libcrypto that can be used."""
    return bool(_library() != ffi.NULL)


def version() -> str:
    """What the library says of itself, "" when there is none."""
    return ffi.string(lib.bw_libcrypto_version(_library())).decode() if present() else ""


class LibcryptoAead:
    """One key of one packet protection, for runs in slots.

    Args:
        name: one of `burstwire.config.AEADS`.
        key: 16 bytes for aes-128-gcm, else 32.
    """

    __slots__ = ("_evp",)

    def __init__(self, name: str, key: bytes) -> None:
        evp = lib.bw_evp_new(_library(), NUMBERS[name], key, len(key))
        if evp == ffi.NULL:
            raise CryptoError(f"libcrypto made no cipher for {name} with a key of {len(key)} bytes")
        self._evp = ffi.gc(evp, lib.bw_evp_free)

    def __repr__(self) -> str:
        return "<LibcryptoAead, key …>"

    def seal_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        """Seal in place; raises CryptoError, and then nothing of the run may be sent."""
        code = lib.bw_evp_seal_run(self._evp, ring.handle, slot, start, size, count, last)
        if code:
            raise CryptoError(f"a run of {count} packets was not sealed: {describe(code)}")

    def open_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        """Open in place what `mask` names; the mask of what verified."""
        opened: int = lib.bw_evp_open_run(self._evp, ring.handle, slot, start, size, count, last, mask)
        return opened
