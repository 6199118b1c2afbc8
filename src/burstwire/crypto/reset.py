"""Stateless reset tokens (RFC 9000 §10.3): derived from the private key, so that they outlive a restart.

Exact bytes::

    reset key = HKDF-Expand(HKDF-Extract(salt = empty, private key), "reset", 32)
    token     = HMAC-SHA256(reset key, cid u32)[:16]
"""

from __future__ import annotations

import hmac

from burstwire.crypto.kdf import derive
from burstwire.crypto.secret import Material, Secret

__all__ = ["reset_key", "reset_token"]


def reset_key(private: Material) -> Secret:
    """The key that makes this node's tokens (32 bytes), from its private key (32 bytes)."""
    return derive(b"", private, b"reset")


def reset_token(key: Material, cid: int) -> bytes:
    """The token (16 bytes) of a connection ID that this node chose."""
    return hmac.digest(key, cid.to_bytes(4), "sha256")[:16]
