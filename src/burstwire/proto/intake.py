"""One wake-up's worth of packets on the way in: opened, gathered in one C call, then told to their connections.

Connections add `Gathering`s while their runs are looked at; `flush` copies all of them to their streams' rings in
one C call and hands each back to its connection, with the packets that were not bulk data after all. Nothing of a
slot is used after `flush`, so the caller may give the slots back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.core.ring import BufferRing
from burstwire.core.run import GatherTable

if TYPE_CHECKING:
    from burstwire.core.ring import StreamRing
    from burstwire.proto.connection import Connection
    from burstwire.proto.inbound import Inbound
    from burstwire.proto.streams import Stream

__all__ = ["Gathering", "Intake"]

CAPACITY = 256
"""Runs that one C call gathers; a batch with more flushes in between."""


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
        self.flush()
        touched = []
        for inbound in self.touched:
            inbound.batch_ended(self.now)
            touched.append(inbound.connection)
        self.touched.clear()
        self.ring = None
        self.views = ()
        return touched
