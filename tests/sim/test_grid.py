"""Everything arrives once and in order, and every connection ends, whatever the network does."""

from __future__ import annotations

from random import Random

import pytest

from burstwire.config import Config
from burstwire.errors import ConnectionLost, LocallyClosed, PeerClosed
from burstwire.sim import Link, Simulation, seeds

STREAM = 60_000
CONFIG = Config(handshake_timeout=120)

QUIRKS = {
    "calm": {},
    "jitter": {"jitter": 0.01, "reordering": 0.05, "hold": 0.01},
    "copies": {"duplication": 0.2, "hold": 0.02},
    "damage": {"corruption": 0.05},
    "all": {"jitter": 0.005, "reordering": 0.1, "duplication": 0.1, "corruption": 0.02, "hold": 0.015},
}


def some_messages(seed: int) -> list[bytes]:
    random = Random(seed)
    return [random.randbytes(random.choice((0, 1, 63, 64, 100, 1150, 1171, 5000))) for _ in range(40)]


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("quirk", QUIRKS)
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.2])
def test_everything_arrives_once_and_in_order_and_every_connection_ends(
    loss: float, delay: float, quirk: str, seed: int
) -> None:
    with Simulation(seed, Link(delay=delay, loss=loss, **QUIRKS[quirk])) as sim:
        a, b = sim.host("10.0.0.1", config=CONFIG), sim.host("10.0.0.2", config=CONFIG)
        left, right = sim.connect(a, b, within=120)
        right.on_stream = lambda flow: flow.send(STREAM // 3)
        flows = [left.open().send(STREAM), left.open().send(1), right.open().send(STREAM // 2)]
        left.on_stream = lambda flow: flow.send(0)
        outward, homeward = some_messages(seed), some_messages(seed + 1000)
        left.send_messages(outward)
        right.send_messages(homeward)
        datagrams = [bytes([i]) * 300 for i in range(20)]
        for data in datagrams:
            left.send_datagram(data)
        sim.run(
            lambda: (
                len(right.messages) == len(outward)
                and len(left.messages) == len(homeward)
                and len(right.flows) == len(left.flows) == 3
                and all(flow.at_end for peer in (left, right) for flow in peer.flows.values())
            ),
            within=600,
        )
        assert left.messages == homeward
        assert right.messages == outward
        received = [right.flow(flows[0]).received, right.flow(flows[1]).received, left.flow(flows[2]).received]
        assert received == [STREAM, 1, STREAM // 2]
        assert flows[0].received == STREAM // 3
        assert set(right.datagrams) <= set(datagrams)
        assert len(right.datagrams) == len(set(right.datagrams))
        left.close(7, "enough")
        sim.run(lambda: left.error and right.error, within=600)
        assert isinstance(left.error, LocallyClosed)
        assert isinstance(right.error, PeerClosed | ConnectionLost)
        if not loss and quirk in ("calm", "jitter"):
            assert len(right.datagrams) == len(datagrams)
            assert isinstance(right.error, PeerClosed)
            assert (right.error.code, right.error.reason) == (7, "enough")
        for peer in (left, right):
            assert peer.connection.stats()["packets_invalid"] == 0 or quirk in ("damage", "all")


@pytest.mark.parametrize("seed", seeds(10))
def test_what_was_accepted_before_close_is_delivered(seed: int) -> None:
    with Simulation(seed, Link(delay=0.02, loss=0.05)) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(30_000)
        left.send_messages([b"last words"] * 20)
        left.close(3)
        sim.run(lambda: right.error is not None)
        assert right.messages == [b"last words"] * 20
        assert right.flow(flow).received == 30_000
        assert right.flow(flow).at_end


def run_once(seed: int) -> tuple[str, list[tuple[float, str]], dict[str, int]]:
    link = Link(delay=0.01, jitter=0.002, loss=0.05, duplication=0.05, reordering=0.05, corruption=0.01)
    with Simulation(seed, link) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        left.open().send(50_000)
        right.send_messages(some_messages(seed))
        sim.run(lambda: 4 in right.flows and right.flows[4].at_end)
        events = [(time, type(event).__name__) for host in sim.hosts for time, event in host.log]
    return sim.network.digest(), events, sim.network.stats()


@pytest.mark.parametrize("seed", seeds(3))
def test_one_seed_gives_the_same_datagrams_at_the_same_times(seed: int) -> None:
    assert run_once(seed) == run_once(seed)


def test_another_seed_gives_another_run() -> None:
    assert run_once(1)[0] != run_once(2)[0]


def run_that_fails() -> None:
    with Simulation(77, Link(loss=0.25)) as sim:
        left, _ = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        assert left.messages == [b"never sent"]


def test_a_failure_says_how_to_replay_it() -> None:
    with pytest.raises(AssertionError) as caught:
        run_that_fails()
    note = "\n".join(caught.value.__notes__)
    assert "BURSTWIRE_SIM_SEED=77 pytest 'tests/sim/test_grid.py::test_a_failure_says_how_to_replay_it'" in note
    assert "Link(loss=0.25)" in note


def test_the_variable_runs_only_the_seed_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seeds(3, first=5) == [5, 6, 7] or len(seeds(3)) == 1
    monkeypatch.setenv("BURSTWIRE_SIM_SEED", "77")
    assert seeds(3) == [77]


def run_with_a_wrong_byte() -> None:
    with Simulation(1) as sim:
        left, right = sim.connect(sim.host("10.0.0.1"), sim.host("10.0.0.2"))
        flow = left.open().send(30_000, finish=False)
        assert flow.stream is not None
        flow.stream.write(memoryview(b"not the pattern"))
        sim.run(lambda: 4 in right.flows and right.flow(flow).received > 30_000)


def test_a_wrong_byte_is_noticed() -> None:
    with pytest.raises(AssertionError, match="byte 30,000 is"):
        run_with_a_wrong_byte()
