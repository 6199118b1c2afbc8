"""One wake-up's worth of packets on the way in: opened in one C call, gathered in another, told to their connections.

What Python looks at is the *span*: runs of one connection that continue each other, number by number, whatever slots
they lie in. A mask of a span has as many bits as it has packets; C gets a row for each run.

Connections `open` the spans that they admit; `opened_all` has all of them opened and hands each back. Then they add
`Gathering`s while their spans are looked at; `flush` copies all of them to their streams' rings in one C call and hands
each back to its connection, with the packets that were not bulk data after all. Nothing of a slot is used after
`finish`, so the caller may give the slots back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.core.ring import BufferRing
from burstwire.core.run import GatherTable, ProtectTable
from burstwire.wire.header import RUN_OVERHEAD

if TYPE_CHECKING:
    from burstwire.core.ring import StreamRing
    from burstwire.core.run import RunRecord
    from burstwire.crypto.aead import Aead
    from burstwire.proto.connection import Connection
    from burstwire.proto.inbound import Inbound
    from burstwire.proto.streams import Stream

__all__ = ["MAX_SPAN", "Gathering", "Intake", "Span"]

Span = list["RunRecord"]
"""Runs of one connection, path and ECN mark, of one packet size and key generation, with consecutive numbers. All
but the last are full: their last packet is as long as the others."""

MAX_SPAN = 64
"""Runs of a span at most: five times what a wake-up of ordinary size brings; it bounds the masks."""

CAPACITY = 1024
"""Runs that one C call opens or gathers; a batch with more takes several calls."""


class Gathering:
    """A span whose bulk data are about to be copied.

    Attributes:
        inbound: whose it is.
        stream: where the data go.
        target: its ring as it is now, kept alive until the copy is done.
        offset: stream offset of the first packet.
        span: the runs. size: bytes of each packet.
        count, last: packets, and bytes of the last one, as far as the span belongs to the stream: up to its end.
        opened: mask of the packets that verified and are new.
    """

    __slots__ = ("count", "inbound", "last", "offset", "opened", "size", "span", "stream", "target")

    def __init__(
        self, inbound: Inbound, stream: Stream, target: StreamRing, offset: int, span: Span, count: int, opened: int
    ) -> None:
        self.inbound = inbound
        self.stream = stream
        self.target = target
        self.offset = offset
        self.span = span
        self.size = span[0][4]
        self.last = span[-1][5]
        self.count = count
        self.opened = opened


Admitted = tuple["Inbound", Span, int, int, "Aead"]
"""Whose, the span, its packets, the mask of those to be opened, and by what."""


class Intake:
    """The batch of one wake-up; made once for an endpoint."""

    def __init__(self) -> None:
        self._protects = ProtectTable(CAPACITY)
        self._gathers = GatherTable(CAPACITY)
        self._admitted: list[Admitted] = []
        self._runs = 0
        """Runs of what was admitted."""
        self._gatherings: list[Gathering] = []
        self.ring: BufferRing | None = None
        self.views: tuple[memoryview, ...] = ()
        """The slots of the ring."""
        self.now = 0.0
        self.bulk = 0
        """Bytes of packets whose data C has copied in this batch."""
        self.touched: dict[Inbound, None] = {}
        """Connections that received something, in order."""

    def begin(self, ring: BufferRing, now: float) -> None:
        """Starts a batch whose runs lie in `ring`."""
        self.ring = ring
        self.views = ring.views
        self.now = now
        self.bulk = 0

    # opening

    def open(self, inbound: Inbound, span: Span, count: int, mask: int, aead: Aead) -> None:
        """Has the packets in `mask` of a span opened with the batch; the connection's `opened` follows."""
        if self._runs + len(span) > CAPACITY:
            self.opened_all()
        self._runs += len(span)
        self._admitted.append((inbound, span, count, mask, aead.for_size(span[0][4])))

    def open_now(self, inbound: Inbound, span: Span) -> bool:
        """Admits and opens a single span by itself; returns whether it held anything genuine and new."""
        self.opened_all()
        inbound.admit(self, span)
        admitted, self._admitted = self._admitted, []
        self._runs = 0
        if not admitted:
            return False
        _, _, count, mask, _ = admitted[0]
        return inbound.opened(self, span, count, mask, self._open(admitted)[0], self.now)

    def opened_all(self) -> None:
        """Opens what was admitted and hands it back, in the order of arrival."""
        admitted = self._admitted
        if not admitted:
            return
        self._admitted = []
        self._runs = 0
        for (inbound, span, count, mask, _), opened in zip(admitted, self._open(admitted), strict=True):
            inbound.opened(self, span, count, mask, opened, self.now)

    def _open(self, admitted: list[Admitted]) -> list[int]:
        """The mask of what verified of each span: one C call for all with a C cipher, the others run by run."""
        ring = self.ring
        if ring is None:
            raise RuntimeError("a batch was opened before it began")
        if len(admitted) == 1 and len(admitted[0][1]) == 1:  # a lone packet, mostly
            _, span, count, mask, aead = admitted[0]
            _, _, slot, start, size, last, *_ = span[0]
            return [aead.open_run(ring, slot, start, size, count, last, mask)]
        table = self._protects
        for _, span, _, mask, aead in admitted:
            cipher = aead.handle
            if cipher:
                for _, _, slot, start, size, last, count, *_ in span:
                    table.append(cipher, slot, start, size, last, count, mask & (1 << count) - 1)
                    mask >>= count
        if table.count:
            table.open(ring)
        results = table.results()
        masks = []
        for _, span, _, mask, aead in admitted:
            opened = at = 0
            for _, _, slot, start, size, last, count, *_ in span:
                if aead.handle:
                    opened |= next(results)[0] << at
                else:
                    part = mask >> at & (1 << count) - 1
                    opened |= aead.open_run(ring, slot, start, size, count, last, part) << at
                at += count
            masks.append(opened)
        table.clear()
        return masks

    # gathering

    @property
    def waiting(self) -> bool:
        """Whether anything was added since the last `flush`."""
        return bool(self._gatherings)

    def full(self, span: Span) -> bool:
        """Whether `flush` must come before the `add` of this span: before anything about it is looked up."""
        return self._gathers.count + len(span) > CAPACITY

    def add(self, gathering: Gathering, low: int, high: int) -> None:
        """Adds a span; [low, high) is what the stream's ring takes."""
        stream = gathering.stream.id
        address, ring_mask = gathering.target.address, gathering.target.mask
        offset, mask = gathering.offset, gathering.opened
        chunk = gathering.size - RUN_OVERHEAD
        append = self._gathers.append
        for _, _, slot, start, size, last, count, *_ in gathering.span:
            append(
                mask & (1 << count) - 1, offset, address, ring_mask, low, high, stream, slot, start, size, last, count
            )
            mask >>= count
            offset += count * chunk
        self._gatherings.append(gathering)

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
        table = self._gathers
        table.run(ring)
        self._gatherings = []
        rests: list[tuple[Gathering, int]] = []
        results = table.results()
        for gathering in gatherings:
            taken = at = 0
            ended = False
            for record in gathering.span:
                fin, part = next(results)
                if ended:
                    continue  # behind the stream's end: whoever reads these packets one by one will find that out
                taken |= part << at
                at += record[6]
                if fin:
                    ended = True
                    gathering.count, gathering.last = at, record[5]
            self.bulk += taken.bit_count() * gathering.size
            gathering.inbound.gathered(gathering, taken, ended, self.now)
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
