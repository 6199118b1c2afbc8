"""What a link does to datagrams: parameters (`Link`) and the state of one direction (`Pipe`).

In this order: the MTU, the policer, the rate and its queue (of this direction alone, or a shared `Bottleneck`), losses
(each by chance, or in bursts), delay, jitter, reordering, corruption and duplication.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from random import Random

from burstwire.errors import ConfigError
from burstwire.sim.bottleneck import CE, Bottleneck
from burstwire.sim.bursts import Bursts, BurstState
from burstwire.sim.policer import Policer, PolicerState

__all__ = ["Batch", "Link", "Pipe"]

Batch = tuple[float, int, list[bytes]]
"""Datagrams that arrive together: (time of arrival, ECN, datagrams)."""

ETHERNET = 1472
"""UDP payload of an IPv4 packet on a link of 1,500 bytes, what most paths carry."""

TRUNCATED = 0.25
"""The share of corrupted datagrams that lose their end; the others have one bit flipped."""


COUNTS = ["sent", "delivered", "lost", "policed", "queue", "mtu", "duplicated", "reordered", "corrupted", "marked"]
"""What may become of a datagram; see `Pipe.counts`."""


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two hosts. Raises `ConfigError` for a value out of range.

    Attributes:
        delay: seconds from one end to the other.
        jitter: up to so many seconds more, drawn for each datagram; the order is kept.
        loss: share of datagrams lost, 0 to 1.
        duplication: share of datagrams that arrive twice, the copy up to `hold` seconds later.
        reordering: share of datagrams that are overtaken: held back for up to `hold` seconds.
        hold: see there; seconds.
        corruption: share of datagrams of which a bit is flipped or the end is cut off.
        rate: bytes per second, None for no limit.
        queue: bytes that wait for the rate; what comes beyond is dropped (drop-tail).
        mark: bytes waiting from which on ECN-capable datagrams are marked CE; None for never.
        mtu: bytes of the largest datagram (UDP payload); larger ones vanish without a word.
        bottleneck: a queue and a rate shared with other directions, or None.
        bursts: losses in bursts, beside those of `loss`, or None.
        policer: drops what exceeds a rate, or None.
        grain: seconds; what arrives is handed over at multiples of it, together, as interrupts that are held back and
            radio links do. 0 hands over each datagram when it arrives. Large runs are far faster with some.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    hold: float = 0.005
    corruption: float = 0.0
    rate: float | None = None
    queue: int = 256 * 1024
    mark: int | None = None
    mtu: int = ETHERNET
    bottleneck: Bottleneck | None = None
    bursts: Bursts | None = None
    policer: Policer | None = None
    grain: float = 0.0

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering", "corruption"):
            self._check(name, 0, 1)
        for name in ("delay", "jitter", "hold", "grain"):
            self._check(name, 0, 3600)
        for name in ("queue", "mtu"):
            self._check(name, 1, 1 << 40)
        if self.rate is not None:
            self._check("rate", 1, 1e15)

    def __str__(self) -> str:
        told = [f"{f.name}={value!r}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return f"Link({', '.join(told)})"

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} of a link is {value!r}; it must be from {low:,} to {high:,}")

    @property
    def plain(self) -> bool:
        """Whether every datagram takes the same time and nothing happens to it."""
        return not (self.shaped or self.jitter or self.lossy or self.duplication or self.reordering or self.corruption)

    @property
    def shaped(self) -> bool:
        """Whether datagrams wait for a rate."""
        return self.rate is not None or self.bottleneck is not None

    @property
    def lossy(self) -> bool:
        """Whether datagrams are lost but for a queue that is full or their size."""
        return bool(self.loss or self.bursts is not None or self.policer is not None)


class Pipe:
    """The state of one direction.

    Attributes:
        counts: what became of datagrams: sent, delivered (copies, too), lost, policed, queue (dropped there), mtu,
            duplicated, reordered, corrupted, marked.
        delivered_bytes: bytes of those delivered.
        last: the batch that was scheduled last; for the network.
    """

    def __init__(self, link: Link, random: Random, source: bytes = b"") -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.delivered_bytes = 0
        self.last: Batch | None = None
        self._random = random
        self._source = source
        self._free_at = 0.0
        """When the sender of the link has sent what waits for it."""
        self._newest = 0.0
        """The latest arrival of those that keep the order."""
        self._bursts: BurstState | None = None
        self._policer: PolicerState | None = None
        self.link = link

    @property
    def link(self) -> Link:
        """Its parameters; may be replaced at any time."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        old: Link | None = getattr(self, "_link", None)
        self._link = link
        self._plain = link.plain
        if old is None or old.bursts != link.bursts:
            self._bursts = BurstState(link.bursts, self._random) if link.bursts is not None else None
        if old is None or old.policer != link.policer:
            self._policer = PolicerState(link.policer) if link.policer is not None else None

    def carry(self, now: float, datagrams: list[bytes], ecn: int) -> list[Batch]:
        """What becomes of datagrams that enter now: those that arrive, neighbours that arrive together in one batch."""
        link = self._link
        counts = self.counts
        counts["sent"] += len(datagrams)
        if not self._plain:
            return self._carry_each(now, datagrams, ecn)
        mtu = link.mtu
        kept = datagrams
        if max(map(len, datagrams)) > mtu:
            kept = [data for data in datagrams if len(data) <= mtu]
            counts["mtu"] += len(datagrams) - len(kept)
            if not kept:
                return []
        counts["delivered"] += len(kept)
        self.delivered_bytes += sum(map(len, kept))
        arrival = now + link.delay
        if link.grain:
            arrival = ceil(arrival / link.grain) * link.grain
        arrival = self._newest = max(arrival, self._newest)
        return [(arrival, ecn, kept)]

    def _carry_each(self, now: float, datagrams: list[bytes], ecn: int) -> list[Batch]:
        """The same where something may happen to a datagram, or where each leaves at a time of its own."""
        link = self._link
        counts = self.counts
        chance = self._random.random
        mtu, rate, bottleneck, source = link.mtu, link.rate, link.bottleneck, self._source
        grain, delay, jitter, loss = link.grain, link.delay, link.jitter, link.loss
        reordering, corruption, duplication = link.reordering, link.corruption, link.duplication
        policer, bursts = self._policer, self._bursts
        batches: list[Batch] = []
        batch: list[bytes] = []
        at, marked = -1.0, -1
        for data in datagrams:
            size = len(data)
            if size > mtu:
                counts["mtu"] += 1
                continue
            if policer is not None and not policer.passes(now, size):
                counts["policed"] += 1
                continue
            mark = ecn
            leaves = now
            if bottleneck is not None:
                found = bottleneck.enter(now, size, ecn, source)
                if found is None:
                    counts["queue"] += 1
                    continue
                leaves, mark = found
                if mark != ecn:
                    counts["marked"] += 1
            if rate is not None:
                waiting = max(0.0, self._free_at - leaves) * rate
                if waiting + size > link.queue:
                    counts["queue"] += 1
                    continue
                if link.mark is not None and waiting >= link.mark and mark in (1, 2):
                    counts["marked"] += 1
                    mark = CE
                leaves = self._free_at = max(leaves, self._free_at) + size / rate
            if (loss and chance() < loss) or (bursts is not None and bursts.lost(now)):
                counts["lost"] += 1
                continue
            arrival = leaves + delay
            if jitter:
                arrival += jitter * chance()
            if reordering and chance() < reordering:
                counts["reordered"] += 1
                arrival += link.hold * chance()
                if grain:
                    arrival = ceil(arrival / grain) * grain
            else:
                if grain:
                    arrival = ceil(arrival / grain) * grain
                if arrival < self._newest:
                    arrival = self._newest
                self._newest = arrival
            arriving = data
            if corruption and chance() < corruption:
                counts["corrupted"] += 1
                arriving = self._corrupt(data)
            counts["delivered"] += 1
            self.delivered_bytes += len(arriving)
            if arrival != at or mark != marked:
                batch = []
                at, marked = arrival, mark
                batches.append((at, mark, batch))
            batch.append(arriving)
            if duplication and chance() < duplication:
                counts["duplicated"] += 1
                counts["delivered"] += 1
                self.delivered_bytes += size
                arrival += link.hold * chance()
                batches.append((ceil(arrival / grain) * grain if grain else arrival, mark, [data]))
                at = -1.0  # a batch is never continued behind another
        return batches

    def _corrupt(self, data: bytes) -> bytes:
        random = self._random
        if len(data) < 2 or random.random() < TRUNCATED:
            return data[: random.randrange(len(data))] if data else data
        spoiled = bytearray(data)
        spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
        return bytes(spoiled)
