"""Streams that must arrive byte for byte: losses, duplicates, reordering, replays, and then a path that heals.

What arrives is compared with what was sent as it is read (`burstwire.sim.traffic.Pattern`): the first wrong byte ends
the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from random import Random

from burstwire.config import CONGESTION_CONTROLLERS, Config
from burstwire.sim import Flow, Link, Peer, SimHost, Simulation

LARGEST = 8 << 20
REPLAYED = 0.02
"""Share of the trains of which a datagram is sent again later by somebody who listens."""

CONFIG = Config(idle_timeout=120, handshake_timeout=120)

STALL_RTOS = 3
"""Probe timeouts within which a path that healed must carry new bytes: of the sender, as far as it has backed off, when
the wait began or when it ended, for the queue that its own packets make lengthens them."""


@dataclass(frozen=True)
class Exact:
    """What happened in one run: bytes, virtual seconds, the longest stall on the healed path in probe timeouts (-inf:
    it was never waited for) with and without their back-off, replayed datagrams; `error` is empty when all is as it
    must be."""

    seed: int
    size: int
    seconds: float = inf
    stall: float = -inf
    plain: float = -inf
    replayed: int = 0
    error: str = ""


class Replay:
    """Listens to a network and sends some of what it heard again, up to two seconds later."""

    def __init__(self, sim: Simulation, random: Random) -> None:
        self.sim = sim
        self.random = random
        self.count = 0
        self._heard: deque[tuple[bytes, bytes, bytes]] = deque(maxlen=64)
        self._sending = False
        sim.network.tap = self.hear

    def hear(self, now: float, source: bytes, destination: bytes, datagrams: list[bytes]) -> None:
        if self._sending or self.random.random() >= 5 * REPLAYED:
            return
        self._heard.append((source, destination, self.random.choice(datagrams)))
        if self.random.random() < 1 / 5:
            again = self.random.choice(self._heard)
            self.sim.clock.at(now + 2 * self.random.random() ** 3, lambda: self.send(*again))

    def send(self, source: bytes, destination: bytes, data: bytes) -> None:
        self.count += 1
        self._sending = True
        self.sim.network.send(source, destination, [data])
        self._sending = False


class Healing(Peer):
    """Keeps the times of new bytes, each with the sender's probe timeout as backed off, and without back-off."""

    def __init__(self, host: SimHost, connection: object) -> None:
        super().__init__(host, connection)  # type: ignore[arg-type]
        self.arrivals: list[tuple[float, float, float]] = []
        self.timeouts: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)

    def stream_readable(self, stream: object) -> None:
        before = sum(flow.received + flow.at_end for flow in self.flows.values())
        super().stream_readable(stream)  # type: ignore[arg-type]
        if sum(flow.received + flow.at_end for flow in self.flows.values()) > before:
            self.note()

    def note(self) -> None:
        self.arrivals.append((self.host.clock.now, *self.timeouts()))


def exact(seed: int, largest: int = LARGEST) -> Exact:
    """One run of 1 to `largest` bytes, log-uniform; half of the paths are cut for a while before they heal."""
    random = Random(f"exact {seed}")
    size = round(float(largest) ** random.random())
    delay = random.choice((0.002, 0.01, 0.04, 0.1))
    rate = random.choice((1e6, 5e6, 20e6))
    link = Link(
        delay=delay,
        loss=0.05,
        duplication=0.05,
        reordering=0.05,
        hold=min(0.02, delay),
        rate=rate,
        queue=max(64_000, round(2 * rate * delay)),
        grain=max(0.0005, delay / 6),
    )
    healed = Link(delay=delay, rate=link.rate, queue=link.queue, grain=link.grain)
    heals = random.random() * (size / 2e6 + 6 * delay)
    cut = random.random() * 2 if random.random() < 0.5 else 0.0
    config = CONFIG.replace(congestion=random.choice(CONGESTION_CONTROLLERS))
    simulation = Simulation(seed, link)
    try:
        with simulation as sim:
            left, right = (sim.host(f"10.0.0.{n}", config=config, application=Healing) for n in (1, 2))
            replay = Replay(sim, random)
            near, far = sim.connect(left, right, within=60)
            assert isinstance(far, Healing)
            done: list[Flow] = []
            far.on_stream = done.append
            flow = near.open().send(size)
            start = sim.clock.now
            sim.clock.run(start + heals, lambda: bool(done and done[0].at_end))
            stall = plain = -inf
            if not (done and done[0].at_end):
                sim.network.outage(cut)
                sim.pass_time(cut)
                sim.network.set_link(healed)
                recovery = near.connection.recovery
                far.timeouts = lambda: (
                    recovery.pto() * (1 << recovery.pto_count) + 2 * link.grain,
                    recovery.pto() + 2 * link.grain,
                )
                far.arrivals = []
                far.note()
                sim.run(lambda: done and done[0].at_end, within=60 + 30 * size / rate)
                for (a, *before), (b, *after) in pairwise(far.arrivals):
                    stall = max(stall, (b - a) / max(before[0], after[0]))
                    plain = max(plain, (b - a) / max(before[1], after[1]))
            seconds = sim.clock.now - start
            assert done[0].received == size == flow.sent
    except Exception as error:
        return Exact(seed, size, error=f"{type(error).__name__}: {error}")
    finally:
        for host in simulation.hosts:
            host.ring.close()
    error = f"stalled for {stall:.1f} probe timeouts after the path had healed" if stall > STALL_RTOS else ""
    return Exact(seed, size, seconds, stall, plain, replay.count, error)
