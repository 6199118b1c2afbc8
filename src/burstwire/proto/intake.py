"""One wake-up's worth of packets on the way in: opened in one C call, gathered in another, told to their connections.

Connections `open` the runs that they admit; `opened_all` has all of them opened and hands each back. Then they add
`Gathering`s while their runs are looked at; `flush` copies all of them to their streams' rings in one C call and hands
each back to its connection, with the packets that were not bulk data after all. Nothing of a slot is used after
`finish`, so the caller may give the slots back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.core.ring import BufferRing
from burstwire.core.run import GatherTable, ProtectTable

if TYPE_CHECKING:
    from burstwire.core.ring import StreamRing
    from burstwire.core.run import RunRecord
    from burstwire.crypto.aead import Aead
    from burstwire.proto.connection import Connection
    from burstwire.proto.inbound import Inbound
    from burstwire.proto.streams import Stream

__all__ = ["Gathering", "Intake"]

CAPACITY = 256
"""Runs that one C call opens or gathers; a batch with more takes several calls."""


class Gathering:
    """One run whose bulk data are about to be copied.

    Attributes:
        inbound: whose run it is.
        stream: where the data go.
        target: its ring as it is now, kept alive until the copy is done.
        offset: stream offset of the run's first packet.
        slot, start, size, last, count: where the run lies (see `RunTable`).
        opened: mask of the packets that verified and are new.
    """

    __slots__ = ("count", "inbound", "last", "offset", "opened", "size", "slot", "start", "stream", "target")

    def __init__(
        self,
        inbound: Inbound,
        stream: Stream,
        target: StreamRing,
        offset: int,
        slot: int,
        start: int,
        size: int,
        last: int,
        count: int,
        opened: int,
    ) -> None:
        self.inbound = inbound
        self.stream = stream
        self.target = target
        self.offset = offset
        self.slot = slot
        self.start = start
        self.size = size
        self.last = last
        self.count = count
        self.opened = opened


class Intake:
    """The batch of one wake-up; made once for an endpoint."""

    def __init__(self) -> None:
        self._table = GatherTable(CAPACITY)
        self._gatherings: list[Gathering] = []
        self._protects = ProtectTable(CAPACITY)
        self._admitted: list[tuple[Inbound, RunRecord, int, Aead]] = []
        self.ring: BufferRing | None = None
        self.views: tuple[memoryview, ...] = ()
        """The slots of the ring."""
        self.now = 0.0
        self.touched: dict[Inbound, None] = {}
        """Connections that received something, in order."""

    def begin(self, ring: BufferRing, now: float) -> None:
        """Starts a batch whose runs lie in `ring`."""
        self.ring = ring
        self.views = ring.views
        self.now = now

    def open(self, inbound: Inbound, record: RunRecord, mask: int, aead: Aead) -> None:
        """Has the packets in `mask` of a run opened with the batch; the connection's `opened` follows."""
        self._admitted.append((inbound, record, mask, aead.for_size(record[4])))

    def open_now(self, inbound: Inbound, record: RunRecord) -> bool:
        """Admits and opens a single run, ahead of all others; returns whether it held anything genuine and new."""
        others, self._admitted = self._admitted, []
        inbound.admit(self, record)
        mine, self._admitted = self._admitted, others
        return any(
            inbound.opened(self, record, mask, self._open_one(record, mask, aead), self.now)
            for _, record, mask, aead in mine
        )

    def opened_all(self) -> None:
        """Opens what was admitted and hands it back, in the order of arrival."""
        admitted = self._admitted
        if not admitted:
            return
        self._admitted = []
        now = self.now
        if len(admitted) == 1:
            inbound, record, mask, aead = admitted[0]
            inbound.opened(self, record, mask, self._open_one(record, mask, aead), now)
            return
        for first in range(0, len(admitted), CAPACITY):
            part = admitted[first : first + CAPACITY]
            for (inbound, record, mask, _), opened in zip(part, self._open(part), strict=True):
                inbound.opened(self, record, mask, opened, now)

    def _open(self, admitted: list[tuple[Inbound, RunRecord, int, Aead]]) -> list[int]:
        """Masks of what verified: of all that have a C cipher in one call, of the others one by one."""
        table = self._protects
        rows = []
        for _, record, mask, aead in admitted:
            _, _, slot, start, size, last, count, *_ = record
            rows.append(table.append(aead.handle, slot, start, size, last, count, mask) if aead.handle else -1)
        if table.count:
            assert self.ring is not None
            table.open(self.ring)
        opened = [
            table.opened(row) if row >= 0 else self._open_one(record, mask, aead)
            for row, (_, record, mask, aead) in zip(rows, admitted, strict=True)
        ]
        table.clear()
        return opened

    def _open_one(self, record: RunRecord, mask: int, aead: Aead) -> int:
        assert self.ring is not None
        return aead.open_run(self.ring, record[2], record[3], record[4], record[6], record[5], mask)

    @property
    def full(self) -> bool:
        """Whether `flush` must come before the next `add`: before anything about its run is looked up."""
        return len(self._gatherings) >= CAPACITY

    @property
    def waiting(self) -> bool:
        """Whether anything was added since the last `flush`."""
        return bool(self._gatherings)

    def add(self, gathering: Gathering, low: int, high: int) -> None:
        """Adds a run; [low, high) is what the stream's ring takes."""
        g = gathering
        self._table.append(
            g.opened,
            g.offset,
            g.target.address,
            g.target.mask,
            low,
            high,
            g.stream.id,
            g.slot,
            g.start,
            g.size,
            g.last,
            g.count,
        )
        self._gatherings.append(g)

    def flush(self) -> None:
        """Copies what was added and tells the connections.

        All bytes are noted before a packet that was not bulk data is read, because its frames may have a stream's
        ring replaced, and only what was noted moves to the new one.
        """
        gatherings = self._gatherings
        if not gatherings:
            return
        ring = self.ring
        if ring is None:
            raise RuntimeError("a batch was flushed before it began")
        table = self._table
        table.run(ring)
        self._gatherings = []
        rests: list[tuple[Gathering, int]] = []
        for index, gathering in enumerate(gatherings):
            taken, fin = table.result(index)
            gathering.inbound.gathered(gathering, taken, bool(fin), self.now)
            rest = gathering.opened & ~taken
            if rest:
                rests.append((gathering, rest))
        table.clear()
        for gathering in gatherings:
            gathering.inbound.deliver(self.now)
        for gathering, rest in rests:
            gathering.inbound.left_over(self, gathering, rest, self.now)

    def finish(self) -> list[Connection]:
        """Ends the batch: everything is delivered, every connection that was touched has decided about its ACK."""
        self.opened_all()
        self.flush()
        touched = []
        for inbound in self.touched:
            inbound.batch_ended(self.now)
            touched.append(inbound.connection)
        self.touched.clear()
        self.ring = None
        self.views = ()
        return touched
