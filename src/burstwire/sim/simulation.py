"""One simulated run: clock, network, hosts, how to wait for something, and what must hold at the end.

    with Simulation(seed, Link(delay=0.02, loss=0.01)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(1_000_000)
        sim.run(lambda: flow.stream and right.flow(flow).at_end, within=10)

Leaving the block closes every host and checks the books. Whatever fails in it, is told with the seed and the links,
and with how to run just that once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from burstwire.config import Config
from burstwire.sim.clock import Clock
from burstwire.sim.host import SimHost
from burstwire.sim.link import Link
from burstwire.sim.network import Network
from burstwire.sim.traffic import Peer

__all__ = ["SEED_VARIABLE", "Simulation", "SimulationError", "seeds"]

SEED_VARIABLE = "BURSTWIRE_SIM_SEED"
"""Environment variable that has `seeds` give just one seed: the one of a run that failed."""

CLOSING_TIME = 600.0
"""Virtual seconds in which everything must come to its end: several idle timeouts and backed-off PTOs."""


class SimulationError(AssertionError):
    """Something that was waited for did not happen, or the books do not balance."""


def seeds(count: int, first: int = 0) -> list[int]:
    """Seeds for parametrised tests: `count` of them, or only the one that BURSTWIRE_SIM_SEED names."""
    only = os.environ.get(SEED_VARIABLE)
    return [int(only)] if only else list(range(first, first + count))


class Simulation:
    """A virtual world.

    Args:
        seed: decides everything that is left to chance.
        link: what the network is like, unless `network.set_link` says otherwise.

    Attributes:
        clock, network: see there.
        hosts: all of them, in their order.
    """

    def __init__(self, seed: int, link: Link | None = None) -> None:
        self.seed = seed
        self.clock = Clock()
        self.network = Network(self.clock, seed, link)
        self.hosts: list[SimHost] = []
        self._start = self.clock.now
        self._finished = False

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
            else:
                error.add_note(self.replay())
        finally:
            for host in self.hosts:
                host.table.release(host.ring)
                host.endpoint.destroy()

    # getters

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the start."""
        return self.clock.now - self._start

    def replay(self) -> str:
        """How to have the same run again, and what it was like."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        command = f"{SEED_VARIABLE}={self.seed} pytest '{test}'" if test else f"{SEED_VARIABLE}={self.seed}"
        return (
            f"replay with: {command}\nseed {self.seed}, {self.elapsed:.6f} s of virtual time, "
            f"{self.clock.calls:,} calls\n{self.network.describe()}"
        )

    # mutators

    def host(self, address: str, port: int = 4000, *, config: Config | None = None, **options: Any) -> SimHost:
        """A new host whose applications are `Peer`s; further options are those of `SimHost`."""
        options.setdefault("application", Peer)
        host = SimHost(self.network, address, port, config=config, **options)
        self.hosts.append(host)
        return host

    def connect(self, left: SimHost, right: SimHost, within: float = 30.0) -> tuple[Peer, Peer]:
        """A connection from `left` to `right`, as the applications at both ends; raises what ended the attempt."""
        before = len(right.applications)
        attempt = left.connect(right)
        self.run(lambda: attempt.error is not None or self._both(attempt.connection, right, before), within)
        if attempt.error is not None:
            raise attempt.error
        if attempt.connection is None:
            raise SimulationError(self._told("a handshake ended without an outcome"))
        peer = self._both(attempt.connection, right, before)
        near = attempt.connection.user
        if not isinstance(near, Peer) or not isinstance(peer, Peer):
            raise TypeError("`connect` is for hosts whose application is Peer")
        return near, peer

    def run(self, until: Callable[[], object], within: float = 60.0) -> float:
        """Let time pass until `until()` is true; the virtual seconds that took.

        Raises:
            SimulationError: it was not true `within` so many virtual seconds.
        """
        start = self.clock.now
        if not self.clock.run(start + within, lambda: bool(until())):
            raise SimulationError(self._told(f"not within {within:g} virtual seconds"))
        return self.clock.now - start

    def pass_time(self, seconds: float) -> None:
        """Let so many virtual seconds pass."""
        self.clock.run(self.clock.now + seconds)

    def finish(self) -> None:
        """Close all hosts, wait until every connection has ended, and check the books. Raises `SimulationError`."""
        if self._finished:
            return
        self._finished = True
        for host in self.hosts:
            host.close()
        self.run(
            lambda: all(host.endpoint.closed and not host.endpoint.connections for host in self.hosts), CLOSING_TIME
        )
        self.check_books()

    def check_books(self) -> None:
        """What must hold when everything has ended: each connection ended once, nothing leased, nothing in flight."""
        wrong: list[str] = []
        for host in self.hosts:
            name = f"host {self.hosts.index(host)}"
            for which, ring in (("send", host.endpoint.ring), ("receive", host.ring)):
                if ring.leased:
                    wrong.append(f"{name}: {ring.leased} slots of the {which} ring were not given back")
            for application in host.applications:
                connection = application.connection
                ends = sum(ended is connection for ended, _ in host.ended)
                if ends != 1:
                    wrong.append(f"{name}: {connection!r} ended {ends} times")
                if connection.recovery.log.in_flight:
                    wrong.append(f"{name}: {connection!r} has {connection.recovery.log.in_flight:,} bytes in flight")
            unknown = [attempt.number for attempt in host.attempts.values() if not attempt.done]
            if unknown:
                wrong.append(f"{name}: no outcome of attempts {unknown}")
        if wrong:
            raise SimulationError(self._told("; ".join(wrong)))

    # inside

    def _both(self, connection: Any, right: SimHost, before: int) -> Any:
        """The application at the other end of a connection, or None."""
        if connection is None:
            return None
        for application in right.applications[before:]:
            other = application.connection
            if (other.local_cid, other.remote_cid) == (connection.remote_cid, connection.local_cid):
                return application
        return None

    def _told(self, what: str) -> str:
        states = [
            f"host {index}: {application.connection!r} {application.connection.stats()}"
            + "".join(f"\n    {flow}" for flow in getattr(application, "flows", {}).values())
            for index, host in enumerate(self.hosts)
            for application in host.applications
        ]
        return "\n".join([what, *states])
