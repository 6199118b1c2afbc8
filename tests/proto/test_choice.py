"""Which congestion controller a connection has: the endpoint's, or one chosen for it alone."""

from __future__ import annotations

import pytest

from burstwire.config import CONGESTION_CONTROLLERS, Config
from burstwire.errors import ConfigError
from burstwire.proto.congestion import initial_window, make_controller
from burstwire.sim import Link, Peer, SimHost, Simulation


def connect(sim: Simulation, left: SimHost, right: SimHost, congestion: str | None) -> Peer:
    """A connection whose controller is chosen with the attempt."""
    number = left.endpoint.connect(right.address, right.key.public, sim.clock.now, congestion=congestion)
    before = len(left.applications)
    left.poke()
    sim.run(lambda: len(left.applications) > before, within=5)
    assert left.applications[-1].connection.attempt == number
    return left.applications[-1]


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
def test_every_name_gives_a_controller(name: str) -> None:
    assert make_controller(name, 0.0, 1200).window == initial_window(1200)
    assert Config(congestion=name).congestion == name


@pytest.mark.parametrize("name", ["reno", "", "CUBIC"])
def test_an_unknown_name_is_refused_wherever_it_is_given(name: str) -> None:
    with pytest.raises(ConfigError, match="cubic"):
        Config(congestion=name)
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b = sim.host("10.0.0.1"), sim.host("10.0.0.2")
        with pytest.raises(ConfigError, match="cubic"):
            a.endpoint.connect(b.address, b.key.public, sim.clock.now, congestion=name)
        left, _ = sim.connect(a, b)
        with pytest.raises(ConfigError, match="cubic"):
            left.connection.set_congestion(name, sim.clock.now)
        assert left.connection.recovery.controller_name == "cubic"


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
def test_a_connection_takes_the_endpoints_choice_unless_it_has_its_own(name: str) -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        a, b = sim.host("10.0.0.1", config=Config(congestion="ledbat")), sim.host("10.0.0.2")
        own = connect(sim, a, b, name)
        assert own.connection.recovery.controller_name == name
        assert connect(sim, a, b, None).connection.recovery.controller_name == "ledbat"
        sim.pass_time(0.1)
        assert [peer.connection.recovery.controller_name for peer in b.applications] == ["cubic", "cubic"]


def test_an_attempt_that_fails_or_is_given_up_leaves_nothing_behind() -> None:
    with Simulation(1, Link(delay=0.01, loss=1.0)) as sim:
        a, b = sim.host("10.0.0.1"), sim.host("10.0.0.2")
        a.endpoint.connect(b.address, b.key.public, sim.clock.now, 1.0, "ledbat")
        second = a.endpoint.connect(b.address, b.key.public, sim.clock.now, 1.0, "ledbat")
        a.endpoint.cancel(second, sim.clock.now)
        a.attempts.clear()
        a._tell = lambda event: None  # nobody keeps the attempts' outcomes
        a.poke()
        sim.pass_time(5.0)
        assert not a.endpoint._chosen


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
def test_a_transfer_survives_a_change_of_controller(name: str) -> None:
    with Simulation(1, Link(delay=0.02, rate=1e6, queue=50_000, loss=0.01)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(1_000_000)
        sim.pass_time(0.5)
        connection = left.connection
        before = connection.recovery.log.in_flight
        connection.set_congestion(name, sim.clock.now)
        assert connection.recovery.log.in_flight == before
        if name != "cubic":
            assert connection.recovery.controller.window == initial_window(connection.mtu)
        sim.run(lambda: flow.stream is not None and right.flow(flow).at_end, within=60)
        assert connection.recovery.controller_name == name


def test_the_choice_outlives_a_change_of_path() -> None:
    with Simulation(1, Link(delay=0.02)) as sim:
        a, b = sim.host("10.0.0.1"), sim.host("10.0.0.2")
        left, right = sim.connect(a, b)
        right.connection.set_congestion("ledbat", sim.clock.now)
        first = right.connection.recovery.controller
        sim.pass_time(1.0)
        a.move("10.0.0.3")
        left.open().send(10_000)
        sim.run(lambda: right.connection.paths.moves == 1, within=10)
        assert right.connection.recovery.controller is not first
        assert right.connection.recovery.controller_name == "ledbat"


def test_naming_the_controller_in_use_keeps_it() -> None:
    with Simulation(1, Link(delay=0.02)) as sim:
        left, _ = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        first = left.connection.recovery.controller
        left.connection.set_congestion("cubic", sim.clock.now)
        assert left.connection.recovery.controller is first
