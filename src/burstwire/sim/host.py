"""A host of the virtual network: drives a real `Endpoint` as the asyncio driver does, in virtual time.

A wake-up takes a bounded number of trains from the inbox into slots of a real `BufferRing`, datagrams side by side
as the kernel's GRO leaves them, and hands them to the endpoint; then flights go out, events go to the application,
and the timer is armed. The kernel is played faithfully where protocols notice: datagrams beyond the interface's MTU
are refused, the socket buffer overflows, small packets are merged only with equal neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from errno import EMSGSIZE
from random import Random

from burstwire.config import MAX_DATAGRAM_SIZE, Config
from burstwire.core.address import ADDRESS_SIZE, pack_address, unpack_address
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable, TrainTable
from burstwire.errors import TransportError
from burstwire.identity import KeyPair, PublicKey
from burstwire.proto.connection import Connection
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.events import (
    ConnectFailed,
    ConnectionEnded,
    ConnectionEstablished,
    DatagramsReadable,
    Event,
    MessagesReadable,
    MessagesWritable,
    StreamOpened,
    StreamReadable,
    StreamsAvailable,
    StreamWritable,
)
from burstwire.qlog import TraceFolder, trace_folder
from burstwire.sim.clock import Timer
from burstwire.sim.network import Network
from burstwire.sim.traffic import Application

__all__ = ["Attempt", "SimHost"]

PORT = 4000
"""The port of a host that is given none."""

GRO_SEGMENTS = 64
"""Datagrams that the kernel merges at most."""

GRO_BYTES = 65535
"""Bytes that it merges at most."""


class Attempt:
    """A handshake that was started.

    Attributes:
        number: what `Endpoint.connect` returned.
        connection: the outcome, or None.
        error: why there will be none, or None.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection: Connection | None = None
        self.error: TransportError | None = None

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self.connection is not None or self.error is not None


