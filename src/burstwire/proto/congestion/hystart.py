"""HyStart++ (RFC 9406): leave the initial slow start when round trips grow, before packets are lost.

Rounds are told apart by time instead of sequence numbers: a round ends with the first ACK of a packet that
was sent after the round began. Packets are paced, so the limit L of §4.2 is infinite.
"""

from __future__ import annotations

from math import inf

__all__ = ["HyStart"]

# §4.3, with the names used there
MIN_RTT_THRESH = 0.004
MAX_RTT_THRESH = 0.016
MIN_RTT_DIVISOR = 8
N_RTT_SAMPLE = 8
CSS_GROWTH_DIVISOR = 4
CSS_ROUNDS = 5


class HyStart:
    """Watches the round trips of one initial slow start.

    Attributes:
        css: in the conservative phase, where the window grows by a quarter of what was acknowledged.
        finished: slow start is over: the window has found its place.
    """

    __slots__ = (
        "_baseline",
        "_css_rounds",
        "_current",
        "_last",
        "_round_start",
        "_samples",
        "css",
        "finished",
    )

    def __init__(self, now: float) -> None:
        self._round_start = now
        self._last = inf
        self._current = inf
        self._samples = 0
        self._baseline = inf
        self._css_rounds = 0
        self.css = False
        self.finished = False

    def on_ack(self, now: float, sample: float, largest_sent_time: float) -> None:
        """One ACK frame arrived with this round-trip sample, for packets sent up to `largest_sent_time`."""
        if sample < self._current:
            self._current = sample
        self._samples += 1
        if self._samples >= N_RTT_SAMPLE:
            if self.css:
                if self._current < self._baseline:  # the growth was jitter: back to slow start
                    self._baseline = inf
                    self.css = False
            elif self._last < inf:
                threshold = max(MIN_RTT_THRESH, min(self._last / MIN_RTT_DIVISOR, MAX_RTT_THRESH))
                if self._current >= self._last + threshold:
                    self._baseline = self._current
                    self._css_rounds = 0
                    self.css = True
        if largest_sent_time >= self._round_start:
            if self.css:
                self._css_rounds += 1  # the round that CSS began in counts too
                self.finished = self._css_rounds >= CSS_ROUNDS
            self._round_start = now
            self._last = self._current
            self._current = inf
            self._samples = 0

    def growth(self, acked: int) -> int:
        """Bytes that the window grows by for `acked` bytes."""
        return acked // CSS_GROWTH_DIVISOR if self.css else acked
