"""BBR over simulated bottlenecks: how much of a link it uses, what it queues there, and how it shares.

Rates are small, because each packet costs the same however fast the link is.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from benches.paths_runs import Scene, measure

from burstwire.config import Config
from burstwire.sim import Flow, Link, Peer, Simulation
from burstwire.sim.link import Pipe

MTU = 1472


@dataclass
class Shares:
    """What a stretch of time was like: the flows' goodput and the mean queue, as shares of the link and of its
    bandwidth-delay product."""

    goodput: list[float]
    queue: float

    @property
    def jain(self) -> float:
        return sum(self.goodput) ** 2 / len(self.goodput) / sum(share**2 for share in self.goodput)


class Bottleneck:
    """Senders, one for each controller named, to one receiver, over one queue."""

    def __init__(self, sim: Simulation, controllers: list[str], rate: float, rtt: float, queue: float, loss: float):
        self.sim, self.rate, self.rtt = sim, rate, rtt
        window = 1 << 22
        config = Config(max_datagram_size=MTU, stream_window=window, connection_window=8 * window, send_buffer=window)
        receiver = sim.host("10.0.1.1", config=config)
        pipe = Pipe(Link(delay=rtt / 2, rate=rate, queue=int(queue * rate * rtt), loss=loss), Random(sim.seed))
        self.pipe = pipe
        self.pairs: list[tuple[Peer, Peer]] = []
        self.flows: list[Flow] = []
        for n, controller in enumerate(controllers):
            sender = sim.host(f"10.0.0.{n + 1}", config=config.replace(congestion=controller))
            self.pairs.append(sim.connect(sender, receiver))
            sim.network._pipes[sender.address, receiver.address] = pipe  # one queue for all of them
        for left, _ in self.pairs:
            self.flows.append(left.open().send(1 << 40, finish=False))
            sim.pass_time(3.7 * rtt)

    def measure(self, seconds: float) -> Shares:
        queued: list[float] = []

        def look() -> None:
            queued.append(max(0.0, self.pipe._free_at - self.sim.clock.now) / self.rtt)
            self.sim.clock.at(self.sim.clock.now + self.rtt / 7, look)

        before = self._received()
        look()
        self.sim.pass_time(seconds)
        goodput = [(after - start) / seconds / self.rate for after, start in zip(self._received(), before, strict=True)]
        return Shares(goodput, sum(queued) / len(queued))

    def stop(self) -> None:
        for flow in self.flows:
            flow.reset(1)

    def _received(self) -> list[int]:
        return [right.flow(flow).received for (_, right), flow in zip(self.pairs, self.flows, strict=True)]


def measured(
    controllers: list[str],
    *,
    rate: float,
    rtt: float,
    queue: float = 1.0,
    loss: float = 0.0,
    warm: float = 5.0,
    seconds: float = 10.0,
) -> Shares:
    with Simulation(1, Link(delay=rtt / 2)) as sim:
        path = Bottleneck(sim, controllers, rate, rtt, queue, loss)
        sim.pass_time(warm)
        shares = path.measure(seconds)
        path.stop()
    return shares


@pytest.mark.parametrize("loss", [0.0, 0.01])
@pytest.mark.parametrize(("rate", "rtt"), [(1.5e6, 0.01), (0.5e6, 0.05), (0.5e6, 0.1), (0.5e6, 0.2)])
def test_bbr_uses_nine_tenths_of_a_link_also_one_that_loses_a_packet_in_a_hundred(
    rate: float, rtt: float, loss: float
) -> None:
    """Of the link, headers included: 2.9 % of each packet."""
    seconds = 10.0 if rtt > 0.01 else 5.0  # one or two ProbeRTT
    shares = measured(["bbr"], rate=rate, rtt=rtt, loss=loss, warm=4 + 10 * rtt, seconds=seconds)
    assert shares.goodput[0] / 0.971 >= 0.9


@pytest.mark.parametrize(("rate", "rtt"), [(1.5e6, 0.02), (0.5e6, 0.1)])
def test_bbr_queues_at_most_half_of_what_cubic_does(rate: float, rtt: float) -> None:
    bbr = measured(["bbr"], rate=rate, rtt=rtt, warm=3, seconds=6)
    cubic = measured(["cubic"], rate=rate, rtt=rtt, warm=3, seconds=6)
    assert bbr.queue <= 0.5 * cubic.queue


def test_bbr_queues_a_fifth_of_the_path_at_most_on_a_short_one_with_held_back_interrupts() -> None:
    """34 packets in 10 ms, handed over in steps of half a millisecond: what bundles pretend is no bandwidth."""
    scene = Scene(("bbr",), 0.01, 1, settle=3, seconds=5)
    run = measure(scene)
    assert run.queue <= 0.21 * scene.rtt
    assert run.use >= 0.9


@pytest.mark.parametrize("flows", [2, 8])
def test_flows_of_bbr_come_to_share_a_link_evenly(flows: int) -> None:
    rate = 0.25e6 * flows
    shares = measured(["bbr"] * flows, rate=rate, rtt=0.04, queue=2.0, warm=6, seconds=18)
    assert shares.jain >= 0.95
    assert sum(shares.goodput) / 0.971 >= 0.9


@pytest.mark.parametrize("queue", [1.0, 3.0])
def test_bbr_and_cubic_leave_each_other_a_quarter_at_least(queue: float) -> None:
    shares = measured(["bbr", "cubic"], rate=0.75e6, rtt=0.04, queue=queue, warm=6, seconds=14)
    assert min(shares.goodput) >= 0.25
    assert sum(shares.goodput) / 0.971 >= 0.9
