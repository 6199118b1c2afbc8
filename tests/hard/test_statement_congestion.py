"""Statement 4, clause by clause, with figures: congestion control on a path of 20 Mbit/s, in virtual time.

That the same unit is charged and released is tests/proto/test_in_flight.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest

from burstwire.config import CONGESTION_CONTROLLERS, Config
from burstwire.proto.recovery import LONGEST_WAIT
from burstwire.sim import Link, Peer, Simulation

Outcome = Callable[[str, str, str], None]

RATE = 2.5e6
LONG = 0.135
SIZE = 2_300_000
LASTING = Config(idle_timeout=3600, keep_alive=0, close_timeout=0)


def shape(rtt: float, loss: float = 0.0) -> Link:
    """20 Mbit/s with room for one round trip."""
    return Link(delay=rtt / 2, rate=RATE, queue=round(RATE * rtt), grain=0.004, loss=loss)


def transfer(near: Peer, far: Peer, sim: Simulation) -> float:
    """Virtual seconds that `SIZE` bytes take."""
    flow = near.open().send(SIZE)
    seconds = sim.run(lambda: flow.stream and flow.stream.id in far.flows and far.flow(flow).at_end, within=180)
    assert far.flow(flow).received == SIZE
    return seconds


def seconds_of(controller: str, loss: float, seeds: range) -> list[float]:
    taken = []
    for seed in seeds:
        with Simulation(seed, shape(LONG, loss)) as sim:
            config = Config(congestion=controller)
            taken.append(transfer(*sim.connect(*(sim.host(f"10.0.0.{n}", config=config) for n in (1, 2))), sim))
    return taken


@pytest.mark.parametrize("controller", CONGESTION_CONTROLLERS)
def test_a_clean_path_carries_2300_kb_within_three_seconds(controller: str, seed: int, outcome: Outcome) -> None:
    taken = seconds_of(controller, 0.0, range(seed, seed + 1))
    outcome("demands", f"4: 2.3 MB at 135 ms and 20 Mbit/s, {controller}", f"{taken[0]:.2f} s (at most 3 s)")
    assert max(taken) <= 3


@pytest.mark.parametrize("controller", CONGESTION_CONTROLLERS)
def test_with_two_percent_of_loss_controllers_that_bear_it_take_ten_seconds_at_most(
    controller: str, seed: int, full: bool, outcome: Outcome
) -> None:
    taken = seconds_of(controller, 0.02, range(seed, seed + (20 if full else 2)))
    bears = controller in ("bbr", "fixed")
    verdict = "at most 10 s" if bears else "MISSED: 10 s; takes losses for congestion"
    outcome(
        "demands",
        f"4: the same with 2 % loss, {controller}",
        f"median {median(taken):.2f} s, longest {max(taken):.2f} s of {len(taken)} ({verdict})",
    )
    # Who takes each loss for congestion cannot be faster than Reno: 1.22 / √p packets a round trip (RFC 9438 §5.2).
    reno = SIZE / 1430 / (1.22 / 0.02**0.5) * LONG
    assert max(taken) <= (10 if bears else 2 * reno)


@pytest.mark.parametrize("rtt", [0.05, LONG])
@pytest.mark.parametrize("controller", CONGESTION_CONTROLLERS)
def test_after_ten_timeouts_half_of_the_rate_is_back_within_twenty(
    controller: str, rtt: float, seed: int, full: bool, outcome: Outcome
) -> None:
    counted = []
    waits = []
    for run in range(seed, seed + (10 if full else 1)):
        with Simulation(run, shape(rtt)) as sim:
            config = LASTING.replace(congestion=controller)
            left, right = (sim.host(f"10.0.0.{n}", config=config) for n in (1, 2))
            near, far = sim.connect(left, right)
            flow = near.open().send(1 << 40)
            sim.pass_time(3 + run % 10 / 7)
            got = far.flow(flow)
            earlier = got.received
            sim.pass_time(1)
            rate = got.received - earlier
            recovery = near.connection.recovery
            sim.network.outage(100_000, left.address)
            sim.run(lambda recovery=recovery: recovery.pto_count == 10, within=5000)
            silent = sim.clock.now
            sim.network.heal()
            before = got.received
            sim.run(lambda got=got, before=before: got.received > before, within=1000)
            waits.append(sim.clock.now - silent)
            rounds = 0
            while True:
                before = got.received
                sim.pass_time(rtt)
                rounds += 1
                if got.received - before >= 0.5 * rate * rtt or rounds >= 100:
                    break
            counted.append(rounds)
            near.connection.abort(sim.clock.now)
            left.poke()
    outcome(
        "demands",
        f"4: half of the rate after ten timeouts, {controller}, {rtt * 1e3:.0f} ms",
        f"{min(counted)} to {max(counted)} round trips after the path is back (at most 20); "
        f"the next probe came within {max(waits):.0f} s",
    )
    assert max(counted) <= 20


def test_a_peer_that_cannot_be_reached_is_probed_ever_more_rarely(outcome: Outcome) -> None:
    with Simulation(1, Link(delay=0.02)) as sim:
        left, _right = sim.connect(*(sim.host(f"10.0.0.{n}", config=Config(idle_timeout=90)) for n in (1, 2)))
        left.open().send(3_000_000)
        sim.pass_time(0.1)
        sim.network.outage(1000)
        sim.pass_time(0.05)
        times: list[float] = []

        def tap(now: float, source: bytes, destination: bytes, datagrams: list[bytes]) -> None:
            if source == left.host.address and (not times or now - times[-1] > 1e-6):
                times.append(now)

        sim.network.tap = tap
        sim.run(lambda: left.error is not None, 100)
    gaps = [later - sooner for sooner, later in pairwise(times)]
    outcome(
        "demands",
        "4: seconds between the probes of a peer out of reach",
        f"{', '.join(f'{gap:.2f}' for gap in gaps)}: doubled up to {LONGEST_WAIT:g} s",
    )
    assert len(gaps) > 7
    for sooner, later in pairwise(gaps):
        assert later == pytest.approx(min(2 * sooner, LONGEST_WAIT), rel=0.01)
