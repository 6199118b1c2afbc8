"""What a command says: results on stdout, as text or as JSON lines, and failures as single lines on stderr."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TextIO

from burstwire.cli.text import printable

__all__ = ["Output", "complain", "discard_rest"]


def complain(line: str) -> None:
    """One line on stderr."""
    _write(sys.stderr, f"burstwire: {printable(line, 600)}\n")


def discard_rest(stream: TextIO) -> None:
    """Nobody reads this any more; what is buffered must not fail once more when Python flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _write(stream: TextIO, text: str) -> None:
    """Write and flush; a transfer is worth more than the pipe that its report goes to."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        discard_rest(stream)


@dataclass(frozen=True, slots=True)
class Output:
    """Results on stdout, each flushed at once so that a program can wait for it.

    Attributes:
        json: one JSON object a line, and nothing else.
    """

    json: bool

    def say(self, text: str) -> None:
        """For people; nothing when the output is JSON."""
        if not self.json:
            _write(sys.stdout, f"{text}\n")

    def event(self, event: str, **fields: object) -> None:
        """For programs; nothing when the output is text."""
        if self.json:
            _write(sys.stdout, json.dumps({"event": event, **fields}) + "\n")
