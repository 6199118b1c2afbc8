"""HKDF against RFC 5869 and against HMACs."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from burstwire.crypto.kdf import derive, expand


def test_the_first_case_of_rfc_5869_appendix_a() -> None:
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    result = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert derive(bytes.fromhex("000102030405060708090a0b0c"), b"\x0b" * 22, info, 42).hex() == result
    key = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    assert expand(key, info, 42).hex() == result


@given(st.binary(max_size=80), st.binary(min_size=1, max_size=80), st.binary(max_size=80), st.integers(1, 32))
def test_the_hmacs_of_the_standard_library_agree(salt: bytes, material: bytes, info: bytes, size: int) -> None:
    key = hmac.digest(salt, material, "sha256")
    block = hmac.digest(key, info + b"\x01", "sha256")
    assert derive(salt, material, info, size) == expand(key, info, size) == block[:size]
