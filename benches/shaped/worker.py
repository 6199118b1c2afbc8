"""One end of one bulk flow, for `benches.shaped.flows`, which starts it in a namespace.

    python -m benches.shaped.worker ours|tcp listen source|sink CONTROLLER ADDRESS
    python -m benches.shaped.worker ours|tcp dial source|sink CONTROLLER ADDRESS PORT [KEY]

Who listens prints where, who dials says when it is connected. A source waits for the order `SECONDS BYTES` (whichever
comes first, 0: no limit), sends, and prints what it did; a sink prints what came when. Each line is JSON; times are
those of CLOCK_MONOTONIC, which all processes of a machine share. Both sides hash what they send and get.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import sys
import time
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

from burstwire import Config, Connection, Endpoint, KeyPair, PublicKey, Stream, bind

__all__ = ["main"]

CHUNK = 64 * 1024
READ = 1 << 20

SO_MAX_PACING_RATE = 47
PACED = 1 << 30
"""Bytes per second, beyond any link here: with a limit, whatever it is, TCP paces itself at a little more than its
window a round trip, as it does under the queueing discipline fq."""

INTERVAL = 0.05
"""Seconds between samples."""


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class _Arrivals:
    """What came when: the sum in bytes about every `INTERVAL`, and the longest silence."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self.bytes = 0
        self.last = 0.0
        self.silence = 0.0
        self.digest = sha256()

    def add(self, data: memoryview) -> None:
        now = time.monotonic()
        if self.last:
            self.silence = max(self.silence, now - self.last)
        self.last = now
        self.bytes += len(data)
        self.digest.update(data)
        if not self.samples or now >= self.samples[-1][0] + INTERVAL:
            self.samples.append((now, self.bytes))

    def say(self, **more: Any) -> None:
        _say(
            samples=self.samples, bytes=self.bytes, ended=self.last, silence=self.silence,
            digest=self.digest.hexdigest(), **more,
        )  # fmt: skip


class _Source:
    """What is sent: chunks of one pattern, each begun somewhere else, until a time or an amount is reached."""

    def __init__(self, order: str) -> None:
        seconds, count = order.split()
        self.started = time.monotonic()
        self._end = self.started + float(seconds) if float(seconds) else float("inf")
        self._left = int(count) or 1 << 62
        self._pattern = memoryview(random.Random(7).randbytes(4 * CHUNK))
        self.bytes = 0
        self.digest = sha256()

    def next(self) -> memoryview:
        """Empty at the end."""
        if time.monotonic() >= self._end:
            return self._pattern[:0]
        start = self.bytes % (3 * CHUNK - 1)
        chunk = self._pattern[start : start + min(CHUNK, self._left)]
        self._left -= len(chunk)
        self.bytes += len(chunk)
        self.digest.update(chunk)
        return chunk

    def say(self, **more: Any) -> None:
        _say(started=self.started, bytes=self.bytes, digest=self.digest.hexdigest(), **more)


# --- burstwire --------------------------------------------------------------------------------------------------------


async def _ours(dials: bool, source: bool, controller: str, address: str, port: int, key: str) -> None:
    own = KeyPair.generate()
    local = (("::" if ":" in address else "0.0.0.0", 0)) if dials else (address, 0)
    async with await bind(local, own, config=Config(congestion=controller)) as endpoint:
        if dials:
            connection = await endpoint.connect((address, port), PublicKey.parse(key))
            stream = await connection.open_stream()
            await stream.write(b"!")
            _say(connected=True)
        else:
            _say(port=endpoint.local_address[1], key=str(own.public))
            connection = await anext(endpoint.incoming())
            stream = await anext(connection.incoming_streams())
            await stream.read(1)
        if source:
            await _ours_send(endpoint, connection, stream)
        else:
            arrivals = _Arrivals()
            buffer = memoryview(bytearray(READ))
            while count := await stream.readinto(buffer):
                arrivals.add(buffer[:count])
            arrivals.say(stats=connection.stats(), endpoint=endpoint.stats())
            await connection.wait_closed()


async def _ours_send(endpoint: Endpoint, connection: Connection, stream: Stream) -> None:
    order = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    trace: list[dict[str, float]] = []

    async def watch() -> None:
        while True:
            trace.append({"time": time.monotonic(), **connection.stats()})
            await asyncio.sleep(INTERVAL)

    watching = asyncio.create_task(watch())
    source = _Source(order)
    while chunk := source.next():
        await stream.write(chunk)
    await stream.finish()
    while connection.stats()["bytes_in_flight"]:
        await asyncio.sleep(INTERVAL)
    watching.cancel()
    source.say(stats=connection.stats(), endpoint=endpoint.stats(), trace=trace)
    await connection.close()


# --- the kernel's TCP -------------------------------------------------------------------------------------------------


def _control(connection: socket.socket, controller: str) -> None:
    name, _, paced = controller.partition("-")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    if paced:
        connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, PACED)


def _tcp(dials: bool, source: bool, controller: str, address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack:
        if dials:
            connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            _control(connection, controller)
            connection.connect((address, port))
            _say(connected=True)
        else:
            listener = stack.enter_context(socket.create_server((address, 0), family=family))
            _control(listener, controller)
            _say(port=listener.getsockname()[1])
            connection = stack.enter_context(listener.accept()[0])
        if source:
            sent = _Source(sys.stdin.readline())
            while chunk := sent.next():
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            sent.say()
        else:
            arrivals = _Arrivals()
            buffer = memoryview(bytearray(READ))
            while count := connection.recv_into(buffer):
                arrivals.add(buffer[:count])
            arrivals.say()


def main() -> None:
    """What one process does."""
    parser = argparse.ArgumentParser(prog="python -m benches.shaped.worker", description=__doc__.split("\n", 1)[0])
    parser.add_argument("kind", choices=("ours", "tcp"))
    parser.add_argument("role", choices=("listen", "dial"))
    parser.add_argument("what", choices=("source", "sink"))
    parser.add_argument("controller")
    parser.add_argument("address")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("key", nargs="?", default="")
    options = parser.parse_args()
    which = options.role == "dial", options.what == "source", options.controller, options.address, options.port
    if options.kind == "tcp":
        _tcp(*which)
    else:
        asyncio.run(_ours(*which, options.key))


if __name__ == "__main__":
    main()
