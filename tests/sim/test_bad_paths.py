"""Connections over paths that change, starve acknowledgements or police, and that share a bottleneck."""

from __future__ import annotations

from dataclasses import replace

import pytest

from burstwire.config import Config
from burstwire.sim import Bottleneck, Link, Peer, Policer, SimHost, Simulation, Steps, seeds

MBIT = 125_000.0
LASTING = Config(idle_timeout=3600, keep_alive=0, close_timeout=0)


def ready(sim: Simulation, config: Config | None = None) -> tuple[SimHost, SimHost, Peer, Peer]:
    left, right = (sim.host(f"10.0.0.{n}", config=config) for n in (1, 2))
    return left, right, *sim.connect(left, right)


def transfer(sim: Simulation, near: Peer, far: Peer, size: int, within: float) -> float:
    """Seconds that `size` bytes take from `near` to `far`."""
    flow = near.open().send(size)
    seconds = sim.run(lambda: flow.stream and flow.stream.id in far.flows and far.flow(flow).at_end, within=within)
    assert far.flow(flow).received == size
    return seconds


# paths


def test_few_acknowledgements_do_not_hold_up_a_fast_way_out() -> None:
    # 50 Mbit/s out, 0.25 Mbit/s home with room for a few packets: 200 times as narrow
    with Simulation(1, Link(delay=0.02, grain=0.002)) as sim:
        left, right, near, far = ready(sim)
        sim.network.set_link(Link(delay=0.02, rate=50 * MBIT, queue=400_000, grain=0.002), left.address)
        sim.network.set_link(Link(delay=0.02, rate=0.25 * MBIT, queue=6000), right.address)
        seconds = transfer(sim, near, far, 20_000_000, within=30)
        print(f"20 MB over 50 Mbit/s with 0.25 Mbit/s home: {seconds:.2f} s")
        assert seconds < 20e6 / (50 * MBIT) / 0.5


def test_a_policed_path_carries_half_of_its_rate_at_least() -> None:
    with Simulation(1, Link(delay=0.02, grain=0.001)) as sim:
        left, _, near, far = ready(sim)
        sim.network.set_link(Link(delay=0.02, policer=Policer(10 * MBIT, 100_000), grain=0.001), left.address)
        seconds = transfer(sim, near, far, 5_000_000, within=60)
        print(f"5 MB through a policer of 10 Mbit/s: {seconds:.2f} s, {sim.network.stats()['policed']} dropped")
        assert seconds < 5e6 / (10 * MBIT) / 0.5


def test_a_rate_and_a_round_trip_that_vary_are_followed() -> None:
    rate = Steps([(0, 20 * MBIT), (2, 2 * MBIT), (4, 10 * MBIT)], period=6)
    link = Link(delay=0.02, bottleneck=Bottleneck(rate, queue=100_000), grain=0.002)
    with Simulation(1, Link(delay=0.02)) as sim:
        left, _, near, far = ready(sim)
        sim.network.set_link(link, left.address)
        sim.network.plan([(1.5, replace(link, delay=0.1)), (4, replace(link, delay=0.01))], left.address)
        start = sim.clock.now
        seconds = transfer(sim, near, far, 8_000_000, within=60)
        possible = rate.passing(start, 8e6) - start
        print(f"8 MB in {seconds:.2f} s, {possible:.2f} s at the least")
        assert seconds < possible / 0.5


def test_an_mtu_that_shrinks_in_mid_flight_costs_a_few_probe_timeouts_and_no_byte() -> None:
    link = Link(delay=0.02, rate=20 * MBIT, queue=100_000, grain=0.002)
    with Simulation(1, link) as sim:
        left, _, near, far = ready(sim)
        sim.network.plan([(1, replace(link, mtu=1300))], left.address)
        seconds = transfer(sim, near, far, 6_000_000, within=60)
        print(f"6 MB while the MTU falls to 1,300: {seconds:.2f} s")
        assert near.connection.stats()["mtu"] <= 1300
        assert seconds < 6e6 / (20 * MBIT) / 0.5 + 3


@pytest.mark.parametrize("seed", seeds(4))
@pytest.mark.parametrize("address_too", [False, True])
def test_rebinding_in_mid_transfer_costs_no_byte(address_too: bool, seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, loss=0.01, rate=20 * MBIT, queue=100_000, grain=0.002)) as sim:
        left, _, near, far = ready(sim)
        for n in range(1, 4):
            moved = (lambda n=n: left.move(f"10.1.0.{n}")) if address_too else (lambda n=n: left.rebind(5000 + n))
            sim.clock.at(sim.clock.now + 0.4 * n, moved)
        transfer(sim, near, far, 4_000_000, within=60)
        assert left.address != near.connection.path[:24]


@pytest.mark.parametrize("seconds", [1, 7, 60])
def test_an_outage_shorter_than_the_idle_timeout_is_survived(seconds: float) -> None:
    with Simulation(1, Link(delay=0.02, rate=10 * MBIT, queue=100_000, grain=0.002)) as sim:
        _, _, near, far = ready(sim, LASTING)
        sim.clock.at(sim.clock.now + 0.5, lambda: sim.network.outage(seconds))
        taken = transfer(sim, near, far, 2_000_000, within=600)
        print(f"2 MB with an outage of {seconds:g} s: {taken:.2f} s")
        # the probe timeout has grown to as much as the outage lasted at most
        assert taken < 2 * seconds + 2e6 / (10 * MBIT) / 0.5 + 1


# sharing


def share(controllers: list[str], seconds: float) -> tuple[list[int], float]:
    """Bytes that each flow got in the second half, and the use of the bottleneck meanwhile."""
    there = Bottleneck(20 * MBIT, queue=round(20 * MBIT * 0.04))
    sim = Simulation(1, Link(delay=0.02, grain=0.002))
    peers = []
    for n, name in enumerate(controllers):
        config = Config(congestion=name)
        left, right = sim.host(f"10.0.1.{n}", config=config), sim.host(f"10.0.2.{n}", config=config)
        sim.network.set_link(Link(delay=0.02, bottleneck=there, grain=0.002), left.address)
        near, far = sim.connect(left, right)
        near.open().send(1 << 40)
        peers.append(far)
    sim.pass_time(seconds / 2)
    before = [sum(flow.received for flow in peer.flows.values()) for peer in peers]
    there.measure(sim.clock.now)
    sim.pass_time(seconds / 2)
    got = [sum(flow.received for flow in peer.flows.values()) - b for peer, b in zip(peers, before, strict=True)]
    use = there.measure(sim.clock.now).use
    for host in sim.hosts:
        host.destroy()
    return got, use


def test_cubic_uses_a_bottleneck_with_a_queue_of_one_round_trip() -> None:
    _, use = share(["cubic"], 12)
    print(f"use of 20 Mbit/s at 40 ms: {use:.1%}")
    assert use >= 0.9


def test_flows_of_cubic_share_a_bottleneck_and_none_starves() -> None:
    got, use = share(["cubic"] * 4, 24)
    index = sum(got) ** 2 / (len(got) * sum(n * n for n in got))
    print(f"Jain's index of 4 flows: {index:.3f}, use {use:.1%}")
    assert use >= 0.9
    assert index >= 0.9
