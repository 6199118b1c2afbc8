"""`python -m benches`: runs the parts, prints tables, writes report.md, report.json and plots under build/bench/.

Exit code 1 when a limit does not hold, 2 when a part could not do its work. Figures to reach that are not reached are
printed as such and change nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from benches import figures
from benches.harness import ROOT, BenchError
from benches.parts import PARTS, Part
from benches.plots import draw
from benches.report import Report, say


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller amounts and fewer rounds: less than two minutes")
    parser.add_argument(
        "--only", action="append", choices=tuple(PARTS), help="run this part; may be given several times"
    )
    parser.add_argument(
        "--line", action="append", choices=tuple(figures.GROUPS), help="of the figures to reach, only this group"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the report (build/bench, or build/bench/part with --only)"
    )
    options = parser.parse_args()
    # A part by itself does not write over the report of everything.
    output = options.output or ROOT / "build" / "bench" / ("part" if options.only else "")
    if options.line and options.only != ["figures"]:
        parser.error("--line goes with --only figures")
    chosen = {name: PARTS[name] for name in PARTS if not options.only or name in options.only}
    if not options.line:
        _estimate(chosen, quick=options.quick)
    report = Report()
    broken = False
    for name, part in chosen.items():
        started = time.monotonic()
        try:
            if options.line:
                figures.run(report, quick=options.quick, lines=options.line)
            else:
                part.run(report, quick=options.quick)
        except BenchError as error:
            broken = True
            print(f"BROKEN: {name}: {error}", flush=True)
        except Exception:
            broken = True
            print(f"BROKEN: {name}", flush=True)
            traceback.print_exc()
        report.seconds[name] = time.monotonic() - started
        say(f"{name}: {report.seconds[name]:.0f} s")
    for path in [*report.write(output), *draw(report, output)]:
        say(f"written: {path}")
    failed = [what for what, holds in report.verdicts.items() if not holds]
    for what in failed:
        print(f"FAILS: {what}")
    missed = sum(not holds for holds in report.targets.values())
    if report.targets:
        print(f"figures to reach: {len(report.targets) - missed} hold, {missed} do not")
    if broken:
        return 2
    return 1 if failed else 0


def _estimate(chosen: dict[str, Part], *, quick: bool) -> None:
    seconds = sum(part.quick_seconds if quick else part.seconds for part in chosen.values())
    words = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{max(seconds, 1):.0f} seconds"
    say(f"{', '.join(chosen)}: about {words} on a machine with two cores that does nothing else")


if __name__ == "__main__":
    sys.exit(main())
