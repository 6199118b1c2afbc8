"""What a congestion controller is, and the windows that RFC 9002 §7.2 gives to all of them.

A controller hears of flights, ACK frames and loss detections, never of single packets, and answers with one
window in bytes. It knows nothing of packet numbers, streams or timers; `now` never goes back.
"""

from __future__ import annotations

from typing import Protocol

from burstwire.config import FIXED_RATE
from burstwire.errors import ConfigError
from burstwire.proto.congestion.delivery import DeliverySampler
from burstwire.proto.rtt import Rtt

__all__ = ["MAX_WINDOW", "CongestionController", "initial_window", "make_controller", "minimum_window", "sampler_of"]

MAX_WINDOW = 1 << 30
"""Bytes: no window grows beyond 1 GiB, ten times what 10 Gbit/s need over 80 ms; it keeps sums small and
finite."""


def initial_window(mtu: int) -> int:
    """Bytes in flight before anything was acknowledged (RFC 9002 §7.2)."""
    return min(10 * mtu, max(14720, 2 * mtu))


def minimum_window(mtu: int) -> int:
    """Bytes that are always allowed in flight (RFC 9002 §7.2)."""
    return 2 * mtu


class CongestionController(Protocol):
    """One path's congestion controller."""

    window: int
    """Bytes allowed in flight."""

    def on_sent(self, now: float, size: int) -> None:
        """`size` bytes that count as in flight left, in any number of packets."""

    def on_ack(
        self,
        now: float,
        acked: int,
        in_flight: int,
        rtt: Rtt,
        app_limited: bool,
        largest_sent_time: float,
    ) -> None:
        """One ACK frame newly acknowledged something; `rtt` has taken in its sample already.

        `acked`: sum of the bytes newly acknowledged. `in_flight`: bytes in flight before the frame was
        processed. `app_limited`: the window was not filled, so it must not grow. `largest_sent_time`: when
        the largest packet newly acknowledged was sent.
        """

    def on_loss(self, now: float, lost: int, largest_sent_time: float, persistent: bool) -> None:
        """One loss detection found `lost` bytes lost; the newest of them were sent at `largest_sent_time`.

        At most one reduction comes from each round trip. `persistent`: persistent congestion (RFC 9002 §7.6).
        """

    def on_ecn(self, now: float, largest_sent_time: float) -> None:
        """The peer reported new CE marks in an ACK whose largest packet was sent at `largest_sent_time`."""

    def on_spurious_loss(self, now: float) -> None:
        """All that caused the latest reduction was acknowledged after all: it was reordering, not loss."""

    def on_mtu(self, mtu: int) -> None:
        """Packets have `mtu` bytes from now on."""

    def pacing_rate(self, rtt: Rtt) -> float:
        """Bytes per second at which to send, > 0; infinite where pacing makes no sense."""

    def stats(self) -> dict[str, float]:
        """Numbers for people; the names may change."""


def sampler_of(controller: CongestionController) -> DeliverySampler | None:
    """The sampler of a controller that wants to know the delivery rate: one with an attribute `sampler`, which hears
    of every record sent, acknowledged or lost before the controller does."""
    sampler: DeliverySampler | None = getattr(controller, "sampler", None)
    return sampler


def make_controller(name: str, now: float, mtu: int, fixed_rate: float = FIXED_RATE) -> CongestionController:
    """A fresh controller; raises `ConfigError` for a name that is not one of `Config.congestion`'s.

    `fixed_rate`, in bytes per second, is for the controller of that name.
    """
    if name == "cubic":
        from burstwire.proto.congestion.cubic import Cubic

        return Cubic(now, mtu)
    if name == "bbr":
        from burstwire.proto.congestion.bbr import Bbr

        return Bbr(now, mtu)
    if name == "ledbat":
        from burstwire.proto.congestion.ledbat import Ledbat

        return Ledbat(now, mtu)
    if name == "fixed":
        from burstwire.proto.congestion.fixed import Fixed

        return Fixed(now, mtu, fixed_rate)
    raise ConfigError(f"no such congestion controller: {name!r}")
