"""The grid: one transfer over a path drawn from its seed, and the time that it may take.

`draw` makes a `Case` of a seed: size, path, controller, outages. `Case.longest_wait` and `Case.longest` say, from these
parameters alone, how long the receiver may go without a byte and how long all of it may take. `transfer` runs it and
returns what happened, as an `Outcome`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, log, sqrt
from random import Random

from burstwire.config import CONGESTION_CONTROLLERS, Config
from burstwire.proto.attempts import FIRST_BACKOFF
from burstwire.proto.attempts import MAX_BACKOFF as LONGEST_RESEND
from burstwire.proto.congestion.fixed import DECREASE, PERSISTENT_INTERVALS
from burstwire.proto.congestion.ledbat import MAX_GAIN_DIVISOR, TARGET
from burstwire.sim import Bottleneck, Bursts, Flow, Link, Peer, SimHost, Simulation

MTU = 1472
PAYLOAD = 1200 - 42
"""Bytes of a stream in the least packet that there is: what the discovered MTU brings is not relied on."""

CONFIG = Config(idle_timeout=600, handshake_timeout=600)
"""Longer than any outage with what its back-off adds."""

FIXED = 1.25e6
"""Bytes a second of the controller "fixed": 10 Mbit/s, whatever the path could carry."""

RARE = 1e-4
"""How unlikely a series of lost probes must be to be left out of the bounds, for each wait of a transfer."""

SHARE = 0.5
"""Of the bottleneck's rate and of the Mathis-like rate, what a transfer must reach in the mean: CUBIC gives up 30 % of
its window after a loss, and a queue of a fraction of the path's content empties then."""


