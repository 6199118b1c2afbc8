"""Level 2: datagrams through the loopback, from one process to another: one by one, batched, segmented by the kernel.

The receiver is a process of its own and tells what arrived; a credit window keeps its socket buffer from overflowing,
so that nothing is lost and every datagram is counted. Python's own socket module stands beside our way of sending one
by one, which must not be slow itself: it is the base of what batches are compared with.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benches.contest import Contest, Way
from burstwire.core import (
    ANY_LOCAL,
    BufferRing,
    FillTable,
    RunTable,
    StreamRing,
    TrainTable,
    UdpSocket,
    pack_address,
)

ROOT = Path(__file__).resolve().parent.parent

SIZE = 1200
TRAIN = 54
WINDOW = 512
"""Datagrams under way at most: their bookkeeping fits the smallest receive buffer that systems grant by default."""

BURSTS = (1, 10, 64)
WAYS = ("socket", "portable", "mmsg", "gso")
"""sendto and recvfrom of the standard library; ours one by one; sendmmsg and recvmmsg; the same with GSO and GRO."""


def _open(way: str) -> UdpSocket:
    backend = "portable" if way == "portable" else "mmsg"
    return UdpSocket(("127.0.0.1", 0), backend=backend, gso=way == "gso", gro=way == "gso")


def receive(way: str, count: int) -> None:
    """The receiving process: prints its port, acknowledges every half window, prints what it counted."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM) if way == "socket" else None
    ours = None
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        plain.bind(("127.0.0.1", 0))
        port = plain.getsockname()[1]
        granted = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    else:
        ours = _open(way)
        port = ours.local_address[1]
        granted = ours.receive_buffer
    print(port, flush=True)
    back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender = ("127.0.0.1", int(sys.stdin.readline()))
    got = size = reported = calls = 0
    if plain is not None:
        buffer = bytearray(65536)
        while got < count:
            n = plain.recv_into(buffer)
            calls += 1
            got += 1
            size += n
            if got - reported >= WINDOW // 4 or got == count:
                back.sendto(struct.pack(">Q", got), sender)
                reported = got
    else:
        import select

        assert ours is not None
        ring, table = BufferRing(16), RunTable()
        poll = select.epoll()
        poll.register(ours.fileno(), select.EPOLLIN)
        while got < count:
            if not ours.recv(ring, table, 8):
                poll.poll(5)
                calls += 1
                continue
            for record in table.records():
                got += record[6]
                size += record[4] * (record[6] - 1) + record[5]
            table.release(ring)
            if got - reported >= WINDOW // 4 or got == count:
                back.sendto(struct.pack(">Q", got), sender)
                reported = got
        calls += ours.stats()["recv_calls"]
        ours.close()
    print(got, size, calls, granted, flush=True)


