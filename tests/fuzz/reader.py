"""An input of a fuzzer, read piece by piece."""

from __future__ import annotations

__all__ = ["Reader"]


class Reader:
    """Numbers and bytes from the front of an input; zeros and nothing behind its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        """A big-endian number of so many bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"))

    def take(self, n: int) -> bytes:
        """The next `n` bytes, or as many as there are."""
        piece = self._data[self._at : self._at + n]
        self._at += len(piece)
        return piece

    def block(self, limit: int = 1400) -> bytes:
        """Bytes behind their length, which takes two bytes."""
        return self.take(self.number(2) % (limit + 1))
