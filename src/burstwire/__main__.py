"""`python -m burstwire` is the `burstwire` command."""

from __future__ import annotations

import sys

from burstwire.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
