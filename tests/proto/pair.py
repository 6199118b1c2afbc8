"""Two connections joined without sockets or handshake, for tests of what one connection does to the other."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from burstwire.config import Config
from burstwire.core.counter import CounterPool
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.identity import KeyPair
from burstwire.proto.connection import Connection
from burstwire.proto.events import Event
from burstwire.proto.handshake import Established
from burstwire.proto.intake import Intake
from burstwire.proto.negotiation import offer
from burstwire.proto.outbox import Outbox

Datagram = bytes
Filter = Callable[[Datagram], list[Datagram]]


def established(initiator: bool, config: Config, peer_config: Config) -> Established:
    """What a handshake between two such sides would have given."""
    own, peer = (bytes([4, 0, 0, n]) + bytes(20) for n in ((1, 2) if initiator else (2, 1)))
    a, b = b"a" * 32, b"b" * 32

    def parameters(of: Config):
        return offer(of, (1,), bytes(16), 212992, observed=own, attempt=bytes(8))

    return Established(
        is_initiator=initiator,
        local_cid=1 if initiator else 2,
        remote_cid=2 if initiator else 1,
        path=peer + own,
        send_secret=a if initiator else b,
        receive_secret=b if initiator else a,
        aead="aes-128-gcm",
        peer_key=KeyPair.generate().public,
        local_parameters=parameters(config),
        peer_parameters=parameters(peer_config),
        attempt=None,
        handshake_rtt=0.01,
        now=0.0,
    )


class Side:
    """One connection with its rings."""

    def __init__(self, initiator: bool, config: Config, peer_config: Config, rng: random.Random) -> None:
        self.events: deque[Event] = deque()
        self.ready: set[Connection] = set()
        self.outbox = Outbox(config.send_slots, config.trains_per_wakeup)
        self.intake = Intake()
        self.ring = BufferRing(config.receive_slots)
        self.table = RunTable()
        self.connection = Connection(
            established(initiator, config, peer_config),
            config,
            0.0,
            rng.randbytes,
            CounterPool(1),
            self.events.append,
            self.ready.add,
        )

    def take(self, kind: type) -> list:
        """The events of one kind, which are forgotten."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = deque(event for event in self.events if not isinstance(event, kind))
        self.connection.emit = self.events.append
        return found

    def datagrams(self, now: float) -> list[Datagram]:
        """Everything that this side sends now."""
        sent: list[Datagram] = []
        while self.ready:
            for connection in list(self.ready):
                if not connection.outbound.transmit(now, self.outbox):
                    self.ready.discard(connection)
            if self.outbox.empty:
                break
            table = self.outbox.finish()
            for slot, start, length, segment, *_ in table.records():
                data = bytes(self.outbox.ring.views[slot][start : start + length])
                sent += [data[at : at + segment] for at in range(0, length, segment)]
            self.outbox.clear()
        assert self.outbox.ring.leased == 0
        return sent

    def deliver(self, datagrams: list[Datagram], now: float, path: bytes | None = None) -> None:
        """Hands datagrams to the connection, equal-sized neighbours as one train like GRO would."""
        path = path or self.connection.path
        while datagrams:
            slot = self.ring.lease()
            size = len(datagrams[0])
            count = 1
            while count < min(len(datagrams), 65507 // size) and len(datagrams[count]) == size:
                count += 1
            if count < len(datagrams) and len(datagrams[count]) < size and (count + 1) * size <= 65507:
                count += 1
            train = b"".join(datagrams[:count])
            del datagrams[:count]
            self.ring.views[slot][: len(train)] = train
            self.table.parse(self.ring, slot, len(train), size, path, 0)
            if self.ring.leased == self.ring.slots or not datagrams:
                self.intake.begin(self.ring, now)
                for record in self.table.records():
                    self.connection.inbound.admit(self.intake, [record])
                self.intake.finish()
                self.table.release(self.ring)
        assert self.ring.leased == 0


class Pair:
    """Two sides and a clock; `delay` is one way, in seconds."""

    def __init__(self, config: Config | None = None, responder: Config | None = None, seed: int = 1) -> None:
        rng = random.Random(seed)
        config = config or Config()
        responder = responder or config
        self.now = 0.0
        self.delay = 0.005
        self.a = Side(True, config, responder, rng)
        self.b = Side(False, responder, config, rng)

    def step(self, a_to_b: Filter | None = None, b_to_a: Filter | None = None) -> int:
        """One trip each way; returns how many datagrams were sent. The filters may drop, copy or change them."""
        count = 0
        for source, target, change in ((self.a, self.b, a_to_b), (self.b, self.a, b_to_a)):
            sent = source.datagrams(self.now)
            count += len(sent)
            self.now += self.delay
            target.deliver([d for one in sent for d in change(one)] if change else sent, self.now)
        return count

    def wait(self) -> None:
        """Lets time pass until one side has something to do."""
        times = [side.connection.next_timeout() for side in (self.a, self.b)]
        due = [time for time in times if time is not None]
        assert due, "neither side has anything to wait for"
        self.now = max(self.now, min(due))
        for side in (self.a, self.b):
            time = side.connection.next_timeout()
            if time is not None and time <= self.now:
                side.connection.handle_timeout(self.now)
                side.ready.add(side.connection)

    def settle(self, a_to_b: Filter | None = None, b_to_a: Filter | None = None, limit: int = 100_000) -> None:
        """Steps and waits until everything accepted was acknowledged or a side has ended."""
        for _ in range(limit):
            if self.step(a_to_b, b_to_a):
                continue
            if all(side.connection.idle_out or not side.connection.listening for side in (self.a, self.b)):
                return
            self.wait()
        raise AssertionError(f"no end: {self.a.connection.stats()} {self.b.connection.stats()}")