class SimHost:
    """One endpoint with an address.

    Args:
        network: what it is attached to.
        host: its numeric address; `port`: its port.
        key: its identity; None makes one from the network's seed.
        config: as for a real endpoint.
        application: makes the `Application` of each connection, which becomes `connection.user`.
        receive_buffer: bytes of the socket buffer, beyond which arrivals are dropped; also what peers are told.
        gro: whether equal neighbours are merged.
        mtu: bytes of the largest datagram that the interface takes; larger ones are refused (EMSGSIZE).

    Attributes:
        address: what the network knows it by (24 bytes).
        endpoint, ring, table: the real ones.
        applications: of all connections there ever were, in their order.
        ended: (connection, error) of each connection that ended.
        log: every event with its time.
        dropped: datagrams for which the socket buffer had no room.
        refused: trains refused for their size.
    """

    def __init__(
        self,
        network: Network,
        host: str,
        port: int = PORT,
        *,
        key: KeyPair | None = None,
        config: Config | None = None,
        application: Callable[[SimHost, Connection], Application] = Application,
        receive_buffer: int = 4 << 20,
        gro: bool = True,
        mtu: int = MAX_DATAGRAM_SIZE,
    ) -> None:
        self.network = network
        self.clock = network.clock
        self.address = pack_address(host, port)
        self.config = config or Config()
        self.gro = gro
        self.mtu = mtu
        self.receive_buffer = receive_buffer
        self.application = application
        random = Random(f"{network.seed} {self.address.hex()} host")
        self.key = key or KeyPair(random.randbytes(32))
        self.endpoint = Endpoint(
            self.key, self.config, now=self.clock.now, random=random.randbytes, receive_buffer=receive_buffer
        )
        folder = trace_folder(self.config)
        if folder is not None:  # so that a run that failed can be had again with traces
            self.endpoint.trace = TraceFolder(folder, self.config.qlog_limit, epoch=0.0).trace
        self.ring = BufferRing(self.config.receive_slots)
        self.table = RunTable()
        self.attempts: dict[int, Attempt] = {}
        self.applications: list[Application] = []
        self.ended: list[tuple[Connection, TransportError]] = []
        self.log: list[tuple[float, Event]] = []
        self.dropped = 0
        self.refused = 0
        self._local = pack_address(host, 0)
        """What paths say of this end; it stays when `move` changes what the network sees, as behind a NAT."""
        self._inbox: deque[tuple[bytes, int, bytes]] = deque()
        self._waiting = 0
        self._wake: Timer | None = None
        self._timer: Timer | None = None
        network.attach(self.address, self._arrive)

    # mutators

    def connect(
        self, other: SimHost | bytes, peer_key: PublicKey | None = None, timeout: float | None = None
    ) -> Attempt:
        """Start a handshake with a host, or with an address and a key that must answer there."""
        if isinstance(other, SimHost):
            remote, peer_key = other.address, peer_key or other.key.public
        else:
            remote = other
        if peer_key is None:
            raise TypeError("an address needs the key that must answer there")
        attempt = Attempt(self.endpoint.connect(remote, peer_key, self.clock.now, timeout))
        self.attempts[attempt.number] = attempt
        self.poke()
        return attempt

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close every connection; `endpoint.closed` tells when all peers were told."""
        self.endpoint.close(self.clock.now, code, reason)
        self.poke()

    def move(self, host: str, port: int = PORT) -> None:
        """Be known by another address from now on, as when a NAT forgets its binding; what is under way is lost."""
        address = pack_address(host, port)
        self.network.attach(address, self._arrive)
        self.network.detach(self.address)
        self.address = address

    def rebind(self, port: int) -> None:
        """Be known by another port from now on: the NAT on the way forgot the binding and made a new one."""
        self.move(unpack_address(self.address)[0], port)

    def crash(self) -> None:
        """Vanish: nothing is sent or received any more, nobody is told."""
        self.network.detach(self.address)
        for timer in (self._wake, self._timer):
            if timer is not None:
                timer.cancel()
        self._wake = self._timer = None
        self._inbox.clear()

    def poke(self) -> None:
        """Have a turn at this instant; needed after calls on connections from outside of their `Application`."""
        if self._wake is None:
            self._wake = self.clock.at(self.clock.now, self._woken)

    def destroy(self) -> None:
        """Give the memory back; the host cannot be used any more."""
        self.crash()
        self.endpoint.destroy()
        self.ring.close()

    # inside: what the kernel and the event loop do

    def _arrive(self, source: bytes, datagrams: list[bytes], ecn: int) -> None:
        for data in datagrams:
            if self._waiting + len(data) > self.receive_buffer:
                self.dropped += 1
            elif data:
                self._waiting += len(data)
                self._inbox.append((source, ecn, data))
        self.poke()

    def _woken(self) -> None:
        self._wake = None
        for _ in range(self.config.trains_per_wakeup):
            if not self._inbox:
                break
            slot = self.ring.lease()
            if slot < 0:
                break
            self._fill(slot)
        if self.table.held:
            self.endpoint.receive(self.ring, self.table, self.clock.now)
            self.table.release(self.ring)
        self._turn()
        if self._inbox:
            self.poke()

    def _fill(self, slot: int) -> None:
        """Moves a train from the inbox into a slot."""
        view = self.ring.views[slot]
        source, ecn, data = self._inbox.popleft()
        size = len(data)
        view[:size] = data
        length, count, last = size, 1, size
        while self.gro and self._inbox and count < GRO_SEGMENTS and last == size:
            other, mark, data = self._inbox[0]
            last = len(data)
            if other != source or mark != ecn or last > size or length + last > GRO_BYTES:
                break
            self._inbox.popleft()
            view[length : length + last] = data
            length += last
            count += 1
        self._waiting -= length
        self.table.parse(self.ring, slot, length, size if count > 1 else 0, source + self._local, ecn)

    def _turn(self) -> None:
        """Sends and tells until there is nothing more to send or to tell; then arms the timer."""
        endpoint = self.endpoint
        now = self.clock.now
        while True:
            while (flight := endpoint.transmit(now)) is not None:
                self._send(flight)
                endpoint.sent(now)
            events = endpoint.events()
            if not events:
                break
            for event in events:
                self.log.append((now, event))
                self._tell(event)
        self._arm()

    def _send(self, flight: TrainTable) -> None:
        views = flight.ring.views
        for row, record in enumerate(flight.records()):
            slot, start, length, segment, ecn, _, _, _, path = record
            size = segment or length
            if size > self.mtu:
                self.refused += 1
                flight.settle(row, 0, -EMSGSIZE)
                continue
            data = bytes(views[slot][start : start + length])
            datagrams = [data[at : at + size] for at in range(0, length, size)] if size < length else [data]
            self.network.send(self.address, path[:ADDRESS_SIZE], datagrams, ecn)
            flight.settle(row, length)

    def _arm(self) -> None:
        when = self.endpoint.next_timeout()
        timer = self._timer
        if when is None or (timer is not None and timer.when <= when):
            return  # a timer that fires too early asks again
        if timer is not None:
            timer.cancel()
        self._timer = self.clock.at(when, self._timed_out)

    def _timed_out(self) -> None:
        self._timer = None
        now = self.clock.now
        when = self.endpoint.next_timeout()
        if when is not None and when <= now:
            self.endpoint.handle_timeout(now)
            self._turn()
        else:
            self._arm()

    # inside: events

    def _tell(self, event: Event) -> None:
        match event:
            case StreamReadable(stream):
                stream.connection.user.stream_readable(stream)
            case StreamWritable(stream):
                stream.connection.user.stream_writable(stream)
            case MessagesReadable(connection):
                connection.user.messages_readable()
            case MessagesWritable(connection):
                connection.user.messages_writable()
            case DatagramsReadable(connection):
                connection.user.datagrams_readable()
            case StreamOpened(connection, stream):
                connection.user.stream_opened(stream)
            case StreamsAvailable(connection):
                connection.user.streams_available()
            case ConnectionEstablished(connection, attempt):
                connection.user = self.application(self, connection)
                self.applications.append(connection.user)
                if attempt is not None and attempt in self.attempts:
                    self.attempts[attempt].connection = connection
                connection.user.established()
            case ConnectFailed(attempt, error):
                self.attempts[attempt].error = error
            case ConnectionEnded(connection, error):
                self.ended.append((connection, error))
                connection.user.ended(error)
