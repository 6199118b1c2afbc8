"""Packet protection by libcrypto, through csrc/aead_libcrypto.c: the system's, or the one that the environment variable
BURSTWIRE_LIBCRYPTO names by path or soname (OpenSSL 3.5 takes hardly more than half the time of 3.0).

The library is opened when it is first asked for; where the system has none, `present` says so and nothing else happens.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Final

from burstwire.core._burstwire import ffi, lib
from burstwire.crypto.aead_native import NUMBERS, NativeAead
from burstwire.crypto.secret import Material
from burstwire.errors import ConfigError

__all__ = ["LibcryptoAead", "present", "version"]

SONAME: Final = "libcrypto.so.3"
"""OpenSSL 3; its soname names the ABI that the C core was written for."""


ENVIRONMENT: Final = "BURSTWIRE_LIBCRYPTO"


@cache
def _open(file: str) -> Any:
    """The opened library, or NULL; kept for the life of the process, for ciphers refer to it."""
    return lib.bw_libcrypto_open(os.fsencode(file))


def _library() -> Any:
    named = os.environ.get(ENVIRONMENT)
    found = _open(named or SONAME)
    if named and found == ffi.NULL:
        raise ConfigError(f"{ENVIRONMENT} names {named!r}, which is no libcrypto that can be opened")
    return found


def present() -> bool:
    """Whether there is a libcrypto that can be used.

    Raises ConfigError when the environment names one that cannot.
    """
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

    def __init__(self, name: str, key: Material) -> None:
        super().__init__(lib.bw_libcrypto_cipher(_library(), NUMBERS[name], ffi.from_buffer(key), len(key)), name)
