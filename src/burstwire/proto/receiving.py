"""The receiving half of a stream (RFC 9000 §3.2): reassembly in a power-of-two ring, flow control, the end.

A byte at stream offset n lies at `ring[n & mask]` from the moment its packet was opened, so that reassembly is
a range set and one copy. Offsets::

    read ───────── ready ─────────── highest ───── max_data
      │ contiguous,  │ with holes       │             │
      │ for `read`   │ (`parts`)        │             │

`max_data` is what the peer may send; it moves with what the application took, so the ring never has to hold more
than `window` bytes. The ring is made when the first byte arrives, doubles as needed, and is dropped when the
connection has been quiet.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from burstwire.core.ring import StreamRing
from burstwire.proto.ranges import RangeSet
from burstwire.wire.errors import TransportCode, WireError

if TYPE_CHECKING:
    from burstwire.proto.streams import Stream

__all__ = ["NEVER", "RecvHalf"]

NEVER = -inf
"""One object for all halves."""

FIRST_RING = 1024
"""Bytes of a ring that was just made: thousands of connections that exchange a small message now and then have two."""

FEW_PIECES = 1024
"""Pieces of a stream behind a hole that are always kept."""

BYTES_A_PIECE = 2400
"""Bytes of the window that allow another one: every other packet of 1,200 bytes may be missing. A piece takes 80 bytes,
whatever it holds, so single bytes with holes between them would take forty times the window (RFC 9000 §21.6)."""


class RecvHalf:
    """Bytes from the peer.

    Args:
        stream: the stream it belongs to.
        window: bytes that the peer may be ahead of the reader, at first; `flow.py` has it grow.
    """

    __slots__ = (
        "_ring",
        "announced",
        "end_read",
        "final_size",
        "highest",
        "max_data",
        "parts",
        "read_offset",
        "ready",
        "reset_code",
        "stop_code",
        "stream",
        "tuned_at",
        "tuned_bytes",
        "window",
    )

    def __init__(self, stream: Stream, window: int) -> None:
        self.stream = stream
        self.window = window
        self._ring: StreamRing | None = None
        self.read_offset = 0
        self.ready = 0
        self.highest = 0
        self.max_data = window
        self.tuned_at = NEVER
        """When `window` was judged last, and `tuned_bytes`: what had been read by then (`flow.py`)."""
        self.tuned_bytes = 0
        self.parts = RangeSet()
        self.final_size: int | None = None
        self.reset_code: int | None = None
        self.stop_code: int | None = None
        self.announced = False
        """Whether `StreamReadable` was given and nothing was read in vain since."""
        self.end_read = False
        """Whether the application has seen the end or the reset."""

    # getters

    @property
    def readable(self) -> int:
        """Bytes that can be read at once."""
        return self.ready - self.read_offset

    @property
    def at_end(self) -> bool:
        """Whether every byte up to the end was read; never after a reset, which gives a final size but no end."""
        return self.read_offset == self.final_size and self.reset_code is None

    @property
    def complete(self) -> bool:
        """Whether everything up to the end is here or the peer gave up: nothing more is expected."""
        return self.reset_code is not None or (self.final_size is not None and self.ready == self.final_size)

    @property
    def finished(self) -> bool:
        """Whether nothing can happen on this half any more: the states Data Read and Reset Read."""
        # Also of a stopped stream the final size must be known: the peer has used credit up to there (RFC 9000 §4.5).
        return self.complete and (self.end_read or self.stop_code is not None)

    # inputs

    def check(self, end: int, fin: bool) -> int:
        """Checks an incoming range against flow control and the final size (RFC 9000 §4.1, §4.5).

        Args:
            end: the stream offset after the last byte.
            fin: whether the stream ends there.

        Returns:
            bytes by which `highest` grew, to be charged to the connection.

        Raises:
            WireError: FLOW_CONTROL_ERROR or FINAL_SIZE_ERROR.
        """
        if end > self.max_data:
            raise WireError(
                TransportCode.FLOW_CONTROL_ERROR,
                f"stream {self.stream.id}: byte {end} exceeds MAX_STREAM_DATA {self.max_data}",
            )
        final = self.final_size
        if final is not None and (end > final or (fin and end != final)):
            raise WireError(
                TransportCode.FINAL_SIZE_ERROR,
                f"stream {self.stream.id}: byte {end} does not fit the final size {final}",
            )
        if fin:
            if end < self.highest:
                raise WireError(
                    TransportCode.FINAL_SIZE_ERROR,
                    f"stream {self.stream.id}: final size {end} is below byte {self.highest}",
                )
            self.final_size = end
        grown = end - self.highest
        if grown > 0:
            self.highest = end
            return grown
        return 0

    def fits(self, end: int) -> bool:
        """Whether the ring as it is has a place for the byte before `end`."""
        ring = self._ring
        return ring is not None and end - self.read_offset <= ring.size

    def ring_for(self, end: int) -> StreamRing:
        """The ring, made or grown so that every byte from `read_offset` to `end` has its place.

        A ring that was grown is another one: nothing may still be about to write to the old one.
        """
        need = max(end - self.read_offset, FIRST_RING)
        ring = self._ring
        if ring is None:
            ring = self._ring = StreamRing(_power_of_two(need))
        elif ring.size < need:
            high = self.parts.last + 1 if self.parts.total else self.ready
            ring = self._ring = ring.grown(_power_of_two(need), self.read_offset, high)
        return ring

    def noted(self, low: int, high: int) -> bool:
        """Notes that [low, high) lies in the ring; returns whether that made more bytes readable.

        Raises:
            WireError: PROTOCOL_VIOLATION, the stream lies here in more pieces than loss explains.
        """
        ready = self.ready
        if low > ready:
            self.parts.add(low, high)
            if len(self.parts) > FEW_PIECES + self.window // BYTES_A_PIECE:
                raise WireError(
                    TransportCode.PROTOCOL_VIOLATION, f"stream {self.stream.id}: {len(self.parts):,} pieces with holes"
                )
            return False
        if high <= ready:
            return False
        parts = self.parts
        if parts.total:
            parts.add(ready, high)
            high = parts.end_from(ready)
            parts.remove(0, high)
        self.ready = high
        return True

    def place(self, offset: int, data: memoryview | bytes) -> bool:
        """Copies a frame's bytes into the ring and notes them; returns whether more became readable."""
        end = offset + len(data)
        low = max(offset, self.read_offset)
        if low >= end:
            return False
        self.ring_for(end).write(low, memoryview(data)[low - offset :])
        return self.noted(low, end)

    def on_reset(self, code: int, final_size: int) -> int:
        """RESET_STREAM; returns the bytes to charge to the connection like `check`."""
        grown = self.check(final_size, fin=True)
        if self.reset_code is None and (not self.end_read or self.stop_code is not None):
            self.reset_code = code
            self.drop()
        return grown

    # mutators

    def read(self, n: int) -> bytes:
        """Takes up to `n` readable bytes."""
        n = min(n, self.ready - self.read_offset)
        ring = self._ring
        if n <= 0 or ring is None:
            return b""
        data = ring.read(self.read_offset, n)
        self.skip(n)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """Takes as many readable bytes as fit into `buffer`; returns how many."""
        n = min(len(buffer), self.ready - self.read_offset)
        ring = self._ring
        if n <= 0 or ring is None:
            return 0
        ring.readinto(self.read_offset, buffer[:n])
        self.skip(n)
        return n

    def peek(self, n: int) -> bytes:
        """A copy of up to `n` readable bytes, which stay."""
        n = min(n, self.ready - self.read_offset)
        ring = self._ring
        return ring.read(self.read_offset, n) if n > 0 and ring is not None else b""

    def skip(self, n: int) -> None:
        """Moves past `n` readable bytes."""
        self.read_offset += n
        if self.read_offset == self.final_size:
            self._ring = None

    def skip_ahead(self, n: int) -> None:
        """Moves past the next `n` bytes of the stream, which were taken elsewhere; nothing of it may lie here."""
        self.read_offset += n
        self.ready = self.read_offset

    def drop(self) -> int:
        """Gives up everything unread and the ring; returns the bytes that were never read up to `highest`."""
        unread = self.highest - self.read_offset
        self.read_offset = self.ready = self.highest
        self.parts = RangeSet()
        self._ring = None
        return unread

    def release_if_idle(self) -> None:
        """Gives the ring's memory back if nothing is in it (called when the connection has been quiet)."""
        if self.read_offset == self.highest:
            self._ring = None


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
