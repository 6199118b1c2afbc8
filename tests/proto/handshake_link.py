"""Handshake desks joined by a link with virtual time: loss, duplication, delay, and whatever a test does to packets."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

from burstwire.config import Config
from burstwire.identity import KeyPair, PublicKey
from burstwire.proto.desk import Admit, Failed, HandshakeDesk
from burstwire.proto.handshake import Established

Tamper = Callable[[bytes, bytes, bytes], "list[bytes]"]
"""(from, to, datagram) → what really arrives."""

ANY = bytes(24)


def address(last: int, port: int = 4433) -> bytes:
    """10.0.0.`last`:`port` as 24 bytes."""
    return bytes([4, 0]) + port.to_bytes(2) + bytes(4) + bytes([10, 0, 0, last]) + bytes(12)


class Node:
    """A desk, what it holds, and what became of it."""

    def __init__(
        self,
        where: bytes,
        seed: int,
        config: Config | None = None,
        *,
        key: KeyPair | None = None,
        versions: tuple[int, ...] = (1,),
        admit: Admit | None = None,
        now: float = 0.0,
    ) -> None:
        self.where = where
        self.rng = Random(seed)
        self.key = key or KeyPair(self.rng.randbytes(32))
        self.desk = HandshakeDesk(
            self.key,
            config or Config(),
            self.rng.randbytes,
            now,
            new_cid=self.new_cid,
            receive_buffer=212_992,
            reset_token=lambda cid: cid.to_bytes(16),
            admit=admit,
            versions=versions,
        )
        self.up: list[Established] = []  # connections, of either role
        self.failed: list[Failed] = []
        self.failed_at: list[float] = []

    @property
    def public(self) -> PublicKey:
        return self.key.public

    def new_cid(self) -> int:
        while True:
            cid = self.rng.getrandbits(32)
            if not self.desk.owns(cid):
                return cid

    def stat(self, name: str) -> int:
        return self.desk.stats()[name]


class Link:
    """Delivers what desks send; an initiator's first DATA is stood in for by the secrets themselves.

    An initiator that is established sends b"\\x10" + cid + its send secret every 0.3 s until the responder has
    confirmed; a responder whose half-open entry expects that secret calls `confirm`. So a test learns whether
    both sides really agree on keys.
    """

    def __init__(self, *nodes: Node, delay: float = 0.01, seed: int = 1) -> None:
        self.nodes = {node.where: node for node in nodes}
        self.now = 0.0
        self.delay = delay
        self.jitter = 0.0
        self.loss = 0.0
        self.duplication = 0.0
        self.tamper: Tamper | None = None
        self.rng = Random(seed)
        self.sent: list[tuple[float, bytes, bytes, bytes]] = []  # (when, from, to, datagram)
        self._order = count()
        self._wire: list[tuple[float, int, bytes, bytes, bytes]] = []
        self._repeats: list[tuple[float, int, Node, Established, int]] = []

    # --- what a test does

    def connect(self, source: Node, target: Node, timeout: float = 10.0, key: PublicKey | None = None) -> int:
        number = source.desk.connect(target.where, key or target.public, self.now, timeout)
        self.collect()
        return number

    def inject(self, source: bytes, target: bytes, datagram: bytes, delay: float = 0.0) -> None:
        """A datagram from nowhere."""
        heappush(self._wire, (self.now + delay, next(self._order), source, target, datagram))

    def run(self, seconds: float = 60.0, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass, at most so much, until nothing is left to do or `stop` says so."""
        end = self.now + seconds
        while not (stop and stop()):
            when = self._next()
            if when is None or when > end:
                self.now = end
                return
            assert when >= self.now - 1e-9, "a timer in the past was not dealt with"
            self.now = max(self.now, when)
            self._step()

    def datagrams(self, kind: int, source: Node | None = None) -> list[bytes]:
        return [d for _, s, _, d in self.sent if d[0] == kind and (source is None or s == source.where)]

    # --- how it works

    def _next(self) -> float | None:
        times = [node.desk.next_timeout() for node in self.nodes.values()]
        times += [heap[0][0] for heap in (self._wire, self._repeats) if heap]
        return min((t for t in times if t is not None), default=None)

    def _step(self) -> None:
        while self._wire and self._wire[0][0] <= self.now:
            _, _, source, target, datagram = heappop(self._wire)
            node = self.nodes.get(target)
            if node is None:
                continue
            if datagram[:1] == b"\x10":
                self._data(node, datagram, source)
            else:
                node.desk.receive(datagram, source + ANY, self.now)
        while self._repeats and self._repeats[0][0] <= self.now:
            _, _, node, established, left = heappop(self._repeats)
            self._send_data(node, established, left)
        for node in self.nodes.values():
            timeout = node.desk.next_timeout()
            if timeout is not None and timeout <= self.now:
                node.desk.handle_timeout(self.now)
        self.collect()

    def collect(self) -> None:
        for node in self.nodes.values():
            while node.desk.results:
                result = node.desk.results.popleft()
                if isinstance(result, Failed):
                    node.failed.append(result)
                    node.failed_at.append(self.now)
                else:
                    node.up.append(result)
                    self._send_data(node, result, 30)
            while node.desk.outgoing:
                path, datagram = node.desk.outgoing.popleft()
                assert len(path) == 48
                self._put(node.where, path[:24], datagram)

    def _put(self, source: bytes, target: bytes, datagram: bytes) -> None:
        self.sent.append((self.now, source, target, datagram))
        arriving = self.tamper(source, target, datagram) if self.tamper else [datagram]
        for copy in arriving:
            for _ in range(2 if self.rng.random() < self.duplication else 1):
                if self.rng.random() >= self.loss:
                    late = self.delay + self.rng.random() * self.jitter
                    heappush(self._wire, (self.now + late, next(self._order), source, target, copy))

    def _send_data(self, node: Node, established: Established, left: int) -> None:
        datagram = b"\x10" + established.remote_cid.to_bytes(4) + established.send_secret
        self._put(node.where, established.path[:24], datagram)
        if left:
            heappush(self._repeats, (self.now + 0.3, next(self._order), node, established, left - 1))

    def _data(self, node: Node, datagram: bytes, source: bytes) -> None:
        half_open = node.desk.half_open(int.from_bytes(datagram[1:5]))
        if half_open is not None and half_open.receive_secret == datagram[5:]:
            confirmed = node.desk.confirm(half_open.local_cid, self.now)
            assert confirmed is half_open
            node.up.append(confirmed)
            # key confirmation reached the responder: the initiator need not repeat
            self._repeats = [r for r in self._repeats if r[3].send_secret != datagram[5:]]
            self._repeats.sort()


def agree(one: Established, other: Established) -> bool:
    """Whether two ends are ends of the same connection."""
    return (
        one.is_initiator != other.is_initiator
        and one.send_secret == other.receive_secret
        and one.receive_secret == other.send_secret
        and one.send_secret != one.receive_secret
        and (one.local_cid, one.remote_cid) == (other.remote_cid, other.local_cid)
        and one.aead == other.aead
        and one.peer_parameters == other.local_parameters
        and other.peer_parameters == one.local_parameters
    )


def pair(
    config_a: Config | None = None, config_b: Config | None = None, seed: int = 1, **options: float
) -> tuple[Link, Node, Node]:
    """Two nodes and a link between them."""
    a, b = Node(address(1), seed, config_a), Node(address(2), seed + 1000, config_b)
    return Link(a, b, seed=seed, **options), a, b  # type: ignore[arg-type]


def cookies_always() -> Config:
    """Whoever comes must prove the address first."""
    return Config(cookie_threshold=0)
