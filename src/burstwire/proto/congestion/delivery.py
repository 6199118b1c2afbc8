"""Delivery-rate samples (draft-ietf-ccwg-bbr §4.1; before that draft-cheng-iccrg-delivery-rate-estimation).

How fast the network delivered the latest flight: what was acknowledged between the sending of a packet and its
acknowledgement, over the longer of the two times that its sending and its acknowledging took. Sections are those of
draft-ietf-ccwg-bbr.

The packet of the draft is a `SentRecord` here, the aggregate that §4.1.3.1 recommends: all packets of a record leave
at one moment, so they have the same snapshot, and what of them is in flight before or after a certain one is
arithmetic. One sample comes from an ACK frame, from the newest record that it has news of. Only controllers that use
samples have a `DeliverySampler`; records of others carry no snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

from burstwire.proto.sent import SentRecord, bit_runs

__all__ = ["DeliverySampler", "LostRun", "Snapshot"]

LEAST_INTERVAL = 1e-6
"""Seconds that a sample spans at least, so that a rate stays finite where time stands still."""


class Snapshot(NamedTuple):
    """The state of the connection when a record had been sent (§4.1.2.1.2)."""

    delivered: int
    """Bytes delivered before."""
    delivered_time: float
    """When the latest of them were."""
    first_send_time: float
    """When the packet was sent that was acknowledged latest: the flight begins there."""
    lost: int
    """Bytes lost before."""
    in_flight: int
    """Bytes in flight, all of the record among them."""
    app_limited: bool
    """Whether the application had left the network with nothing to do."""
    earlier: int
    """`delivered` in the snapshot of the packet that had been acknowledged latest: one round trip before."""
    earlier_delivered_time: float
    """`delivered_time` of that snapshot."""
    earlier_send_time: float
    """`first_send_time` of that snapshot."""


class LostRun(NamedTuple):
    """Neighbouring packets of one record that were declared lost together."""

    in_flight: int
    """Bytes in flight before the first of them was sent."""
    lost: int
    """Bytes lost since then, without these."""
    size: int
    """Their bytes."""
    app_limited: bool
    """As in the snapshot."""


class DeliverySampler:
    """Counts what is delivered and lost on one path, and makes a sample of each ACK frame.

    Attributes:
        delivered, lost: bytes so far.
        app_limited: the value of `delivered` up to which samples are limited by the application; 0: they are not.
        restarted: nothing was in flight before the latest record.
        has_sample: the latest ACK frame gave a sample, which the following are:
        rate: bytes per second at which the network delivered, > 0.
        long_rate: the same over the flight and the one before it, if the application limited neither; what whole
            packets and bundled acknowledgements make of a rate is half as much there.
        span: bytes delivered in the interval of the sample.
        prior_delivered: `delivered` when the newest packet acknowledged was sent.
        newly_acked: bytes that the frame acknowledged.
        tx_in_flight: bytes in flight when the newest packet acknowledged had been sent, it included.
        lost_since: bytes lost since then.
        is_app_limited: whether the application, not the network, may have set the rate.
        lost_runs: what the latest loss detection found, in the order of sending.
    """

    __slots__ = (
        "_delivered_time",
        "_earlier",
        "_earlier_delivered_time",
        "_earlier_send_time",
        "_first_send_time",
        "app_limited",
        "delivered",
        "has_sample",
        "is_app_limited",
        "long_rate",
        "lost",
        "lost_runs",
        "lost_since",
        "newly_acked",
        "prior_delivered",
        "rate",
        "restarted",
        "span",
        "tx_in_flight",
    )

    def __init__(self, now: float) -> None:
        self.delivered = 0
        self.lost = 0
        self.app_limited = 0
        self.restarted = True
        self.has_sample = False
        self.rate = 0.0
        self.long_rate = 0.0
        self.span = 0
        self.prior_delivered = 0
        self.newly_acked = 0
        self.tx_in_flight = 0
        self.lost_since = 0
        self.is_app_limited = False
        self.lost_runs: list[LostRun] = []
        self._delivered_time = now
        self._first_send_time = now
        self._earlier = 0
        self._earlier_delivered_time = now
        self._earlier_send_time = now

    def on_sent(self, record: SentRecord, in_flight: int) -> None:
        """A record left; `in_flight` counts it (§4.1.2.2). Probes of the path MTU weigh nothing and give no sample."""
        size = record.size * record.count
        if not size:
            return
        self.restarted = in_flight <= size
        if self.restarted:  # no earlier ACK is waited for: the interval begins now
            self._first_send_time = self._delivered_time = record.time
            self._begin_anew()
        record.delivery = Snapshot(
            self.delivered,
            self._delivered_time,
            self._first_send_time,
            self.lost,
            in_flight,
            self.app_limited > 0,
            self._earlier,
            self._earlier_delivered_time,
            self._earlier_send_time,
        )

    def on_acked(self, news: list[tuple[SentRecord, int, int]], now: float) -> None:
        """An ACK frame settled packets (§4.1.2.3); late ones count as delivered, too.

        An interval shorter than the round trip, which the draft rejects, cannot come about: packet numbers are not
        used again, so each sample begins no later than its own packet was sent.
        """
        acked = 0
        newest: SentRecord | None = None
        snapshot: Snapshot | None = None
        mask = 0
        for record, pending, late in news:
            if record.delivery is not None:
                newest = record
                snapshot = record.delivery
                mask = pending | late
                acked += record.size * mask.bit_count()
        self.newly_acked = acked
        self.has_sample = snapshot is not None
        if newest is None or snapshot is None:
            return
        prior, prior_time, first_send_time, lost, in_flight, app_limited, earlier, earlier_time, earlier_send = snapshot
        self.delivered += acked
        self._delivered_time = now
        self._first_send_time = newest.time
        if self.app_limited and self.delivered > self.app_limited:  # the bubble has left the pipe
            self.app_limited = 0
        self.prior_delivered = prior
        self.span = self.delivered - prior
        self.rate = self.span / max(newest.time - first_send_time, now - prior_time, LEAST_INTERVAL)
        self.long_rate = (self.delivered - earlier) / max(
            newest.time - earlier_send, now - earlier_time, LEAST_INTERVAL
        )
        self.tx_in_flight = in_flight - (newest.count - mask.bit_length()) * newest.size
        self.lost_since = self.lost - lost
        self.is_app_limited = app_limited
        if app_limited:
            self._begin_anew()
        else:
            self._earlier = prior
            self._earlier_delivered_time = prior_time
            self._earlier_send_time = first_send_time

    def on_lost(self, lost: list[tuple[SentRecord, int]]) -> None:
        """Loss detection gave up the packets in the masks; they are in `lost_runs` afterwards (§5.5.10.2)."""
        self.lost_runs = runs = []
        for record, mask in lost:
            delivery = record.delivery
            if delivery is None:
                continue
            size = record.size
            for low, high in bit_runs(mask):
                before = delivery.in_flight - (record.count - low) * size
                length = (high - low) * size
                runs.append(LostRun(before, self.lost - delivery.lost, length, delivery.app_limited))
                self.lost += length

    def mark_app_limited(self, in_flight: int) -> None:
        """The application gives less than could be sent: samples up to what is in flight now may be too low
        (§4.1.2.4)."""
        self.app_limited = max(self.delivered + in_flight, 1)

    # inside

    def _begin_anew(self) -> None:
        """No flight that could be measured precedes what is sent from now on."""
        self._earlier = self.delivered
        self._earlier_delivered_time = self._delivered_time
        self._earlier_send_time = self._first_send_time