@dataclass(frozen=True)
class Case:
    """One transfer. Sizes in bytes, times in seconds, rates in bytes a second."""

    seed: int
    size: int
    rtt: float
    rate: float
    queue: int
    discipline: str
    loss: float
    bursts: Bursts | None
    reordering: float
    hold: float
    outages: tuple[tuple[float, float], ...]
    congestion: str

    # what follows from it

    @property
    def grain(self) -> float:
        """Arrivals are handed over in steps of a sixteenth of the round trip with its queue."""
        return max(0.0005, (self.rtt + self.queue / self.rate) / 16)

    @property
    def share_lost(self) -> float:
        """Of the datagrams in each direction."""
        return self.loss + (self.bursts.loss if self.bursts else 0.0)

    @property
    def round(self) -> float:
        """The longest that an answer takes when nothing is lost: the queue is full, datagrams are held back."""
        full = (self.queue + MTU) / self.rate
        return self.rtt + full + 2 * (self.hold if self.reordering else 0.0) + 3 * self.grain + CONFIG.max_ack_delay

    @property
    def pto(self) -> float:
        """The longest probe timeout without back-off: smoothed + 4 × variance, and the variance is at most half of the
        longest sample (RFC 9002 §5.3, §6.2.1); after a burst of losses the next bad stretch delays it, too."""
        return 3 * self.round + CONFIG.max_ack_delay + 0.001

    @property
    def misses(self) -> int:
        """How many probe timeouts in a row may be in vain, so that more of them are `RARE`.

        One is in vain when both of its packets or the acknowledgement of them is lost; in a bad stretch, all are
        (`pto` is longer than it lasts).
        """
        p = self.share_lost
        if not p:
            return 1
        vain = 1 - (1 - p * p) * (1 - p)
        return 1 + ceil(log(RARE) / log(vain)) + (self.bursts is not None)

    @property
    def longest_outage(self) -> float:
        """All of them, should they follow upon each other."""
        return sum(seconds for _, seconds in self.outages)

    @property
    def longest_wait(self) -> float:
        """The longest time without a byte for the receiver.

        A hole is repaired by the next probe, or the next round trip; each in vain doubles the time to the next. After
        an outage the probe timeout has grown to as much as the outage lasted.
        """
        doubled = 2.0**self.misses - 1
        wait = self.round + doubled * self.pto
        if self.outages:
            wait += 2 * (self.longest_outage + self.pto) * 2.0 ** (self.misses - 1)
        if self.congestion == "fixed" and self.rate < FIXED:
            # Until it has given way, most of what it sends is lost at the bottleneck, be it new or a repair: some
            # intervals before the first reduction, and one for each, of a round trip.
            reductions = ceil(log(FIXED / self.rate) / -log(DECREASE))
            wait += (PERSISTENT_INTERVALS + reductions) * self.round
        return wait

    @property
    def handshake(self) -> float:
        """The longest handshake: there, back, and there again. A try that is lost in either direction is resent with a
        back-off that has a limit, the confirmation by probe timeouts."""
        p = self.share_lost
        wait = 2 * self.round
        if p:
            tries = 1 + ceil(log(RARE) / log(1 - (1 - p) ** 2)) + (self.bursts is not None)
            wait += sum(min(FIRST_BACKOFF * 2**n, LONGEST_RESEND) * 1.25 for n in range(tries)) + self.longest_wait
        elif self.outages:
            wait += 2 * (self.longest_outage + self.pto) + LONGEST_RESEND
        return wait

    @property
    def achievable(self) -> float:
        """Bytes a second that a transfer must reach in the mean.

        The least of: the bottleneck's rate; the windows over a round trip; what Reno reaches with losses of a share p
        by Padhye et al. (1998, equation 30), which is Mathis' 1.22 / √p a round trip for small p, and counts time-outs
        for a large one. A few losses of a burst count as one, and reordered packets may be taken for lost. A rate that
        is configured is not exceeded.
        """
        window = min(CONFIG.send_buffer, CONFIG.stream_window, CONFIG.connection_window)
        least = min(self.rate * (1 - self.share_lost), window / self.round)
        p = self.loss + (self.bursts.loss / min(self.bursts.length, 3.0) if self.bursts else 0.0) + self.reordering
        if p:
            each = self.round * sqrt(2 * p / 3) + self.pto * min(1.0, 3 * sqrt(3 * p / 8)) * p * (1 + 32 * p * p)
            least = min(least, PAYLOAD / each)
        if self.congestion == "fixed":
            least = min(least, FIXED)
        return SHARE * least

    @property
    def longest(self) -> float:
        """The longest that all of it may take, from the first packet to the last byte.

        Handshake, slow start (a doubling each round trip; LEDBAT++'s grows by GAIN, §4.1 of its draft), the bytes at
        the rate that is `achievable`, and one longest wait, which includes the outages. After each outage the window
        begins anew at its least, below a threshold that may be as low; Reno, one packet a round trip, needs √(2n) of
        them for n packets.
        """
        packets = self.size / PAYLOAD
        growth = 2.0
        if self.congestion == "ledbat":
            growth = 1 + 1 / min(MAX_GAIN_DIVISOR, ceil(2 * TARGET / self.rtt))
        rounds = 1 + log(1 + packets / 10) / log(growth) + len(self.outages) * sqrt(2 * packets)
        return self.handshake + rounds * self.round + self.size / self.achievable + self.longest_wait

    def __str__(self) -> str:
        parts = [
            f"{self.size:,} bytes, {self.rtt * 1e3:.3g} ms, {self.rate * 8e-6:.3g} Mbit/s, "
            f"queue {self.queue / (self.rate * self.rtt):.2g} of the path ({self.discipline}), {self.congestion}"
        ]
        if self.loss:
            parts.append(f"loss {self.loss:.2%}")
        if self.bursts:
            parts.append(f"bursts {self.bursts.loss:.2%} of {self.bursts.length:.3g}")
        if self.reordering:
            parts.append(f"reordering {self.reordering:.1%} by up to {self.hold * 1e3:.3g} ms")
        parts += [f"outage of {seconds:.3g} s at {at:.3g} s" for at, seconds in self.outages]
        return ", ".join(parts)


