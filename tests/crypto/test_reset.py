"""Reset tokens: documented bytes, the same after a restart, another for each key and connection ID."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from burstwire.crypto.reset import reset_key, reset_token

cids = st.integers(0, (1 << 32) - 1)


@given(st.binary(min_size=32, max_size=32), cids)
def test_a_token_is_the_documented_bytes(private: bytes, cid: int) -> None:
    prk = hmac.new(bytes(32), private, hashlib.sha256).digest()
    key = hmac.new(prk, b"reset\x01", hashlib.sha256).digest()
    token = hmac.new(key, cid.to_bytes(4, "big"), hashlib.sha256).digest()[:16]
    assert reset_token(reset_key(private), cid) == token


@given(cids, cids)
def test_each_connection_and_each_node_has_its_own(one: int, other: int) -> None:
    mine, yours = reset_key(b"m" * 32), reset_key(b"y" * 32)
    assert (reset_token(mine, one) == reset_token(mine, other)) == (one == other)
    assert reset_token(mine, one) != reset_token(yours, one)
