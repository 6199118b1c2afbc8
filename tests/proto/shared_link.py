"""Several connections between two simulated hosts through one bottleneck, each with a controller of its own."""

from __future__ import annotations

from types import TracebackType

from burstwire.config import Config
from burstwire.sim import Link, Peer, Simulation

ENDLESS = 1 << 40
CONFIG = Config(send_buffer=1 << 20, stream_window=8 << 20, connection_window=8 << 20, max_datagram_size=1472)


class SharedLink:
    """The bottleneck: `rate` bytes a second, `delay` seconds each way, `queue` seconds of bytes, `loss` at random.

    Attributes:
        peers: the sending applications, in the order in which they started.
    """

    def __init__(
        self,
        *,
        rate: float | None,
        delay: float,
        queue: float = 0.1,
        loss: float = 0.0,
        seed: int = 1,
        config: Config = CONFIG,
    ) -> None:
        self.rate = rate or 0.0
        self.sim = Simulation(seed, Link(delay=delay))
        self.sender = self.sim.host("10.0.0.1", config=config)
        self.receiver = self.sim.host("10.0.0.2", config=config.replace(total_bandwidth=None))
        size = int(self.rate * queue) or 1 << 20
        self.sim.network.set_link(
            Link(delay=delay, rate=rate, queue=size, loss=loss), self.sender.address, self.receiver.address
        )
        self.peers: list[Peer] = []
        self._others: list[Peer] = []

    def __enter__(self) -> SharedLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self.peers:
            if peer.connection.established:
                peer.connection.abort(self.sim.clock.now)
        self.sender.poke()
        self.sim.__exit__(kind, error, trace)

    def start(self, congestion: str | None = None, size: int = ENDLESS) -> Peer:
        """One more connection, which sends `size` bytes."""
        left, right = self.sim.connect(self.sender, self.receiver)
        if congestion is not None:
            left.connection.set_congestion(congestion, self.sim.clock.now)
        self.peers.append(left)
        self._others.append(right)
        if size:
            left.open().send(size, finish=False)
        return left

    def stop(self, peer: Peer) -> None:
        """Ends a connection at once."""
        peer.connection.abort(self.sim.clock.now)
        self.sender.poke()

    def run(self, seconds: float) -> None:
        """Lets virtual time pass."""
        self.sim.pass_time(seconds)

    def received(self) -> list[int]:
        """Bytes that each connection has delivered to the other end's application."""
        return [sum(flow.received for flow in other.flows.values()) for other in self._others]

    def rates(self, seconds: float) -> list[float]:
        """Bytes per second that each connection delivers in the next `seconds`."""
        before = self.received()
        self.run(seconds)
        return [(after - then) / seconds for after, then in zip(self.received(), before, strict=True)]

    def shares(self, seconds: float) -> list[float]:
        """The same as shares of the link's rate; headers take 3 % of that."""
        return [rate / self.rate for rate in self.rates(seconds)]

    def fairness(self, seconds: float) -> float:
        """Jain's index of the rates."""
        return jain(self.rates(seconds))


def jain(rates: list[float]) -> float:
    """1 when all are equal, 1/n when one has everything."""
    return sum(rates) ** 2 / len(rates) / sum(rate * rate for rate in rates)
