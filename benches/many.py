"""Many at once: bulk on many endpoints, connections and streams against one endpoint of another process.

    python -m benches.many --endpoints 32                       how 32 peers share one socket
    python -m benches.many --connections 16 --streams 8         how fair it is
    python -m benches.many --direction both                     both directions at once

The endpoints are those of this process; the other process has one endpoint, the hub, with one socket. The clock runs
when all connections are made, and stops when the hub, or this process, has every byte and has said so. Fairness is
Jain's index, (Σx)²/(n Σx²), over what each stream had got when the first one was complete: 1 is equal shares, 1/n is
all for one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import burstwire as bw
from benches.harness import ROOT
from benches.machine import aead_words
from benches.peers.pattern import BLOCK, blocks, digest

__all__ = ["DIRECTIONS", "Outcome", "jain", "transfer"]

MIB = 1 << 20
DIRECTIONS = ("up", "down", "both")
HUB_COUNTS = ("kernel_drops", "receive_buffer", "recv_calls", "trains_received", "datagrams_received", "send_calls")
SAMPLE = 64
QUIET = {"idle_timeout": 600.0, "keep_alive": 0.0}

_expected: list[bytes] = []


def jain(shares: Iterable[float]) -> float:
    """Jain's fairness index."""
    known = list(shares)
    squares = sum(share * share for share in known)
    return sum(known) ** 2 / (len(known) * squares) if squares else 0.0


