"""Exit codes, and the one line on stderr that goes with each failure."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CODES_HELP", "ExitCode", "Failure", "describe_os_error"]


class ExitCode(IntEnum):
    """What the process returns; the same for every command."""

    OK = 0
    TRANSFER = 1
    USAGE = 2
    PEER = 3
    LOCAL = 4
    INTERRUPTED = 130
    TERMINATED = 143


CODES_HELP = """\
\b
Exit codes:
  0    everything asked for was done
  1    connected, but not everything was done: a file refused, the connection lost
  2    the command line is wrong
  3    the peer cannot be reached, or does not accept this key
  4    a file, directory, identity or port of this machine cannot be used
  130  interrupted (SIGINT)
  143  terminated (SIGTERM)
"""
"""Goes under every command's help; a test compares it with `ExitCode`."""


class Failure(Exception):
    """Ends the command with this exit code, and with this one line on stderr.

    Attributes:
        code: the exit code.
        line: what to tell the user, without a trailing full stop.
    """

    def __init__(self, code: ExitCode, line: str) -> None:
        super().__init__(line)
        self.code = code
        self.line = line


def describe_os_error(error: OSError) -> str:
    """The cause alone, in lower case, without the errno and the path that `str(error)` would repeat."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
