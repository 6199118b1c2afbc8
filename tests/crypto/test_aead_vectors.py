"""Back ends in C against published vectors (NIST's for AES-GCM; RFC 8439's, BoringSSL's and OpenSSL's for
ChaCha20-Poly1305), and what is made of those by harming one of their parts."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cryptography_vectors
import pytest

from burstwire.crypto.aead import Aead, backends, make_aead

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
NATIVE = tuple(name for name in backends() if name != "cryptography")

pytestmark = pytest.mark.skipif(not NATIVE, reason="no back end in C on this machine")
each = pytest.mark.parametrize("backend", NATIVE)


@dataclass(frozen=True)
class Vector:
    where: str
    key: bytes
    nonce: bytes
    aad: bytes
    plain: bytes
    sealed: bytes
    tag: bytes
    valid: bool = True


class Calls:
    """vectors.c, compiled."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        for name in ("vector_seal", "vector_open"):
            getattr(self._library, name).argtypes = [
                ctypes.c_uint64,
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.c_uint32,
                ctypes.c_void_p,
                ctypes.c_uint32,
                ctypes.c_void_p,
            ]

    def seal(self, aead: Aead, nonce: bytes, aad: bytes, plain: bytes) -> tuple[bytes, bytes]:
        body = (ctypes.c_uint8 * max(1, len(plain)))(*plain)
        tag = (ctypes.c_uint8 * 16)()
        assert self._library.vector_seal(aead.handle, nonce, aad, len(aad), body, len(plain), tag) == 0
        return bytes(body)[: len(plain)], bytes(tag)

    def open(self, aead: Aead, nonce: bytes, aad: bytes, sealed: bytes, tag: bytes) -> bytes | None:
        body = (ctypes.c_uint8 * max(1, len(sealed)))(*sealed)
        expected = (ctypes.c_uint8 * 16)(*tag)
        verified = self._library.vector_open(aead.handle, nonce, aad, len(aad), body, len(sealed), expected)
        assert verified in (0, 1)
        return bytes(body)[: len(sealed)] if verified else None


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    target = tmp_path_factory.mktemp("vectors") / "vectors.so"
    subprocess.run(
        [compiler, "-std=c11", "-shared", "-fPIC", "-O1", "-I", CSRC, "-o", target, HERE / "vectors.c"], check=True
    )
    return Calls(target)


def records(*path: str) -> Iterator[dict[str, str]]:
    """The records of a file of vectors: lines `name = value`, sections `[name = value]`, lone words."""
    section: dict[str, str] = {}
    record: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(str(Path(*path)), "r") as file:
        lines = file.readlines()
    for line in [*lines, "\n"]:
        name, _, value = (part.strip() for part in line.strip(" []\n").partition("="))
        if not name or name.startswith("#"):
            if "TAG" in record:
                yield section | record
            record = {}
        elif line.startswith("["):
            section[name.upper()] = value
        else:
            record[name.upper()] = value


def octets(text: str) -> bytes:
    return text.strip('"').encode() if text.startswith('"') else bytes.fromhex(text)


def gcm(file: str) -> list[Vector]:
    """Those with the sizes of nonce and tag that the protocol has."""
    return [
        Vector(
            f"{file}, {record['AADLEN']} and {record['PTLEN']} bits, count {record['COUNT']}",
            octets(record["KEY"]),
            octets(record["IV"]),
            octets(record["AAD"]),
            octets(record.get("PT", "")),
            octets(record["CT"]),
            octets(record["TAG"]),
            "FAIL" not in record,
        )
        for record in records("ciphers", "AES", "GCM", file)
        if record["IVLEN"] == "96" and record["TAGLEN"] == "128"
    ]


def chacha() -> list[Vector]:
    folder = ("ciphers", "ChaCha20Poly1305")
    return [
        *(
            Vector(
                f"boringssl {record['COUNT']}",
                *(octets(record[name]) for name in ("KEY", "NONCE", "AD", "IN", "CT", "TAG")),
            )
            for record in records(*folder, "boringssl.txt")
        ),
        *(
            Vector(
                f"openssl {record['COUNT']}",
                *(octets(record[name]) for name in ("KEY", "IV", "AAD", "PLAINTEXT", "CIPHERTEXT", "TAG")),
                "RESULT" not in record,
            )
            for record in records(*folder, "openssl.txt")
        ),
    ]


