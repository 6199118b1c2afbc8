"""Receivers that have nothing to send ask when what was coming stops, and only then."""

from __future__ import annotations

from itertools import pairwise

import pytest

from burstwire.config import Config
from burstwire.proto.connection import Connection
from burstwire.proto.streams import Stream
from burstwire.proto.watch import MOST_PATIENCE, WORTH_WATCHING
from burstwire.sim import Flow, Link, Peer, SimHost, Simulation, seeds

MBIT = 125_000.0
DELAY = 0.02
RTT = 2 * DELAY
LINK = Link(delay=DELAY, rate=20 * MBIT, queue=100_000)

PATIENT = Config(keep_alive=25.0, idle_timeout=60.0)


class Timed(Peer):
    """Notes when bytes arrived."""

    def __init__(self, host: SimHost, connection: Connection) -> None:
        super().__init__(host, connection)
        self.times: list[float] = []

    def stream_readable(self, stream: Stream) -> None:
        super().stream_readable(stream)
        self.times.append(self.host.clock.now)

    def longest_wait(self) -> float:
        return max(b - a for a, b in pairwise(self.times))


def ready(sim: Simulation, config: Config = PATIENT) -> tuple[Peer, Timed]:
    """A connection; the one who dialled sits behind a NAT and is the second."""
    server, client = (sim.host(f"10.0.0.{n}", config=config, application=Timed) for n in (1, 2))
    near, far = sim.connect(client, server)
    assert isinstance(near, Timed)
    return far, near


def probes(peer: Peer) -> int:
    return int(peer.connection.stats()["silence_probes"])


def owes_nothing(peer: Peer) -> bool:
    """Whether a receiver is mute: no ACK waits to be sent, and nothing is in flight that its own PTO would repeat."""
    connection = peer.connection
    return not (connection.acks.owed or connection.acks.due or connection.stats()["bytes_in_flight"])


def arrived(peer: Peer, flow: Flow) -> bool:
    return flow.stream is not None and flow.stream.id in peer.flows and peer.flow(flow).at_end


@pytest.mark.parametrize("seed", seeds(6))
@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_a_download_goes_on_soon_after_the_receivers_binding_is_lost(loss: float, seed: int) -> None:
    with Simulation(seed, Link(delay=DELAY, rate=20 * MBIT, queue=100_000, loss=loss)) as sim:
        server, client = ready(sim)
        flow = server.open().send(4_000_000)
        sim.pass_time(0.5 + seed / 17)
        sim.run(lambda: owes_nothing(client))
        assert not arrived(client, flow)
        pto = client.connection.recovery.pto()
        client.host.rebind(5000)
        sim.run(lambda: arrived(client, flow), within=30)
        assert client.flow(flow).received == 4_000_000
        assert server.connection.stats()["path_changes"] == 1
        assert probes(client) == 1
        wait = client.longest_wait()
        print(f"a mute receiver's binding lost, {loss:.0%} loss: {wait * 1e3:.0f} ms; PTO {pto * 1e3:.0f} ms")
        # Silence, question, challenge, answer, data; each of them may be lost once more, then the next one comes.
        assert wait < pto + 4 * RTT if not loss else wait < 4 * (pto + 4 * RTT)


def test_messages_go_on_as_well() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        messages = [n.to_bytes(4, "big") * 250 for n in range(3000)]
        server.send_messages(messages)
        sim.pass_time(0.5)
        sim.run(lambda: owes_nothing(client))
        assert len(client.messages) < 3000
        client.host.rebind(5000)
        sim.run(lambda: len(client.messages) == 3000, within=5)
        assert client.messages == messages
        assert probes(client) == 1


def test_a_question_that_nobody_answers_is_repeated_ever_more_rarely() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open().send(4_000_000)
        sim.pass_time(0.5)
        sim.run(lambda: owes_nothing(client))
        before = client.connection.outbound.packets
        client.host.rebind(5000)  # also what is under way does not arrive
        sim.network.outage(20)
        sim.pass_time(20)
        assert probes(client) == 1
        assert client.connection.stats()["pto_expired"] >= 4
        assert client.connection.outbound.packets - before < 25
        sim.run(lambda: arrived(client, flow), within=30)


