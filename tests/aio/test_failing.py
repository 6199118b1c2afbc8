"""One error for many tasks: each gets its own copy."""

from __future__ import annotations

import errno

import pytest

from burstwire.aio.failing import fresh
from burstwire.errors import (
    AddressError,
    HandshakeRefused,
    IdleTimeout,
    LocallyClosed,
    MessageTooLarge,
    PeerClosed,
    RemoteProtocolError,
    VersionMismatch,
)


@pytest.mark.parametrize(
    "error",
    [
        PeerClosed(3, "bye", by_application=False),
        HandshakeRefused(4, "no", "peer refused"),
        VersionMismatch((1, 2)),
        RemoteProtocolError(10, "it lied"),
        MessageTooLarge(3, 1),
        LocallyClosed(),
        IdleTimeout("quiet"),
        AddressError(errno.EADDRINUSE, "in use"),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_says_the_same_and_shares_no_traceback(error: Exception) -> None:
    try:
        raise error from OSError("why")
    except Exception:
        copy = fresh(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)
    assert copy.__cause__ is error.__cause__
    assert copy.__traceback__ is None
    if isinstance(error, AddressError):
        assert copy.errno == errno.EADDRINUSE


def test_a_prefix_names_the_peer() -> None:
    copy = fresh(HandshakeRefused(4, "no", "refused"), "node:1: ")
    assert str(copy) == "node:1: refused"
    assert copy.code == 4
