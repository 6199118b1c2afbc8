"""Runs of several ciphers, sealed and opened in one C call: the same bytes as one by one; a bad row harms nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.config import AEADS
from burstwire.core import BufferRing, ProtectTable
from burstwire.crypto.aead import LARGE, Aead, backends, fastest, make_aead
from burstwire.wire.header import DATA, DATA_OVERHEAD, HEADER

NATIVE = tuple(name for name in backends() if name != "cryptography")
WHOLE = (1 << 64) - 1

pytestmark = pytest.mark.skipif(not NATIVE, reason="no back end in C on this machine")
each = pytest.mark.parametrize("backend", NATIVE)

shapes = st.tuples(
    st.integers(DATA_OVERHEAD, 700),  # size
    st.integers(1, 64),  # count
    st.integers(0, 700),  # how much shorter the last is, as far as possible
    st.integers(0, WHOLE),  # mask
    st.sampled_from(AEADS),
)


@pytest.fixture
def ring() -> Iterator[BufferRing]:
    ring = BufferRing(6)
    while ring.lease() >= 0:
        pass
    yield ring
    ring.close()


def cipher(name: str, backend: str, seed: int = 1) -> Aead:
    return make_aead(name, bytes((seed + i) & 255 for i in range(16 if name == "aes-128-gcm" else 32)), backend)


def lay(ring: BufferRing, slot: int, start: int, size: int, count: int, last: int) -> bytes:
    """Packets with numbers of their own, side by side; the bytes of all of them."""
    view = ring.views[slot]
    end = start + size * (count - 1) + last
    view[start:end] = bytes((slot * 7 + i) % 253 for i in range(end - start))
    for index in range(count):
        HEADER.pack_into(view, start + index * size, DATA, slot + 1, index)
    return bytes(view[start:end])


def plain(packets: bytes, size: int, index: int) -> bytes:
    return packets[index * size + 13 : (index + 1) * size][:-16]


@each
@given(rows=st.lists(shapes, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_rows_of_any_mix_of_ciphers_are_sealed_and_opened_like_run_after_run(
    backend: str, rows: list[tuple[int, int, int, int, str]]
) -> None:
    ring = BufferRing(6)
    while ring.lease() >= 0:
        pass
    table = ProtectTable(6)
    ciphers, before = [], []
    for slot, (size, count, shorter, mask, name) in enumerate(rows):
        last = size - min(shorter, size - DATA_OVERHEAD)
        aead = cipher(name, backend, slot)
        ciphers.append((aead, cipher(name, "cryptography", slot)))
        before.append(lay(ring, slot, slot, size, count, last))
        assert table.append(aead.handle, slot, slot, size, last, count, mask) == slot
    table.seal(ring)
    assert [error for _, error in table.results()] == [0] * len(rows)
    sealed = [bytes(view) for view in ring.views]
    for slot, (size, count, shorter, _, _) in enumerate(rows):
        last = size - min(shorter, size - DATA_OVERHEAD)
        lay(ring, slot, slot, size, count, last)
        ciphers[slot][1].seal_run(ring, slot, slot, size, count, last)
    assert [bytes(view) for view in ring.views] == sealed
    table.open(ring)
    for slot, ((size, count, _, mask, _), (opened, error)) in enumerate(zip(rows, table.results(), strict=True)):
        assert opened == table.opened(slot) == mask & ((1 << count) - 1)
        assert error == 0
        length = len(before[slot])
        now = bytes(ring.views[slot][slot : slot + length])
        for index in range(count):
            expected = before[slot] if mask >> index & 1 else sealed[slot][slot : slot + length]
            assert plain(now, size, index) == plain(expected, size, index)


@each
def test_packets_that_do_not_verify_are_wiped_and_cost_no_other_packet_or_row(ring: BufferRing, backend: str) -> None:
    table = ProtectTable(2)
    aead = cipher("aes-128-gcm", backend)
    before = [lay(ring, slot, 0, 300, 40, 300) for slot in (0, 1)]
    for slot in (0, 1):
        table.append(aead.handle, slot, 0, 300, 300, 40)
    table.seal(ring)
    bad = (0, 7, 39)
    for index in bad:
        ring.views[0][index * 300 + 299] ^= 1
    table.open(ring)
    whole = (1 << 40) - 1
    assert list(table.results()) == [(whole & ~sum(1 << index for index in bad), 0), (whole, 0)]
    for slot in (0, 1):
        now = bytes(ring.views[slot][: 40 * 300])
        for index in range(40):
            wiped = slot == 0 and index in bad
            assert plain(now, 300, index) == (bytes(271) if wiped else plain(before[slot], 300, index))


BAD_ROWS = {
    "slot out of range": {"slot": 6},
    "slot that is not leased": {"slot": 3},
    "beyond the end of the slot": {"start": 65536 - 3 * 200 + 1},
    "start beyond the slot": {"start": (1 << 32) - 1},
    "no packets": {"count": 0},
    "too many packets": {"count": 65},
    "last longer than the others": {"last": 201},
    "shorter than header and tag": {"size": DATA_OVERHEAD - 1, "last": DATA_OVERHEAD - 1},
    "last shorter than header and tag": {"last": DATA_OVERHEAD - 1},
    "no size": {"size": 0, "last": 0},
    "no cipher": {"cipher": 0},
}


@each
@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_breaks_a_rule_is_refused_by_its_number_and_touches_nothing(
    ring: BufferRing, backend: str, bad: dict[str, int]
) -> None:
    ring.release(3)
    aead = cipher("aes-128-gcm", backend)
    good = {"cipher": aead.handle, "slot": 0, "start": 0, "size": 200, "last": 200, "count": 3}
    table = ProtectTable(3)
    for slot, row in enumerate((good, {**good, "slot": 1, **bad}, {**good, "slot": 2})):
        lay(ring, slot, 0, 200, 3, 200)
        table.append(**row)
    before = [bytes(view) for view in ring.views]
    with pytest.raises(ValueError, match="seal row 1 breaks a rule"):
        table.seal(ring)
    after = [bytes(view) for view in ring.views]
    assert [slot for slot in range(6) if after[slot] != before[slot]] == [0], "rows are sealed in their order"

    aead.seal_run(ring, 2, 0, 200, 3, 200)
    sealed = [bytes(view) for view in ring.views]
    with pytest.raises(ValueError, match="open row 1 breaks a rule"):
        table.open(ring)
    assert [opened for opened, _ in table.results()] == [0b111, 0, 0b111], "good rows are opened all the same"
    after = [bytes(view) for view in ring.views]
    assert [slot for slot in range(6) if after[slot] != sealed[slot]] == [0, 2]


@each
def test_a_table_of_no_rows_does_nothing_and_a_full_one_takes_no_more(ring: BufferRing, backend: str) -> None:
    table = ProtectTable(1)
    table.seal(ring)
    table.open(ring)
    assert list(table.results()) == []
    aead = cipher("aes-128-gcm", backend)
    table.append(aead.handle, 0, 0, 100, 100, 1)
    with pytest.raises(IndexError, match="full"):
        table.append(aead.handle, 0, 0, 100, 100, 1)
    table.clear()
    assert table.append(aead.handle, 0, 0, 100, 100, 1) == 0


@each
def test_a_closed_ring_is_refused(ring: BufferRing, backend: str) -> None:
    aead = cipher("aes-128-gcm", backend)
    table = ProtectTable(1)
    table.append(aead.handle, 0, 0, 100, 100, 1)
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        table.seal(ring)
    with pytest.raises(ValueError, match="closed"):
        table.open(ring)


def test_whoever_has_no_handle_says_so_and_names_who_does_a_size() -> None:
    assert cipher("aes-128-gcm", "cryptography").handle == 0
    for backend in backends():
        aead = cipher("aes-256-gcm", backend)
        assert aead.for_size(1200) is aead
        assert (aead.handle == 0) == (backend == "cryptography")
    for name in AEADS:
        chosen = make_aead(name, bytes(16 if name == "aes-128-gcm" else 32))
        small, large = chosen.for_size(LARGE - 1), chosen.for_size(LARGE)
        assert (small is large) == (fastest(name)[0] == fastest(name)[1])
        assert chosen.for_size(100) is small, "made once"
        assert small.for_size(LARGE) is small, "it answers for itself"
