"""Headers come back as they went, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.cli.headers import (
    LENGTH,
    MAX_HEADER,
    Accept,
    Busy,
    Check,
    Done,
    End,
    Header,
    HeaderError,
    Offer,
    Prefix,
    Refuse,
    decode,
    encode,
)

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "header",
    [
        Offer("photo.jpg", 1 << 40, 1_700_000_000_123_456_789, 0o644),
        Offer("x" * 255, 0, -1, 0),
        Offer("\u6587" * 85, (1 << 63) - 1, 0, 0o7777),
        Check(17),
        Prefix(HASH),
        Accept(0),
        End(HASH),
        Done(True),
        Done(False),
        Refuse("exists", "a reason"),
        Busy(),
    ],
)
def test_a_header_survives_the_way(header: Header) -> None:
    encoded = encode(header)
    (length,) = LENGTH.unpack(encoded[: LENGTH.size])
    assert length == len(encoded) - LENGTH.size <= MAX_HEADER
    assert decode(encoded[LENGTH.size :]) == header


OFFER = {"type": "offer", "name": "a", "size": 1, "mtime_ns": 0, "mode": 420}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'"offer"',
        b"null",
        b"{",
        b"[" * 4000,
        b"1" * 4096,
        b"{}",
        b'{"type":7}',
        b'{"type":["offer"]}',
        b'{"type":"nothing"}',
        b'{"type":"header"}',
        *(
            json.dumps(fields).encode()
            for fields in (
                {key: value for key, value in OFFER.items() if key != "size"},
                OFFER | {"size": -1},
                OFFER | {"size": 1 << 63},
                OFFER | {"size": True},
                OFFER | {"size": 1.0},
                OFFER | {"size": "1"},
                OFFER | {"name": None},
                OFFER | {"name": ["a"]},
                OFFER | {"mode": 0o10000},
                OFFER | {"mtime_ns": 1 << 64},
                {"type": "end", "sha256": HASH[:-1]},
                {"type": "end", "sha256": HASH.upper()},
                {"type": "end", "sha256": HASH + "\n"},
                {"type": "done", "identical": 1},
                {"type": "refuse", "code": "x", "reason": "y" * 1000},
            )
        ),
    ],
)
def test_what_is_no_header_raises_and_nothing_else(body: bytes) -> None:
    with pytest.raises(HeaderError):
        decode(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_header_error(body: bytes) -> None:
    with contextlib.suppress(HeaderError):
        decode(body)


def test_unknown_fields_are_ignored() -> None:
    assert decode(json.dumps({"type": "accept", "offset": 5, "later": [1]}).encode()) == Accept(5)


def test_a_header_beyond_the_limit_is_never_written() -> None:
    with pytest.raises(HeaderError):
        encode(Offer("\x00" * 1000, 0, 0, 0))
