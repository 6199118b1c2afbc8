"""What a command says: results on stdout, as text or as JSON lines, and failures as single lines on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from burstwire.cli.text import printable

__all__ = ["Output", "complain"]


def complain(line: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"burstwire: {printable(line, 600)}\n")
    sys.stderr.flush()


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
            print(text, flush=True)

    def event(self, event: str, **fields: object) -> None:
        """For programs; nothing when the output is text."""
        if self.json:
            print(json.dumps({"event": event, **fields}), flush=True)
