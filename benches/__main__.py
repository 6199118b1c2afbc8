"""`python -m benches`: runs the parts, prints tables, writes build/bench/report.md and report.json.

Exit code 1 when a limit does not hold, 2 when a part could not do its work.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from benches import backpressure, beside, hostile, memory, relation
from benches.harness import ROOT, BenchError
from benches.report import Report, say

PARTS: dict[str, Callable[..., None]] = {
    "relation": relation.run,
    "memory": memory.run,
    "backpressure": backpressure.run,
    "hostile": hostile.run,
    "peers": beside.run,
}
"""In the order in which they run; those with limits first."""


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller amounts and fewer rounds: less than two minutes")
    parser.add_argument(
        "--only", action="append", choices=tuple(PARTS), help="run this part; may be given several times"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench", help="folder of the report")
    options = parser.parse_args()
    report = Report()
    broken = False
    for name in options.only or PARTS:
        try:
            PARTS[name](report, quick=options.quick)
        except BenchError as error:
            broken = True
            print(f"BROKEN: {name}: {error}", flush=True)
        except Exception:
            broken = True
            print(f"BROKEN: {name}", flush=True)
            traceback.print_exc()
    for path in report.write(options.output):
        say(f"written: {path}")
    failed = [what for what, holds in report.verdicts.items() if not holds]
    for what in failed:
        print(f"FAILS: {what}")
    if broken:
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
