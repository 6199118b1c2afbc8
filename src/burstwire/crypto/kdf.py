"""HKDF-SHA256 (RFC 5869), written straight into secrets: no copy of what comes out lies about."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from burstwire.crypto.secret import Material, Secret

__all__ = ["HASH_SIZE", "derive", "expand"]

HASH_SIZE: Final = 32
"""Bytes of a SHA-256 digest."""

_SHA256: Final = SHA256()


def derive(salt: bytes, material: Material, info: bytes, size: int = HASH_SIZE) -> Secret:
    """HKDF, extract and expand in one call: `size` bytes. The salt may not be a view."""
    result = Secret(size)
    HKDF(_SHA256, size, salt, info).derive_into(material, result)
    return result


def expand(key: Material, info: bytes, size: int = HASH_SIZE) -> Secret:
    """HKDF-Expand alone: `size` bytes of a key that was derived before."""
    result = Secret(size)
    HKDFExpand(_SHA256, size, info).derive_into(key, result)
    return result
