"""Packet protection: a run is sealed and opened like packet after packet; a bad tag costs one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.config import AEADS
from burstwire.core import BufferRing
from burstwire.crypto.aead import Aead, backends, fastest, make_aead
from burstwire.errors import ConfigError
from burstwire.wire.header import DATA, DATA_OVERHEAD, HEADER, TAG

KEYS = {
    "aes-128-gcm": bytes(range(16)),
    "aes-256-gcm": bytes(range(32)),
    "chacha20-poly1305": bytes(range(1, 33)),
}
CID = 0xA1B2C3D4

sweep = pytest.mark.parametrize(("name", "backend"), [(name, backend) for name in AEADS for backend in backends()])
runs = st.tuples(
    st.integers(0, 3),  # slot
    st.sampled_from([0, 0, 1, 1200]),  # start
    st.sampled_from([DATA_OVERHEAD, DATA_OVERHEAD + 1, 100, 900]),  # size
    st.integers(1, 64),  # count
    st.integers(0, 900),  # how much shorter the last is, as far as possible
    st.integers(0, 1 << 61),  # first counter
)


@pytest.fixture(scope="module")
def ring() -> Iterator[BufferRing]:
    ring = BufferRing(4)
    while ring.lease() >= 0:
        pass
    yield ring
    ring.close()


def reference(name: str) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(KEYS[name]) if name == "chacha20-poly1305" else AESGCM(KEYS[name])


class Run:
    """Packets laid side by side in a slot, with what they should become."""

    def __init__(self, ring: BufferRing, shape: tuple[int, ...]) -> None:
        self.slot, self.start, self.size, self.count, shorter, self.counter = shape
        self.last = self.size - min(shorter, self.size - DATA_OVERHEAD)
        self.view = ring.views[self.slot]
        self.view[:] = b"\xee" * len(self.view)
        self.bounds = [
            (at, at + (self.last if index == self.count - 1 else self.size))
            for index, at in enumerate(range(self.start, self.start + self.size * self.count, self.size))
        ]
        self.plains = []
        for index, (begin, end) in enumerate(self.bounds):
            HEADER.pack_into(self.view, begin, DATA, CID, self.counter + index)
            plain = bytes((index + position) % 251 for position in range(end - begin - DATA_OVERHEAD))
            self.view[begin + 13 : end - TAG] = plain
            self.plains.append(plain)
        self.arguments = (ring, self.slot, self.start, self.size, self.count, self.last)

    def sealed(self, name: str) -> list[bytes]:
        cipher = reference(name)
        return [
            header + cipher.encrypt(header[1:], plain, header)
            for index, plain in enumerate(self.plains)
            for header in [HEADER.pack(DATA, CID, self.counter + index)]
        ]

    def packets(self) -> list[bytes]:
        return [bytes(self.view[begin:end]) for begin, end in self.bounds]

    def payload(self, index: int) -> bytes:
        begin, end = self.bounds[index]
        return bytes(self.view[begin + 13 : end - TAG])

    def surroundings(self) -> bytes:
        return bytes(self.view[: self.start]) + bytes(self.view[self.bounds[-1][1] :])


@sweep
@given(shape=runs)
@settings(max_examples=25, deadline=None)
def test_a_run_is_sealed_in_place_like_packet_after_packet(
    ring: BufferRing, name: str, backend: str, shape: tuple[int, ...]
) -> None:
    run = Run(ring, shape)
    around = run.surroundings()
    make_aead(name, KEYS[name], backend).seal_run(*run.arguments)
    assert run.packets() == run.sealed(name)
    assert run.surroundings() == around


@sweep
@given(shape=runs, bad=st.sets(st.integers(0, 63)), asked=st.integers(0, (1 << 64) - 1), everything=st.booleans())
@settings(max_examples=40, deadline=None)
def test_exactly_the_packets_asked_for_and_unharmed_are_opened(
    ring: BufferRing,
    name: str,
    backend: str,
    shape: tuple[int, ...],
    bad: set[int],
    asked: int,
    everything: bool,
) -> None:
    run = Run(ring, shape)
    aead = make_aead(name, KEYS[name], backend)
    aead.seal_run(*run.arguments)
    for index in bad:
        if index < run.count:
            begin, end = run.bounds[index]
            run.view[begin + index % (end - begin)] ^= 0x40
    before, around = run.packets(), run.surroundings()
    whole = (1 << run.count) - 1
    mask = whole if everything else asked & whole
    opened = aead.open_run(*run.arguments, mask)
    expected = [index for index in range(run.count) if mask >> index & 1 and index not in bad]
    assert opened == sum(1 << index for index in expected)
    assert all(run.payload(index) == run.plains[index] for index in expected)
    left_out = [index for index in range(run.count) if not mask >> index & 1]
    assert all(run.packets()[index] == before[index] for index in left_out), "what was not asked for was touched"
    assert run.surroundings() == around


@sweep
def test_a_mask_wider_than_the_run_opens_no_more_than_the_run(ring: BufferRing, name: str, backend: str) -> None:
    run = Run(ring, (0, 0, 100, 5, 0, 7))
    aead = make_aead(name, KEYS[name], backend)
    aead.seal_run(*run.arguments)
    assert aead.open_run(*run.arguments, (1 << 64) - 1) == 0b11111


@sweep
def test_a_run_shorter_than_the_ring_has_views_for_leaves_the_rest_alone(
    ring: BufferRing, name: str, backend: str
) -> None:
    aead = make_aead(name, KEYS[name], backend)
    aead.seal_run(*Run(ring, (1, 0, 500, 20, 0, 7)).arguments)
    run = Run(ring, (1, 0, 500, 3, 0, 7))
    around = run.surroundings()
    aead.seal_run(*run.arguments)
    assert run.packets() == run.sealed(name)
    assert run.surroundings() == around
    assert aead.open_run(*run.arguments, 0b111) == 0b111
    assert run.surroundings() == around


EDGES = {
    edge + near for edge in (512, 768, 1024, 1536, 2048, 2304, 3072, 4096, 8192, 16_384) for near in (-16, -1, 0, 1, 16)
}
"""Around what code with wide registers does at once: 32, 48 and more blocks of 16 bytes."""

SIZES = sorted({*range(300), *EDGES, *range(300, 65_000, 997), 4066, 4067, 4068, 65_000})


@sweep
def test_packets_of_every_size_up_to_the_largest_are_sealed_and_opened_as_the_standard_says(
    ring: BufferRing, name: str, backend: str
) -> None:
    aead = make_aead(name, KEYS[name], backend)
    for counter, payload in enumerate(SIZES):
        run = Run(ring, (2, 0, payload + DATA_OVERHEAD, 1, 0, counter))
        aead.seal_run(*run.arguments)
        assert run.packets() == run.sealed(name), payload
        assert aead.open_run(*run.arguments, 1) == 1
        assert run.payload(0) == run.plains[0]


@sweep
@given(
    key=st.binary(min_size=32, max_size=32),
    header=st.binary(min_size=12, max_size=12),
    payload=st.one_of(st.integers(0, 2000), st.integers(0, 65_000)),
    seed=st.randoms(use_true_random=False),
    harm=st.none() | st.integers(0, 1 << 32),
)
@settings(max_examples=60, deadline=None)
def test_random_packets_of_any_size_are_sealed_and_opened_as_the_standard_says(
    ring: BufferRing,
    name: str,
    backend: str,
    key: bytes,
    header: bytes,
    payload: int,
    seed: random.Random,
    harm: int | None,
) -> None:
    key = key[: len(KEYS[name])]
    cipher = ChaCha20Poly1305(key) if name == "chacha20-poly1305" else AESGCM(key)
    view, size = ring.views[0], payload + DATA_OVERHEAD
    plain, head = seed.randbytes(payload), bytes([DATA]) + header
    view[:size] = head + plain + seed.randbytes(TAG)
    aead = make_aead(name, key, backend)
    aead.seal_run(ring, 0, 0, size, 1, size)
    assert bytes(view[:size]) == head + cipher.encrypt(header, plain, head)
    if harm is not None:
        view[harm // 8 % size] ^= 1 << harm % 8
    assert aead.open_run(ring, 0, 0, size, 1, size, 1) == (harm is None)
    if harm is None:
        assert bytes(view[13 : size - TAG]) == plain


@sweep
@pytest.mark.parametrize("payload", [0, 1, 15, 16, 17, 1171])
@pytest.mark.parametrize("where", ["type", "nonce", "ciphertext", "tag, first byte", "tag, last byte"])
def test_whatever_bit_is_changed_the_packet_does_not_open(
    ring: BufferRing, name: str, backend: str, payload: int, where: str
) -> None:
    if where == "ciphertext" and not payload:
        return
    aead = make_aead(name, KEYS[name], backend)
    run = Run(ring, (2, 5, payload + DATA_OVERHEAD, 1, 0, 9))
    aead.seal_run(*run.arguments)
    begin, end = run.bounds[0]
    places = {"type": begin, "nonce": begin + 12, "ciphertext": begin + 13, "tag, first byte": end - TAG}
    run.view[places.get(where, end - 1)] ^= 0x80
    assert aead.open_run(*run.arguments, 1) == 0
    if backend != "cryptography":
        assert run.payload(0) == bytes(payload), "unverified plaintext is wiped"


@sweep
def test_a_packet_cut_short_does_not_open(ring: BufferRing, name: str, backend: str) -> None:
    aead = make_aead(name, KEYS[name], backend)
    run = Run(ring, (2, 0, 200, 1, 0, 9))
    aead.seal_run(*run.arguments)
    assert aead.open_run(ring, 2, 0, 199, 1, 199, 1) == 0


def test_back_ends_open_what_others_seal(ring: BufferRing) -> None:
    for name in AEADS:
        for sealing in backends():
            for opening in backends():
                run = Run(ring, (3, 0, 700, 40, 300, 77))
                make_aead(name, KEYS[name], sealing).seal_run(*run.arguments)
                everything = (1 << 40) - 1
                assert make_aead(name, KEYS[name], opening).open_run(*run.arguments, everything) == everything


def test_the_fastest_back_end_is_chosen_by_size_and_the_choice_is_among_those_present(ring: BufferRing) -> None:
    for name in AEADS:
        assert set(fastest(name)) <= set(backends())
        aead = make_aead(name, KEYS[name])
        for size in (1200, 20_000):
            run = Run(ring, (1, 0, size, 3, 0, size))
            aead.seal_run(*run.arguments)
            assert run.packets() == run.sealed(name)
            assert aead.open_run(*run.arguments, 0b101) == 0b101


def test_the_environment_names_the_back_end_unless_the_caller_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in backends():
        monkeypatch.setenv("BURSTWIRE_AEAD_BACKEND", backend)
        assert backend.replace("-", "") in repr(make_aead("aes-128-gcm", bytes(16))).lower()
    monkeypatch.setenv("BURSTWIRE_AEAD_BACKEND", "none such")
    with pytest.raises(ConfigError, match="present: cryptography"):
        make_aead("aes-128-gcm", bytes(16))
    make_aead("aes-128-gcm", bytes(16), "cryptography")


@pytest.mark.parametrize(("name", "size"), [("aes-128-gcm", 32), ("aes-256-gcm", 16), ("chacha20-poly1305", 31)])
def test_a_key_of_another_size_is_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match="bytes"):
        make_aead(name, bytes(size))


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="aes-128-gcm"):
        make_aead("rot13", bytes(16))
    with pytest.raises(ConfigError, match="cryptography"):
        make_aead("aes-128-gcm", bytes(16), "slide rule")


def test_the_environment_overrides_the_default_back_end_and_not_an_explicit_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BURSTWIRE_AEAD_BACKEND", "slide rule")
    with pytest.raises(ConfigError, match="slide rule"):
        make_aead("aes-128-gcm", bytes(16))
    aead: Aead = make_aead("aes-128-gcm", bytes(16), "cryptography")
    assert "…" in repr(aead)
