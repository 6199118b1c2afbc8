"""What a connection tells whoever traces it. The driver gives it the `Tracer`; `burstwire.qlog` has the usual one.

A connection that is not traced has None for one, and is asked about it once for each run that it sends, each span that
it receives and each loss detection, never for a packet of a run. So a tracer is told of runs and spans, and what else
may have changed (windows, round trips, state) it looks up itself when it is told that a step is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from burstwire.proto.intake import Span
    from burstwire.proto.recovery import Lost

__all__ = ["Tracer"]


class Tracer(Protocol):
    """Watches one connection. Nothing that it is given may be kept: slots are used again. It must not raise.

    Attributes:
        now: the time of the step, in seconds; set by the endpoint before anything is sent in it.
    """

    now: float

    def run_sent(self, first: int, size: int, count: int, stream_id: int, offset: int, chunk: int, ecn: int) -> None:
        """`count` packets of `size` bytes leave, each with `chunk` bytes of a stream from `offset` on."""

    def packet_sent(self, number: int, size: int, payload: bytes, ecn: int, is_probe: bool) -> None:
        """A packet of `size` bytes with these frames leaves; `is_probe`: to find out how large packets may be."""

    def received(self, views: tuple[memoryview, ...], span: Span, mask: int, now: float) -> None:
        """The packets in `mask` of a span were opened and are new; what they say has not been heard yet."""

    def dropped(self, span: Span, mask: int, why: str, now: float) -> None:
        """The packets in `mask` of a span count for nothing; `why` is a trigger of qlog's packet_dropped."""

    def lost(self, lost: Lost, now: float) -> None:
        """Packets were declared lost."""

    def updated(self, now: float) -> None:
        """A step with the connection is over: anything about it may have changed."""

    def ended(self) -> None:
        """The connection is forgotten; no further call follows."""

    def discard(self) -> None:
        """The connection never came to be, after all: nothing need be kept. No further call follows."""
