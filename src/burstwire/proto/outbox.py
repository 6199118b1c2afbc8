"""One flight on its way out: packets are laid into leased slots, framed, sealed in place and handed to the driver.

A flight is what one `Endpoint.transmit` returns: several trains, for any mix of peers. It is built in a
constant number of C calls: packets are only *described* while connections decide what to send, then one
call frames every run, one call (or, with an AEAD that has no batch call, one loop) seals, and the driver's
one call sends.

Invariants:

* A train holds packets of one path and one ECN mark; all but the last have the same size, so that it is one
  GSO send. It has at most 64 packets and, unless it is a lone packet, at most `MAX_TRAIN` bytes.
* A run starts where its train's packets are multiples of its packet size, so that the ring's views are reused.
* Slots are leased one by one and come back together, when the whole flight was sent or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.core.ring import BufferRing, StreamRing
from burstwire.core.run import NO_GSO, SINGLE, FillTable, ProtectTable, TrainTable
from burstwire.crypto.aead import Aead
from burstwire.wire.header import DATA, DATA_OVERHEAD, HEADER, HEADER_SIZE, TAG

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.offload import Offload
    from burstwire.proto.tracing import Tracer

__all__ = ["MAX_SEGMENTS", "MAX_TRAIN", "Outbox", "most_packets"]

MAX_SEGMENTS = 64
"""Packets of a train: what the kernel takes in one GSO send (UDP_MAX_SEGMENTS before Linux 6.9)."""

GSO_SIZE = 65536
"""What a device takes in one piece is smaller than this, with all headers (Linux: gso_max_size, by default)."""

MAX_TRAIN = GSO_SIZE - 1 - 18 - 40 - 8
"""Bytes of a train of several packets: without the headers of Ethernet with a VLAN tag, IPv6 and UDP. Linux cuts a
longer one into its packets before it is at the device, on loopback and veth, too: all of them come one by one then, and
each costs as much as a whole train."""

PROTECTS = 256
"""Runs and lone packets that one C call seals; what a flight has beyond is sealed one by one."""

SHARE_BELOW = 48 * 1024
"""A train may start in a slot that holds less than this already; beyond it a fresh slot beats short trains."""


def most_packets(size: int) -> int:
    """Packets of `size` bytes of which a train can consist."""
    return min(MAX_SEGMENTS, MAX_TRAIN // size) or 1


class Outbox:
    """Builds flights in a ring of its own.

    Args:
        slots: 64 KiB slots of the ring.
        bulk_slots: slots that runs of bulk data may take in one flight; what is left is for ACKs and handshakes.
        trains: the most trains of one flight.
        offload: where trains leave datagram by datagram; None: nowhere is known.

    Attributes:
        gso: whether the socket has the kernel segment trains at all.
    """

    def __init__(self, slots: int, bulk_slots: int, trains: int = 256, offload: Offload | None = None) -> None:
        self.ring = BufferRing(slots)
        self.trains = TrainTable(self.ring, trains)
        self._capacity = trains
        self._bulk_slots = min(bulk_slots, max(1, slots - 1))
        self._bulk_limit = self._bulk_slots
        self._slots = slots
        self._fills = FillTable(trains)
        self._fill_capacity = trains
        self._protects = ProtectTable(PROTECTS)
        self._ciphers: list[Aead] = []
        """Whose addresses stand in the table."""
        self._seals: list[tuple[Aead, int, int, int, int]] = []
        """What has no C cipher: sealed run by run."""
        self._leased: list[int] = []
        self._slot = -1
        self._used = 0
        """Bytes of the current slot that hold packets."""
        self._path = b""
        self._ecn = 0
        self._start = 0
        self._end = 0
        """Where the open train must end at the latest: at `MAX_TRAIN` bytes, or with its slot."""
        self._segment = 0
        self._packets = 0
        """Packets in the open train; 0 when there is none."""
        self._open = False
        """Whether another packet may join the train: false after a shorter one."""
        self._owners: dict[int, Connection] = {}
        """Whose lone packet a train is."""
        self.gso = False
        self._offload = offload
        self._avoided = offload.avoided if offload is not None else {}
        self.tracer: Tracer | None = None
        """Who is told of the packets that follow; set before each connection's turn."""

    # getters

    @property
    def empty(self) -> bool:
        """Whether nothing was put in since the last `clear`."""
        return not self._packets and not self.trains.count

    @property
    def bulk_room(self) -> bool:
        """Whether another run may start."""
        return (
            len(self._leased) < self._bulk_limit
            and self.trains.count + 2 < self._capacity
            and self._fills.count < self._fill_capacity
        )

    @property
    def room(self) -> bool:
        """Whether another packet of any size fits for certain."""
        return len(self._leased) < self._slots and self.trains.count + 2 < self._capacity

    def segments(self, path: bytes) -> bool:
        """Whether trains of several packets for this path are left to the kernel to segment."""
        return self.gso and not (self._avoided and path[4:24] in self._avoided)

    # inputs

    def share(self, slots: int) -> None:
        """What follows is of another connection, whose runs may take `slots` further slots."""
        self._bulk_limit = min(self._bulk_slots, len(self._leased) + slots)

    def run_room(self, path: bytes, size: int, ecn: int) -> int:
        """Packets of `size` bytes that the next train for this path may take, 0 when the flight is full."""
        if self._joins(path, size, ecn) and size == self._segment and self._fills.count < self._fill_capacity:
            return min(MAX_SEGMENTS - self._packets, (self._end - self._used) // size)
        return most_packets(size) if self.bulk_room else 0

    def flight_room(self, path: bytes, size: int, ecn: int) -> int:
        """Packets of `size` bytes that this flight may still take for this path, in any number of trains."""
        joined = 0
        if self._joins(path, size, ecn) and size == self._segment and self._fills.count < self._fill_capacity:
            joined = min(MAX_SEGMENTS - self._packets, (self._end - self._used) // size)
        rows = min(self._capacity - self.trains.count - 2, self._fill_capacity - self._fills.count - 1)
        trains = min(self._bulk_limit - len(self._leased), rows)
        return joined + max(0, trains) * most_packets(size)

    def run(
        self,
        path: bytes,
        ecn: int,
        aead: Aead,
        cid: int,
        counter: int,
        size: int,
        count: int,
        stream_id: int,
        source: StreamRing,
        offset: int,
        length: int,
    ) -> None:
        """Adds `count` packets of `size` bytes that carry `length` bytes of a stream; all of them are full.

        The caller asked `run_room` or `flight_room` before and asks for no more than it said.
        """
        chunk = length // count
        if self.tracer is not None:
            self.tracer.run_sent(counter, size, count, stream_id, offset, chunk, ecn)
        aead = aead.for_size(size)
        cipher = aead.handle
        if cipher:
            self._ciphers.append(aead)
        address, mask = source.address, source.mask
        fill = self._fills.append
        full = most_packets(size)
        joins = self._joins(path, size, ecn) and size == self._segment
        while count:
            if not joins:
                self._begin(path, size, ecn, fresh=True)
            start = self._used
            room = min(MAX_SEGMENTS - self._packets, (self._end - start) // size) if joins else full
            n = count if count < room else room
            joins = False
            fill(counter, offset, address, mask, cid, stream_id, self._slot, start, n * chunk, size, n, 0, cipher)
            if not cipher:
                self._seals.append((aead, self._slot, start, size, n))
            self._used = start + size * n
            self._packets += n
            counter += n
            offset += n * chunk
            count -= n

    def packet(
        self, path: bytes, ecn: int, aead: Aead, cid: int, counter: int, payload: bytes, is_probe: bool = False
    ) -> int:
        """Adds one DATA packet with these frames; returns its size in bytes. The caller asked `room` before."""
        size = DATA_OVERHEAD + len(payload)
        if self.tracer is not None:
            self.tracer.packet_sent(counter, size, payload, ecn, is_probe)
        start = self._place(path, size, ecn)
        view = self.ring.views[self._slot]
        HEADER.pack_into(view, start, DATA, cid, counter)
        view[start + HEADER_SIZE : start + size - TAG] = payload
        self._seal(aead, start, size, 1)
        return size

    def lone_packet(
        self, path: bytes, aead: Aead, cid: int, counter: int, payload: bytes, owner: Connection, ecn: int = 0
    ) -> None:
        """Adds one DATA packet in a train of its own; if the kernel refuses it, `settle` names `owner`."""
        self._end_train()
        self.packet(path, ecn, aead, cid, counter, payload, is_probe=True)
        self._end_train()
        self._owners[self.trains.count - 1] = owner

    def settle(self, now: float) -> list[tuple[bytes, int, Connection | None]]:
        """Path, negative errno and owner of each train that the kernel refused, once the flight is finished. What it
        would not segment is told to `offload`."""
        if not self.trains.any_trouble():
            return []
        refused = []
        for row, (*_, flags, _, error, path) in enumerate(self.trains.records()):
            if flags & NO_GSO and self._offload is not None:
                self._offload.refused(path, now)
            if error:
                refused.append((path, error, self._owners.get(row)))
        return refused

    def datagram(self, path: bytes, data: bytes) -> None:
        """Adds a datagram as it is (handshakes, resets). The caller asked `room` before."""
        start = self._place(path, len(data), 0)
        self.ring.views[self._slot][start : start + len(data)] = data

    # outputs

    def finish(self) -> TrainTable:
        """Frames and seals everything; the trains are then ready to be sent, in this order."""
        self._end_train()
        ring = self.ring
        if self._fills.count:
            self._fills.run(ring)
            self._fills.count = 0
        if self._protects.count:
            self._protects.seal(ring)
            self._protects.count = 0
            self._ciphers.clear()
        if self._seals:
            for aead, slot, start, size, count in self._seals:
                aead.seal_run(ring, slot, start, size, count, size)
            self._seals.clear()
        return self.trains

    def clear(self) -> None:
        """Gives the slots back and starts over."""
        for slot in self._leased:
            self.ring.release(slot)
        self._leased.clear()
        self._bulk_limit = self._bulk_slots
        self.trains.count = self._fills.count = self._protects.count = 0
        if self._seals or self._ciphers:  # a flight that was never finished
            self._seals.clear()
            self._ciphers.clear()
        if self._owners:
            self._owners.clear()
        self._slot = -1
        self._used = self._packets = 0
        self._open = False

    def close(self) -> None:
        """Gives the ring's memory back."""
        self.clear()
        self.ring.close()

    # inside

    def _seal(self, aead: Aead, start: int, size: int, count: int) -> None:
        """Has `count` packets of `size` bytes in the current slot sealed."""
        aead = aead.for_size(size)
        if aead.handle and self._protects.count < PROTECTS:
            self._protects.append(aead.handle, self._slot, start, size, size, count)
            self._ciphers.append(aead)
        else:
            self._seals.append((aead, self._slot, start, size, count))

    def _joins(self, path: bytes, size: int, ecn: int) -> bool:
        return (
            self._open
            and size <= self._segment
            and self._packets < MAX_SEGMENTS
            and path == self._path
            and ecn == self._ecn
            and self._used + size <= self._end
        )

    def _place(self, path: bytes, size: int, ecn: int) -> int:
        if not self._joins(path, size, ecn):
            self._begin(path, size, ecn, fresh=False)
        start = self._used
        self._used = start + size
        self._packets += 1
        if size < self._segment:
            self._open = False
        return start

    def _begin(self, path: bytes, size: int, ecn: int, fresh: bool) -> None:
        self._end_train()
        if fresh or self._slot < 0 or self._used >= SHARE_BELOW or self._used + size > self.ring.slot_size:
            slot = self.ring.lease()
            if slot < 0:
                raise RuntimeError("the send ring is exhausted: a packet was added without asking for room")
            self._leased.append(slot)
            self._slot = slot
            self._used = self._start = 0
            self._end = MAX_TRAIN
        else:
            self._start = self._used
            self._end = min(self._start + MAX_TRAIN, self.ring.slot_size)
        self._path = path
        self._ecn = ecn
        self._segment = size
        self._open = True

    def _end_train(self) -> None:
        if self._packets:
            length = self._used - self._start
            segment = self._segment if self._packets > 1 else length
            flags = SINGLE if self._avoided and self._path[4:24] in self._avoided else 0
            self.trains.append(self._slot, self._start, length, segment, self._ecn, self._path, flags)
            self._packets = 0
        self._open = False
