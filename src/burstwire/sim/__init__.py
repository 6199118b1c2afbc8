"""A virtual network with virtual time, in which real endpoints run: for tests of burstwire and of what uses it.

Bottom up: `Clock`; `Link` and what it may consist of (`Bottleneck`, with `Steps` of its rate, `Bursts`, `Policer`);
`Network`; `SimHost` (drives an `Endpoint`), `Peer` and `Flow` (an application that sends patterns and checks them),
`Simulation` (all of it, with an end). Every run follows from its seed.
"""

from __future__ import annotations

from burstwire.sim.bottleneck import Bottleneck, Usage
from burstwire.sim.bursts import Bursts
from burstwire.sim.clock import Clock, StandStill
from burstwire.sim.host import Attempt, SimHost
from burstwire.sim.link import Link
from burstwire.sim.network import Network
from burstwire.sim.policer import Policer
from burstwire.sim.simulation import Simulation, SimulationError, seeds
from burstwire.sim.steps import Steps
from burstwire.sim.traffic import Application, Flow, Pattern, Peer

__all__ = [
    "Application",
    "Attempt",
    "Bottleneck",
    "Bursts",
    "Clock",
    "Flow",
    "Link",
    "Network",
    "Pattern",
    "Peer",
    "Policer",
    "SimHost",
    "Simulation",
    "SimulationError",
    "StandStill",
    "Steps",
    "Usage",
    "seeds",
]
