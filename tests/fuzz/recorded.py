"""A conversation between two hosts of the simulator, as packets on the wire and as the frames inside them."""

from __future__ import annotations

from functools import cache
from random import Random
from unittest import mock

from world import CONFIG, KEYS

from burstwire.proto.endpoint import Endpoint
from burstwire.sim.link import Link
from burstwire.sim.simulation import Simulation
from burstwire.wire import frames as f

__all__ = ["CLIENT", "SERVER", "conversation", "payloads", "restarted"]

CLIENT, SERVER = "10.0.1.1", "10.0.1.2"
MOST_RECORDED = 250
Recorded = tuple[float, bytes, bytes, bytes]
"""When it was sent, from where, to where, and the datagram."""


@cache
def _record() -> tuple[tuple[Recorded, ...], tuple[bytes, ...], float]:
    """Datagrams and payloads of one conversation, with loss, and when it began."""
    datagrams: list[Recorded] = []
    opened: list[bytes] = []
    parse = f.parse

    def listening(payload: bytes | memoryview) -> list[f.Frame]:
        opened.append(bytes(payload))
        return parse(payload)

    def tap(now: float, source: bytes, target: bytes, sent: list[bytes]) -> None:
        datagrams.extend((now, source, target, one) for one in sent)

    with (
        mock.patch.object(f, "parse", listening),
        Simulation(1, Link(delay=0.01, loss=0.03, reordering=0.02)) as sim,
    ):
        start = sim.clock.now
        sim.network.tap = tap
        left, right = sim.connect(
            sim.host(CLIENT, 1, config=CONFIG, key=KEYS[0]), sim.host(SERVER, 1, config=CONFIG, key=KEYS[1])
        )
        flow = left.open().send(60_000)
        back = right.open().send(5_000)
        left.send_messages([b"a message", b"x" * 3000])
        right.send_messages([b"an answer"])
        left.send_datagram(b"a datagram")
        sim.run(
            lambda: all(
                one.stream and one.stream.id in there.flows and there.flow(one).at_end
                for one, there in ((flow, right), (back, left))
            ),
            within=30,
        )
        left.open().send(100, finish=False).reset(7)
        left.close(3, "the end")
        sim.pass_time(2)
    return tuple(datagrams[:MOST_RECORDED]), tuple(dict.fromkeys(opened)), start


def conversation() -> tuple[Recorded, ...]:
    """Every datagram of the conversation, in the order of sending."""
    return _record()[0]


def payloads(limit: int = 400) -> list[bytes]:
    """The different payloads of its packets, the smaller ones."""
    return [payload for payload in _record()[1] if len(payload) <= limit]


def restarted(initiator: bool) -> tuple[Endpoint, float]:
    """One of the two hosts at the beginning of the conversation, with the same randomness: to it the recorded packets
    are as genuine as they were then. Returns it and the time."""
    from burstwire.core.address import pack_address

    start = _record()[2]
    key = KEYS[0 if initiator else 1]
    where, there = pack_address(CLIENT, 1), pack_address(SERVER, 1)
    address = where if initiator else there
    random = Random(f"{1} {address.hex()} host")
    endpoint = Endpoint(key, CONFIG, now=start, random=random.randbytes, receive_buffer=4 << 20)
    if initiator:
        endpoint.connect(there, KEYS[1].public, start)
    return endpoint, start