@dataclass
class Progress:
    """What each stream of this process has received. `at_first_end` is a copy of it from that moment."""

    size: int
    hash_all: bool
    received: dict[tuple[int, int], int] = field(default_factory=dict)
    at_first_end: dict[tuple[int, int], int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        connections: dict[int, int] = {}
        for (connection, _), size in self.at_first_end.items():
            connections[connection] = connections.get(connection, 0) + size
        return {
            "bytes": sum(self.received.values()),
            "streams": len(self.received),
            "jain_streams": jain(self.at_first_end.values()),
            "jain_connections": jain(connections.values()),
            "least_share": min(self.at_first_end.values(), default=0) / self.size,
        }


async def give(connection: bw.Connection, streams: int, size: int) -> None:
    """Send `size` bytes on each of so many new streams."""

    async def one() -> None:
        async with await connection.open_stream() as stream:
            for block in blocks(size):
                await stream.write(block)
            await stream.finish()
            await stream.read(1)  # the reader ends its half when it has everything

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(one())


async def take(connection: bw.Connection, number: int, streams: int, progress: Progress) -> None:
    """Receive what `give` sends, and check it."""
    if not _expected:
        _expected.extend(blocks(5 * BLOCK))

    async def one(index: int, stream: bw.Stream) -> None:
        key = number, index
        buffer = bytearray(BLOCK)
        view = memoryview(buffer)
        hasher = sha256() if progress.hash_all else None
        got = progress.received[key] = 0
        async with stream:
            while n := await stream.readinto(buffer):
                at = got % BLOCK
                sample = min(SAMPLE, n, BLOCK - at)
                if view[:sample] != _expected[got // BLOCK % 5][at : at + sample]:
                    raise AssertionError(f"wrong bytes at offset {got:,} of stream {index} of connection {number}")
                if hasher is not None:
                    hasher.update(view[:n])
                got = progress.received[key] = got + n
                if got == progress.size and not progress.at_first_end:
                    progress.at_first_end.update(progress.received)
        assert got == progress.size, f"{got:,} of {progress.size:,} bytes arrived"
        if hasher is not None:
            assert hasher.hexdigest() == digest(progress.size), "the bytes that arrived have another hash"

    incoming = aiter(connection.incoming_streams())
    async with asyncio.TaskGroup() as tasks:
        for index in range(streams):
            tasks.create_task(one(index, await anext(incoming)))


# the hub


async def _hub() -> None:
    config = bw.Config(**json.loads(sys.argv[2]))
    progress: list[Progress] = []

    async def handle(number: int, connection: bw.Connection) -> None:
        async for message in connection:
            order = json.loads(message)
            if order["do"] == "report":
                found = progress[0].summary() if progress else {}
                stats = hub.stats()
                found.update({name: stats[f"socket_{name}"] for name in HUB_COUNTS})
                await connection.send(json.dumps(found).encode())
                continue
            if not progress:
                progress.append(Progress(order["size"], order["hash_all"]))
            async with asyncio.TaskGroup() as tasks:
                if order["direction"] in ("up", "both"):
                    tasks.create_task(take(connection, number, order["streams"], progress[0]))
                if order["direction"] in ("down", "both"):
                    tasks.create_task(give(connection, order["streams"], order["size"]))
            await connection.send(b"done")

    async with await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as hub:
        print(json.dumps({"port": hub.local_address[1], "key": str(hub.public_key)}), flush=True)
        done = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, done.set)

        async def accept() -> None:
            async with asyncio.TaskGroup() as tasks:
                number = 0
                async for connection in hub.incoming():
                    tasks.create_task(handle(number, connection))
                    number += 1

        accepting = asyncio.create_task(accept())
        waiting = asyncio.create_task(done.wait())
        await asyncio.wait((accepting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if accepting.done():
            accepting.result()  # a failure in a connection ends the hub, with its traceback
        accepting.cancel()


# this process


@dataclass
class Outcome:
    """What came of one transfer.

    Attributes:
        seconds: from the first write until everything was received.
        bytes: of both directions together.
        up: the hub's summary of what it received. down: ours.
        about: granted buffers, and what our connections lost.
    """

    seconds: float
    bytes: int
    up: dict[str, Any]
    down: dict[str, Any]
    about: dict[str, Any]

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds


def transfer(
    *,
    endpoints: int = 1,
    connections: int = 1,
    streams: int = 1,
    size: int,
    direction: str = "up",
    hash_all: bool = False,
    settings: dict[str, Any] | None = None,
    begins: Callable[[int], None] | None = None,
) -> Outcome:
    """`size` bytes on each stream, of so many streams on each of so many connections of each endpoint.

    `begins` is called with the process id of the hub when all connections are made.
    """
    return asyncio.run(_transfer(endpoints, connections, streams, size, direction, hash_all, settings or {}, begins))


async def _transfer(
    count: int,
    connections: int,
    streams: int,
    size: int,
    direction: str,
    hash_all: bool,
    settings: dict[str, Any],
    begins: Callable[[int], None] | None,
) -> Outcome:
    given = {**QUIET, **settings}
    config = bw.Config(**given)
    hub = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benches.many", "hub", json.dumps(given),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert hub.stdin is not None
    assert hub.stdout is not None
    try:
        info = json.loads(await hub.stdout.readline())
        address, key = ("127.0.0.1", info["port"]), bw.PublicKey.parse(info["key"])
        async with AsyncExitStack() as stack:
            made = []
            for _ in range(count):
                own = await stack.enter_async_context(
                    await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config)
                )
                made += [await own.connect(address, key) for _ in range(connections)]
            order = {
                "do": "transfer", "direction": direction, "streams": streams, "size": size, "hash_all": hash_all
            }  # fmt: skip
            progress = Progress(size, hash_all)

            async def one(number: int, connection: bw.Connection) -> None:
                await connection.send(json.dumps(order).encode())
                async with asyncio.TaskGroup() as tasks:
                    if direction in ("up", "both"):
                        tasks.create_task(give(connection, streams, size))
                    if direction in ("down", "both"):
                        tasks.create_task(take(connection, number, streams, progress))
                assert await connection.recv() == b"done"

            if begins is not None:
                begins(hub.pid)
            started = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for number, connection in enumerate(made):
                    tasks.create_task(one(number, connection))
            seconds = time.perf_counter() - started
            await made[0].send(b'{"do": "report"}')
            up = json.loads(await made[0].recv())
            stats = own.stats()
            about = {
                "aead": aead_words(None),
                "receive_buffer": stats["socket_receive_buffer"],
                "send_buffer": stats["socket_send_buffer"],
                "kernel_drops": up["kernel_drops"] + stats["socket_kernel_drops"],
                **{name: sum(each.stats()[name] for each in made) for name in ("packets_sent", "packets_lost")},
            }
            leased = stats["ring_leased"]
        down = progress.summary()
        expected = count * connections * streams * size
        ways = [side["bytes"] for side, used in ((up, direction != "down"), (down, direction != "up")) if used]
        assert ways == [expected] * len(ways), f"{ways} bytes arrived instead of {expected:,} each way"
        assert leased == 0, f"{leased} slots were not given back"
        return Outcome(seconds, sum(ways), up, down, about)
    finally:
        hub.stdin.close()
        async with asyncio.timeout(30):
            await hub.wait()


def main() -> None:
    """One transfer from the command line."""
    if sys.argv[1:2] == ["hub"]:
        asyncio.run(_hub())
        return
    parser = argparse.ArgumentParser(prog="python -m benches.many", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1, help="of each endpoint")
    parser.add_argument("--streams", type=int, default=1, help="of each connection")
    parser.add_argument("--mib", type=int, default=256, help="of all streams together")
    parser.add_argument("--direction", choices=DIRECTIONS, default="up")
    parser.add_argument("--hash-all", action="store_true")
    parser.add_argument("--datagram", type=int, default=0, help="bytes of UDP payload; discovered unless given")
    parser.add_argument("--announce", action="store_true", help="print the hub's process id first, the result as JSON")
    options = parser.parse_args()
    size = options.mib * MIB // (options.endpoints * options.connections * options.streams)
    outcome = transfer(
        endpoints=options.endpoints, connections=options.connections, streams=options.streams, size=size,
        direction=options.direction, hash_all=options.hash_all,
        settings={"max_datagram_size": options.datagram} if options.datagram else None,
        begins=(lambda hub: print(hub, flush=True)) if options.announce else None,
    )  # fmt: skip
    if options.announce:
        print(json.dumps({"rate": outcome.rate, "about": outcome.about}))
        return
    print(f"{outcome.rate / 1e6:,.0f} MB/s in {outcome.seconds:.2f} s; {outcome.about}")
    print(f"up: {outcome.up}")
    print(f"down: {outcome.down}")


if __name__ == "__main__":
    main()
