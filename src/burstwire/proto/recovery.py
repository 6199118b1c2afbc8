"""Loss detection and congestion control of one path (RFC 9002), over the run-length `SentLog`.

The packet threshold and persistent congestion count in send order, not in packet numbers, because numbers may be
skipped (key updates, optimistic-ack defence).
"""

from __future__ import annotations

from math import inf

from burstwire.config import FIXED_RATE
from burstwire.proto.budget import Share
from burstwire.proto.congestion.base import CongestionController, make_controller, sampler_of
from burstwire.proto.pacing import Pacer
from burstwire.proto.rtt import Rtt
from burstwire.proto.sent import KEEP_LOST, SentLog, SentRecord

__all__ = ["Acked", "Lost", "Recovery"]

PACKET_THRESHOLD = 3
"""Packets that must arrive of those sent later before one is lost (RFC 9002 §6.1.1), unless reordering was seen."""

MOST_WIDENED = 16 / 9
"""The time threshold grows by this at most where reordering was seen: to two round trips, as in RFC 8985 §6.2."""

REORDERING_KEPT = 16
"""Loss episodes in a row without a spurious loss after which reordering is forgotten (RFC 8985 §6.2)."""

PERSISTENT_THRESHOLD = 3
"""PTOs that a stretch of losses must span to be persistent congestion (RFC 9002 §7.6.1)."""

MAX_BACKOFF = 10
"""Doublings of the PTO at most."""

LONGEST_WAIT = 10.0
"""Seconds between two PTOs at most, unless a single one takes longer: a peer that vanished is probed ever more rarely,
but one that is back after an outage shorter than the idle timeout does not wait for as long again."""

PROBES = 2
"""Packets that one PTO sends (RFC 9002 §6.2.4): the second spares another timeout when the first is lost, too."""

SHORT_PATH = 0.002
"""Below this round trip (seconds) what is in flight lies in the receiver's socket buffer, not in the network."""

Acked = list[tuple[SentRecord, int, int]]
Lost = list[tuple[SentRecord, int]]


