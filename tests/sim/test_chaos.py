"""Random worlds: configurations, links, traffic and accidents drawn from the seed; what must hold always does.

Run a longer search with, for example, BURSTWIRE_SIM_RUNS=5000.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from burstwire.config import AEADS, Config
from burstwire.errors import ConnectionLost, HandshakeTimeout
from burstwire.sim import Flow, Link, Peer, Simulation, seeds

RUNS = int(os.environ.get("BURSTWIRE_SIM_RUNS", "120"))


def random_link(random: Random) -> Link:
    wild = random.random() < 0.5
    return Link(
        delay=random.choice((0.0, 0.0001, 0.005, 0.05)),
        jitter=random.choice((0.0, 0.0, 0.003, 0.02)),
        loss=random.choice((0.0, 0.01, 0.1, 0.3)) if wild else 0.0,
        duplication=random.choice((0.0, 0.1, 0.5)) if wild else 0.0,
        reordering=random.choice((0.0, 0.05, 0.3)) if wild else 0.0,
        corruption=random.choice((0.0, 0.02, 0.1)) if wild else 0.0,
        hold=random.choice((0.001, 0.02)),
        rate=random.choice((None, None, 200_000, 5e6)),
        queue=random.choice((10_000, 100_000)),
        mtu=random.choice((1200, 1472, 4000, 9000)),
    )


def random_config(random: Random, moves: bool) -> Config:
    window = random.choice((4096, 20_000, 65_536, 1 << 20))
    return Config(
        max_datagram_size=random.choice((None, 1200, 1452, 4000)),
        aeads=(random.choice(AEADS), "aes-128-gcm"),
        handshake_timeout=60,
        idle_timeout=120,
        # Behind a NAT that rebinds, keeping alive is what lets a peer with nothing to say be found again.
        keep_alive=25 if moves else random.choice((0, 25)),
        send_buffer=random.choice((4096, 50_000, 1 << 20)),
        stream_window=window,
        connection_window=window * random.choice((1, 2, 8)),
        max_streams=random.choice((4, 128)),
        receive_slots=random.choice((2, 16)),
        send_slots=random.choice((2, 3, 16)),
        trains_per_wakeup=random.choice((1, 8)),
        pacing=random.random() < 0.8,
        max_ack_delay=random.choice((0.0, 0.025)),
    )


class Chaos:
    """One random run between two peers."""

    def __init__(self, sim: Simulation, random: Random, left: Peer, right: Peer) -> None:
        self.sim = sim
        self.random = random
        self.peers = (left, right)
        self.flows: list[tuple[Flow, Peer]] = []
        self.spoiled: set[Flow] = set()
        self.sent: dict[Peer, list[bytes]] = {left: [], right: []}
        self.moves = 0
        for peer in self.peers:
            peer.on_stream = lambda flow: flow.send(random.randrange(3) * random.randrange(3000))

    def other(self, peer: Peer) -> Peer:
        return self.peers[self.peers[0] is peer]

    def step(self) -> None:
        """Something happens."""
        random, sim = self.random, self.sim
        peer = random.choice(self.peers)
        what = random.choices(
            ("stream", "messages", "datagram", "reset", "stop", "pause", "outage", "link", "move", "wait", "keys"),
            (6, 6, 3, 1, 1, 2, 1, 1, 0.5, 6, 1),
        )[0]
        if what == "stream":
            self.flows.append((peer.open().send(random.choice((0, 1, 1158, 5000, 40_000))), peer))
        elif what == "messages":
            sizes = (0, 1, 63, 64, 100, 1000, 1150, 3000, 70_000)
            batch = [random.randbytes(random.choice(sizes)) for _ in range(random.randrange(1, 12))]
            self.sent[peer] += batch
            peer.send_messages(batch)
        elif what == "datagram":
            peer.send_datagram(random.randbytes(random.randrange(1000)))
        elif what in ("reset", "stop") and self.flows:
            flow, owner = random.choice(self.flows)
            if flow.stream is not None and owner.connection.error is None:
                self.spoiled.add(flow)
                flow.reset(3) if what == "reset" else flow.stop(4)
        elif what == "pause":
            flows = list(peer.flows.values())
            if flows and random.random() < 0.7:
                flow = random.choice(flows)
                flow.resume() if flow.paused else flow.pause()
            else:
                peer.resume() if peer.paused else setattr(peer, "paused", True)
        elif what == "outage":
            host = peer.host.address
            sim.network.outage(random.uniform(0.01, 5), *random.choice(((None, None), (host, None), (None, host))))
        elif what == "link":
            sim.network.set_link(random_link(random), source=peer.host.address)
        elif what == "move" and peer is self.peers[0]:
            self.moves += 1
            peer.host.move(f"10.7.{self.moves // 250}.{self.moves % 250}", random.randrange(1, 60_000))
        elif what == "keys" and random.random() < 0.5:
            log = peer.connection.recovery.log
            if log.largest_acked >= 0 and log.largest_acked >> 22 == peer.connection.next_counter >> 22:
                peer.connection.update_keys()
        sim.pass_time(random.choice((0.0, 0.001, 0.02, 0.3)))

    def settled(self) -> bool:
        """Whether everything that was sent and not spoiled has arrived."""
        for peer in self.peers:
            if len(self.other(peer).messages) < len(self.sent[peer]):
                return False
        return all(
            flow.stream is not None
            and flow.stream.id in self.other(owner).flows
            and self.other(owner).flow(flow).at_end
            and flow.at_end
            for flow, owner in self.flows
            if flow not in self.spoiled
        )


@pytest.mark.parametrize("seed", seeds(RUNS, first=10_000))
def test_whatever_happens_everything_arrives_and_ends(seed: int) -> None:
    random = Random(seed)
    with Simulation(seed, random_link(random)) as sim:
        gro = random.random() < 0.8
        hosts = [sim.host(f"10.0.0.{n}", config=random_config(random, n == 1), gro=gro) for n in (1, 2)]
        try:
            left, right = sim.connect(*hosts, within=120)
        except HandshakeTimeout:
            return
        chaos = Chaos(sim, random, left, right)
        for _ in range(random.randrange(5, 40)):
            chaos.step()
        # calm returns: then everything must come through
        sim.network.set_link(Link(delay=0.01, loss=0.01, mtu=9000))
        for peer in chaos.peers:
            peer.on_stream = lambda flow: flow.send(0)
            peer.resume()
            for flow in peer.flows.values():
                flow.resume()
        for flow, _ in chaos.flows:
            flow.resume()
        if left.error or right.error:  # too many invalid packets, or an outage beyond the idle timeout
            assert isinstance(left.error or right.error, ConnectionLost)
            return
        sim.run(chaos.settled, within=600)
        for peer in chaos.peers:
            assert chaos.other(peer).messages == chaos.sent[peer]
        for flow, owner in chaos.flows:
            if flow not in chaos.spoiled:
                assert chaos.other(owner).flow(flow).received == flow.sent
        for peer in chaos.peers:
            assert peer.error is None
            sim.run(lambda peer=peer: peer.connection.stats()["bytes_in_flight"] == 0, within=60)
