"""Bulk flows through a simulated bottleneck: what of the link they use, what queue they leave, how they share.

Everything is in virtual time and follows from the seed, so the figures are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from burstwire.config import Config
from burstwire.sim import Bottleneck, Link, Peer, Simulation

__all__ = ["MTU", "Measured", "Scene", "jain", "measure"]

MTU = 1472
SAMPLE = 0.1
"""Seconds between the samples that plots are made of."""

ENOUGH = 1 << 40
"""Bytes that no run gets to send."""

WINDOW = 32 << 20
"""Of flow control: several times what any of these paths holds, so that the controller alone limits."""


@dataclass(frozen=True)
class Scene:
    """One run. Rates in bytes a second, times in seconds.

    Attributes:
        controllers: of each flow; the flows begin within `spread` of each other, in this order where `spread` is 0.
        queue: seconds of the rate that wait at most; None: one round trip.
        loss: share of the datagrams lost by chance behind the bottleneck.
        settle: seconds before the measurement. seconds: of the measurement.
    """

    controllers: tuple[str, ...]
    rtt: float
    seed: int
    rate: float = 5e6
    queue: float | None = None
    loss: float = 0.0
    settle: float = 15.0
    seconds: float = 30.0
    spread: float = 0.0

    @property
    def queue_bytes(self) -> int:
        """At least sixteen packets: below that no queue is built."""
        return max(16 * MTU, round(self.rate * (self.rtt if self.queue is None else self.queue)))


@dataclass(frozen=True)
class Measured:
    """What a run came to.

    Attributes:
        use: share of the capacity in bytes of datagrams that arrived.
        queue: seconds that a byte waits at the bottleneck, in the mean over time. longest: of any datagram.
        rates: of each flow, bytes of streams a second.
        lost: share of the datagrams dropped at the queue.
        samples: (seconds, seconds of queue, bytes a second of each flow), of settling, too.
    """

    scene: Scene
    use: float
    queue: float
    longest: float
    rates: tuple[float, ...]
    lost: float
    samples: tuple[tuple[float, float, tuple[float, ...]], ...]


def jain(rates: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1 / n when one has everything."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 0.0


def measure(scene: Scene) -> Measured:
    """Run a scene."""
    there = Bottleneck(scene.rate, scene.queue_bytes)
    # A grain of a few packets' time, and no more than a twentieth of the round trip, which it lengthens.
    grain = min(8 * MTU / scene.rate, scene.rtt / 20)
    away = Link(delay=scene.rtt / 2, mtu=MTU, bottleneck=there, loss=scene.loss, grain=grain)
    home = Link(delay=scene.rtt / 2, mtu=MTU, grain=grain)
    random = Random(f"paths {scene.seed}")
    sim = Simulation(scene.seed, home)
    clock = sim.clock
    start = clock.now
    peers: list[Peer] = []
    for number, controller in enumerate(scene.controllers):
        config = Config(
            congestion=controller,
            send_buffer=WINDOW,
            stream_window=WINDOW,
            connection_window=WINDOW,
            max_datagram_size=MTU,
        )
        left = sim.host(f"10.0.1.{number}", config=config)
        right = sim.host(f"10.0.2.{number}", config=config)
        sim.network.set_link(away, left.address)
        sim.pass_time(random.random() * scene.spread / len(scene.controllers))
        near, far = sim.connect(left, right)
        peers.append(far)
        near.open().send(ENOUGH)
    received = [0] * len(peers)
    samples: list[tuple[float, float, tuple[float, ...]]] = []
    at_settled = list(received)
    delivered = 0
    settled = False
    begun = start
    while clock.now < start + scene.settle + scene.seconds:
        sim.pass_time(SAMPLE)
        if not settled and clock.now >= start + scene.settle:
            settled = True
            there.measure(clock.now)
            begun = clock.now
            delivered = _delivered(sim)
            at_settled = [_received(peer) for peer in peers]
        now = [_received(peer) for peer in peers]
        rates = tuple((b - a) / SAMPLE for a, b in zip(received, now, strict=True))
        received = now
        samples.append((clock.now - start, there.waiting(clock.now) / scene.rate, rates))
    usage = there.measure(clock.now)
    seconds = clock.now - begun
    entered = usage.carried.total() / MTU + usage.dropped.total()
    measured = Measured(
        scene=scene,
        use=(_delivered(sim) - delivered) / usage.capacity,
        queue=usage.mean_queue / scene.rate,
        longest=usage.longest,
        rates=tuple((b - a) / seconds for a, b in zip(at_settled, received, strict=True)),
        lost=usage.dropped.total() / entered if entered else 0.0,
        samples=tuple(samples),
    )
    for host in sim.hosts:
        host.destroy()
    return measured


def _delivered(sim: Simulation) -> int:
    """Bytes of datagrams that arrived on the way out, of all flows."""
    hosts = sim.hosts
    return sum(sim.network.delivered(a.address, b.address) for a, b in list(pairwise(hosts))[::2])


def _received(peer: Peer) -> int:
    return sum(flow.received for flow in peer.flows.values())
