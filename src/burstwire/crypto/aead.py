"""Packet protection: sealing and opening runs of DATA packets in place.

`Aead` is what a back end offers; `make_aead` chooses one. A run lies in a ring slot as
`count` packets of `size` bytes, the last with `last` bytes; each is header 13 | payload | tag 16, and the
nonce is header bytes 1-12 as they lie. In place: ciphertext takes the place of plaintext.

Opening has one try: what fails to verify is destroyed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from operator import length_hint
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from burstwire.errors import ConfigError, CryptoError

__all__ = ["Aead", "PacketRing", "backends", "make_aead"]

Buffer = bytes | bytearray | memoryview
Views = Sequence[tuple[memoryview, memoryview, memoryview, memoryview]]


class PacketRing(Protocol):
    """What a back end needs of `burstwire.core.BufferRing`."""

    def packets(self, slot: int, start: int, size: int, count: int) -> Views:
        """At least `count` tuples (nonce, header, plain, sealed) of views of consecutive packets."""


class Aead(Protocol):
    """One key of one packet protection. Never given the same nonce twice to seal."""

    def seal_run(self, ring: PacketRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        """Seal `count` packets in place; headers are there, 16 bytes at each end take the tags."""

    def open_run(self, ring: PacketRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        """Open in place those packets whose bit is set in `mask`; the mask of those that verified."""

    def seal(self, nonce: Buffer, header: Buffer, plain: Buffer) -> bytes:
        """One packet's ciphertext and tag."""

    def open(self, nonce: Buffer, header: Buffer, sealed: Buffer) -> bytes:
        """One packet's plaintext; raises CryptoError when the tag does not verify."""


class CryptographyAead:
    """The back end that is always there: a Python loop over pyca/cryptography.

    The loops run once for each packet of the bulk path: they slice nothing, build nothing and look
    nothing up. cryptography takes input and output that start at the same byte.
    """

    __slots__ = ("_cipher",)

    def __init__(self, cipher: AESGCM | ChaCha20Poly1305) -> None:
        self._cipher = cipher

    def __repr__(self) -> str:
        return f"<CryptographyAead {type(self._cipher).__name__}, key …>"

    def seal_run(self, ring: PacketRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        encrypt_into = self._cipher.encrypt_into
        for nonce, header, plain, sealed in _views(ring, slot, start, size, count, last):
            encrypt_into(nonce, plain, header, sealed)

    def open_run(self, ring: PacketRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
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

    def seal(self, nonce: Buffer, header: Buffer, plain: Buffer) -> bytes:
        return self._cipher.encrypt(nonce, plain, header)

    def open(self, nonce: Buffer, header: Buffer, sealed: Buffer) -> bytes:
        try:
            return self._cipher.decrypt(nonce, sealed, header)
        except InvalidTag:
            raise CryptoError("a tag did not verify") from None


def _views(ring: PacketRing, slot: int, start: int, size: int, count: int, last: int) -> Views:
    """Exactly the packets of a run; all but a shorter last one come from the ring's cache."""
    if last == size:
        views = ring.packets(slot, start, size, count)
        return views if len(views) == count else views[:count]
    whole = count - 1
    tail = ring.packets(slot, start + whole * size, last, 1)[0]
    return [*ring.packets(slot, start, size, whole)[:whole], tail] if whole else [tail]


def _cryptography(name: str, key: bytes) -> Aead:
    return CryptographyAead(ChaCha20Poly1305(key) if name == "chacha20-poly1305" else AESGCM(key))


_KEY_SIZES: Final = {"aes-128-gcm": 16, "aes-256-gcm": 32, "chacha20-poly1305": 32}

_BACKENDS: Final[dict[str, Callable[[str, bytes], Any]]] = {"cryptography": _cryptography}
"""Back ends by name, fastest first."""


def backends() -> tuple[str, ...]:
    """The back ends present, fastest first."""
    return tuple(_BACKENDS)


def make_aead(name: str, key: bytes, backend: str | None = None) -> Aead:
    """A cipher for one key.

    Args:
        name: one of `burstwire.config.AEADS`.
        key: 16 bytes for aes-128-gcm, else 32.
        backend: one of `backends()`; None: what the environment variable BURSTWIRE_AEAD_BACKEND names, else
            the fastest.

    Raises:
        ConfigError: no such packet protection or back end, or a key of another size.
    """
    size = _KEY_SIZES.get(name)
    if size is None:
        raise ConfigError(f"no packet protection is called {name!r}; there are {', '.join(_KEY_SIZES)}")
    if len(key) != size:
        raise ConfigError(f"{name} takes a key of {size} bytes, not {len(key)}")
    chosen = backend or os.environ.get("BURSTWIRE_AEAD_BACKEND") or next(iter(_BACKENDS))
    make = _BACKENDS.get(chosen)
    if make is None:
        raise ConfigError(f"no AEAD back end is called {chosen!r}; present: {', '.join(_BACKENDS)}")
    aead: Aead = make(name, key)
    return aead
