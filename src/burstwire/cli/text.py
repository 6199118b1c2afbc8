"""Sizes, rates and times for people, and names from the network made safe to print.

Sizes and rates are decimal (1 MB = 1,000,000 bytes), so that one divided by the other is the time shown.
"""

from __future__ import annotations

__all__ = ["format_duration", "format_rate", "format_size", "printable", "short_key"]

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")

_LONGEST = 200
"""Characters of a foreign text that one line shows at most."""


def format_size(count: float) -> str:
    """1 → "1 byte", 1,530 → "1.53 kB": three significant digits."""
    if count < 1000:
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    value, step = count / 1000, 0
    while value >= 999.5 and step < len(_UNITS) - 1:
        value, step = value / 1000, step + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[step]}"


def format_rate(count: int, seconds: float) -> str:
    """Bytes over seconds, as "312 MB/s"."""
    if seconds <= 0:
        return "-"
    rate = count / seconds
    return f"{rate:.0f} B/s" if rate < 1000 else f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """0.0042 → "4.20 ms", 3.21 → "3.2 s", 75 → "1:15 min", 3,700 → "1:01:40 h"."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms" if seconds * 1e3 >= 100 else f"{seconds * 1e3:.2f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def printable(text: str, limit: int = _LONGEST) -> str:
    """`text` on one line, with U+FFFD for everything that a terminal might obey."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[:limit])
    return shown + "…" if len(text) > limit else shown


def short_key(key: object) -> str:
    """Enough of a public key to tell the peers of one receiver apart."""
    text = str(key)
    return text if len(text) <= 16 else f"{text[:14]}…"