SETS = {
    "aes-128-gcm": lambda: [*gcm("gcmEncryptExtIV128.rsp"), *gcm("gcmDecrypt128.rsp")],
    "aes-256-gcm": lambda: [*gcm("gcmEncryptExtIV256.rsp"), *gcm("gcmDecrypt256.rsp")],
    "chacha20-poly1305": chacha,
}


@pytest.fixture(scope="module", params=SETS)
def published(request: pytest.FixtureRequest) -> tuple[str, list[Vector]]:
    vectors = SETS[request.param]()
    assert len(vectors) > 50
    assert {vector.valid for vector in vectors} == {True, False}
    assert any(not vector.sealed for vector in vectors)
    return request.param, vectors


def harmed(vector: Vector) -> Iterator[Vector]:
    """A valid vector with one part of it changed, each in its own way."""

    def flip(data: bytes, bit: int) -> bytes:
        return bytes(octet ^ (1 << bit % 8 if index == bit // 8 else 0) for index, octet in enumerate(data))

    for bit in range(128):
        yield replace(vector, where=f"{vector.where}, bit {bit} of the tag", tag=flip(vector.tag, bit))
    for name, tag in (
        ("zeros", bytes(16)),
        ("ones", b"\xff" * 16),
        ("inverted", bytes(octet ^ 0xFF for octet in vector.tag)),
        ("reversed", vector.tag[::-1]),
        ("first half only", vector.tag[:8] + bytes(8)),
        ("second half only", bytes(8) + vector.tag[8:]),
    ):
        yield replace(vector, where=f"{vector.where}, tag {name}", tag=tag)
    for bit in (0, 95):
        yield replace(vector, where=f"{vector.where}, bit {bit} of the nonce", nonce=flip(vector.nonce, bit))
    yield replace(vector, where=f"{vector.where}, more additional data", aad=vector.aad + b"\0")
    if vector.aad:
        yield replace(vector, where=f"{vector.where}, less additional data", aad=vector.aad[:-1])
        yield replace(vector, where=f"{vector.where}, other additional data", aad=flip(vector.aad, 0))
    yield replace(vector, where=f"{vector.where}, longer", sealed=vector.sealed + b"\0")
    if vector.sealed:
        yield replace(vector, where=f"{vector.where}, cut short", sealed=vector.sealed[:-1])
        yield replace(vector, where=f"{vector.where}, emptied", sealed=b"")
        yield replace(vector, where=f"{vector.where}, other ciphertext", sealed=flip(vector.sealed, 7))
    yield replace(vector, where=f"{vector.where}, other key", key=flip(vector.key, 3))


@each
def test_published_vectors_are_sealed_and_opened_as_published(
    calls: Calls, backend: str, published: tuple[str, list[Vector]]
) -> None:
    name, vectors = published
    for vector in vectors:
        aead = make_aead(name, vector.key, backend)
        opened = calls.open(aead, vector.nonce, vector.aad, vector.sealed, vector.tag)
        if not vector.valid:
            assert opened is None, vector.where
            continue
        assert opened == vector.plain, vector.where
        assert calls.seal(aead, vector.nonce, vector.aad, vector.plain) == (vector.sealed, vector.tag), vector.where


@each
def test_a_published_vector_with_any_part_of_it_harmed_does_not_open(
    calls: Calls, backend: str, published: tuple[str, list[Vector]]
) -> None:
    name, vectors = published
    # One of each shape: the lengths of additional data and payload.
    shapes = {(len(vector.aad), len(vector.plain)): vector for vector in vectors if vector.valid}
    for vector in shapes.values():
        for bad in harmed(vector):
            if bad == replace(vector, where=bad.where):
                continue
            aead = make_aead(name, bad.key, backend)
            assert calls.open(aead, bad.nonce, bad.aad, bad.sealed, bad.tag) is None, bad.where
