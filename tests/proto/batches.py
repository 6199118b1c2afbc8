"""An endpoint that is handed wake-ups of a test's making: packets of a real peer's keys, laid as trains into slots."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from burstwire.config import Config
from burstwire.core.address import pack_address
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.identity import KeyPair
from burstwire.proto.connection import Connection
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.events import ConnectionEstablished, Event
from burstwire.wire.header import DATA, HEADER, HEADER_SIZE, TAG

INITIATOR, RESPONDER = pack_address("10.0.0.1", 1), pack_address("10.0.0.2", 2)
PATH = INITIATOR + RESPONDER
"""As the receiver sees it: the peer first."""

Train = Sequence[bytes]
"""Datagrams of one size; the last may be shorter."""


class Receiver:
    """The side under test.

    Attributes:
        events: what its endpoint told, all of it.
    """

    def __init__(self, key: KeyPair, config: Config, seed: int, slots: int = 128) -> None:
        self.endpoint = Endpoint(key, config, now=0.0, random=random.Random(seed).randbytes)
        self.ring = BufferRing(slots)
        self.table = RunTable(capacity=4096, held=slots)  # more than a wake-up of a socket brings
        self.events: list[Event] = []

    @property
    def connection(self) -> Connection:
        """The only one."""
        (connection,) = self.endpoint.connections.values()
        return connection

    def wake(self, trains: Iterable[Train], now: float = 0.01, path: bytes = PATH, ecn: int = 0) -> None:
        """One wake-up: each train in a slot of its own."""
        self.begin()
        for train in trains:
            self.add(train, path, ecn)
        self.end(now)

    def begin(self) -> None:
        """Starts a wake-up; `add` trains, then `end`."""
        self._slot = self._used = -1

    def add(self, train: Train, path: bytes = PATH, ecn: int = 0, *, beside: bool = False, gap: int = 0) -> None:
        """Lays a train into a slot of its own, or `gap` bytes beside the one before if that has room: without a gap, it
        may become part of the same run."""
        data = b"".join(train)
        size = len(train[0])
        assert all(len(one) == size for one in train[:-1])
        assert len(train[-1]) <= size
        self._used += gap
        if not beside or self._slot < 0 or self._used + len(data) > self.ring.slot_size:
            self._slot, self._used = self.ring.lease(), 0
            assert self._slot >= 0
        self.ring.views[self._slot][self._used : self._used + len(data)] = data
        self.table.parse(self.ring, self._slot, len(data), size, path, ecn, self._used)
        self._used += len(data)

    def end(self, now: float = 0.01) -> None:
        """Hands the wake-up over."""
        self.endpoint.receive(self.ring, self.table, now)
        self.table.release(self.ring)
        assert self.ring.leased == 0
        self.events += self.endpoint.events()

    def flight(self, now: float) -> list[tuple[bytes, bytes]]:
        """(path, datagram) of everything that the endpoint sends now."""
        return flight(self.endpoint, now)


class Wire:
    """A peer whose packets a test writes, and receivers that all know its keys (they are alike to the byte).

    Attributes:
        peer: the initiator's connection; only its keys and its connection ID are used.
        receivers: half-open still; the first DATA opens them.
    """

    def __init__(self, config: Config | None = None, receivers: int = 1, seed: int = 1) -> None:
        config = config or Config()
        rng = random.Random(seed)
        key = KeyPair(rng.randbytes(32))
        self.receivers = [Receiver(key, config, seed) for _ in range(receivers)]
        initiator = Endpoint(KeyPair(rng.randbytes(32)), config, now=0.0, random=rng.randbytes)
        initiator.connect(RESPONDER, key.public, 0.0)
        self._slots = BufferRing(1)
        self._slots.lease()
        answers: list[bytes] = []
        for _, datagram in flight(initiator, 0.0):
            for receiver in self.receivers:
                receiver.wake([[datagram]], 0.0)
                answers += [answer for _, answer in receiver.flight(0.0)]
        assert len(answers) == receivers
        assert len(set(answers)) == 1, "the receivers are alike"
        ring, table = BufferRing(1), RunTable(held=1)
        ring.views[ring.lease()][: len(answers[0])] = answers[0]
        table.parse(ring, 0, len(answers[0]), 0, RESPONDER + INITIATOR, 0)
        initiator.receive(ring, table, 0.0)
        (established,) = [event for event in initiator.events() if isinstance(event, ConnectionEstablished)]
        self.peer = established.connection

    @property
    def receiver(self) -> Receiver:
        """The first one."""
        return self.receivers[0]

    def packet(self, counter: int, frames: bytes, size: int = 0) -> bytes:
        """A sealed packet with these frames, padded to `size` bytes."""
        frames += bytes(max(0, size - HEADER_SIZE - TAG - len(frames)))
        end = HEADER_SIZE + len(frames) + TAG
        view = self._slots.views[0]
        HEADER.pack_into(view, 0, DATA, self.peer.remote_cid, counter)
        view[HEADER_SIZE : end - TAG] = frames
        self.peer.keys.sealer(counter >> 22).seal_run(self._slots, 0, 0, end, 1, end)
        return bytes(view[:end])


def flight(endpoint: Endpoint, now: float) -> list[tuple[bytes, bytes]]:
    """(path, datagram) of everything that an endpoint sends now."""
    sent: list[tuple[bytes, bytes]] = []
    while (table := endpoint.transmit(now)) is not None:
        for row, (slot, start, length, segment, _, _, _, _, path) in enumerate(list(table.records())):
            data = bytes(endpoint.ring.views[slot][start : start + length])
            sent += [(path, data[at : at + segment]) for at in range(0, length, segment or length)]
            table.settle(row, length)
        endpoint.sent(now)
    return sent


def corrupted(datagram: bytes) -> bytes:
    """The same with a changed bit in its tag."""
    return datagram[:-1] + bytes((datagram[-1] ^ 1,))