class Recovery:
    """Everything that is known about how sending on the current path goes.

    Args:
        now: the time of the handshake.
        controller: the name of the congestion controller.
        mtu: bytes of a full packet.
        max_ack_delay: how long the peer may hold an acknowledgement back, in seconds.
        peer_buffer: bytes of socket buffer that the peer's kernel granted; 0 if unknown.
        pacing: whether to spread packets over time.
        handshake_rtt: the first RTT sample, if the handshake gave one.
        fixed_rate: bytes per second, for the controller "fixed".

    Attributes:
        share: the connection's part in the endpoint's bandwidth budget, None without one.
    """

    __slots__ = (
        "_calm_episodes",
        "_episode",
        "_episode_after",
        "_fixed_rate",
        "_least_peer_room",
        "_pacing",
        "_path_order",
        "_peer_room",
        "_reduced_at",
        "controller",
        "controller_name",
        "last_eliciting",
        "limited",
        "log",
        "loss_time",
        "max_ack_delay",
        "mtu",
        "pacer",
        "packet_threshold",
        "packets_lost",
        "packets_lost_segmented",
        "packets_segmented",
        "packets_spurious",
        "probes",
        "pto_count",
        "pto_expired",
        "rtt",
        "sampler",
        "share",
        "widening",
    )

    def __init__(
        self,
        now: float,
        controller: str,
        mtu: int,
        max_ack_delay: float,
        peer_buffer: int,
        pacing: bool,
        handshake_rtt: float | None,
        fixed_rate: float = FIXED_RATE,
    ) -> None:
        self.log = SentLog()
        self.rtt = Rtt()
        if handshake_rtt is not None:
            self.rtt.update(handshake_rtt, 0.0, now)
        self.mtu = mtu
        self.controller_name = controller
        self._fixed_rate = fixed_rate
        self.controller: CongestionController = make_controller(controller, now, mtu, fixed_rate)
        self.sampler = sampler_of(self.controller)
        """Measures the delivery rate, if the controller wants to know it."""
        self.share: Share | None = None
        self.pacer = Pacer(now, self.controller.window)
        self._pacing = pacing
        self.max_ack_delay = max_ack_delay
        # The kernel's figure counts its own bookkeeping: little for the trains that GRO makes, as much as the payload
        # for packets that come one by one. Which of them the peer gets shows when it loses some.
        self._peer_room = peer_buffer * 7 // 8 or 1 << 30
        self._least_peer_room = peer_buffer // 2 or 1 << 30
        self.pto_count = 0
        self.probes = 0
        """Packets that may be sent whatever the window says, because a PTO expired."""
        self.loss_time: float | None = None
        self.last_eliciting = now
        self.limited = False
        """Whether the window, not the application, ended the latest transmission."""
        # A loss episode is everything that was lost of what was sent after the episode before it reduced the window and
        # until it reduced the window itself: of that, one round trip, the controller makes one reduction.
        self._episode = 0
        """Lost packets of the latest episode that were not acknowledged after all."""
        self._episode_after = -inf
        """The packets of the latest episode were sent after this."""
        self._reduced_at = -inf
        """What is lost of what was sent until then belongs to the latest episode."""
        self._calm_episodes = 0
        """Episodes since the latest spurious loss."""
        self._path_order = 0
        """Packets before this one, in send order, went another way than the current path."""
        self.packet_threshold: int = PACKET_THRESHOLD
        """Packets that make one sent before them lost; grows to the reordering that was seen."""
        self.widening = 1.0
        """The time threshold is so many times that of RFC 9002; grows to the reordering that was seen."""
        self.packets_lost = 0
        self.packets_segmented = 0
        """Those that left in trains which the kernel was left to segment."""
        self.packets_lost_segmented = 0
        """Those of them that were lost; a way on which GSO spoils packets shows here."""
        self.packets_spurious = 0
        self.pto_expired = 0

    # getters

    def window(self) -> int:
        """Bytes that may be sent now as far as the congestion window goes."""
        window = self.controller.window
        if self.rtt.minimum < SHORT_PATH and window > self._peer_room:
            window = self._peer_room
        return window - self.log.in_flight

    @property
    def held_by_peer(self) -> bool:
        """Whether the peer's socket buffer, not the congestion window, limits: then the window must not grow."""
        return self.rtt.minimum < SHORT_PATH and self.controller.window > self._peer_room

    def allowance(self, now: float) -> int:
        """Bytes that may be sent now by window, pacing and the peer's socket buffer."""
        window = self.controller.window
        room = self._peer_room
        if window > room and self.rtt.minimum < SHORT_PATH:
            window = room
        allowed = window - self.log.in_flight
        if allowed > room:
            allowed = room
        if self._pacing and allowed > 0:
            budget = self.pacer.budget(now, self.controller.pacing_rate(self.rtt), self.mtu)
            if budget < allowed:
                allowed = budget
        if self.share is not None:
            allowed = min(allowed, self.share.allowance(now, self.mtu))
        return allowed

    def pacing_time(self, now: float) -> float | None:
        """When pacer and budget let the next packet go; None when they do not hold anything back."""
        if self.window() < self.mtu:
            return None
        when = now
        if self._pacing:
            when = self.pacer.next_time(now, self.controller.pacing_rate(self.rtt), self.mtu)
        if self.share is not None:
            when = max(when, self.share.next_time(now, self.mtu))
        return when if when > now else None

    def pto(self) -> float:
        """The probe timeout without back-off, in seconds (RFC 9002 §6.2.1)."""
        return self.rtt.pto(self.max_ack_delay)

    def deadline(self) -> float | None:
        """When `on_timeout` has something to do."""
        if self.loss_time is not None:
            return self.loss_time
        if self.log.in_flight and not self.probes:
            wait = pto = self.rtt.pto(self.max_ack_delay)
            if self.pto_count:
                wait = min(pto * (1 << self.pto_count), max(pto, LONGEST_WAIT))
            return self.last_eliciting + wait
        return None

    # inputs

    def sent(self, record: SentRecord) -> None:
        """Notes packets that leave now."""
        self.log.add(record)
        size = record.size * record.count
        if self.sampler is not None:
            self.sampler.on_sent(record, self.log.in_flight)
        self.last_eliciting = record.time
        self.controller.on_sent(record.time, size)
        if self._pacing:
            self.pacer.on_sent(size)
        if self.share is not None:
            self.share.charge(record.time, size)
        if self.probes:
            self.probes = max(0, self.probes - record.count)

    def acknowledged(self, ranges: list[tuple[int, int]], delay: float, now: float) -> tuple[Acked, Lost]:
        """An ACK frame came (RFC 9002 §A.7); returns what it settled and what it shows to be lost."""
        log = self.log
        before = log.in_flight
        sampler = self.sampler
        if sampler is not None and not self.limited and before < self.controller.window:
            sampler.mark_app_limited(before)
        largest = ranges[0][1]
        news = log.acknowledge(ranges)
        if not news:
            return news, []
        newest, pending, late = news[-1]
        # A sample counts only if the largest acknowledged packet is among the news (RFC 9002 §5.1), and went this path.
        place = largest - newest.first
        if 0 <= place < newest.count and (pending | late) >> place & 1 and newest.order >= self._path_order:
            self.rtt.update(now - newest.time, min(delay, self.max_ack_delay), now)
        self.pto_count = 0
        self.probes = 0
        if sampler is not None:
            sampler.on_acked(news, now)
        if log.in_flight != before:
            self.controller.on_ack(now, before - log.in_flight, before, self.rtt, not self.limited, newest.time)
        for record, _, late in news:
            if late and not record.is_probe:
                self._late(record, late, now)
        return news, self._detect(now)

    def on_timeout(self, now: float) -> Lost:
        """The deadline passed: packets are lost by time, or a PTO expired, so `probes` may go (RFC 9002 §6.2)."""
        if self.loss_time is not None:
            return self._detect(now) if now >= self.loss_time else []
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            self.probes = PROBES
            self.pto_expired += 1
            self.pto_count = min(self.pto_count + 1, MAX_BACKOFF)
        return []

    def overslept(self, late: float, now: float) -> None:
        """`late` seconds passed in which this side did not run: they are no part of any round trip, and nobody failed
        to acknowledge anything in them. As if everything had been sent so much later."""
        for record in self.log.records:
            record.time = min(now, record.time + late)
            record.delivery = None  # that of a sampler would be spread over the gap
        self.last_eliciting = min(now, self.last_eliciting + late)
        self._reduced_at += late
        self._episode_after += late
        if self.loss_time is not None:
            self.loss_time += late

    def probe_now(self, now: float) -> bool:
        """The peer is there again: `probes` may go before the back-off ends; returns whether they may.

        RFC 9002 §6.2 has only the timer send probes, and only an ACK end the back-off. The back-off stays here, too,
        and so does its time if a probe left within the latest PTO: that one may arrive.
        """
        if self.log.in_flight and now - self.last_eliciting > self.pto():
            self.probes = PROBES
            return True
        return False

    def set_mtu(self, mtu: int) -> None:
        """Full packets have another size from now on."""
        self.mtu = mtu
        self.controller.on_mtu(mtu)

    def new_path(self, now: float) -> None:
        """The peer's address changed for good: what was learned about the old path does not count (RFC 9000 §9.4)."""
        log = self.log
        for record in log.records:
            if record.size:
                log.in_flight -= record.size * record.pending.bit_count()
                record.size = 0
        self.rtt = Rtt()
        self.set_controller(self.controller_name, now)
        self.packet_threshold = PACKET_THRESHOLD
        self.widening = 1.0
        self.moved()

    def moved(self) -> None:
        """Packets go elsewhere from now on: those that left before say nothing about the way there (RFC 9000 §9.4), and
        as many of them may be lost, a PTO does not wait for its time."""
        self._path_order = self.log.sent
        self._episode = 0
        self._episode_after = self._reduced_at = -inf
        self.pto_count = 0
        if any(record.pending for record in self.log.records):
            self.probes = PROBES

    def set_controller(self, name: str, now: float) -> None:
        """A fresh controller, which starts with its initial window: none inherits what it has not measured. What is in
        flight stays so. Raises `ConfigError` for an unknown name; then nothing changes."""
        self.controller = make_controller(name, now, self.mtu, self._fixed_rate)
        self.controller_name = name
        self.sampler = sampler_of(self.controller)
        for record in self.log.records:
            record.delivery = None  # a measure of the old path, or of another controller's
        self.pacer = Pacer(now, self.controller.window)
        # Losses that the former controller reduced its window for.
        self._episode = 0
        self._episode_after = self._reduced_at = -inf

    # inside

    def _late(self, record: SentRecord, mask: int, now: float) -> None:
        """Packets that had been declared lost arrived after all: they were only late."""
        packets = mask.bit_count()
        self.packets_spurious += packets
        if record.order < self._path_order:
            return
        # RFC 9002 §6.1.1, §6.1.2: thresholds may follow the reordering of the path. From now on this would be no loss.
        self._calm_episodes = 0
        order = record.order + (mask & -mask).bit_length() - 1
        self.packet_threshold = max(self.packet_threshold, self.log.largest_order - order + 1)
        needed = (now - record.time) / self.rtt.loss_delay()
        if needed > self.widening:
            self.widening = min(needed, MOST_WIDENED)
        if self._episode and record.time > self._episode_after:
            self._episode = max(0, self._episode - packets)
            if not self._episode:
                self._reduced_at = -inf
                self.controller.on_spurious_loss(now)

    def _detect(self, now: float) -> Lost:
        log = self.log
        if not log.records:
            self.loss_time = None
            return []
        lost, self.loss_time = log.detect(now, self.rtt.loss_delay() * self.widening, self.packet_threshold)
        if lost:
            order = self._path_order
            congestion = []
            for record, mask in lost:
                if not record.is_probe:
                    self.packets_lost += mask.bit_count()
                    if record.segmented:
                        self.packets_lost_segmented += mask.bit_count()
                    if record.order >= order:
                        congestion.append((record, mask))
            if congestion:
                if self.held_by_peer:
                    self._peer_room = self._least_peer_room
                size = sum(record.size * mask.bit_count() for record, mask in congestion)
                if self.sampler is not None:
                    self.sampler.on_lost(congestion)
                newest = congestion[-1][0].time
                if newest > self._reduced_at:
                    self._new_episode(now)
                after = self._episode_after
                self._episode += sum(mask.bit_count() for record, mask in congestion if record.time > after)
                persistent = self._persistent(congestion)
                self.controller.on_loss(now, size, newest, persistent)
                if persistent:
                    self._reduced_at = newest  # any further loss reduces the window again
                    self.rtt.reset_minimum()
        log.expire(now - KEEP_LOST * self.pto())
        return lost

    def _new_episode(self, now: float) -> None:
        self._episode = 0
        self._episode_after = max(self._episode_after, self._reduced_at)
        self._reduced_at = now
        self._calm_episodes += 1
        if self._calm_episodes > REORDERING_KEPT:
            self.packet_threshold = PACKET_THRESHOLD
            self.widening = 1.0

    def _persistent(self, lost: Lost) -> bool:
        """RFC 9002 §7.6.2: everything sent over a long stretch was lost, nothing in between arrived."""
        since = self.rtt.first_sample
        if since is None:
            return False
        span = self.pto() * PERSISTENT_THRESHOLD
        start = 0.0
        expected = -1
        for record, mask in lost:
            if record.time < since:
                continue
            whole = mask == (1 << record.count) - 1
            if expected != record.order or not whole:
                start = record.time
            if record.time - start > span:
                return True
            expected = record.order + record.count if whole else -1
        return False
