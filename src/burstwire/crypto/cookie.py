"""mac1, mac2 and cookies: WireGuard's defence against floods (white paper §5.4.4, §5.4.7).

Without the responder's public key nobody gets an answer (mac1); under load a peer must first show that it
receives at its address (cookie, mac2), which costs the responder no state and no X25519. Exact bytes, with
`||` joining bytes and labels in ASCII::

    mac1 key   = BLAKE2s-256("mac1----" || responder's public key)
    mac1       = BLAKE2s-128(key = mac1 key, the INITIATE before mac1)
    mac2       = BLAKE2s-128(key = cookie, the INITIATE before mac2); zeros without a cookie
    cookie     = BLAKE2s-128(key = the responder's secret, the initiator's address)
    cookie key = HKDF-Expand(HKDF-Extract(salt, responder's public key), "burstwire 1 cookie", 32)
    sealed     = ChaCha20-Poly1305(cookie key, nonce = 12 zeros, AAD = mac1 of the INITIATE answered, cookie)

The keyed BLAKE2s is the keyed mode of RFC 7693; the sealed cookie hides it only from who does not know the
responder's public key, and ties it to the INITIATE that it answers.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2s
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from burstwire.crypto.kdf import derive
from burstwire.errors import CryptoError

__all__ = [
    "COOKIE_LIFETIME",
    "NO_MAC",
    "SALT_SIZE",
    "CookieJar",
    "mac",
    "mac1_key",
    "open_cookie",
    "seal_cookie",
    "verify",
]

NO_MAC: Final = bytes(16)
"""The mac2 of who has no cookie."""

SALT_SIZE: Final = 16

COOKIE_LIFETIME: Final = 120.0
"""Seconds after which the responder's secret changes and an initiator's cookie is stale (as in WireGuard)."""


def mac1_key(public: bytes) -> bytes:
    """The key of mac1 for a responder's public key (32 bytes each)."""
    return blake2s(b"mac1----" + public).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """mac1 with the `mac1_key`, mac2 with a cookie: 16 bytes."""
    return blake2s(data, key=key, digest_size=16).digest()


def verify(key: bytes, data: bytes, tag: bytes) -> bool:
    """Whether `tag` is `mac(key, data)`, in constant time."""
    return hmac.compare_digest(mac(key, data), tag)


def seal_cookie(public: bytes, salt: bytes, mac1: bytes, cookie: bytes) -> bytes:
    """A cookie as the COOKIE packet carries it (32 bytes).

    Args:
        public: the responder's public key.
        salt: 16 fresh random bytes.
        mac1: of the INITIATE that is answered.
        cookie: what `CookieJar.cookie` gave.
    """
    return _cookie_cipher(public, salt).encrypt(bytes(12), cookie, mac1)


def open_cookie(public: bytes, salt: bytes, mac1: bytes, sealed: bytes) -> bytes:
    """The cookie (16 bytes) inside a COOKIE packet that answers the INITIATE with `mac1`.

    Raises:
        CryptoError: it is not from the responder, answers another INITIATE, or is not a cookie.
    """
    try:
        cookie = _cookie_cipher(public, salt).decrypt(bytes(12), sealed, mac1)
    except InvalidTag:
        raise CryptoError("a cookie did not verify") from None
    if len(cookie) != 16:
        raise CryptoError(f"a cookie of {len(cookie)} bytes")
    return cookie


def _cookie_cipher(public: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive(salt, public, b"burstwire 1 cookie"))


class CookieJar:
    """The responder's secret, changed every `COOKIE_LIFETIME`.

    Cookies of the secret before the current one still verify, so that none is stale on arrival; so a cookie
    lives for one to two lifetimes.
    """

    __slots__ = ("_changed", "_previous", "_random", "_secret")

    def __init__(self, random: Callable[[int], bytes], now: float) -> None:
        """`random(n)` gives n unpredictable bytes; `now` is in seconds of a monotonic clock."""
        self._random = random
        self._secret = random(32)
        self._previous: bytes | None = None
        self._changed = now

    def __repr__(self) -> str:
        return "<CookieJar secret …>"

    def cookie(self, address: bytes, now: float) -> bytes:
        """The cookie of an address (16 bytes)."""
        self._rotate(now)
        return mac(self._secret, address)

    def verify(self, address: bytes, data: bytes, mac2: bytes, now: float) -> bool:
        """Whether `mac2` over `data` (the INITIATE before mac2) proves a cookie of `address`."""
        self._rotate(now)
        good = verify(mac(self._secret, address), data, mac2)
        if self._previous is not None:
            good |= verify(mac(self._previous, address), data, mac2)
        return good

    def _rotate(self, now: float) -> None:
        age = now - self._changed
        if age >= COOKIE_LIFETIME:
            self._previous = self._secret if age < 2 * COOKIE_LIFETIME else None
            self._secret = self._random(32)
            self._changed = now
