"""HKDF against RFC 5869 and against cryptography's."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from burstwire.crypto.kdf import expand, extract


def test_the_first_case_of_rfc_5869_appendix_a() -> None:
    key = extract(bytes.fromhex("000102030405060708090a0b0c"), b"\x0b" * 22)
    assert key.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    first = expand(key, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"))
    assert first.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


@given(st.binary(max_size=80), st.binary(min_size=1, max_size=80), st.binary(max_size=80), st.integers(1, 32))
def test_another_implementation_agrees(salt: bytes, material: bytes, info: bytes, size: int) -> None:
    assert expand(extract(salt, material), info, size) == HKDF(SHA256(), size, salt, info).derive(material)


@pytest.mark.parametrize("size", [0, 33])
def test_more_than_one_block_is_not_offered(size: int) -> None:
    with pytest.raises(ValueError, match="32"):
        expand(bytes(32), b"", size)
