"""Packet protection by Intel's multi-buffer library (libIPSec_MB), through csrc/aead_ipsecmb.c.

The library is opened when it is first asked for: the copy that a wheel brought along (see `make wheel`), else the
system's. Where there is none, or burstwire was built without the library's header, `present` says so and nothing else
happens.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from burstwire import core
from burstwire.core._burstwire import ffi, lib
from burstwire.crypto.aead_native import NUMBERS, NativeAead
from burstwire.crypto.secret import Material

__all__ = ["IpsecMbAead", "candidates", "present", "version"]


def candidates() -> list[str]:
    """Where to look for the library, in this order: beside the extension, then where the system has its libraries.

    Empty when burstwire was built without it. The soname names the major version of the header that was built with,
    for which alone the C core knows the layout of the library's structs.
    """
    major = lib.bw_ipsecmb_major()
    if not major:
        return []
    soname = f"libIPSec_MB.so.{major}"
    bundled = Path(core.__file__).with_name(soname)
    return [str(bundled), soname] if bundled.exists() else [soname]


@cache
def _library() -> Any:
    """The opened library, or NULL; kept for the life of the process, for ciphers refer to it."""
    for file in candidates():
        found = lib.bw_ipsecmb_open(file.encode())
        if found != ffi.NULL:
            return found
    return ffi.NULL


def present() -> bool:
    """Whether this system has the library, and a processor that it has code for."""
    return bool(_library() != ffi.NULL)


def version() -> str:
    """What the library says of itself, "" when there is none."""
    return ffi.string(lib.bw_ipsecmb_version(_library())).decode() if present() else ""


class IpsecMbAead(NativeAead):
    """One key of one packet protection.

    Args:
        name: one of `burstwire.config.AEADS`.
        key: 16 bytes for aes-128-gcm, else 32.
    """

    __slots__ = ()

    def __init__(self, name: str, key: Material) -> None:
        super().__init__(lib.bw_ipsecmb_cipher(_library(), NUMBERS[name], ffi.from_buffer(key), len(key)), name)
