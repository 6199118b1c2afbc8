"""One place that turns the C core's negative errno into words: never a number without its name."""

from __future__ import annotations

import errno
import os

__all__ = ["describe", "os_error"]


def describe(code: int) -> str:
    """`EMSGSIZE (message too long)` for `-errno.EMSGSIZE` or `errno.EMSGSIZE`."""
    number = abs(code)
    text = os.strerror(number)
    return f"{errno.errorcode.get(number, f'errno {number}')} ({text[:1].lower()}{text[1:]})"


def os_error(code: int, what: str) -> OSError:
    """The OSError (or its fitting subclass) for a negative errno; `what` says what was being done."""
    return OSError(abs(code), f"{what}: {describe(code)}")
