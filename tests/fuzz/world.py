"""An endpoint that a fuzzer's input is let loose on, an honest connection beside it, and what must hold all the time.

Whatever arrives: no exception; every slot comes back; every table stays within what `Config` says; the honest
connection still carries messages both ways at the end; and once everybody has closed, everything ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

from burstwire.config import Config
from burstwire.core.address import pack_address
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.identity import KeyPair
from burstwire.proto.connection import Connection
from burstwire.proto.desk import HandshakeDesk
from burstwire.proto.endpoint import MAX_RESETS, Endpoint
from burstwire.proto.events import ConnectionEnded, ConnectionEstablished, Event, StreamOpened
from burstwire.proto.messages import MAX_READY
from burstwire.proto.path import ADDRESS, AMPLIFICATION, MAX_WAITING
from burstwire.proto.ranges import MAX_RECEIVED_RANGES
from burstwire.proto.roster import MAX_GONE
from burstwire.proto.streams import Stream

__all__ = [
    "ATTACKER", "CONFIG", "HONEST", "KEYS", "SIDE", "Ledger", "Node", "World", "check_connection", "check_desk",
]  # fmt: skip

SIDE, HONEST, ATTACKER = pack_address("10.0.0.1", 1), pack_address("10.0.0.2", 2), pack_address("10.0.0.3", 3)
KEYS = [KeyPair(Random(n).randbytes(32)) for n in range(4)]

CONFIG = Config(
    max_streams=8,
    stream_window=16384,
    connection_window=32768,
    send_buffer=16384,
    max_message_size=65536,
    max_datagrams=4,
    max_half_open=8,
    max_connections=16,
    send_slots=4,
    receive_slots=4,
    idle_timeout=30.0,
    keep_alive=0.0,
)
"""Small, so that an input of some hundred bytes reaches every limit."""

SLOTS = 32
MOST_TIMERS = 3000
"""Timers that may fire until a closed endpoint is over; more are a timer that never lets go."""

_rings: list[tuple[BufferRing, RunTable]] = []
"""Receive rings are used again: making one costs more than most inputs do."""


class Node:
    """An endpoint, driven as a driver does it.

    Attributes:
        events: everything that it told, in order.
        streams: all streams that its connections have told of.
    """

    def __init__(self, endpoint: Endpoint, where: bytes) -> None:
        self.endpoint = endpoint
        self.where = where
        self.ring, self.table = _rings.pop() if _rings else (BufferRing(SLOTS), RunTable(held=SLOTS))
        self.connections: list[Connection] = []
        self.streams: deque[Stream] = deque(maxlen=64)
        self.ended: list[Connection] = []

    def take(self, trains: Sequence[tuple[Sequence[bytes], bytes]], now: float, ecn: int = 0) -> None:
        """One wake-up: each train (datagrams of one size, the last may be shorter) with its path."""
        for datagrams, path in trains:
            slot = self.ring.lease()
            if slot < 0:
                break
            data = b"".join(datagrams)[: self.ring.slot_size]
            self.ring.views[slot][: len(data)] = data
            if data:
                self.table.parse(self.ring, slot, len(data), min(len(datagrams[0]), 65535), path, ecn)
            else:
                self.ring.release(slot)
        self.endpoint.receive(self.ring, self.table, now)
        self.table.release(self.ring)
        assert self.ring.leased == 0, "a receive slot was not given back"

    def turn(self, now: float) -> list[tuple[bytes, bytes]]:
        """(path, datagram) of all that is sent now."""
        sent: list[tuple[bytes, bytes]] = []
        endpoint = self.endpoint
        for _ in range(1000):
            while (flight := endpoint.transmit(now)) is not None:
                for row, (slot, start, length, segment, _, _, _, _, path) in enumerate(list(flight.records())):
                    data = bytes(flight.ring.views[slot][start : start + length])
                    sent += [(path, data[at : at + segment]) for at in range(0, length, segment or length)]
                    flight.settle(row, length)
                endpoint.sent(now)
                assert endpoint.ring.leased == 0, "a send slot was not given back"
                assert len(sent) < 10_000, "it sends without end"
            events = endpoint.events()
            if not events:
                return sent
            for event in events:
                self._told(event)
        raise AssertionError("there are events without end")

    def timers(self, now: float) -> None:
        """What is due by now."""
        when = self.endpoint.next_timeout()
        if when is not None and when <= now:
            self.endpoint.handle_timeout(now)

    def check(self) -> None:
        """Everything that has a limit keeps it."""
        endpoint = self.endpoint
        config = endpoint.config
        assert len(endpoint.connections) <= config.max_connections
        assert len(endpoint._roster._gone) <= MAX_GONE
        assert len(endpoint._resets) <= MAX_RESETS
        check_desk(endpoint.desk, config)
        for connection in endpoint.connections.values():
            check_connection(connection)

    def release(self) -> None:
        """The node is used no more."""
        self.table.release(self.ring)
        self.endpoint.destroy()
        _rings.append((self.ring, self.table))

    def _told(self, event: Event) -> None:
        if isinstance(event, ConnectionEstablished):
            self.connections.append(event.connection)
        elif isinstance(event, StreamOpened):
            self.streams.append(event.stream)
        elif isinstance(event, ConnectionEnded):
            assert event.connection not in self.ended, "a connection ended twice"
            self.ended.append(event.connection)


def check_desk(desk: HandshakeDesk, config: Config) -> None:
    """What a stranger can fill."""
    stats = desk.stats()
    assert stats["half_open"] <= config.max_half_open
    assert stats["attempts"] <= config.max_connections


def check_connection(connection: Connection) -> None:
    """What a peer can fill."""
    config = connection.config
    table = connection.streams
    theirs = [s for s in table.open.values() if bool(s.id & 1) == connection.is_initiator and s is not table.messages]
    assert len(theirs) <= config.max_streams, "more streams than max_streams"
    assert len(connection.acks.received) <= MAX_RECEIVED_RANGES
    assert len(connection.datagrams.incoming) <= config.max_datagrams
    assert len(connection.paths.outgoing) <= MAX_WAITING
    assert len(connection.control) <= 8 + 5 * len(table.open), "control frames pile up"
    log = connection.recovery.log
    assert log.largest_acked < connection.next_counter, "what was never sent counts as acknowledged"
    unread = 0
    for stream in table.open.values():
        half = stream.receiving
        assert half.read_offset <= half.ready <= half.highest <= half.max_data
        assert half.highest - half.read_offset <= config.stream_window
        unread += half.highest - half.read_offset
        ring = half._ring
        assert ring is None or ring.size <= max(1024, config.stream_window), "a ring larger than the window"
        sending = stream.sending
        assert 0 <= sending.base <= sending.sent <= sending.written
        if stream is not table.messages:
            assert sending.written - sending.base <= config.send_buffer, "more held for the peer than send_buffer"
    assert unread <= config.connection_window, "more unread than the connection's window"
    assert len(connection.reader.ready) <= MAX_READY
    assert log.in_flight >= 0, "bytes in flight below zero"


class Ledger:
    """Bytes that addresses sent and were sent until they were proven: nobody gets more than three times what he spent.

    An address is proven once a connection uses it as its peer's: that takes a packet that opens, sealed with the keys
    of a handshake through that address, or the answer to a challenge there.

    Args:
        dialled: addresses that the node was told to dial; nothing has to come from there first.
    """

    def __init__(self, dialled: Sequence[bytes]) -> None:
        self._proven = set(dialled)
        self._balance: dict[bytes, int] = {}

    def came(self, address: bytes, size: int) -> None:
        """Bytes from there."""
        self._balance[address] = self._balance.get(address, 0) + AMPLIFICATION * size

    def went(self, endpoint: Endpoint, sent: Sequence[tuple[bytes, bytes]]) -> None:
        """(path, datagram) that the endpoint sent."""
        self._proven.update(connection.path[:ADDRESS] for connection in endpoint.connections.values())
        for path, datagram in sent:
            address = path[:ADDRESS]
            left = self._balance[address] = self._balance.get(address, 0) - len(datagram)
            assert left >= 0 or address in self._proven, "an unproven address got more than three times its bytes"


class World:
    """`side` under attack, `honest` connected to it, and a clock.

    Args:
        side: the endpoint under attack; it is known by the address SIDE.
        now: the time.
        befriend: whether the honest connection is made at once; else by `befriend`, at the end at the latest.
        dialled: see `Ledger`.
    """

    def __init__(self, side: Endpoint, now: float = 0.0, befriend: bool = True, dialled: Sequence[bytes] = ()) -> None:
        self.now = now
        self.ledger = Ledger(dialled)
        self.side = Node(side, SIDE)
        rng = Random(9)
        self.honest = Node(Endpoint(KEYS[2], CONFIG.replace(keep_alive=10.0), now=now, random=rng.randbytes), HONEST)
        self.strangers: list[tuple[bytes, bytes]] = []
        """(path, datagram) that the side under attack sent to anybody else since the last look."""
        self.friend: Connection | None = None
        if befriend:
            self.befriend()

    def befriend(self) -> None:
        """Makes the honest connection."""
        if self.friend is not None:
            return
        self.honest.endpoint.connect(SIDE, self.side.endpoint.key.public, self.now)
        self.settle()
        for _ in range(20):
            if self.honest.connections and any(c.peer_key == KEYS[2].public for c in self.side.connections):
                break
            self.pass_time(0.25)  # a cookie was asked for, or a timer is needed
        assert self.honest.connections, "the honest connection did not come to be"
        self.friend = next(c for c in self.side.connections if c.peer_key == KEYS[2].public)

    def settle(self, rounds: int = 30) -> None:
        """Carries everything between the two until both are silent."""
        for _ in range(rounds):
            moved = self.honest.turn(self.now)
            self._carry(self.side, [(data, HONEST + SIDE) for _, data in moved])
            answers = self.side.turn(self.now)
            self.ledger.went(self.side.endpoint, answers)
            self.strangers += [one for one in answers if one[0][:24] != HONEST]
            mine = [(data, SIDE + HONEST) for path, data in answers if path[:24] == HONEST]
            self._carry(self.honest, mine)
            if not moved and not answers:
                return

    def _carry(self, node: Node, datagrams: list[tuple[bytes, bytes]]) -> None:
        for at in range(0, len(datagrams), SLOTS):
            self._arrive(node, [([data], path) for data, path in datagrams[at : at + SLOTS]])

    def attack(self, trains: Sequence[tuple[Sequence[bytes], bytes]], ecn: int = 0) -> None:
        """One wake-up of the side under attack, and what follows from it."""
        self._arrive(self.side, trains, ecn)
        self.settle()
        self.side.check()

    def _arrive(self, node: Node, trains: Sequence[tuple[Sequence[bytes], bytes]], ecn: int = 0) -> None:
        if node is self.side:
            for datagrams, path in trains:
                self.ledger.came(path[:ADDRESS], sum(map(len, datagrams)))
        node.take(trains, self.now, ecn)

    def pass_time(self, seconds: float) -> None:
        """Lets time pass; timers fire in their order."""
        end = self.now + seconds
        for _ in range(MOST_TIMERS):
            due = [when for node in (self.side, self.honest) if (when := node.endpoint.next_timeout()) is not None]
            when = min(due, default=None)
            if when is None or when > end:
                self.now = end
                return
            self.now = max(self.now, when)
            for node in (self.side, self.honest):
                node.timers(self.now)
            self.settle()
        raise AssertionError(f"more than {MOST_TIMERS} timers in {seconds} s")

    def finish(self) -> None:
        """The honest connection works, and once all is closed, all of it ends."""
        try:
            self.settle()
            self.side.check()
            self.befriend()
            assert self.friend is not None
            self._talk(self.honest.connections[0], self.friend, b"to the attacked")
            self._talk(self.friend, self.honest.connections[0], b"from the attacked")
            for node in (self.side, self.honest):
                node.endpoint.close(self.now)
            self.settle()
            for _ in range(MOST_TIMERS):
                when = self.side.endpoint.next_timeout()
                if when is None or not self.side.endpoint.connections:
                    break
                self.pass_time(max(0.0, when - self.now))
            assert not self.side.endpoint.connections, f"left over: {self.side.endpoint.connections}"
            assert self.side.endpoint.closed
            for connection in self.side.connections:
                assert connection in self.side.ended, f"{connection} never ended"
                assert connection.counter_index < 0, f"{connection} keeps its counter"
        finally:
            self.release()

    def release(self) -> None:
        """Gives the memory back, whatever happened."""
        self.side.release()
        self.honest.release()

    def _talk(self, source: Connection, target: Connection, message: bytes) -> None:
        assert source.established, f"the honest connection has ended: {source.error!r}"
        source.send_message(message)
        for _ in range(20):
            self.settle()
            got = target.next_message()
            if got is not None:
                assert got == message
                return
            self.pass_time(0.1)
        raise AssertionError("the honest connection carries no message any more")
