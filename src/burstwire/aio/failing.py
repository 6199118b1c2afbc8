"""Raising one error in many tasks.

How a connection ended is kept as one exception, and every later call raises it. Raising the same object again and again
would make its traceback grow and keep the frames of every task alive, so each caller gets a copy.
"""

from __future__ import annotations

from copy import copy as shallow_copy
from typing import TypeVar

from burstwire.errors import ConnectionLost, EndpointClosed

__all__ = ["ENDED", "fresh"]

ENDED = (ConnectionLost, EndpointClosed)
"""What the protocol raises, one object for each connection, when it has ended."""

E = TypeVar("E", bound=BaseException)


def fresh(error: E, prefix: str = "") -> E:
    """A copy of `error` with the same attributes, cause and message (after `prefix`), and no traceback.

    The traceback of `error` itself is dropped, too. In an except clause: ``raise fresh(error) from error.__cause__``.
    """
    error.__traceback__ = None
    copy = shallow_copy(error)
    if prefix:
        copy.args = (f"{prefix}{error}",)
    copy.__cause__ = error.__cause__
    return copy
