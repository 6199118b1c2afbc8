"""The sending half of a stream (RFC 9000 §3.1): what was accepted, what went, what arrived.

Accepted bytes are copied once into a power-of-two ring and stay there until they are acknowledged, because
a retransmission needs the plaintext. Offsets are stream offsets throughout::

    base ──────── sent ──────── written
      │ in flight,  │  never sent  │
      │ acked parts │              │
      │ or to resend│              │

The ring is made on the first write, doubles as needed, and is dropped when the connection has been quiet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from burstwire.core.ring import StreamRing
from burstwire.errors import StreamFinished, StreamStopped
from burstwire.proto.ranges import RangeSet

if TYPE_CHECKING:
    from burstwire.proto.streams import Stream

__all__ = ["DEFAULT_URGENCY", "SendHalf"]

DEFAULT_URGENCY = 3
"""RFC 9218 §4.1: of 0 to 7, lower ones first."""

FIRST_RING = 1024
"""Bytes of a ring that was just made: thousands of connections that exchange a small message now and then have two."""


class SendHalf:
    """Bytes on their way to the peer.

    Args:
        stream: the stream it belongs to.
        budget: bytes that `write` accepts beyond what was acknowledged.
        max_data: the stream offset up to which the peer allows sending (MAX_STREAM_DATA).
    """

    __slots__ = (
        "_ring",
        "acked",
        "base",
        "blocked",
        "budget",
        "fin_acked",
        "fin_offset",
        "fin_pending",
        "max_data",
        "queued",
        "resend",
        "reset_acked",
        "reset_code",
        "sent",
        "stop_code",
        "stream",
        "stream_id",
        "told_blocked",
        "turn",
        "urgency",
        "wants_room",
        "written",
    )

    def __init__(self, stream: Stream, budget: int, max_data: int) -> None:
        self.stream = stream
        self.stream_id = stream.id
        self.budget = budget
        self.max_data = max_data
        self._ring: StreamRing | None = None
        self.base = 0
        self.sent = 0
        self.written = 0
        self.acked = RangeSet()
        self.resend = RangeSet()
        self.fin_offset: int | None = None
        self.fin_pending = False
        self.fin_acked = False
        self.reset_code: int | None = None
        self.reset_acked = False
        self.stop_code: int | None = None
        self.blocked = False
        """Whether a writer waits for room: then a partial packet is held back, for more will follow."""
        self.wants_room = False
        """Whether `StreamWritable` is owed."""
        self.told_blocked = -1
        self.queued = False
        """Whether the stream stands in the connection's sending order."""
        self.urgency = DEFAULT_URGENCY
        self.turn = 0
        """Full packets sent in the current turn among equals."""

    # getters

    @property
    def ring(self) -> StreamRing:
        """The ring that holds `base` to `written`; only while there are such bytes."""
        ring = self._ring
        if ring is None:
            raise RuntimeError(f"stream {self.stream_id} has nothing to send from")
        return ring

    @property
    def room(self) -> int:
        """Bytes that `write` would take now."""
        return max(0, self.budget - (self.written - self.base))

    @property
    def all_acked(self) -> bool:
        """Whether the peer has everything that was accepted, and the end if there is one."""
        if self.reset_code is not None:
            return self.reset_acked
        return self.base == self.written and (self.fin_offset is None or self.fin_acked)

    @property
    def finished(self) -> bool:
        """Whether nothing will ever be sent on this half again: the states Data Recvd and Reset Recvd."""
        return self.reset_acked or (self.fin_acked and self.base == self.fin_offset)

    @property
    def pending(self) -> bool:
        """Whether there is something to put into a packet, flow control permitting."""
        if self.reset_code is not None:
            return False
        return self.resend.total > 0 or self.fin_pending or (self.sent < self.written and self.sent < self.max_data)

    # mutators

    def check_writable(self) -> None:
        """Raises `StreamStopped` or `StreamFinished` if nothing may be written any more."""
        if self.stop_code is not None:
            raise StreamStopped(self.stop_code)
        if self.fin_offset is not None or self.reset_code is not None:
            raise StreamFinished(f"stream {self.stream_id} was finished or reset; open another one to send more")

    def accept(self, data: memoryview | bytes) -> None:
        """Takes all of `data`, whatever the budget says: the caller has checked it."""
        size = len(data)
        if not size:
            return
        need = self.written - self.base + size
        ring = self._ring
        if ring is None:
            ring = self._ring = StreamRing(_power_of_two(max(need, FIRST_RING)))
        elif ring.size < need:
            ring = self._ring = ring.grown(_power_of_two(need), self.base, self.written)
        ring.write(self.written, data)
        self.written += size

    def finish(self) -> None:
        """Marks the end; nothing may be written after it. Twice is once."""
        if self.fin_offset is None and self.reset_code is None:
            self.fin_offset = self.written
            self.fin_pending = True

    def reset(self, code: int) -> bool:
        """Abandons what was not acknowledged; returns whether RESET_STREAM is to be sent."""
        if self.reset_code is not None or self.finished:
            return False
        self.reset_code = code
        self.fin_pending = False
        self.resend = RangeSet()
        self.acked = RangeSet()
        self.base = self.written = self.sent
        self._ring = None
        self.blocked = False
        return True

    # inputs

    def on_sent(self, offset: int, length: int, fin: bool) -> None:
        """Notes that [offset, offset + length) went into a packet, and the end if `fin`."""
        end = offset + length
        if end > self.sent:
            self.sent = end
        if self.resend.total and offset < end:
            self.resend.remove(offset, end)
        if fin:
            self.fin_pending = False

    def on_acked(self, offset: int, length: int, fin: bool) -> None:
        """Notes that the peer has [offset, offset + length)."""
        if self.reset_code is not None:
            return
        end = offset + length
        if offset <= self.base:
            if end > self.base:
                self.base = end
                acked = self.acked
                if acked.total:
                    self.base = max(end, acked.end_from(end))
                    acked.remove(0, self.base)
        elif length:
            self.acked.add(offset, end)
        if self.resend.total:
            self.resend.remove(0, self.base)
            if length:
                self.resend.remove(offset, end)
        if fin:
            self.fin_acked = True
            self.fin_pending = False

    def on_lost(self, offset: int, length: int, fin: bool) -> None:
        """Notes that [offset, offset + length) has to be sent again, as far as it was not acknowledged meanwhile."""
        if self.reset_code is not None:
            return
        end = offset + length
        offset = max(offset, self.base)
        if offset < end:
            if self.acked.total:
                for low, high in self.acked.missing(offset, end):
                    self.resend.add(low, high)
            else:
                self.resend.add(offset, end)
        if fin and not self.fin_acked:
            self.fin_pending = True

    def release_if_idle(self) -> None:
        """Gives the ring's memory back if nothing is in it (called when the connection has been quiet)."""
        if self.base == self.written:
            self._ring = None

    # outputs

    def next_range(self, allowance: int) -> tuple[int, int]:
        """What to send next, [low, high): first what was lost; `allowance` limits the new bytes by the connection.

        Returns (low, low) when there is nothing.
        """
        resend = self.resend
        if resend.total:
            low = resend.first
            return low, resend.end_from(low)
        low = self.sent
        high = low + allowance
        if high > self.written:
            high = self.written
        if high > self.max_data:
            high = self.max_data
        return low, high if high > low else low


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
