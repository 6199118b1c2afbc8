"""What this side owes the peer: which packets arrived, and when to say so (RFC 9000 §13.2)."""

from __future__ import annotations

from burstwire.proto.ranges import ReceivedNumbers
from burstwire.wire.frames import encode_ack

__all__ = ["AckManager"]

ELICITING_BEFORE_ACK = 2
"""Ack-eliciting packets that are acknowledged without delay (RFC 9000 §13.2.2); counted once per wake-up."""

DELAY_EXPONENT = 3
"""ACK delays are sent in units of 8 µs (the default of RFC 9000 §18.2)."""


class AckManager:
    """Notes arrivals and says when an ACK frame is due.

    Args:
        max_delay: seconds that a single ack-eliciting packet may wait for its acknowledgement.
    """

    __slots__ = (
        "_disorder",
        "_ecn",
        "_max_delay",
        "_owed",
        "_reported",
        "deadline",
        "due",
        "largest_time",
        "received",
        "unreported",
    )

    def __init__(self, max_delay: float) -> None:
        self.received = ReceivedNumbers()
        self._max_delay = max_delay
        self._owed = 0
        """Ack-eliciting packets since the last ACK."""
        self._disorder = False
        """Whether a gap or a late packet was seen since the last ACK."""
        self.due = False
        self.deadline: float | None = None
        self.largest_time = 0.0
        self._reported = 0
        """Ranges below this were acknowledged by an ACK that the peer has received."""
        self.unreported = False
        """Whether anything arrived since the last ACK, ack-eliciting or not."""
        self._ecn: list[int] | None = None

    # inputs

    def note(self, counter: int, mask: int, ecn: int, now: float) -> int:
        """Notes packets that opened; returns the mask of those that were not noted before."""
        received = self.received
        largest = received.largest
        new = received.note(counter, mask)
        if new:
            self.unreported = True
            if received.largest > largest:
                self.largest_time = now
                if counter > largest + 1:
                    self._disorder = True
            elif counter < largest:
                self._disorder = True
            if ecn:
                counts = self._ecn
                if counts is None:
                    counts = self._ecn = [0, 0, 0, 0]
                counts[ecn] += new.bit_count()
                if ecn == 3:
                    self.due = True  # RFC 9000 §13.2.1: so is a CE mark
        return new

    def elicited(self, packets: int, now: float) -> None:
        """Notes that `packets` of those that arrived must be acknowledged."""
        self._owed += packets
        # RFC 9000 §13.2.1: a gap, or a packet out of order, is reported at once.
        if self._owed >= ELICITING_BEFORE_ACK or self._disorder:
            self.due = True
        elif self.deadline is None:
            self.deadline = now + self._max_delay

    def on_timeout(self, now: float) -> None:
        """Makes the ACK due when it has waited long enough."""
        if self.deadline is not None and now >= self.deadline:
            self.due = True

    def acked(self, largest: int) -> None:
        """The peer received an ACK that named `largest`: nothing below needs to be named again (RFC 9000 §13.2.4)."""
        if largest - 256 > self._reported:
            self._reported = largest - 256

    # outputs

    @property
    def owed(self) -> bool:
        """Whether an acknowledgement is owed, due or not: it rides along with whatever is sent."""
        return self._owed > 0

    def frame(self, now: float) -> bytes:
        """The ACK frame of this moment; call `sent` when it goes into a packet."""
        received = self.received
        low = self._reported
        ranges = received.ack_ranges(64, low if low < received.largest else received.largest)
        delay = int((now - self.largest_time) * 1e6) >> DELAY_EXPONENT
        ecn = self._ecn
        counts = (ecn[2], ecn[1], ecn[3]) if ecn is not None else None
        return encode_ack(ranges, delay if delay > 0 else 0, counts)

    def sent(self) -> int:
        """The frame went into a packet: nothing is owed any more. Returns the largest number that it names."""
        self._owed = 0
        self._disorder = False
        self.due = False
        self.deadline = None
        self.unreported = False
        return self.received.largest
