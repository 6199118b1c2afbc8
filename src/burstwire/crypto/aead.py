"""Packet protection: sealing and opening runs of DATA packets in place.

`Aead` is what a back end offers; `make_aead` chooses one. A run lies in a slot of a `BufferRing` as `count` packets
of `size` bytes, the last with `last` bytes; each is header 13 | payload | tag 16, and the nonce is header bytes 1-12
as they lie. In place means: ciphertext takes the place of plaintext, nothing moves.

Opening has one try: what fails to verify is destroyed.

Which back end is the fastest differs by machine, by the library's version and by the size of the packets (a call into
cryptography costs more, its bulk speed is higher than that of an older libcrypto), so it is measured, once in a process
for each packet protection, on small and on large packets. To open the libraries takes about a millisecond, to measure
them another one or two the first time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from time import perf_counter_ns
from typing import Final, Protocol

import cryptography
from cryptography.hazmat.backends.openssl import backend as openssl

from burstwire.core.ring import BufferRing
from burstwire.crypto import aead_ipsecmb, aead_libcrypto
from burstwire.crypto.aead_cryptography import CryptographyAead
from burstwire.crypto.aead_ipsecmb import IpsecMbAead
from burstwire.crypto.aead_libcrypto import LibcryptoAead
from burstwire.crypto.secret import Material
from burstwire.errors import ConfigError

__all__ = ["FASTEST", "Aead", "backends", "check_backend", "fastest", "make_aead", "versions"]

LARGE: Final = 4096
"""Bytes of a packet from which on it counts as large: between the two sizes that are measured."""

SMALL_SAMPLE: Final = (1200, 16)
LARGE_SAMPLE: Final = (16384, 3)
"""Size and number of the packets that are measured: a usual path and a jumbo one."""

TRIES: Final = 3
"""The best of so many counts; the first try makes the cipher."""

ENVIRONMENT: Final = "BURSTWIRE_AEAD_BACKEND"

FASTEST: Final = "fastest"
"""In place of a back end's name: the fastest ones, whatever the environment says; it was asked before."""


class Aead(Protocol):
    """One key of one packet protection. Never given the same nonce twice to seal; for one thread at a time."""

    @property
    def handle(self) -> int:
        """The C cipher that a `ProtectTable` takes, as long as this object lives; 0: there is none, and only
        `seal_run` and `open_run` of `for_size` will do."""

    def for_size(self, size: int) -> Aead:
        """Who does runs of packets of `size` bytes: itself, or what is behind it."""

    def seal_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        """Seal `count` packets in place; headers are there, 16 bytes at each end take the tags.

        Raises CryptoError, and then nothing of the run may be sent and its counters are used up.
        """

    def open_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        """Open in place those packets whose bit is set in `mask`; the mask of those that verified."""


class BySize:
    """Two back ends under one key: one for small packets, one for large ones; each made when it is first needed."""

    __slots__ = ("_key", "_large", "_name", "_rule", "_small")

    handle: Final = 0

    def __init__(self, name: str, key: Material, rule: tuple[str, str]) -> None:
        self._name = name
        self._key = key
        self._rule = rule
        self._small: Aead | None = None
        self._large: Aead | None = None

    def __repr__(self) -> str:
        return f"<BySize {self._rule[0]} below {LARGE} bytes, {self._rule[1]} from there on, key …>"

    def for_size(self, size: int) -> Aead:
        if size < LARGE:
            if self._small is None:
                self._small = _BACKENDS[self._rule[0]](self._name, self._key)
            return self._small
        if self._large is None:
            self._large = _BACKENDS[self._rule[1]](self._name, self._key)
        return self._large

    def seal_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> None:
        self.for_size(size).seal_run(ring, slot, start, size, count, last)

    def open_run(self, ring: BufferRing, slot: int, start: int, size: int, count: int, last: int, mask: int) -> int:
        return self.for_size(size).open_run(ring, slot, start, size, count, last, mask)


_KEY_SIZES: Final = {"aes-128-gcm": 16, "aes-256-gcm": 32, "chacha20-poly1305": 32}

_BACKENDS: Final[dict[str, Callable[[str, Material], Aead]]] = {
    "cryptography": CryptographyAead,
    "libcrypto": LibcryptoAead,
    "ipsec-mb": IpsecMbAead,
}


def backends() -> tuple[str, ...]:
    """The back ends present on this machine."""
    present = {"cryptography": True, "libcrypto": aead_libcrypto.present(), "ipsec-mb": aead_ipsecmb.present()}
    return tuple(name for name in _BACKENDS if present[name])


def versions() -> dict[str, str]:
    """What does the work of each back end present, for people."""
    text = {
        "cryptography": f"{cryptography.__version__} with {openssl.openssl_version_text()}",
        "libcrypto": aead_libcrypto.version(),
        "ipsec-mb": aead_ipsecmb.version(),
    }
    return {name: text[name] for name in backends()}


@cache
def fastest(name: str) -> tuple[str, str]:
    """The fastest back ends for a packet protection: for small packets, and from `LARGE` bytes on."""
    present = backends()
    if len(present) == 1:
        return present[0], present[0]
    ring = BufferRing(1)
    slot = ring.lease()
    try:
        small, large = (
            min(present, key=lambda backend: _measure(backend, name, ring, slot, size, count))
            for size, count in (SMALL_SAMPLE, LARGE_SAMPLE)
        )
    finally:
        ring.release(slot)
        ring.close()
    return small, large


def make_aead(name: str, key: Material, backend: str | None = None) -> Aead:
    """A cipher for one key.

    Args:
        name: one of `burstwire.config.AEADS`.
        key: 16 bytes for aes-128-gcm, else 32.
        backend: one of `backends()`, or `FASTEST`, by the size of the packets; None: what the environment variable
            BURSTWIRE_AEAD_BACKEND names, else `FASTEST`.

    Raises:
        ConfigError: no such packet protection or back end, or a key of another size.
    """
    size = _KEY_SIZES.get(name)
    if size is None:
        raise ConfigError(f"no packet protection is called {name!r}; there are {', '.join(_KEY_SIZES)}")
    if len(key) != size:
        raise ConfigError(f"{name} takes a key of {size} bytes, not {len(key)}")
    chosen = None if backend == FASTEST else check_backend(backend)
    if chosen is not None:
        return _BACKENDS[chosen](name, key)
    rule = fastest(name)
    return _BACKENDS[rule[0]](name, key) if rule[0] == rule[1] else BySize(name, key, rule)


def check_backend(backend: str | None) -> str | None:
    """The back end asked for by argument or environment, None for the fastest; raises ConfigError if it is absent."""
    chosen = backend or os.environ.get(ENVIRONMENT) or None
    if chosen is not None and chosen not in backends():
        raise ConfigError(f"no AEAD back end is called {chosen!r}; present: {', '.join(backends())}")
    return chosen


def _measure(backend: str, name: str, ring: BufferRing, slot: int, size: int, count: int) -> int:
    """Nanoseconds to seal `count` packets of zeros, under a key that protects nothing."""
    aead = _BACKENDS[backend](name, bytes(_KEY_SIZES[name]))
    best = 1 << 62
    for _ in range(TRIES):
        start = perf_counter_ns()
        aead.seal_run(ring, slot, 0, size, count, size)
        best = min(best, perf_counter_ns() - start)
    return best
