"""mac1, mac2, cookies: documented bytes, bound to key, address and INITIATE, and short-lived."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from burstwire.crypto.cookie import (
    COOKIE_LIFETIME,
    NO_MAC,
    CookieJar,
    mac,
    mac1_key,
    open_cookie,
    seal_cookie,
    verify,
)
from burstwire.errors import CryptoError

PUBLIC, SALT, MAC1, COOKIE = b"P" * 32, b"S" * 16, b"M" * 16, b"C" * 16
ADDRESS, ELSEWHERE = b"a" * 24, b"b" * 24


class Source:
    """Random bytes that are all different and known."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, size: int) -> bytes:
        self.drawn += 1
        return bytes([self.drawn]) * size


def test_mac1_is_the_documented_bytes() -> None:
    key = hashlib.blake2s(b"mac1----" + PUBLIC, digest_size=32).digest()
    assert mac1_key(PUBLIC) == key
    assert mac(key, b"data") == hashlib.blake2s(b"data", key=key, digest_size=16).digest()


@given(st.binary(max_size=100), st.integers(0, 127))
def test_a_mac_verifies_and_no_bit_may_change(data: bytes, bit: int) -> None:
    key = mac1_key(PUBLIC)
    tag = mac(key, data)
    assert verify(key, data, tag)
    assert not verify(key, data + b"\0", tag)
    assert not verify(mac1_key(b"Q" * 32), data, tag)
    assert not verify(key, data, (int.from_bytes(tag) ^ 1 << bit).to_bytes(16))
    assert not verify(key, data, tag[:-1])


def test_a_sealed_cookie_is_the_documented_bytes() -> None:
    prk = hmac.new(SALT, PUBLIC, hashlib.sha256).digest()
    key = hmac.new(prk, b"burstwire 1 cookie\x01", hashlib.sha256).digest()
    sealed = seal_cookie(PUBLIC, SALT, MAC1, COOKIE)
    assert sealed == ChaCha20Poly1305(key).encrypt(bytes(12), COOKIE, MAC1)
    assert len(sealed) == 32


def test_a_sealed_cookie_opens_only_for_the_initiate_and_responder_it_answers() -> None:
    sealed = seal_cookie(PUBLIC, SALT, MAC1, COOKIE)
    assert open_cookie(PUBLIC, SALT, MAC1, sealed) == COOKIE
    for arguments in [
        (b"Q" * 32, SALT, MAC1, sealed),
        (PUBLIC, b"T" * 16, MAC1, sealed),
        (PUBLIC, SALT, b"N" * 16, sealed),
        (PUBLIC, SALT, MAC1, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (PUBLIC, SALT, MAC1, b""),
        (PUBLIC, SALT, MAC1, seal_cookie(PUBLIC, SALT, MAC1, COOKIE + b"x")),
    ]:
        with pytest.raises(CryptoError):
            open_cookie(*arguments)


def test_a_cookie_proves_its_own_address_only() -> None:
    jar = CookieJar(Source(), 0.0)
    cookie = jar.cookie(ADDRESS, 1.0)
    assert len(cookie) == 16
    assert jar.verify(ADDRESS, b"initiate", mac(cookie, b"initiate"), 2.0)
    assert not jar.verify(ELSEWHERE, b"initiate", mac(cookie, b"initiate"), 2.0)
    assert not jar.verify(ADDRESS, b"another", mac(cookie, b"initiate"), 2.0)
    assert not jar.verify(ADDRESS, b"initiate", NO_MAC, 2.0)


@pytest.mark.parametrize(
    ("given_at", "used_at", "good"),
    [
        (0, 0, True),
        (119, 121, True),
        (0, 2 * COOKIE_LIFETIME - 1, True),
        (0, 2 * COOKIE_LIFETIME, False),
        (119, 2 * COOKIE_LIFETIME, False),
        (0, 50 * COOKIE_LIFETIME, False),
    ],
)
def test_a_cookie_lives_one_to_two_lifetimes(given_at: float, used_at: float, good: bool) -> None:
    jar = CookieJar(Source(), 0.0)
    cookie = jar.cookie(ADDRESS, given_at)
    assert jar.verify(ADDRESS, b"x", mac(cookie, b"x"), used_at) == good


def test_a_busy_responder_forgets_as_surely_as_a_quiet_one() -> None:
    jar = CookieJar(Source(), 0.0)
    cookie = jar.cookie(ADDRESS, 0.0)
    results = [jar.verify(ADDRESS, b"x", mac(cookie, b"x"), float(now)) for now in range(0, 400, 10)]
    assert results == [now < 2 * COOKIE_LIFETIME for now in range(0, 400, 10)]


def test_the_secret_is_drawn_only_when_it_changes() -> None:
    source = Source()
    jar = CookieJar(source, 0.0)
    first = jar.cookie(ADDRESS, 0.0)
    assert jar.cookie(ADDRESS, COOKIE_LIFETIME - 1) == first
    assert source.drawn == 1
    assert jar.cookie(ADDRESS, COOKIE_LIFETIME) != first
    assert source.drawn == 2
    assert "…" in repr(jar)