def test_what_arrives_without_a_break_is_never_asked_for() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open().send(8_000_000)
        sim.run(lambda: arrived(client, flow))
        sim.pass_time(5)
        assert probes(client) == 0, "and what has ended is not, either"


def test_a_writer_that_pauses_is_asked_once() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open().send(WORTH_WATCHING, finish=False)
        sim.pass_time(20)
        assert client.flow(flow).received == WORTH_WATCHING
        assert probes(client) == 1
        timeout = client.host.endpoint.next_timeout()
        assert timeout is not None
        assert timeout > sim.clock.now + 1, "and nothing is armed but the keep-alive"


def test_a_writer_who_sends_now_and_then_is_soon_not_asked_any_more() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open()
        for _ in range(60):
            flow.send(WORTH_WATCHING, finish=False)
            sim.pass_time(1)
        assert 1 <= probes(client) <= MOST_PATIENCE.bit_length()


def test_a_slow_steady_stream_is_rarely_asked_for() -> None:
    """A packet every 300 ms, which is several probe timeouts."""
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open()
        for _ in range(400):
            flow.send(1000, finish=False)
            sim.pass_time(0.3)
        print(f"400 packets of a slow stream: {probes(client)} questions")
        assert probes(client) <= MOST_PATIENCE.bit_length()


def test_a_writer_without_credit_is_not_asked() -> None:
    config = PATIENT.replace(stream_window=64 * 1024, connection_window=256 * 1024)
    with Simulation(1, LINK) as sim:
        server, client = ready(sim, config)
        client.paused = True
        server.open().send(400_000)
        sim.pass_time(10)
        assert probes(client) == 0


def test_small_messages_are_not_watched() -> None:
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        for _ in range(20):
            server.send_messages([bytes(1000)])
            sim.pass_time(1)
        assert client.connection.watch is None


def test_a_sender_that_backed_off_goes_on_as_soon_as_it_hears_its_peer() -> None:
    """The next probe is seconds away; a word from the receiver, which acknowledges nothing, shows that the path is."""
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        flow = server.open().send(4_000_000)
        sim.pass_time(0.5)
        sim.network.outage(1000, server.host.address)
        sim.pass_time(1.5 * RTT)  # what is under way arrives, and its acknowledgements
        sim.network.outage(1000, client.host.address)
        recovery = server.connection.recovery
        sim.run(lambda: recovery.pto_count == 6)
        sim.pass_time(recovery.pto())  # that probe is lost, too, and by now no answer to it can be on its way
        sim.network.heal()
        due = recovery.deadline()
        assert due is not None
        assert due > sim.clock.now + 3
        before = client.flow(flow).received
        client.send_datagram(b"anybody there?")
        wait = sim.run(lambda: client.flow(flow).received > before, within=10)
        print(f"the next byte came {wait / RTT:.1f} RTT after the receiver spoke")
        assert wait <= 3 * RTT
        sim.run(lambda: arrived(client, flow), within=30)


def test_a_peer_that_is_heard_but_hears_nothing_does_not_defeat_the_back_off() -> None:
    """Only the way to the peer is gone: its datagrams come all the time."""
    with Simulation(1, LINK) as sim:
        server, client = ready(sim)
        server.open().send(4_000_000)
        sim.pass_time(0.5)
        sim.network.outage(1000, server.host.address)
        before = server.connection.outbound.packets
        for _ in range(400):
            client.send_datagram(b"hello?")
            sim.pass_time(0.05)
        packets = server.connection.outbound.packets - before
        acks = 400
        print(f"{packets} packets in 20 s, {acks} of them at least acknowledge datagrams")
        assert server.connection.stats()["pto_expired"] <= 10
        assert packets < acks + 400
        sim.network.heal()
        server.connection.abort(sim.clock.now)
        server.host.poke()
