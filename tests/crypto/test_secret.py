"""Secrets overwrite themselves, are never shown, and otherwise are bytes."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle

import pytest

from burstwire.core._burstwire import ffi
from burstwire.crypto.kdf import derive, expand
from burstwire.crypto.secret import Secret, overwrite


def left_of(kind: type[bytearray]) -> tuple[bytes, bytes]:
    """What a value was, and what is left in its memory when nobody refers to it any more."""
    value = kind(os.urandom(32))
    was = bytes(value)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(value)))
    ctypes.string_at(address, 32)  # whatever that call allocates, it has by now
    del value
    return was, ctypes.string_at(address, 32)


def test_a_secret_leaves_nothing_in_memory_and_an_ordinary_buffer_does() -> None:
    was, left = left_of(Secret)
    # The allocator may have linked the block into a list by its first words.
    assert left[16:] == bytes(16)
    assert left[:16] != was[:16]
    was, left = left_of(bytearray)
    assert left[16:] == was[16:]


def test_what_a_secret_is_taken_from_is_overwritten() -> None:
    fresh = os.urandom(32)
    value = bytes(bytearray(fresh))
    secret = Secret.taken(fresh)
    assert secret == value
    assert fresh == bytes(32)
    fresh = os.urandom(128)
    overwrite(fresh)
    assert fresh == bytes(128)


def test_a_secret_lives_as_long_as_anybody_refers_to_it() -> None:
    secret = Secret(b"x" * 32)
    view = memoryview(secret)[8:16]
    del secret
    assert view == b"x" * 8


def test_the_key_schedule_gives_secrets() -> None:
    assert isinstance(derive(b"salt", b"material", b"label"), Secret)
    for size in (16, 32):
        secret = expand(b"k" * 32, b"label", size)
        assert isinstance(secret, Secret)
        assert len(secret) == size


def test_a_secret_is_not_shown_pickled_or_copied() -> None:
    secret = Secret(b"tell nobody about me")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r}"):
        assert shown == "<Secret of 20 bytes …>"
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            use(secret)
