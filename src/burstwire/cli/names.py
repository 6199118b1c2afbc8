"""Which names a receiver lets a peer give to a file.

A name from the network is a plain name in one directory or it is refused; it is never repaired, because a
repaired name would surprise whoever looks for the file.
"""

from __future__ import annotations

import unicodedata

__all__ = ["MAX_NAME_BYTES", "BadName", "check_name", "partial_name"]

MAX_NAME_BYTES = 255
"""NAME_MAX of the usual file systems, in bytes of UTF-8."""

_PARTIAL_STEM_BYTES = 200
"""How much of the name a partial file repeats; leaves room in 255 bytes for dots, id and ending."""

_STEERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls: with them "gpj.exe" looks like "exe.jpg" (Unicode TR36 §2.2)."""

_CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, lone surrogates, line and paragraph separators."""


class BadName(ValueError):
    """The name may not be used; the message says why."""


def check_name(name: str) -> str:
    """`name` itself if it is a plain, visible name of one file; raises `BadName` otherwise."""
    if not name:
        raise BadName("the name is empty")
    if name in (".", ".."):
        raise BadName(f"the name is {name!r}")
    if "/" in name or "\\" in name:
        raise BadName("the name holds a path separator")
    if any(unicodedata.category(character) in _CONTROL_CATEGORIES for character in name):
        raise BadName("the name holds a control character")
    if not _STEERING.isdisjoint(name):
        raise BadName("the name holds a text direction control")
    if name.startswith("."):
        # Hidden names belong to the receiver: configuration files, and our own partial files.
        raise BadName("the name starts with a dot")
    if name != name.strip():
        raise BadName("the name starts or ends with white space")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadName(f"the name is longer than {MAX_NAME_BYTES} bytes")
    return name


def partial_name(name: str, identity: str) -> str:
    """What the unfinished file is called: hidden, and different for every sender and content."""
    stem = name.encode()[:_PARTIAL_STEM_BYTES].decode(errors="ignore")
    return f".{stem}.{identity}.part"