def draw(seed: int, largest: int = 10_000_000) -> Case:
    """The case of a seed; sizes are log-uniform from 1,000 bytes to `largest`."""
    random = Random(f"transfer {seed}")

    def spread(low: float, high: float) -> float:
        """Log-uniform."""
        return float(low * (high / low) ** random.random())

    size = round(spread(1000, largest))
    rtt = spread(0.001, 0.6)
    rate = spread(1e6, 1e9) / 8
    queue = max(16 * MTU, round(rate * rtt * spread(0.25, 2)))
    kind = random.choice(("clean", "random", "bursts", "both"))
    share = random.choice((0.001, 0.01, 0.03, 0.1)) * random.uniform(0.5, 1)
    part = {"clean": (0.0, 0.0), "random": (share, 0.0), "bursts": (0.0, share), "both": (share / 2, share / 2)}[kind]
    bursts = None
    if part[1]:
        bursts = Bursts(part[1], length=random.uniform(2, 20), limit=max(0.02, rtt / 2))
    reordering = random.choice((0.0, 0.0, 0.005, 0.05))
    expected = size / rate + 4 * rtt
    outages = []
    if random.random() < 0.2:
        outages = [(random.uniform(0, 2 * expected), spread(0.1, 30)) for _ in range(random.choice((1, 1, 2)))]
    return Case(
        seed=seed,
        size=size,
        rtt=rtt,
        rate=rate,
        queue=queue,
        discipline=random.choice(("tail", "tail", "tail", "codel")),
        loss=part[0],
        bursts=bursts,
        reordering=reordering,
        hold=min(0.05, rtt * random.uniform(0.05, 0.5)),
        outages=tuple(sorted(outages)),
        congestion=random.choice(CONGESTION_CONTROLLERS),
    )


@dataclass(frozen=True)
class Outcome:
    """What happened; times in virtual seconds. `error` is empty when everything is as it must be."""

    case: Case
    seconds: float = inf
    wait: float = inf
    packets_lost: int = 0
    calls: int = 0
    error: str = ""

    @property
    def whole(self) -> float:
        """The time of all of it in shares of what is allowed."""
        return self.seconds / self.case.longest

    @property
    def stall(self) -> float:
        """The same of the longest wait."""
        return self.wait / self.case.longest_wait


class Watch(Peer):
    """Notes the longest time without a new byte."""

    def __init__(self, host: SimHost, connection: object) -> None:
        super().__init__(host, connection)  # type: ignore[arg-type]
        self.since = host.clock.now
        self.longest = 0.0

    def stream_readable(self, stream: object) -> None:
        super().stream_readable(stream)  # type: ignore[arg-type]
        now = self.host.clock.now
        self.longest = max(self.longest, now - self.since)
        self.since = now


def transfer(case: Case, prepare: Callable[[Simulation, SimHost, SimHost], object] | None = None) -> Outcome:
    """Run a case. `prepare` may change the world before the first packet."""
    there = Bottleneck(case.rate, case.queue, discipline=case.discipline)
    link = Link(
        delay=case.rtt / 2,
        loss=case.loss,
        bursts=case.bursts,
        reordering=case.reordering,
        hold=case.hold,
        mtu=MTU,
        grain=case.grain,
    )
    config = CONFIG.replace(congestion=case.congestion)
    if case.congestion == "fixed":
        config = config.replace(fixed_rate=FIXED)
    simulation = Simulation(case.seed, link)
    try:
        with simulation as sim:
            left, right = (sim.host(f"10.0.0.{n}", config=config, application=Watch) for n in (1, 2))
            sim.network.set_link(
                Link(**{name: getattr(link, name) for name in link.__slots__} | {"bottleneck": there}), left.address
            )
            for at, seconds in case.outages:
                sim.clock.at(sim.clock.now + at, lambda seconds=seconds: sim.network.outage(seconds))
            if prepare is not None:
                prepare(sim, left, right)
            near, far = sim.connect(left, right, within=case.handshake)
            assert isinstance(far, Watch)
            done: list[Flow] = []
            far.on_stream = done.append
            near.open().send(case.size)
            sim.run(lambda: done and done[0].at_end, within=case.longest - sim.elapsed)
            seconds = sim.elapsed
            wait = far.longest
            assert done[0].received == case.size, f"{done[0].received:,} bytes arrived"
            lost = int(near.connection.stats()["packets_lost"])
        calls = sim.clock.calls
    except Exception as error:
        return Outcome(case, error=f"{type(error).__name__}: {error}")
    finally:
        for host in simulation.hosts:
            host.ring.close()
    outcome = Outcome(case, seconds, wait, lost, calls)
    if outcome.stall > 1:
        return Outcome(case, seconds, wait, lost, calls, f"waited {wait:.3f} s, longest {case.longest_wait:.3f} s")
    return outcome
