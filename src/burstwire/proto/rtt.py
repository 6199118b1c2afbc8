"""Round-trip time estimation (RFC 9002 §5) and the timers that follow from it (§6). Seconds everywhere."""

from __future__ import annotations

__all__ = ["GRANULARITY", "INITIAL_RTT", "Rtt"]

INITIAL_RTT = 0.333
"""What a path is taken for before its first sample (RFC 9002 §6.2.2): a PTO of one second."""

GRANULARITY = 0.001
"""The least time that a timer is set to (RFC 9002 §6.1.2); event loops do not honour less."""

TIME_THRESHOLD = 9 / 8
"""Round trips after which a packet below an acknowledged one is lost (RFC 9002 §6.1.2)."""

LEAST_SAMPLE = 1e-6
"""Samples are taken for at least this, so that rates (bytes / round trip) stay finite where time stands
still."""


class Rtt:
    """The round-trip time of one path.

    Attributes:
        latest: the last sample, without any correction; the initial RTT before the first.
        adjusted: the last sample less what the peer held its ACK back, as far as that is believed (§5.3).
        smoothed: RFC 9002's smoothed_rtt.
        variance: RFC 9002's rttvar.
        minimum: the least sample since the path began or since `reset_minimum`.
        first_sample: when the first sample was taken, None before: persistent congestion only counts packets
            sent after it (§7.6.2).
    """

    __slots__ = ("_forget_minimum", "adjusted", "first_sample", "latest", "minimum", "smoothed", "variance")

    def __init__(self, initial: float = INITIAL_RTT) -> None:
        self.latest = initial
        self.adjusted = initial
        self.smoothed = initial
        self.variance = initial / 2
        self.minimum = initial
        self.first_sample: float | None = None
        self._forget_minimum = False

    def __repr__(self) -> str:
        return f"Rtt({self.smoothed * 1e3:.3f} ms ± {self.variance * 1e3:.3f}, least {self.minimum * 1e3:.3f})"

    def update(self, sample: float, ack_delay: float, now: float) -> None:
        """Take in one sample: the time from sending the largest newly acknowledged packet to `now`.

        `ack_delay` is what the peer says it held the ACK back; once the handshake is confirmed the caller
        limits it to the peer's max_ack_delay (§5.3).
        """
        if sample < LEAST_SAMPLE:
            sample = LEAST_SAMPLE
        self.latest = self.adjusted = sample
        if self.first_sample is None:
            self.first_sample = now
            self.minimum = self.smoothed = sample
            self.variance = sample / 2
            return
        if self._forget_minimum:  # §5.2
            self._forget_minimum = False
            self.minimum = sample
        elif sample < self.minimum:
            self.minimum = sample
        adjusted = sample - ack_delay
        if adjusted < self.minimum or ack_delay < 0:
            adjusted = sample  # a delay that would undercut the path itself is not believed
        self.adjusted = adjusted
        change = adjusted - self.smoothed
        self.variance += ((change if change > 0 else -change) - self.variance) / 4
        self.smoothed += change / 8

    def reset_minimum(self) -> None:
        """Let the next sample be the new minimum, after persistent congestion (§5.2)."""
        self._forget_minimum = True

    def pto(self, max_ack_delay: float) -> float:
        """The probe timeout, without its back-off (§6.2.1)."""
        spread = 4 * self.variance
        return self.smoothed + (spread if spread > GRANULARITY else GRANULARITY) + max_ack_delay

    def loss_delay(self) -> float:
        """How much earlier than an acknowledged packet a packet was sent that is given up by time
        (§6.1.2)."""
        return max(TIME_THRESHOLD * max(self.smoothed, self.latest), GRANULARITY)
