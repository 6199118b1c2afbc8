"""HKDF-SHA256 (RFC 5869), as one-shot functions over `hmac.digest`."""

from __future__ import annotations

import hmac
from typing import Final

from burstwire.crypto.secret import Material, Secret

__all__ = ["HASH_SIZE", "expand", "extract"]

HASH_SIZE: Final = 32
"""Bytes of a SHA-256 digest."""


def extract(salt: Material, material: Material) -> Secret:
    """HKDF-Extract: a 32-byte pseudorandom key."""
    return Secret.taken(hmac.digest(salt, material, "sha256"))


def expand(key: Material, info: bytes, size: int = HASH_SIZE) -> Secret:
    """HKDF-Expand: `size` bytes, at most 32, since nothing here needs a second block."""
    if not 0 < size <= HASH_SIZE:
        raise ValueError(f"{size} bytes asked; from 1 to {HASH_SIZE}")
    block = Secret.taken(hmac.digest(key, info + b"\x01", "sha256"))
    return block if size == HASH_SIZE else Secret(memoryview(block)[:size])
