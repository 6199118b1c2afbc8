"""Helpers for tests on real sockets: send trains, collect datagrams, keep the books."""

from __future__ import annotations

import select
from collections.abc import Iterable
from dataclasses import dataclass, field

from burstwire.core import ANY_LOCAL, BufferRing, RunTable, TrainTable, UdpSocket, pack_address

WAIT = 10.0
"""Seconds after which something that must arrive counts as lost."""


@dataclass
class Datagram:
    data: bytes
    ecn: int
    path: bytes


@dataclass
class Node:
    """A socket with its own rings."""

    socket: UdpSocket
    out: BufferRing = field(default_factory=lambda: BufferRing(16))
    into: BufferRing = field(default_factory=lambda: BufferRing(16))

    def __post_init__(self) -> None:
        self.trains = TrainTable(self.out)
        self.runs = RunTable()

    def queue(
        self, datagrams: Iterable[bytes], to: bytes, ecn: int = 0, local: bytes = ANY_LOCAL, flags: int = 0
    ) -> int:
        """Write equal datagrams (the last may be shorter) to a slot of their own as one train; its row."""
        datagrams = list(datagrams)
        slot = self.out.lease()
        assert slot >= 0
        whole = b"".join(datagrams)
        self.out.views[slot][: len(whole)] = whole
        return self.trains.append(slot, 0, len(whole), len(datagrams[0]), ecn, to + local, flags)

    def flush(self) -> None:
        """Send everything that is queued and return the slots; waits while the socket is full."""
        done = 0
        while True:
            done += self.socket.send(self.trains, done)
            if done == self.trains.count:
                break
            assert self.socket.blocked == "again", self.socket.blocked
            assert select.select([], [self.socket], [], WAIT)[1]
        self.drop()

    def drop(self) -> None:
        """Forget the queue and return its slots."""
        for record in self.trains.records():
            self.out.release(record[0])
        self.trains.clear()

    def receive(self, count: int, max_slots: int = 8) -> list[Datagram]:
        """The next `count` datagrams, and whatever came with them."""
        got: list[Datagram] = []
        while len(got) < count:
            assert select.select([self.socket], [], [], WAIT)[0], f"{len(got)} of {count} datagrams came"
            got += self.take(max_slots)
        return got

    def take(self, max_slots: int = 8) -> list[Datagram]:
        """What one call of `recv` brings."""
        self.socket.recv(self.into, self.runs, max_slots)
        assert len(self.runs.held) <= max_slots
        got = []
        for _, _, slot, start, size, last, count, _, ecn, path in self.runs.records():
            for i in range(count):
                at = start + i * size
                end = at + (last if i == count - 1 else size)
                got.append(Datagram(bytes(self.into.views[slot][at:end]), ecn, path))
        self.runs.release(self.into)
        assert self.into.leased == 0
        return got

    def address(self, host: str | None = None) -> bytes:
        bound, port = self.socket.local_address
        return pack_address(host or bound, port)

    def close(self) -> None:
        self.socket.close()


def datagrams(count: int, size: int, tail: int = 0, seed: int = 0) -> list[bytes]:
    """`count` different datagrams that are DATA packets with consecutive counters, and perhaps a shorter one."""
    sizes = [size] * count + ([tail] if tail else [])
    made = []
    for i, n in enumerate(sizes):
        head = b"\x10" + (seed * 0x01010101 & 0xFFFFFFFF).to_bytes(4) + i.to_bytes(8)
        body = bytes((seed + i * 31 + j * 7) & 0xFF for j in range(256)) * (n // 256 + 1)
        made.append((head + body)[:n])
    return made
