"""A UDP relay that misbehaves on purpose: drops, duplicates, delays and corrupts datagrams, reproducibly.

It stands between real processes: they talk to `Relay.address`, it talks to the target, with one socket per client, so
that the target sees as many peers as there are. It runs in a thread of its own, with its own random numbers, so the
same seed and the same order of datagrams give the same faults.
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

BIGGEST = 65535
BATCH = 64
"""Datagrams taken from one socket before the others and the delayed ones get their turn."""


@dataclass(frozen=True)
class Faults:
    """Probabilities for each datagram, one drawn after the other.

    Attributes:
        drop: is lost.
        duplicate: arrives twice.
        reorder: arrives `delay` seconds late, after its successors.
        corrupt: arrives with one bit changed.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.004


class Relay:
    """Carries datagrams between any number of clients and one target until it is closed.

    `counts` says what was done: "carried", "dropped", "duplicated", "reordered", "corrupted", "refused" (by the
    kernel).

    Args:
        target: where clients want to get.
        faults: in both directions.
        seed: for the faults.
    """

    def __init__(self, target: tuple[str, int], faults: Faults, seed: int = 1) -> None:
        self.target = target
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._front = self._socket()
        self._front.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._front.getsockname()
        self._clients: dict[tuple[str, int], socket.socket] = {}
        self._owners: dict[socket.socket, tuple[str, int]] = {}
        self._late: list[tuple[float, int, socket.socket, tuple[str, int], bytes]] = []
        self._serial = 0
        self._waker, self._wakee = socket.socketpair()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._selector.register(self._wakee, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._stopping = False
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop carrying; what is delayed is lost."""
        self._stopping = True
        self._waker.send(b"x")
        self._thread.join()
        for sock in (self._front, self._waker, self._wakee, *self._owners):
            sock.close()
        self._selector.close()

    @staticmethod
    def _socket() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        return sock

    def _run(self) -> None:
        while not self._stopping:
            wait = None if not self._late else max(0.0, self._late[0][0] - time.monotonic())
            for key, _ in self._selector.select(wait):
                if key.fileobj is not self._wakee:
                    self._drain(key.fileobj)  # type: ignore[arg-type]
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                _, _, sock, to, data = heapq.heappop(self._late)
                self._send(sock, to, data)

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, sender = sock.recvfrom(BIGGEST)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier datagram
                continue
            if sock is self._front:
                back = self._clients.get(sender)
                if back is None:
                    back = self._socket()
                    self._clients[sender] = back
                    self._owners[back] = sender
                    self._selector.register(back, selectors.EVENT_READ)
                self._mangle(back, self.target, data)
            else:
                self._mangle(self._front, self._owners[sock], data)

    def _mangle(self, sock: socket.socket, to: tuple[str, int], data: bytes) -> None:
        faults, draw = self.faults, self._random.random
        if draw() < faults.drop:
            self.counts["dropped"] += 1
            return
        copies = 1
        if draw() < faults.duplicate:
            self.counts["duplicated"] += 1
            copies = 2
        if data and draw() < faults.corrupt:
            self.counts["corrupted"] += 1
            changed = bytearray(data)
            changed[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            data = bytes(changed)
        late = draw() < faults.reorder
        for _ in range(copies):
            if late:
                self.counts["reordered"] += 1
                self._serial += 1
                heapq.heappush(self._late, (time.monotonic() + faults.delay, self._serial, sock, to, data))
                late = False
            else:
                self._send(sock, to, data)

    def _send(self, sock: socket.socket, to: tuple[str, int], data: bytes) -> None:
        try:
            sock.sendto(data, to)
            self.counts["carried"] += 1
        except OSError:
            self.counts["refused"] += 1
