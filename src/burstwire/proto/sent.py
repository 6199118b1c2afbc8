"""What was sent and not yet settled, run by run.

A `SentRecord` stands for the packets of one flight that carry one stream, with consecutive numbers. What happens to
single packets of it is a bit in a mask; records are never split, so no pattern of acknowledgements can shatter them.
The log is the only place where bytes in flight are counted: a packet's bytes are added when it is recorded and taken
off exactly once, when it is acknowledged, declared lost, or discarded with the log.

Only packets that the peer must acknowledge (ack-eliciting, RFC 9002 §2) are recorded.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from burstwire.proto.congestion.delivery import Snapshot
    from burstwire.proto.sending import SendHalf

__all__ = ["SentLog", "SentRecord", "bit_runs"]

KEEP_LOST = 3.0
"""PTOs for which a lost packet is remembered, so that a late acknowledgement still counts."""

MAX_SKIPPED = 16
"""Skipped numbers that are remembered; older ones were long below everything a peer still acknowledges."""


class SentRecord:
    """Ack-eliciting packets sent in one go.

    Attributes:
        first: the first packet number.
        count: packets.
        order: how many recorded packets were sent before the first one.
        size: bytes of every packet that count as in flight: all of them, without IP and UDP headers; none of a probe.
        time: when they were sent, in seconds.
        pending: mask of packets neither acknowledged nor lost.
        lost: mask of packets declared lost and not acknowledged since.
        half: the sending half whose bytes a run carries, or None.
        offset: stream offset of the first packet's bytes.
        chunk: stream bytes of each packet.
        items: what a lone packet carried besides, to be asked again when it is lost.
        ack: the largest packet number that an ACK frame in it names, -1 without one.
        delivery: what a `DeliverySampler` wants to know when it is acknowledged; None without one.
        segmented: whether the kernel was left to segment the train, or trains, that they left in.
        is_probe: whether it is a probe of the path MTU, whose loss says nothing about congestion (RFC 9000 §14.4).
    """

    __slots__ = (
        "ack",
        "chunk",
        "count",
        "delivery",
        "first",
        "half",
        "is_probe",
        "items",
        "lost",
        "offset",
        "order",
        "pending",
        "segmented",
        "size",
        "time",
    )

    def __init__(
        self,
        first: int,
        count: int,
        order: int,
        size: int,
        time: float,
        half: SendHalf | None = None,
        offset: int = 0,
        chunk: int = 0,
        items: tuple[Any, ...] = (),
        ack: int = -1,
    ) -> None:
        self.first = first
        self.count = count
        self.order = order
        self.size = size
        self.time = time
        self.pending = (1 << count) - 1
        self.lost = 0
        self.half = half
        self.offset = offset
        self.chunk = chunk
        self.items = items
        self.ack = ack
        self.delivery: Snapshot | None = None
        self.segmented = False
        self.is_probe = False


def bit_runs(mask: int) -> list[tuple[int, int]]:
    """The runs of ones in a mask as half-open index pairs, lowest first: 0b1101 → [(0, 1), (2, 4)]."""
    runs = []
    base = 0
    while mask:
        zeros = (mask & -mask).bit_length() - 1
        mask >>= zeros
        ones = (~mask & (mask + 1)).bit_length() - 1
        runs.append((base + zeros, base + zeros + ones))
        mask >>= ones
        base += zeros + ones
    return runs


class SentLog:
    """All unsettled records of a connection, in the order in which they were sent."""

    __slots__ = ("in_flight", "largest_acked", "largest_order", "records", "sent", "skipped")

    def __init__(self) -> None:
        self.records: list[SentRecord] = []
        self.in_flight = 0
        """Bytes of all pending packets."""
        self.sent = 0
        """Packets ever recorded."""
        self.largest_acked = -1
        self.largest_order = -1
        """The place in send order of the largest acknowledged packet, or of the one recorded last before it."""
        self.skipped: list[int] = []
        """Numbers left out; `acks_unsent` keeps the list short."""

    # inputs

    def add(self, record: SentRecord) -> None:
        """Notes a record; its `order` must be `sent`."""
        self.records.append(record)
        self.in_flight += record.size * record.count
        self.sent += record.count

    def acknowledge(self, ranges: list[tuple[int, int]]) -> list[tuple[SentRecord, int, int]]:
        """Settles what an ACK frame names.

        Args:
            ranges: inclusive pairs, the highest first.

        Returns:
            for each record with news: the record, the mask of packets that were pending, the mask of those that
            had been declared lost.
        """
        news: list[tuple[SentRecord, int, int]] = []
        records = self.records
        largest = ranges[0][1]
        if largest > self.largest_acked:
            self.largest_acked = largest
        # The usual case first: whole records from the front.
        index = len(ranges) - 1
        low, high = ranges[index]
        done = 0
        freed = 0
        for record in records:
            first = record.first
            while high < first and index:
                index -= 1
                low, high = ranges[index]
            last = first + record.count - 1
            if low > first or last > high:
                break
            pending = record.pending
            if pending or record.lost:
                news.append((record, pending, record.lost))
                freed += record.size * pending.bit_count()
                record.pending = record.lost = 0
            done += 1
            order = record.order + record.count - 1
            if order > self.largest_order:
                self.largest_order = order
        if done:
            del records[:done]
        if records and records[0].first <= largest:
            freed += self._acknowledge_parts(ranges, largest, news)
        self.in_flight -= freed
        return news

    def _acknowledge_parts(
        self, ranges: list[tuple[int, int]], largest: int, news: list[tuple[SentRecord, int, int]]
    ) -> int:
        freed = 0
        index = len(ranges) - 1
        low, high = ranges[index]
        settled = False
        for record in self.records:
            first = record.first
            if first > largest:
                break
            last = first + record.count - 1
            order = record.order + min(last, largest) - first
            if order > self.largest_order:
                self.largest_order = order
            while high < first and index:
                index -= 1
                low, high = ranges[index]
            mask = 0
            at = index
            while low <= last:
                if high >= first:
                    start = max(low, first) - first
                    stop = min(high, last) - first + 1
                    mask |= (1 << stop) - (1 << start)
                if high >= last or not at:
                    break
                at -= 1
                low, high = ranges[at]
            low, high = ranges[index]
            pending = record.pending & mask
            lost = record.lost & mask
            if pending or lost:
                news.append((record, pending, lost))
                freed += record.size * pending.bit_count()
                record.pending &= ~mask
                record.lost &= ~mask
                settled = settled or not (record.pending or record.lost)
        if settled:
            self.records = [record for record in self.records if record.pending or record.lost]
        return freed

    def detect(self, now: float, delay: float, threshold: int) -> tuple[list[tuple[SentRecord, int]], float | None]:
        """Declares lost what was sent `threshold` packets or `delay` seconds before one that arrived (RFC 9002 §6.1).

        Returns:
            the records with the mask of packets newly lost, and when the next one would be lost by time.
        """
        lost: list[tuple[SentRecord, int]] = []
        deadline: float | None = None
        largest = self.largest_acked
        limit = self.largest_order - threshold
        for record in self.records:
            if record.first > largest:
                break
            pending = record.pending
            if not pending:
                continue
            below = min(record.count, largest - record.first)
            when = record.time + delay  # compared as it is given out, or rounding makes the timer come too early
            if when > now:
                candidates = pending & ((1 << below) - 1)
                below = min(below, max(0, limit - record.order + 1))
                if candidates & ~((1 << below) - 1):
                    deadline = when if deadline is None else min(deadline, when)
            mask = pending & ((1 << below) - 1)
            if mask:
                record.pending ^= mask
                record.lost |= mask
                self.in_flight -= record.size * mask.bit_count()
                lost.append((record, mask))
        return lost, deadline

    def expire(self, before: float) -> None:
        """Forgets lost packets that were sent before a moment; a later acknowledgement of them means nothing."""
        records = self.records
        done = 0
        for record in records:
            if record.pending or record.time >= before:
                break
            done += 1
        if done:
            del records[:done]

    def discard(self) -> None:
        """Settles everything without a word, at the end of a connection."""
        self.records.clear()
        self.in_flight = 0

    # getters

    def acks_unsent(self, ranges: list[tuple[int, int]]) -> int | None:
        """A skipped packet number that the peer claims to have received, or None (RFC 9000 §21.4)."""
        del self.skipped[:-MAX_SKIPPED]
        for number in self.skipped:
            at = bisect_left(ranges, -number, key=_below)  # the first range that does not lie above it
            if at < len(ranges) and ranges[at][0] <= number <= ranges[at][1]:
                return number
        return None


def _below(pair: tuple[int, int]) -> int:
    """Sorts ranges that come highest first."""
    return -pair[0]
