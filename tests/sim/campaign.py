"""Runs thousands of simulated transfers on all processors: what `make test-sim` does.

    python tests/sim/campaign.py grid           10,000 transfers over the grid of `transfers`
    python tests/sim/campaign.py exact          10,000 streams over the bad paths of `exact`
    python tests/sim/campaign.py grid --seed 7  one of them again, by its seed

Exit code 1 when one fails; each that does is told with its seed and the command that has it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context

from exact import STALL_RTOS, Exact, exact
from transfers import Outcome, draw, transfer

COUNT = 10_000


def one_of_grid(seed: int) -> Outcome:
    return transfer(draw(seed))


def quantiles(values: Sequence[float]) -> str:
    """The middle, the highest of 9 in 10, of 99 in 100, of all."""
    ordered = sorted(values)
    picked = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99, 1)]
    return " / ".join(f"{value:.3g}" for value in picked)


def grid_report(outcomes: list[Outcome]) -> None:
    good = [outcome for outcome in outcomes if not outcome.error]
    print(f"{len(good):,} of {len(outcomes):,} transfers complete, {sum(o.case.size for o in good):,} bytes")
    if good:
        print("of what is allowed, median / 90 % / 99 % / most:")
        print(f"  all of it     {quantiles([outcome.whole for outcome in good])}")
        print(f"  longest wait  {quantiles([outcome.stall for outcome in good])}")
        for name in sorted({outcome.case.congestion for outcome in good}):
            own = [outcome for outcome in good if outcome.case.congestion == name]
            print(f"  {name}: {len(own):,} transfers, all of it {quantiles([outcome.whole for outcome in own])}")


def exact_report(outcomes: list[Exact]) -> None:
    good = [outcome for outcome in outcomes if not outcome.error]
    print(f"{len(good):,} of {len(outcomes):,} streams arrived byte for byte, {sum(o.size for o in good):,} bytes")
    print(f"  datagrams replayed: {sum(outcome.replayed for outcome in good):,}")
    healed = [outcome.stall for outcome in good if outcome.stall >= 0]
    if healed:
        print(
            f"  longest stall on {len(healed):,} paths that healed, in probe timeouts (at most {STALL_RTOS}), "
            f"median / 90 % / 99 % / most: {quantiles(healed)}"
        )
        plain = [outcome.plain for outcome in good if outcome.stall >= 0]
        print(f"  the same in probe timeouts without back-off: {quantiles(plain)}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("grid", "exact"))
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.count) if options.seed is None else [options.seed]
    run = one_of_grid if options.what == "grid" else exact
    start = time.monotonic()
    outcomes: list[Outcome | Exact] = []
    failed = 0
    with get_context("fork").Pool(options.jobs) as pool:
        for outcome in pool.imap_unordered(run, seeds, chunksize=8):  # type: ignore[arg-type]
            outcomes.append(outcome)
            if outcome.error:
                failed += 1
                seed = outcome.case.seed if isinstance(outcome, Outcome) else outcome.seed
                about = f"\n  {outcome.case}" if isinstance(outcome, Outcome) else ""
                print(f"FAILED: seed {seed}: {outcome.error}{about}")
                print(f"  replay with: {sys.executable} tests/sim/campaign.py {options.what} --seed {seed}", flush=True)
            elif options.seed is not None:
                print(outcome)
    if options.what == "grid":
        grid_report([outcome for outcome in outcomes if isinstance(outcome, Outcome)])
    else:
        exact_report([outcome for outcome in outcomes if isinstance(outcome, Exact)])
    print(f"  {time.monotonic() - start:.0f} s on {options.jobs} processors")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
