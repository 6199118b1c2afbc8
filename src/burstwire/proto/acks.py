"""What this side owes the peer: which packets arrived, and when to say so (RFC 9000 §13.2)."""

from __future__ import annotations

from burstwire.proto.ranges import ReceivedNumbers
from burstwire.wire.frames import encode_ack

__all__ = ["AckManager"]

ELICITING_BEFORE_ACK = 2
"""Ack-eliciting packets that are acknowledged without delay (RFC 9000 §13.2.2); counted once per wake-up."""

LONGEST_DELAY = 1.0
"""Seconds that a peer may ask acknowledgements to be held back for at most."""

DELAY_EXPONENT = 3
"""ACK delays are sent in units of 8 µs (the default of RFC 9000 §18.2)."""


class AckManager:
    """Notes arrivals and says when an ACK frame is due.

    Args:
        max_delay: seconds that a single ack-eliciting packet may wait for its acknowledgement.
    """

    __slots__ = (
        "_asked",
        "_before_ack",
        "_disorder",
        "_ecn",
        "_max_delay",
        "_orderly",
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
        self._before_ack = ELICITING_BEFORE_ACK
        self._orderly = True
        """Whether a gap is reported at once."""
        self._asked = -1
        """The latest wish of the peer that was heard, by its number."""
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
        if self._owed >= self._before_ack or (self._disorder and self._orderly):
            self.due = True
        elif self.deadline is None:
            self.deadline = now + self._max_delay

    def wanted(self, number: int, packets: int, delay: float, reordering: int) -> None:
        """ACK_FREQUENCY: the peer wants an ACK after more than `packets` ack-eliciting packets, or `delay` seconds.

        A newer wish, with a higher number, replaces an older one. Of `reordering` only is heard whether it is 0: then
        packets out of order cause no ACK by themselves.
        """
        if number > self._asked:
            self._asked = number
            self._before_ack = packets + 1
            self._max_delay = min(delay, LONGEST_DELAY)
            self._orderly = reordering > 0

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
