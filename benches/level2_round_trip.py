"""Level 2: one datagram of 100 bytes there and back between two processes, by everything that can send one.

Both sides work the same way. The time is that of the system calls, of two wake-ups and of the event loop; nothing is
encrypted. It is what a request and its response cannot do without.
"""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches.contest import Contest, Way
from burstwire.core import ANY_LOCAL, BufferRing, RunTable, TrainTable, UdpSocket, pack_address

ROOT = Path(__file__).resolve().parent.parent
SIZE = 100
LOCALHOST = ("127.0.0.1", 0)

BLOCKING = "blocking sockets"
WAYS = (
    BLOCKING,
    "UdpSocket and epoll",
    "asyncio, DatagramProtocol",
    "uvloop, DatagramProtocol",
    "asyncio, UdpSocket",
    "uvloop, UdpSocket",
)


def message(number: int) -> bytes:
    """The datagram with this number; no burstwire packet."""
    return b"\x20" + number.to_bytes(3, "big") + bytes(SIZE - 4)


class Udp:
    """Our socket, one datagram at a time."""

    def __init__(self) -> None:
        self.socket = UdpSocket(LOCALHOST)
        self.ring = BufferRing(2)
        self.runs = RunTable()
        self.trains = TrainTable(self.ring)

    def send(self, slot: int, start: int, size: int, path: bytes) -> None:
        self.trains.clear()
        self.trains.append(slot, start, size, 0, 0, path)
        assert self.socket.send(self.trains) == 1

    def post(self, data: bytes, path: bytes) -> None:
        """Send a new datagram."""
        slot = self.ring.lease()
        self.ring.views[slot][: len(data)] = data
        self.send(slot, 0, len(data), path)
        self.ring.release(slot)

    def take(self) -> bytes | None:
        """The datagram that is there, if one is."""
        found = None
        if self.socket.recv(self.ring, self.runs, 1):
            for record in self.runs.records():
                found = bytes(self.ring.views[record[2]][record[3] : record[3] + record[5]])
            self.runs.release(self.ring)
        return found

    def echo(self) -> None:
        """Send back what is there, from the slot where it lies."""
        if self.socket.recv(self.ring, self.runs, 1):
            for record in self.runs.records():
                self.send(record[2], record[3], record[5], record[9])
            self.runs.release(self.ring)


class Echo(asyncio.DatagramProtocol):
    """Sends everything back."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


class Asking(Echo):
    """Sends the next one when the answer to the last one is there."""

    def start(self, count: int, target: tuple[str, int], done: asyncio.Future[int]) -> None:
        self.count, self.target, self.done = count, target, done
        self.number = 0
        self.transport.sendto(message(0), target)

    def datagram_received(self, data: bytes, address: Any) -> None:
        assert data == message(self.number)
        self.number += 1
        if self.number == self.count:
            self.done.set_result(self.number)
        else:
            self.transport.sendto(message(self.number), self.target)


def _factory(way: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if way.startswith("uvloop"):
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def serve(way: str) -> None:
    """The answering process: prints its port, and answers until it is ended."""
    if way == BLOCKING:
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plain.bind(LOCALHOST)
        print(plain.getsockname()[1], flush=True)
        while True:
            plain.sendto(*plain.recvfrom(2048))
    if way == "UdpSocket and epoll":
        udp, poll = Udp(), select.epoll()
        poll.register(udp.socket.fileno(), select.EPOLLIN)
        print(udp.socket.local_address[1], flush=True)
        while True:
            poll.poll()
            udp.echo()
    with asyncio.Runner(loop_factory=_factory(way)) as runner:
        runner.run(_serve_in_loop(way))


async def _serve_in_loop(way: str) -> None:
    loop = asyncio.get_running_loop()
    if way.endswith("UdpSocket"):
        udp = Udp()
        loop.add_reader(udp.socket.fileno(), udp.echo)
        print(udp.socket.local_address[1], flush=True)
    else:
        transport, _ = await loop.create_datagram_endpoint(Echo, LOCALHOST)
        print(transport.get_extra_info("sockname")[1], flush=True)
    await loop.create_future()


def _ask(way: str) -> Way:
    def work(count: int) -> float:
        server = subprocess.Popen(
            [sys.executable, "-m", "benches.level2_round_trip", way], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            target = ("127.0.0.1", int(server.stdout.readline()))
            if way == BLOCKING:
                return _blocking(count, target)
            if way == "UdpSocket and epoll":
                return _epoll(count, target)
            with asyncio.Runner(loop_factory=_factory(way)) as runner:
                return runner.run(_in_loop(way, count, target))
        finally:
            server.terminate()
            server.communicate()

    return work


def _blocking(count: int, target: tuple[str, int]) -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.settimeout(5)
        plain.sendto(message(0), target)
        plain.recv(2048)
        plain.settimeout(None)
        started = time.perf_counter()
        for number in range(count):
            plain.sendto(message(number), target)
            assert plain.recv(2048) == message(number)
        return time.perf_counter() - started


def _epoll(count: int, target: tuple[str, int]) -> float:
    udp, path = Udp(), pack_address(*target) + ANY_LOCAL
    with select.epoll() as poll, udp.socket:
        poll.register(udp.socket.fileno(), select.EPOLLIN)
        started = time.perf_counter()
        for number in range(count):
            udp.post(message(number), path)
            assert poll.poll(5)
            assert udp.take() == message(number)
        return time.perf_counter() - started


async def _in_loop(way: str, count: int, target: tuple[str, int]) -> float:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    if way.endswith("UdpSocket"):
        udp, path = Udp(), pack_address(*target) + ANY_LOCAL
        number = 0

        def on_readable() -> None:
            nonlocal number
            data = udp.take()
            if data is None:
                return
            assert data == message(number)
            number += 1
            if number == count:
                done.set_result(number)
            else:
                udp.post(message(number), path)

        loop.add_reader(udp.socket.fileno(), on_readable)
        started = time.perf_counter()
        udp.post(message(0), path)
        async with asyncio.timeout(60):
            assert await done == count
        seconds = time.perf_counter() - started
        loop.remove_reader(udp.socket.fileno())
        udp.socket.close()
        return seconds
    transport, protocol = await loop.create_datagram_endpoint(Asking, LOCALHOST)
    started = time.perf_counter()
    protocol.start(count, target, done)
    async with asyncio.timeout(60):
        assert await done == count
    seconds = time.perf_counter() - started
    transport.close()
    return seconds


ROUND_TRIPS = Contest(
    f"a datagram of {SIZE} bytes there and back",
    "us_per_round_trip",
    {way: _ask(way) for way in WAYS},
    base=BLOCKING,
    count=3_000,
    quick_count=50,
    scale=1e6,
    rounds=5,
)


@pytest.mark.parametrize("way", WAYS)
def test_round_trip(benchmark: Any, way: str) -> None:
    ROUND_TRIPS.report(benchmark, way, bytes=SIZE)


if __name__ == "__main__":
    serve(sys.argv[1])
