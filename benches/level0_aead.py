"""Level 0: packet protection by size and back end, a run of packets at a time as the bulk path does it, and one by
one."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from burstwire.core import BufferRing
from burstwire.crypto.aead import backends, make_aead

SIZES = (64, 256, 1024, 1200, 1364, 8900, 65000)
"""Bytes of a whole packet."""

OVERHEAD = 13 + 16


def _run_of(ring: BufferRing, size: int) -> tuple[int, int]:
    slot = ring.lease()
    count = min(64, 65507 // size)
    ring.views[slot][: count * size] = bytes(count * size)
    for index in range(count):
        ring.views[slot][index * size] = 0x10
        ring.views[slot][index * size + 5 : index * size + 13] = index.to_bytes(8, "big")
    return slot, count


def _per_packet(benchmark: Any, way: str, count: int, size: int) -> None:
    """The figures that a table of packets needs, beside the time of the whole run."""
    benchmark.extra_info.update(way=way, packets=count, size=size)
    if benchmark.stats is not None:  # None when the benches run as tests, once
        middle = benchmark.stats.stats.median
        benchmark.extra_info["ns_per_packet"] = middle / count * 1e9
        benchmark.extra_info["mb_per_second"] = (size - OVERHEAD) * count / middle / 1e6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", backends())
def test_seal_a_run(benchmark: Any, backend: str, size: int) -> None:
    ring = BufferRing(1)
    aead = make_aead("aes-128-gcm", bytes(16), backend)
    slot, count = _run_of(ring, size)
    benchmark.group = f"seal {size}"
    benchmark(aead.seal_run, ring, slot, 0, size, count, size)
    _per_packet(benchmark, backend, count, size)
    # Sealing the same run again and again leaves nothing to compare, so what is checked is a fresh one.
    ring.release(slot)
    slot, count = _run_of(ring, size)
    plain = bytes(ring.views[slot][: count * size])
    aead.seal_run(ring, slot, 0, size, count, size)
    assert bytes(ring.views[slot][: count * size]) != plain
    assert aead.open_run(ring, slot, 0, size, count, size, (1 << count) - 1) == (1 << count) - 1
    assert bytes(ring.views[slot][13 : size - 16]) == plain[13 : size - 16]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", backends())
def test_open_a_run(benchmark: Any, backend: str, size: int) -> None:
    ring = BufferRing(1)
    aead = make_aead("aes-128-gcm", bytes(16), backend)
    slot, count = _run_of(ring, size)
    aead.seal_run(ring, slot, 0, size, count, size)
    view = ring.views[slot]
    sealed = bytes(view[: count * size])
    mask = (1 << count) - 1

    def restore() -> tuple[tuple[Any, ...], dict[str, Any]]:
        view[: count * size] = sealed
        return (ring, slot, 0, size, count, size, mask), {}

    benchmark.group = f"open {size}"
    opened = benchmark.pedantic(aead.open_run, setup=restore, rounds=300, warmup_rounds=5)
    _per_packet(benchmark, backend, count, size)
    assert opened == mask


@pytest.mark.parametrize("size", SIZES)
def test_seal_one_packet_into_new_bytes(benchmark: Any, size: int) -> None:
    """What a design without slots does: nonce, header and payload as objects, a new `bytes` out of it."""
    cipher = AESGCM(bytes(16))
    nonce, header, plain = bytes(12), bytes(13), bytes(size - OVERHEAD)
    benchmark.group = f"seal {size}"
    sealed = benchmark(cipher.encrypt, nonce, plain, header)
    _per_packet(benchmark, "cryptography, new bytes", 1, size)
    assert len(sealed) == size - 13
