"""Datagram packetization layer path MTU discovery (RFC 8899, RFC 9000 §14.3): how large packets may be.

Every path carries 1,200 bytes (BASE_PLPMTU). Once bulk data flow, larger packets of PING and PADDING are tried, one
at a time: first the largest that both sides could handle, for that settles a loopback or a jumbo network at once;
then the usual sizes upwards, until one does not arrive. What the interface cannot carry, the kernel refuses without
sending anything (EMSGSIZE), so the first try costs a system call where it is in vain.

A probe that is lost says nothing about congestion (RFC 9000 §14.4).

A path may come to carry less than it did, without a word: a black hole (RFC 8899 §4.3). Mere silence does not show it,
for it may be an outage, nor do losses, for they may be chance. What shows it is that small packets arrive where large
ones do not: so each PTO sends a *pair*, one large packet and a small one behind it, and so does every flight after a
pair of which only the small one arrived. Two such pairs, ten large packets lost and none arrived since, and the size
goes back to the base; the search starts again later. Any large packet that arrives clears the suspicion.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from burstwire.config import MAX_DATAGRAM_SIZE, MIN_DATAGRAM_SIZE

if TYPE_CHECKING:
    from burstwire.proto.recovery import Acked, Lost

__all__ = ["PAIR", "PROBE", "MtuDiscovery"]

PROBE = -1
"""The kind of a sent record's item that stands for a probe, beside frame types."""

PAIR = -2
"""The kind of an item that stands for the small packet of a pair."""

SIZES = (1372, 1452, 1472, 4052, 8152, 8952, 8972, 16_384, 32_768)
"""Tried upwards: PPPoE and tunnels, Ethernet over IPv6 and IPv4, FDDI-like 4 KiB, jumbo frames of 8,192 and 9,000."""

MAX_PROBES = 3
"""Losses of one size before it is given up (RFC 8899 §5.1.2)."""

RAISE_TIMER = 600.0
"""Seconds until larger sizes are tried again after a search ended (PMTU_RAISE_TIMER, RFC 8899 §5.1.1)."""

BLACK_HOLE_TIMER = 60.0
"""Seconds until the search starts again after a black hole."""

BLACK_HOLE_LOSSES = 10
"""Large packets in a row that must be lost to make a black hole: chance does not do that (0.15 ** 10 is 6e-9)."""

BLACK_HOLE_PAIRS = 2
"""Pairs of which only the small packet arrived: the first may have met the end of an outage."""

WORTH_IT = 64 * 1024
"""Bytes of stream data from which on a search pays: a connection that exchanges small messages never probes."""


class Phase(IntEnum):
    """RFC 8899 §5.2, as far as it matters here."""

    IDLE = 0
    SEARCHING = 1
    COMPLETE = 2


