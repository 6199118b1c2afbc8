"""A slice of the campaigns of `make test-sim`: the grid of transfers and the streams over bad paths."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from exact import exact
from transfers import Case, draw, transfer

from burstwire.sim import SimHost, Simulation, seeds

CAMPAIGN = Path(__file__).parent / "campaign.py"


def clean(**values: object) -> Case:
    """A case without anything bad, on 10 Mbit/s and 40 ms."""
    case = replace(
        draw(0),
        size=100_000,
        rtt=0.04,
        rate=1.25e6,
        queue=50_000,
        discipline="tail",
        loss=0.0,
        bursts=None,
        reordering=0.0,
        outages=(),
        congestion="cubic",
    )
    return replace(case, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", seeds(60))
def test_a_transfer_of_the_grid_completes_within_its_bounds(seed: int) -> None:
    outcome = transfer(draw(seed, largest=1_000_000))
    assert not outcome.error


@pytest.mark.parametrize("seed", seeds(30))
def test_a_stream_arrives_byte_for_byte_over_a_bad_path_and_flows_on_once_it_heals(seed: int) -> None:
    assert not exact(seed, largest=1 << 20).error


def test_one_seed_gives_one_case_and_one_outcome() -> None:
    assert [draw(seed) for seed in range(20)] == [draw(seed) for seed in range(20)]
    assert transfer(draw(3, 50_000)) == transfer(draw(3, 50_000))


def test_cases_cover_the_grid() -> None:
    cases = [draw(seed) for seed in range(3000)]
    for values, low, high in (
        ([case.size for case in cases], 1e3, 1e7),
        ([case.rtt for case in cases], 0.001, 0.6),
        ([case.rate * 8 for case in cases], 1e6, 1e9),
    ):
        assert low <= min(values) < 1.1 * low
        assert 0.9 * high < max(values) <= high
    assert 0.09 < max(case.share_lost for case in cases) <= 0.1
    assert max(seconds for case in cases for _, seconds in case.outages) > 25
    for part in ("loss", "bursts", "reordering", "outages"):
        assert 300 < sum(bool(getattr(case, part)) for case in cases) < 2700


def test_the_bounds_grow_with_what_makes_a_path_slow_and_not_beyond() -> None:
    easy = clean()
    # 80 ms of transmission, 5 doublings of a round trip that a full queue doubles: no case for seconds
    assert easy.longest < 2
    assert easy.longest_wait < 0.5
    for harder in (
        {"size": 200_000},
        {"rtt": 0.08},
        {"rate": 0.625e6},
        {"loss": 0.02},
        {"outages": ((0.1, 1.0),)},
    ):
        assert clean(**harder).longest > easy.longest
    assert clean(loss=0.1).longest_wait > clean(loss=0.01).longest_wait > easy.longest_wait


def test_a_transfer_that_stalls_is_noticed() -> None:
    def cut(sim: Simulation, *hosts: SimHost) -> None:
        sim.clock.at(sim.clock.now + 0.1, lambda: sim.network.outage(1.5))

    assert not transfer(clean(size=1_000_000)).error
    assert "waited" in transfer(clean(size=1_000_000), cut).error


def test_a_transfer_that_takes_too_long_is_noticed() -> None:
    def never(sim: Simulation, *hosts: SimHost) -> None:
        sim.clock.at(sim.clock.now + 0.1, lambda: sim.network.outage(1000))

    assert "not within" in transfer(clean(), never).error


def test_the_campaign_tells_how_to_replay_what_failed_and_fails() -> None:
    seed = Random(1).randrange(1000)
    spoil = (
        "import sys, transfers; transfers.Case.longest = property(lambda case: 1e-3)\n"
        f"sys.argv = ['campaign.py', 'grid', '--seed', '{seed}', '--jobs', '1']\n"
        "import campaign; sys.exit(campaign.main())"
    )
    failing = subprocess.run(
        [sys.executable, "-c", spoil], cwd=CAMPAIGN.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert failing.returncode == 1
    assert f"FAILED: seed {seed}: " in failing.stdout
    assert f"campaign.py grid --seed {seed}" in failing.stdout
    whole = subprocess.run(
        [sys.executable, str(CAMPAIGN), "grid", "--count", "4", "--jobs", "2"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stdout
    assert "4 of 4 transfers complete" in whole.stdout
