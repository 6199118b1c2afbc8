"""A node under a flood: the processes of the scene, each driven by JSON lines on its standard input.

- `node` has the endpoint under attack. It takes in (or gives out) one bulk transfer, echoes the first message of every
  other connection, counts X25519 operations, and has a timer of 20 ms.
- `sender` is the peer of that transfer.
- `flooder` sends prepared datagrams at a fixed rate, as many as one process can: many to a system call.

The test process only directs; so on two processors the node shares them with a sender and a flooder. What the flood
costs is the difference to a flooder that is as busy and sends the same to a socket that nobody reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from hashlib import blake2s
from pathlib import Path
from typing import Any, Final, Self

ROOT: Final = Path(__file__).resolve().parents[2]

KINDS: Final = {
    "strangers": "without the public key",
    "forged": "with a good mac1 and nonsense inside",
    "proofs": "with a good mac1, nonsense inside and a mac2 that proves nothing",
    "replayed": "genuine, 64 of them sent again and again",
}
"""What floods: INITIATEs of these kinds."""

PREPARED: Final = 2048
"""Different datagrams, sent in turn. Genuine ones are fewer: who records them has few."""

GENUINE: Final = 64

SIZE: Final = 1200
SLOT_ROWS: Final = 50
"""Datagrams to a slot of 64 KiB."""

TICK: Final = 0.001
"""Seconds between two bursts of the flooder."""

TIMER: Final = 0.020
"""Seconds: the interval of the node's timer."""

CHUNK: Final = 1 << 18


