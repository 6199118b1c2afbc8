"""Packet protection by the system's libcrypto, through csrc/aead_libcrypto.c.

The library is opened when it is first asked for; where it is absent, `present` says so and nothing else happens.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from burstwire.core._burstwire import ffi, lib
from burstwire.crypto.aead_native import NUMBERS, NativeAead

__all__ = ["LibcryptoAead", "present", "version"]

SONAME: Final = "libcrypto.so.3"
"""OpenSSL 3; its soname names the ABI that the C core was written for."""


@cache
def _library() -> Any:
    """The opened library, or NULL; kept for the life of the process, for ciphers refer to it."""
    return lib.bw_libcrypto_open(SONAME.encode())


def present() -> bool:
    """Whether this system has a libcrypto that can be used."""
    return bool(_library() != ffi.NULL)


def version() -> str:
    """What the library says of itself, "" when there is none."""
    return ffi.string(lib.bw_libcrypto_version(_library())).decode() if present() else ""


class LibcryptoAead(NativeAead):
    """One key of one packet protection.

    Args:
        name: one of `burstwire.config.AEADS`.
        key: 16 bytes for aes-128-gcm, else 32.
    """

    __slots__ = ()

    def __init__(self, name: str, key: bytes) -> None:
        super().__init__(lib.bw_libcrypto_cipher(_library(), NUMBERS[name], key, len(key)), name)
