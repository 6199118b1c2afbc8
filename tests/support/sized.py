"""Simulated connections that have found out what their path carries."""

from __future__ import annotations

from burstwire.config import Config
from burstwire.sim import Flow, Peer, Simulation

__all__ = ["transfer", "wide"]


def transfer(sim: Simulation, left: Peer, right: Peer, size: int, within: float = 100_000) -> int:
    """Sends bytes from left to right; returns the least packet size on the way."""
    flow: Flow = left.open().send(size)
    least = left.connection.mtu

    def done() -> bool:
        nonlocal least
        least = min(least, left.connection.mtu)
        return flow.stream is not None and flow.stream.id in right.flows and right.flow(flow).at_end

    sim.run(done, within)
    return least


def wide(sim: Simulation, mtu: int, config: Config | None = None, **options: int) -> tuple[Peer, Peer]:
    """Two connected hosts that have found out what their path carries."""
    left, right = (sim.host(f"10.0.0.{n}", config=config, **options) for n in (1, 2))
    ends = sim.connect(left, right)
    for _ in range(30):
        transfer(sim, *ends, 1_000_000)
        if ends[0].connection.mtu == mtu:
            return ends
    raise AssertionError(f"packets have {ends[0].connection.mtu} bytes")