class Role:
    """One process of the scene, and the line to it."""

    def __init__(self, role: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, role, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._role = role
        self.info: dict[str, Any] = {}

    def ask(self, timeout: float = 30.0, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; raises AssertionError when the process died or hangs."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.answer(timeout)

    def answer(self, timeout: float = 30.0) -> dict[str, Any]:
        """The next line that it prints."""
        assert self._process.stdout is not None
        guard = threading.Timer(timeout, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        assert line, f"the {self._role} ended with code {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        self.info = self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


# --- the flooder --------------------------------------------------------------------------------


def prepare(kind: str, public: bytes) -> list[bytes]:
    """The datagrams of a kind, for the node with this public key."""
    rng = random.Random(1)
    if kind == "replayed":
        return [genuine(public) for _ in range(GENUINE)]
    made = []
    key = blake2s(b"mac1----" + public).digest()
    for number in range(PREPARED):
        body = b"\x01" + (1).to_bytes(4) + number.to_bytes(4) + b"\0" + rng.randbytes(SIZE - 10 - 32)
        mac1 = rng.randbytes(16) if kind == "strangers" else blake2s(body, key=key, digest_size=16).digest()
        made.append(body + mac1 + (rng.randbytes(16) if kind == "proofs" else bytes(16)))
    return made


def genuine(public: bytes) -> bytes:
    """An INITIATE as an honest stranger sends it."""
    from burstwire import Config, KeyPair, PublicKey
    from burstwire.crypto.noise import StaticKey
    from burstwire.proto import negotiation
    from burstwire.proto.handshake import Initiator

    key = KeyPair.generate()
    offered = negotiation.offer(Config(), (1,), os.urandom(16), 212_992, bytes(24), os.urandom(8))
    initiator = Initiator(
        StaticKey(key.private_bytes()),
        PublicKey(public),
        offered,
        version=1,
        local_cid=int.from_bytes(os.urandom(4)),
        preshared_key=None,
        random=os.urandom,
    )
    return initiator.datagram(None)


class Flooder:
    """Prepared datagrams on their way to one address, `spread` over so many source addresses."""

    def __init__(self, port: int, kind: str, public: bytes, spread: int) -> None:
        from burstwire.core import BufferRing, TrainTable, UdpSocket
        from burstwire.core.address import ANY_LOCAL, pack_address

        datagrams = prepare(kind, public)
        self.socket = UdpSocket(("0.0.0.0", 0), gso=False)
        self.ring = BufferRing(-(-len(datagrams) // SLOT_ROWS))
        target = pack_address("127.0.0.1", port)
        self._places = []
        for number, datagram in enumerate(datagrams):
            if number % SLOT_ROWS == 0:
                slot = self.ring.lease()
            start = number % SLOT_ROWS * SIZE
            self.ring.views[slot][start : start + SIZE] = datagram
            self._places.append((slot, start))
        self._paths = [target + ANY_LOCAL]
        if spread > 1:
            self._paths = [
                target + pack_address(f"127.{1 + n // 62500}.{n // 250 % 250}.{1 + n % 250}", 0) for n in range(spread)
            ]
        self._table = TrainTable(self.ring, 512)
        self._next = 0

    def burst(self, count: int) -> int:
        """Send the next ones, at most 512; how many the kernel took."""
        table = self._table
        table.clear()
        for number in range(self._next, self._next + min(count, 512)):
            slot, start = self._places[number % len(self._places)]
            table.append(slot, start, SIZE, 0, 0, self._paths[number % len(self._paths)])
        sent = self.socket.send(table)
        self._next += sent
        return sent

    def run(self, rate: float, seconds: float, stop: threading.Event) -> dict[str, float]:
        """Flood at most so long."""
        started = time.monotonic()
        sent = skipped = 0
        while not stop.is_set() and (elapsed := time.monotonic() - started) < seconds:
            due = int(elapsed * rate) - sent - skipped
            if due <= 0:
                time.sleep(TICK)
                continue
            excess = max(0, due - int(rate / 10))  # what the machine cannot send is not owed
            skipped += excess
            sent += self.burst(due - excess)
        return {"sent": sent, "seconds": time.monotonic() - started}


def flooder(port: int, public: str) -> None:
    """Floods when told to, until told to end."""
    import socket

    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    _say(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        target = sink.getsockname()[1] if command["idle"] else port
        flood = Flooder(target, command["kind"], bytes.fromhex(public), command["spread"])
        stop = threading.Event()
        result: dict[str, float] = {}
        worker = threading.Thread(target=lambda: result.update(flood.run(command["rate"], command["seconds"], stop)))  # noqa: B023
        _say(started=True)
        worker.start()
        sys.stdin.readline()  # "enough"
        stop.set()
        worker.join()
        flood.socket.close()
        flood.ring.close()
        _say(**result)


# --- the node and its peer ----------------------------------------------------------------------


def node(options: dict[str, Any]) -> None:
    """The endpoint under attack."""
    asyncio.run(_node(options))


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


class Clock:
    """A timer of 20 ms and how late it was: altogether, and without the time for which no processor was free."""

    def __init__(self) -> None:
        self.late: list[tuple[float, float]] = []
        self._loop = asyncio.get_running_loop()
        self._waited = self._wait()
        self._due = self._loop.time() + TIMER
        self._loop.call_at(self._due, self._fire)

    @staticmethod
    def _wait() -> float:
        """Seconds that this thread was ready to run and did not (Documentation/scheduler/sched-stats)."""
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9

    def _fire(self) -> None:
        late, waited = self._loop.time() - self._due, self._wait()
        self.late.append((late, max(0.0, late - (waited - self._waited))))
        self._waited = waited
        self._due = self._loop.time() + TIMER
        self._loop.call_at(self._due, self._fire)

    def look(self) -> dict[str, float]:
        """The worst since the last look, in seconds."""
        late, self.late = self.late or [(0.0, 0.0)], []
        return {"late": max(all_of_it for all_of_it, _ in late), "late_own": max(own for _, own in late)}


class Multiplications:
    """Counts X25519 operations of this process."""

    def __init__(self) -> None:
        from burstwire.crypto import noise

        self.count = 0
        exchange = noise._exchange

        def counted(*arguments: Any) -> bytes:
            self.count += 1
            return exchange(*arguments)

        noise._exchange = counted


async def _node(options: dict[str, Any]) -> None:
    import burstwire as bw

    multiplications = Multiplications()
    key = bw.KeyPair.generate()
    moved = 0

    async def take(connection: bw.Connection) -> None:
        nonlocal moved
        try:
            first = await connection.recv()
            if first == b"take":
                async for stream in connection.incoming_streams():
                    buffer = bytearray(CHUNK)
                    while n := await stream.readinto(buffer):
                        moved += n
            elif first == b"give":
                stream = await connection.open_stream()
                while True:
                    await stream.write(bytes(CHUNK))
                    moved += CHUNK
            else:
                while True:
                    await connection.send(first)
                    first = await connection.recv()
        except bw.TransportError:
            pass

    endpoint = await bw.bind("0.0.0.0:0", key, config=bw.Config(**options))
    async with endpoint:
        tasks: set[asyncio.Task[None]] = set()

        async def accept() -> None:
            async for connection in endpoint.incoming():
                task = asyncio.create_task(take(connection))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        accepting = asyncio.create_task(accept())
        lines = await _lines()
        _say(port=endpoint.local_address[1], key=bytes(key.public).hex(), pid=os.getpid())
        clock = Clock()
        while await lines.readline():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            _say(
                now=time.monotonic(),
                cpu=usage.ru_utime + usage.ru_stime,
                moved=moved,
                rss=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
                x25519=multiplications.count,
                stats=endpoint.stats(),
                **clock.look(),
            )
        accepting.cancel()
        for task in tasks:
            task.cancel()


def sender(port: int, public: str, what: str) -> None:
    """The peer of the transfer; it goes on until its input ends."""
    asyncio.run(_sender(port, public, what))


async def _sender(port: int, public: str, what: str) -> None:
    import burstwire as bw

    endpoint = await bw.bind("127.0.0.1:0", bw.KeyPair.generate())
    async with endpoint:
        connection = await endpoint.connect(("127.0.0.1", port), bw.PublicKey(bytes.fromhex(public)))
        await connection.send(what.encode())
        moved = 0

        async def transfer() -> None:
            nonlocal moved
            if what == "take":
                stream = await connection.open_stream()
                data = bytes(CHUNK)
                while True:
                    await stream.write(data)
                    moved += CHUNK
            async for stream in connection.incoming_streams():
                buffer = bytearray(CHUNK)
                while n := await stream.readinto(buffer):
                    moved += n

        task = asyncio.create_task(transfer())
        lines = await _lines()
        _say(ready=True)
        while await lines.readline():
            _say(now=time.monotonic(), moved=moved, alive=not task.done(), stats=connection.stats())
        task.cancel()


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "flooder":
        flooder(int(rest[0]), rest[1])
    elif name == "node":
        node(json.loads(rest[0]))
    else:
        sender(int(rest[0]), rest[1], rest[2])
