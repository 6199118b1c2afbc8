"""Errors travel: between processes and as copies, with what they say."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from burstwire import errors

ERRORS = [
    errors.PeerClosed(3, "bye", by_application=False),
    errors.HandshakeRefused(4, "no", "peer refused"),
    errors.HandshakeTimeout("nobody there"),
    errors.VersionMismatch((1, 2)),
    errors.RemoteProtocolError(10, "it lied"),
    errors.MessageTooLarge(3, 1),
    errors.StreamReset(5),
    errors.LocallyClosed(),
    errors.IdleTimeout("quiet"),
    errors.AddressError(errno.EADDRINUSE, "in use"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_an_error_arrives_as_it_was(error: errors.TransportError, travel: object) -> None:
    other = travel(error)  # type: ignore[operator]
    assert type(other) is type(error)
    assert (str(other), other.args, other.__dict__) == (str(error), error.args, error.__dict__)
    if isinstance(error, OSError):
        assert other.errno == error.errno
