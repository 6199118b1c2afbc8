"""A file of JSON text sequences (RFC 7464) that never grows beyond a limit and never stops what it is about.

Records are kept until there is a block of them, so that an event costs no system call. Whatever goes wrong with the
file ends the writing and is remembered; nothing is raised.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

__all__ = ["NOTE_ROOM", "SequenceWriter"]

BLOCK = 64 * 1024
"""Bytes that are kept before they are written."""

NOTE_ROOM = 512
"""Bytes of the limit that are kept for a last record."""

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class SequenceWriter:
    """Writes records to what `open_file` gives, which is asked for with the first block.

    Attributes:
        size: bytes of all records taken so far.
        failure: what went wrong with the file, None if nothing did.
    """

    __slots__ = ("_buffer", "_closed", "_file", "_limit", "_open", "_waiting", "failure", "size")

    def __init__(self, open_file: Callable[[], io.FileIO], limit: int) -> None:
        self._open = open_file
        # Unbuffered below: after a fork, nothing that was kept here is written by the child, too.
        self._file: io.FileIO | None = None
        self._limit = limit
        self._buffer: list[bytes] = []
        self._waiting = 0
        self._closed = False
        self.size = 0
        self.failure: OSError | None = None

    def write(self, record: dict[str, Any], last: bool = False) -> bool:
        """Takes a record; False if it would pass the limit, or the file has failed. `last` may use what is kept."""
        data = b"\x1e" + _encode(record).encode() + b"\n"  # RFC 7464 §2.2
        room = self._limit - self.size - (0 if last else NOTE_ROOM)
        if len(data) > room or self.failure is not None or self._closed:
            return False
        self.size += len(data)
        self._buffer.append(data)
        self._waiting += len(data)
        if self._waiting >= BLOCK:
            self.flush()
        return self.failure is None

    def flush(self) -> None:
        """Writes what was kept."""
        if not self._buffer or self.failure is not None or self._closed:
            return
        data = memoryview(b"".join(self._buffer))
        self._buffer.clear()
        self._waiting = 0
        try:
            if self._file is None:
                self._file = self._open()
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            self._fail(error)

    def open_now(self) -> None:
        """Opens the file at once; raises `OSError` if that fails."""
        if self._file is None:
            self._file = self._open()

    def close(self, discard: bool = False) -> None:
        """Writes what was kept, unless it is to be discarded, and closes the file. Twice is once."""
        if self._closed:
            return
        if not discard:
            self.flush()
        self._closed = True
        self._buffer.clear()
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = self.failure or error
        self._buffer.clear()
        self._waiting = 0
