"""Secrets whose memory is overwritten when they have served.

A `Secret` overwrites itself when nobody refers to it any more, so whoever holds one need not know who else does. What
Python gives as `bytes` (digests, results of Diffie-Hellman) becomes a `Secret` by `taken`, which overwrites it.

Best effort, as far as CPython and the libraries go: registers, stacks and what a library copies for itself are out of
reach, and what is joined with a secret is one more copy. So secrets are passed whole, and as they are.
"""

from __future__ import annotations

from typing import Final, NoReturn, Self

from burstwire.core._burstwire import ffi

__all__ = ["Material", "Secret", "overwrite"]

Material = bytes | bytearray
"""What keys are made from: a `Secret`, or `bytes` that somebody else looks after."""

LARGEST: Final = 128
_address, _move = ffi.from_buffer, ffi.memmove  # bound once: a handshake overwrites some thirty times
_ZEROS: Final = tuple(bytes(size) for size in range(LARGEST + 1))


def overwrite(fresh: bytes) -> None:
    """Makes zeros of at most 128 bytes that were just made, and to which nobody but the caller refers."""
    size = len(fresh)
    _move(_address(fresh), _ZEROS[size], size)


class Secret(bytearray):
    """Up to 128 bytes that nobody else shall read; compared, sliced and joined as bytes are, but never shown."""

    __slots__ = ()

    @classmethod
    def taken(cls, fresh: bytes) -> Self:
        """A secret of bytes that were just made, and to which nobody but the caller refers: they are overwritten."""
        secret = cls(fresh)
        overwrite(fresh)
        return secret

    def __del__(self) -> None:
        self[:] = _ZEROS[len(self)]

    def __repr__(self) -> str:
        return f"<Secret of {len(self)} bytes …>"

    __str__ = __repr__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")
