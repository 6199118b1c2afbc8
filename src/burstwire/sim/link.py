"""What a link does to datagrams: parameters (`Link`) and the state of one direction (`Pipe`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from random import Random

from burstwire.errors import ConfigError

__all__ = ["Link", "Pipe"]

ETHERNET = 1472
"""UDP payload of an IPv4 packet on a link of 1,500 bytes, what most paths carry."""

CE = 3
"""The ECN codepoint "congestion experienced"; a packet that says 1 or 2 may be turned into it (RFC 3168 §5)."""

TRUNCATED = 0.25
"""The share of corrupted datagrams that lose their end; the others have one bit flipped."""


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

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering", "corruption"):
            self._check(name, 0, 1)
        for name in ("delay", "jitter", "hold"):
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
        return self.rate is None and not (
            self.jitter or self.loss or self.duplication or self.reordering or self.corruption
        )


class Pipe:
    """The state of one direction.

    Attributes:
        link: its parameters; may be replaced at any time.
        counts: what became of datagrams: sent, delivered (copies, too), lost, queue (dropped there), mtu, duplicated,
            reordered, corrupted, marked.
    """

    def __init__(self, link: Link, random: Random) -> None:
        self.link = link
        self.counts = dict.fromkeys(
            ("sent", "delivered", "lost", "queue", "mtu", "duplicated", "reordered", "corrupted", "marked"), 0
        )
        self._random = random
        self._free_at = 0.0
        """When the sender of the link has sent what waits for it."""
        self._newest = 0.0
        """The latest arrival of those that keep the order."""

    def carry(self, now: float, datagrams: list[bytes], ecn: int) -> Iterator[tuple[float, bytes, int]]:
        """What becomes of datagrams that enter now: (time of arrival, datagram, ECN) of each that arrives."""
        link = self.link
        counts = self.counts
        counts["sent"] += len(datagrams)
        if link.plain:
            arrival = self._newest = max(now + link.delay, self._newest)
            for data in datagrams:
                if len(data) > link.mtu:
                    counts["mtu"] += 1
                else:
                    counts["delivered"] += 1
                    yield arrival, data, ecn
            return
        chance = self._random.random
        for data in datagrams:
            if len(data) > link.mtu:
                counts["mtu"] += 1
                continue
            mark = ecn
            leaves = now
            if link.rate is not None:
                waiting = max(0.0, self._free_at - now) * link.rate
                if waiting + len(data) > link.queue:
                    counts["queue"] += 1
                    continue
                if link.mark is not None and waiting >= link.mark and ecn in (1, 2):
                    counts["marked"] += 1
                    mark = CE
                leaves = self._free_at = max(now, self._free_at) + len(data) / link.rate
            if link.loss and chance() < link.loss:
                counts["lost"] += 1
                continue
            arrival = leaves + link.delay + (link.jitter * chance() if link.jitter else 0.0)
            if link.reordering and chance() < link.reordering:
                counts["reordered"] += 1
                arrival += link.hold * chance()
            else:
                arrival = self._newest = max(arrival, self._newest)
            arriving = data
            if link.corruption and chance() < link.corruption:
                counts["corrupted"] += 1
                arriving = self._corrupt(data)
            counts["delivered"] += 1
            yield arrival, arriving, mark
            if link.duplication and chance() < link.duplication:
                counts["duplicated"] += 1
                counts["delivered"] += 1
                yield arrival + link.hold * chance(), data, mark

    def _corrupt(self, data: bytes) -> bytes:
        random = self._random
        if len(data) < 2 or random.random() < TRUNCATED:
            return data[: random.randrange(len(data))] if data else data
        spoiled = bytearray(data)
        spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
        return bytes(spoiled)