class Pipe:
    """A sender here and a receiver in another process."""

    def __init__(self, way: str, count: int) -> None:
        self._way = way
        self._count = count
        self._receiver = subprocess.Popen(
            [sys.executable, "-m", "benches.level2_sockets", way, str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._receiver.stdin is not None
        assert self._receiver.stdout is not None
        self._target = ("127.0.0.1", int(self._receiver.stdout.readline()))
        self._credit = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._credit.bind(("127.0.0.1", 0))
        self._credit.settimeout(5)
        self._receiver.stdin.write(f"{self._credit.getsockname()[1]}\n")
        self._receiver.stdin.flush()
        self.calls = 0
        self._opened: list[socket.socket | UdpSocket] = [self._credit]

    def send(self, burst: int) -> float:
        """Send everything, `burst` datagrams a call; the seconds until the receiver had all of it."""
        send = self._plain() if self._way == "socket" else self._ours(burst)
        step = 1 if self._way == "socket" else burst
        acknowledged = sent = 0
        started = time.perf_counter()
        while acknowledged < self._count:
            if sent < self._count and sent + step - acknowledged <= WINDOW:
                n = min(step, self._count - sent)
                send(sent, n)
                sent += n
            else:
                acknowledged = struct.unpack(">Q", self._credit.recv(8))[0]
        seconds = time.perf_counter() - started
        for each in self._opened:
            if isinstance(each, UdpSocket):
                self.calls = each.stats()["send_calls"]
        return seconds

    def _plain(self) -> Any:
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._opened.append(plain)
        packet = bytearray(SIZE)

        def send(first: int, _: int) -> None:
            struct.pack_into(">BIQ", packet, 0, 0x10, 7, first)
            plain.sendto(packet, self._target)
            self.calls += 1

        return send

    def _ours(self, burst: int) -> Any:
        udp = _open(self._way)
        self._opened.append(udp)
        ring = BufferRing(2)
        table = TrainTable(ring, 64)
        path = pack_address(*self._target) + ANY_LOCAL
        slots = [ring.lease(), ring.lease()]

        fill = FillTable()
        source = StreamRing(1 << 17)
        view, (slot_of_one, _) = ring.views[slots[0]], slots

        def send_one(number: int, _: int) -> None:
            struct.pack_into(">BIQ", view, 0, 0x10, 7, number)
            table.clear()
            table.append(slot_of_one, 0, SIZE, 0, 0, path)
            while not udp.send(table):
                time.sleep(0.0001)

        def send(first: int, n: int) -> None:
            # A train carries at most 54 of these; a burst of 64 is two. Headers are written as the bulk path does it.
            table.clear()
            fill.clear()
            for slot in slots:
                count = min(TRAIN, n)
                if count <= 0:
                    break
                length = count * (SIZE - 42)
                fill.append(first, 0, source.address, source.mask, 7, 4, slot, 0, length, SIZE, count, 0)
                table.append(slot, 0, count * SIZE, SIZE, 0, path)
                first += count
                n -= count
            fill.run(ring)
            done = 0
            while done < table.count:
                done += udp.send(table, done)
                if done < table.count:
                    time.sleep(0.0001)

        return send_one if burst == 1 else send

    def close(self) -> tuple[int, int, int, int]:
        """(datagrams, bytes, system calls) that the receiver counted, and the receive buffer that it was granted."""
        out, _ = self._receiver.communicate(timeout=10)
        for each in self._opened:
            each.close()
        datagrams, size, calls, buffer = map(int, out.split())
        return datagrams, size, calls, buffer


_last: dict[str, dict[str, float]] = {}
"""What the latest run of each way counted besides its time."""


def _through(name: str, way: str, burst: int) -> Way:
    def work(count: int) -> float:
        pipe = Pipe(way, count)
        try:
            seconds = pipe.send(burst)
        finally:
            datagrams, size, receive_calls, buffer = pipe.close()
        assert (datagrams, size) == (count, count * SIZE)
        _last[name] = {
            "send_calls_per_datagram": pipe.calls / count,
            "receive_calls_per_datagram": receive_calls / count,
            "receive_buffer": buffer,
        }
        return seconds

    return work


BARE = "socket.sendto"
ONE = "one by one"
KINDS = {
    BARE: ("socket", 1),
    ONE: ("portable", 1),
    "portable, 10": ("portable", 10),
    "portable, 64": ("portable", 64),
    **{f"{way}, {burst}": (way, burst) for way in ("mmsg", "gso") for burst in BURSTS},
}

BATCHES = Contest(
    f"datagrams of {SIZE:,} bytes through loopback",
    "packets_per_second",
    {name: _through(name, *kind) for name, kind in KINDS.items()},
    base=ONE,
    count=50_000,
    quick_count=2_000,
    scale=1.0,
    rate=True,
    rounds=5,
    targets={"gso, 64": 5.0},
    claims={"mmsg, 64": 5.0},
)


@pytest.mark.parametrize("way", KINDS)
def test_datagrams_through_loopback(benchmark: Any, way: str) -> None:
    BATCHES.report(benchmark, way)
    if not benchmark.disabled:
        benchmark.extra_info.update(
            mb_per_second=BATCHES.value(way) * SIZE / 1e6, ratio_to_sendto=BATCHES.ratio(way, BARE), **_last[way]
        )
        if way == ONE:
            benchmark.extra_info["target_to_sendto"] = 0.8


if __name__ == "__main__":
    receive(sys.argv[1], int(sys.argv[2]))
