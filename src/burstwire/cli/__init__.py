"""The `burstwire` command: keys, file transfer, ping and a self-check.

The commands need the extra `cli` (click and rich); the library itself does not, so nothing outside this
package imports it. How a file travels is in `headers.py` (what is said), `sender.py` and `receiver.py` (who
says what when) and `folder.py` (what reaches the disk).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from burstwire.cli.exits import ExitCode

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; `arguments` defaults to those of the process."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.stderr.write(
            f"burstwire: the command needs the package {error.name!r}; install it with: pip install 'burstwire[cli]'\n"
        )
        return ExitCode.LOCAL
    from burstwire.cli.app import run

    return run(arguments)
