"""A virtual network: addresses, a link for each direction between two of them, and outages.

Everything that happens follows from the seed and from what is sent: each direction draws from a generator of its
own, so that what happens in one does not disturb the others. `digest` is equal for two runs exactly if the same
datagrams were sent at the same times.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from random import Random

from burstwire.core.address import unpack_address
from burstwire.errors import AddressError
from burstwire.sim.clock import Clock
from burstwire.sim.link import Batch, Link, Pipe

__all__ = ["Network", "Receiver", "Tap"]

Receiver = Callable[[bytes, list[bytes], int], None]
"""Takes datagrams that arrive together: (source address, datagrams, ECN)."""

Tap = Callable[[float, bytes, bytes, list[bytes]], None]
"""Sees what is sent: (time, source, destination, datagrams)."""

Selector = bytes | None
"""An address, or None for every address."""

_STAMP = struct.Struct(">dB24s24sI")


class Network:
    """Carries datagrams between addresses (24 bytes each, see `burstwire.core.address`).

    Args:
        clock: the time.
        seed: decides everything that is left to chance.
        link: what every direction is like, unless `set_link` says otherwise.

    Attributes:
        tap: sees every datagram that is sent, or None.
        unreachable: datagrams to an address that nobody had when they arrived.
        cut: datagrams that were sent during an outage.
    """

    def __init__(self, clock: Clock, seed: int, link: Link | None = None) -> None:
        self.clock = clock
        self.seed = seed
        self.tap: Tap | None = None
        self.unreachable = 0
        self.cut = 0
        self._rules: list[tuple[Selector, Selector, Link]] = [(None, None, link or Link())]
        self._pipes: dict[tuple[bytes, bytes], Pipe] = {}
        self._receivers: dict[bytes, Receiver] = {}
        self._outages: list[tuple[float, Selector, Selector]] = []
        self._trace = blake2b(digest_size=16)

    # getters

    def link(self, source: bytes, destination: bytes) -> Link:
        """What the direction is like now."""
        return self._pipe(source, destination).link

    def delivered(self, source: bytes, destination: bytes) -> int:
        """Bytes of datagrams that went from `source` to `destination`, as far as the links went."""
        return self._pipe(source, destination).delivered_bytes

    def stats(self) -> dict[str, int]:
        """Sums over all directions of `Pipe.counts`, and `unreachable` and `cut`."""
        total: Counter[str] = Counter(unreachable=self.unreachable, cut=self.cut)
        for pipe in self._pipes.values():
            total.update(pipe.counts)
        return dict(total)

    def digest(self) -> str:
        """A hash over all datagrams sent so far, with their times and addresses."""
        return self._trace.hexdigest()

    def describe(self) -> str:
        """The links, and what became of the datagrams on them, for error messages."""
        lines = [
            f"{_name(source)} → {_name(destination)}: {pipe.link} "
            + ", ".join(f"{name} {count:,}" for name, count in pipe.counts.items() if count)
            for (source, destination), pipe in self._pipes.items()
        ]
        return "\n".join(lines) or str(self._rules[-1][2])

    # mutators

    def attach(self, address: bytes, receiver: Receiver) -> None:
        """Give an address to somebody; raises `AddressError` when it is taken."""
        if address in self._receivers:
            raise AddressError(f"{_name(address)} is in use")
        self._receivers[address] = receiver

    def detach(self, address: bytes) -> None:
        """Take an address away; what arrives there from now on is lost."""
        del self._receivers[address]

    def set_link(self, link: Link, source: Selector = None, destination: Selector = None) -> None:
        """Change the directions from `source` to `destination` (None: any) from now on."""
        self._rules.append((source, destination, link))
        for (start, end), pipe in self._pipes.items():
            if source in (None, start) and destination in (None, end):
                pipe.link = link

    def plan(
        self, changes: Iterable[tuple[float, Link]], source: Selector = None, destination: Selector = None
    ) -> None:
        """Change directions (see `set_link`) after given times: (seconds from now, link).

        A path whose round trip or MTU changes, that becomes lossy or heals. A rate that changes while datagrams wait
        is exact with a `Bottleneck` and `Steps`.
        """
        for seconds, link in changes:
            self.clock.at(self.clock.now + seconds, partial(self.set_link, link, source, destination))

    def outage(self, seconds: float, source: Selector = None, destination: Selector = None) -> None:
        """Lose everything that is sent from `source` to `destination` (None: any) in the next `seconds`."""
        self._outages.append((self.clock.now + seconds, source, destination))

    def heal(self) -> None:
        """End all outages now."""
        self._outages.clear()

    def send(self, source: bytes, destination: bytes, datagrams: list[bytes], ecn: int = 0) -> None:
        """Send datagrams, which need not come from a host: a test may forge and replay."""
        clock = self.clock
        now = clock.now
        self._trace.update(_STAMP.pack(now, ecn, source, destination, len(datagrams)))
        for data in datagrams:
            self._trace.update(data)
        if self.tap is not None:
            self.tap(now, source, destination, datagrams)
        if self._outages and self._is_cut(source, destination):
            self.cut += len(datagrams)
            return
        pipe = self._pipe(source, destination)
        for batch in pipe.carry(now, datagrams, ecn):
            at, mark, arriving = batch
            last = pipe.last
            if last is not None and last[0] == at and last[1] == mark and at > now and pipe.link.grain:
                last[2].extend(arriving)
                continue
            if pipe.link.grain:
                batch = pipe.last = at, mark, list(arriving)
            self._schedule(source, destination, batch)

    # inside

    def _schedule(self, source: bytes, destination: bytes, batch: Batch) -> None:
        at, ecn, datagrams = batch

        def arrive() -> None:
            receiver = self._receivers.get(destination)
            if receiver is None:
                self.unreachable += len(datagrams)
            else:
                receiver(source, datagrams, ecn)

        self.clock.at(at, arrive)

    def _pipe(self, source: bytes, destination: bytes) -> Pipe:
        pipe = self._pipes.get((source, destination))
        if pipe is None:
            link = next(
                link
                for start, end, link in reversed(self._rules)
                if start in (None, source) and end in (None, destination)
            )
            random = Random(f"{self.seed} {source.hex()} {destination.hex()}")
            pipe = self._pipes[source, destination] = Pipe(link, random, source)
        return pipe

    def _is_cut(self, source: bytes, destination: bytes) -> bool:
        now = self.clock.now
        self._outages = [outage for outage in self._outages if outage[0] > now]
        return any(start in (None, source) and end in (None, destination) for _, start, end in self._outages)


def _name(address: bytes) -> str:
    host, port = unpack_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
