r"""The key schedule: from the handshake's two keys to the key of every packet.

All of it is HKDF-SHA256 (RFC 5869); `||` joins bytes, labels are ASCII, one chain a direction::

    prk         = HKDF-Extract(salt = handshake hash, IKM = the direction's key from Noise Split())
    secret[0]   = HKDF-Expand(prk, "burstwire 1 initiator" or "burstwire 1 responder", 32)
    secret[g+1] = HKDF-Expand(secret[g], "burstwire 1 update", 32)
    key[g]      = HKDF-Expand(secret[g], "burstwire 1 key" || aead u8, 16 or 32)

The label of secret[0] names who seals with it. `aead` is the number of the packet protection
(0 AES-128-GCM with 16 bytes, 1 AES-256-GCM and 2 ChaCha20-Poly1305 with 32).

The generation g of a packet is its counter >> 22; nothing else selects a key. The nonce is the packet's
dst_cid || counter as it lies in the header.

Invariants: sealing never goes back, nor ahead by more than one generation; opening knows the
previous, the current and the next one; a cipher is made when it is first used and dropped by `rest`, so that an
idle connection holds secrets only. What is dropped overwrites itself (see `secret.py`; ciphers wipe their keys, too).
"""

from __future__ import annotations

from typing import Final

from burstwire.crypto import kdf
from burstwire.crypto.aead import Aead, make_aead
from burstwire.crypto.secret import Material, Secret
from burstwire.errors import CryptoError

__all__ = ["GENERATION_BITS", "INTEGRITY_LIMITS", "TrafficKeys", "derive"]

GENERATION_BITS: Final = 22
"""2**22 packets a key: half of what RFC 9001 §6.6 allows AES-GCM (2**23), so that no phase bit is needed."""

INTEGRITY_LIMITS: Final = (1 << 52, 1 << 52, 1 << 36)
"""By aead number: invalid packets after which a connection must end (RFC 9001 §6.6)."""

_ALGORITHMS: Final = (("aes-128-gcm", 16), ("aes-256-gcm", 32), ("chacha20-poly1305", 32))
"""By aead number: name and bytes of the key."""


def derive(split: tuple[Material, Material], initiator: bool, handshake_hash: bytes) -> tuple[Secret, Secret]:
    """The first secrets of this side's two directions: (to seal with, to open with), 32 bytes each.

    Args:
        split: what `HandshakeState.split` returned.
        initiator: whether this side started the handshake.
        handshake_hash: of the finished handshake.
    """
    first = kdf.derive(handshake_hash, split[0], b"burstwire 1 initiator")
    second = kdf.derive(handshake_hash, split[1], b"burstwire 1 responder")
    return (first, second) if initiator else (second, first)


class _Generation:
    """The secret of one generation in one direction, and its cipher once used."""

    __slots__ = ("_secret", "made")

    def __init__(self, secret: Material) -> None:
        self._secret = secret if isinstance(secret, Secret) else Secret(secret)
        self.made: Aead | None = None

    def following(self) -> _Generation:
        return _Generation(kdf.expand(self._secret, b"burstwire 1 update"))

    def rest(self) -> None:
        self.made = None

    def aead(self, number: int, backend: str | None) -> Aead:
        if self.made is None:
            name, size = _ALGORITHMS[number]
            key = kdf.expand(self._secret, b"burstwire 1 key" + bytes((number,)), size)
            self.made = make_aead(name, key, backend)
        return self.made


class _Forgotten(_Generation):
    """In place of a secret that is gone: whoever still asks for a cipher is in error."""

    __slots__ = ()

    def following(self) -> _Generation:
        return self

    def aead(self, number: int, backend: str | None) -> Aead:
        raise CryptoError("the connection has ended, and its keys are gone")


_FORGOTTEN: Final = _Forgotten(b"")


class TrafficKeys:
    """The keys of one connection, both directions.

    Attributes:
        sealing: the generation that `sealer` gave last.
        opening: the generation that is current for opening.
    """

    __slots__ = ("_aead_id", "_backend", "_next", "_open", "_previous", "_seal", "opening", "sealing")

    def __init__(
        self, send_secret: Material, receive_secret: Material, aead_id: int, backend: str | None = None
    ) -> None:
        """Start at generation 0 in both directions.

        Args:
            send_secret: first of `derive`.
            receive_secret: second of `derive`.
            aead_id: the number of the packet protection, 0..2.
            backend: who seals and opens; None: the default of `make_aead`.
        """
        if not 0 <= aead_id < len(_ALGORITHMS):
            raise CryptoError(f"no packet protection has the number {aead_id}")
        self._aead_id = aead_id
        self._backend = backend
        self._seal = _Generation(send_secret)
        self._previous: _Generation | None = None
        self._open = _Generation(receive_secret)
        self._next: _Generation | None = None
        self.sealing = 0
        self.opening = 0

    def __repr__(self) -> str:
        return f"<TrafficKeys sealing {self.sealing}, opening {self.opening}, secrets …>"

    def sealer(self, generation: int) -> Aead:
        """The cipher to seal packets of `generation` with; the generation before it is forgotten.

        The caller sees to it that a packet of the generation before was acknowledged first.

        Raises:
            CryptoError: `generation` is neither the one sealed with last nor the one after it.
        """
        if generation != self.sealing:
            if generation != self.sealing + 1:
                raise CryptoError(f"cannot seal in key generation {generation} after {self.sealing}")
            self._seal = self._seal.following()
            self.sealing = generation
        return self._seal.made or self._seal.aead(self._aead_id, self._backend)

    def opener(self, generation: int) -> Aead | None:
        """The cipher to open packets of `generation` with, or None: drop them."""
        ahead = generation - self.opening
        if ahead == 0:
            if self._open.made is not None:
                return self._open.made
            chosen: _Generation | None = self._open
        elif ahead == 1:
            if self._next is None:
                self._next = self._open.following()
            chosen = self._next
        elif ahead == -1:
            chosen = self._previous
        else:
            chosen = None
        return None if chosen is None else chosen.aead(self._aead_id, self._backend)

    def received(self, generation: int) -> bool:
        """Note that a packet of `generation` opened; whether that made a new generation the current one.

        If so the caller calls `drop_previous` 3 PTO later (RFC 9001 §6.5).
        """
        if generation != self.opening + 1 or self._next is None:
            return False
        self._previous, self._open, self._next = self._open, self._next, None
        self.opening = generation
        return True

    def rest(self) -> None:
        """Drop the ciphers, some kilobytes, and keep the secrets: for a connection that has gone quiet."""
        for generation in (self._seal, self._open, self._next, self._previous):
            if generation is not None:
                generation.rest()

    def drop_previous(self) -> None:
        """Open nothing of the generation before the current one any more."""
        self._previous = None

    def forget(self) -> None:
        """Drop all keys: the connection has ended, and seals and opens nothing any more."""
        self._seal = self._open = _FORGOTTEN
        self._previous = self._next = None