class MtuDiscovery:
    """The search on one path.

    Args:
        pinned: the size to use and keep, or None to search.
        peer_limit: the largest UDP payload that the peer receives.
        peer_buffer: the peer's socket buffer in bytes as its kernel counts; 0 if unknown. Four packets must fit.

    Attributes:
        size: bytes of UDP payload that packets have now.
        probing: the size of the probe on its way, 0 if there is none.
        suspects: large packets lost since one arrived.
        pairing: whether every flight of large packets ends with a small one.
    """

    __slots__ = (
        "_failures",
        "_limit",
        "_pairs",
        "_pinned",
        "_queue",
        "_resume",
        "pairing",
        "phase",
        "probing",
        "size",
        "suspects",
    )

    def __init__(self, pinned: int | None, peer_limit: int, peer_buffer: int) -> None:
        self._pinned = pinned is not None
        self.size = min(pinned or MIN_DATAGRAM_SIZE, max(peer_limit, MIN_DATAGRAM_SIZE))
        limit = min(peer_limit, MAX_DATAGRAM_SIZE)
        if peer_buffer:
            limit = min(limit, peer_buffer // 4)
        self._limit = max(limit, MIN_DATAGRAM_SIZE)
        self.phase = Phase.COMPLETE if self._pinned else Phase.IDLE
        self._queue: list[int] = []
        self._failures = 0
        self._resume = float("inf")
        self.probing = 0
        self.suspects = 0
        self._pairs = 0
        self.pairing = False

    # getters

    @property
    def may_shrink(self) -> bool:
        """Whether packets are larger than every path carries, and need not be."""
        return self.size > MIN_DATAGRAM_SIZE and not self._pinned

    @property
    def searching(self) -> bool:
        """Whether `next_probe` may have something although nothing else is to be sent."""
        return self.phase is Phase.SEARCHING

    # outputs

    def next_probe(self, now: float, sent: int, window: int) -> int:
        """The size to probe now, 0 for none.

        Args:
            now: the time.
            sent: bytes of streams that the connection has sent.
            window: the congestion window in bytes; no probe is larger, so a lossy path tries small steps first.
        """
        if self.probing or self._pinned:
            return 0
        if (self.phase is Phase.IDLE and sent >= WORTH_IT) or now >= self._resume:
            self._start()
        if self.phase is not Phase.SEARCHING:
            return 0
        if not self._queue:
            self._finish(now, RAISE_TIMER)
            return 0
        return next((size for size in self._queue if size <= window), 0)

    # inputs

    def sent(self, size: int) -> None:
        """A probe left."""
        self.probing = size

    def acked(self, size: int, now: float) -> bool:
        """A probe arrived; returns whether `size` has grown."""
        if size == self.probing:
            self.probing = 0
        self._failures = 0
        if size <= self.size:
            return False
        self.size = size
        self._queue = [candidate for candidate in self._queue if candidate > size]
        if not self._queue and self.phase is Phase.SEARCHING:
            self._finish(now, RAISE_TIMER)
        return True

    def lost(self, size: int, now: float) -> None:
        """A probe was lost."""
        if size != self.probing:
            return
        self.probing = 0
        self._failures += 1
        if self._failures >= MAX_PROBES:
            self._give_up(size, now)

    def refused(self, is_probe: bool, now: float) -> bool:
        """The kernel said that a packet is too large for the interface, the probe on its way or another one.

        Returns:
            whether `size` has shrunk.
        """
        if is_probe:
            if self.probing:  # not yet settled otherwise
                size, self.probing = self.probing, 0
                self._give_up(size, now)
            return False
        return self._fall_back(now)

    def missed(self, lost: Lost) -> None:
        """Packets were lost."""
        for record, mask in lost:
            if record.size > MIN_DATAGRAM_SIZE and not record.is_probe:
                self.suspects += mask.bit_count()

    def arrived(self, acked: Acked) -> None:
        """Packets arrived; to be called while there are `suspects`."""
        for record, _, _ in acked:
            if record.size > MIN_DATAGRAM_SIZE and not record.is_probe:
                self._trust()
                return

    def pair_acked(self, now: float) -> bool:
        """The small packet of a pair arrived, after `missed` and `arrived` heard of the large ones before it.

        Returns:
            whether `size` has shrunk.
        """
        if not self.suspects or not self.may_shrink:
            return False
        self._pairs += 1
        self.pairing = True
        if self._pairs < BLACK_HOLE_PAIRS or self.suspects < BLACK_HOLE_LOSSES:
            return False
        return self._fall_back(now)

    def new_path(self, size: int = MIN_DATAGRAM_SIZE) -> None:
        """The path is another one; of it is known that it once carried packets of `size` bytes."""
        self.probing = 0
        self._resume = float("inf")
        self._trust()
        if not self._pinned:
            self.size = min(size, self._limit)
            self.phase = Phase.IDLE

    # inside

    def _trust(self) -> None:
        self.suspects = self._pairs = 0
        self.pairing = False

    def _start(self) -> None:
        self.phase = Phase.SEARCHING
        self._resume = float("inf")
        self._failures = 0
        upwards = [size for size in SIZES if self.size < size < self._limit]
        self._queue = [self._limit, *upwards] if self._limit > self.size else []

    def _give_up(self, size: int, now: float) -> None:
        """`size` does not pass: if it was the largest of all, the others follow; else nothing larger will pass."""
        self._failures = 0
        if size == self._limit:
            self._queue = [candidate for candidate in self._queue if candidate < size]
        else:
            self._queue.clear()
        if not self._queue:
            self._finish(now, RAISE_TIMER)

    def _fall_back(self, now: float) -> bool:
        if self._pinned or self.size == MIN_DATAGRAM_SIZE:
            return False
        self.size = MIN_DATAGRAM_SIZE
        self.probing = 0
        self._trust()
        self._finish(now, BLACK_HOLE_TIMER)
        return True

    def _finish(self, now: float, pause: float) -> None:
        self.phase = Phase.COMPLETE
        self._queue.clear()
        self._resume = now + pause
