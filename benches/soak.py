"""Level 3: everything at once for minutes, and a long stream; memory and books must stay flat.

    python -m benches.soak --seconds 150
    python -m benches.soak --steady-mib 4096

Both sides are in this process, so that nothing that either of them keeps can hide. In the soak one connection carries
streams of random length, which are hashed, another one messages of random length and their echo, a third one datagrams;
streams are given up half-way by either side, and connections come and go. What is there is sampled while it runs:
resident memory, the blocks that Python has allocated, slots that are leased, closed connections that something still
holds. After a quarter of the time, and at the
end, everything is closed: every table must be empty then, and the second time no more may be there than the first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import burstwire as bw
from benches.harness import BenchError
from benches.peers.meter import memory
from benches.report import Report, Table, say
from burstwire.crypto.aead import fastest
from burstwire.proto.connection import Connection

__all__ = ["Samples", "run", "soak", "steady"]

KIB, MIB = 1 << 10, 1 << 20
BLOCKS = 1000
"""Allocated blocks by which a steady process may grow."""

RESIDENT = 16 * MIB
"""Bytes by which its memory may grow: the allocators' slack."""

CLOSED = 256
"""Connections that are closed, and still held by something, at most: some wait for a timer that was set before."""

WARM = 0.25
"""Share of the time in which caches and pools fill."""

LONGEST_STREAM = 8 * MIB
LONGEST_MESSAGE = 20 * KIB
EVERY = 0.1
"""Seconds between two samples of the soak, at least."""

QUIET = bw.Config(keep_alive=0, idle_timeout=600, max_half_open=16)
"""Nothing happens by itself, and the table of handshakes that were used up is full after the warm-up."""


@dataclass
class Samples:
    """What was there, again and again. Arrays that are full from the start, so that looking allocates nothing."""

    capacity: int = 8192
    count: int = 0
    at_rest: list[int] = field(default_factory=list)
    """Blocks when everything was closed."""

    def __post_init__(self) -> None:
        self.blocks, self.resident, self.leased, self.closed = (array("q", bytes(8 * self.capacity)) for _ in range(4))

    def take(self, *endpoints: bw.Endpoint, closed: int = 0) -> None:
        """One sample; more than there is room for are dropped."""
        if self.count < self.capacity:
            self.leased[self.count] = sum(endpoint.stats()["ring_leased"] for endpoint in endpoints)
            self.resident[self.count] = memory().get("rss", 0)
            self.closed[self.count] = closed
            self.blocks[self.count] = sys.getallocatedblocks()
            self.count += 1

    def growth(self, values: array[int]) -> int:
        """From the least of the first quarter of what follows the warm-up to the least of the last.

        What is in use goes up and down with what goes on at that moment; what is never given back lifts the floor.
        """
        known = values[int(self.count * WARM) : self.count]
        quarter = len(known) // 4
        if not quarter:
            raise BenchError(f"{self.count} samples are too few to tell")
        return min(known[-quarter:]) - min(known[:quarter])

    def blocks_growth(self) -> int:
        """Between the two moments at rest; without such, as `growth`."""
        return self.at_rest[-1] - self.at_rest[0] if self.at_rest else self.growth(self.blocks)


@dataclass
class Counts:
    """What was done and checked."""

    streams: int = 0
    given_up: int = 0
    bytes: int = 0
    messages: int = 0
    datagrams: int = 0
    connections: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


# the soak


async def soak(seconds: float, seed: int = 1) -> tuple[Counts, Samples]:
    """Everything at once; raises when something arrives changed, or anything is left at the end."""
    rng = random.Random(seed)
    counts, samples = Counts(), Samples()
    async with (
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=QUIET) as server,
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=QUIET) as client,
    ):
        serving = asyncio.create_task(_serve(server))
        for part in (WARM, 1 - WARM):
            end = time.monotonic() + part * seconds
            looking = asyncio.create_task(_look(samples, server, client, seconds / 400))
            await _everything(server, client, rng, counts, end)
            looking.cancel()
            for _ in range(500):  # what was closed last is remembered for three PTOs
                if not server.stats()["connections"] and not client.stats()["connections"]:
                    break
                await asyncio.sleep(0.02)
            _books(server, client)
            gc.collect()
            samples.at_rest.append(sys.getallocatedblocks())
        stats = client.stats()
        counts.extra = {name: stats[f"socket_{name}"] for name in ("receive_buffer", "send_buffer")}
        await server.close()
        await serving
    return counts, samples


async def _look(samples: Samples, server: bw.Endpoint, client: bw.Endpoint, pause: float) -> None:
    while True:
        gc.collect()  # what a closed connection leaves is cyclic, and waits for a collection of the oldest
        known = sum(type(each) is Connection for each in gc.get_objects())
        samples.take(server, client, closed=known - server.stats()["connections"] - client.stats()["connections"])
        await asyncio.sleep(max(EVERY, pause))


async def _everything(server: bw.Endpoint, client: bw.Endpoint, rng: random.Random, counts: Counts, end: float) -> None:
    async def until_the_end(work: Callable[[bw.Connection], Awaitable[None]]) -> None:
        async with await client.connect(server.local_address, server.public_key) as connection:
            while time.monotonic() < end:
                await work(connection)

    async def streams(connection: bw.Connection) -> None:
        await _stream(connection, rng, counts)

    async def messages(connection: bw.Connection) -> None:
        batch = [rng.randbytes(rng.randrange(1, LONGEST_MESSAGE)) for _ in range(rng.randrange(1, 8))]
        await connection.send_many(batch)
        for each in batch:
            assert await connection.recv() == each, "a message came back changed"
        counts.messages += len(batch)

    async def datagrams(connection: bw.Connection) -> None:
        for _ in range(rng.randrange(1, 40)):
            connection.send_datagram(rng.randbytes(rng.randrange(1000)))
            counts.datagrams += 1
        await asyncio.sleep(0.002)

    async def churn() -> None:
        while time.monotonic() < end:
            async with await client.connect(server.local_address, server.public_key) as connection:
                await connection.send(b"here")
                assert await connection.recv() == b"here"
                counts.connections += 1
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as tasks:
        for work in (streams, messages, datagrams):
            tasks.create_task(until_the_end(work))
        tasks.create_task(churn())


def _books(*endpoints: bw.Endpoint) -> None:
    for endpoint in endpoints:
        stats = endpoint.stats()
        left = {name: stats[name] for name in ("ring_leased", "connections", "half_open", "attempts") if stats[name]}
        if left:
            raise BenchError(f"left behind: {left}")


async def _stream(connection: bw.Connection, rng: random.Random, counts: Counts) -> None:
    """One stream: sent to its end and confirmed by its hash, or given up half-way."""
    size = rng.randrange(1, LONGEST_STREAM)
    stop_at = rng.randrange(size) if rng.random() < 0.2 else size
    seed = rng.randbytes(64 * KIB + 1)
    hasher = blake2b()
    stream = await connection.open_stream()
    written = 0
    while written < stop_at:
        piece = memoryview(seed)[: min(len(seed), stop_at - written)]
        await stream.write(piece)
        hasher.update(piece)
        written += len(piece)
    counts.bytes += written
    if stop_at < size:
        stream.reset(7)
        stream.stop(7)
        counts.given_up += 1
        return
    await stream.finish()
    answer = b""
    while part := await stream.read(64):
        answer += part
    assert answer == hasher.digest(), "the bytes that arrived have another hash"
    counts.streams += 1


async def _serve(server: bw.Endpoint) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for connection in server.incoming():
            tasks.create_task(_echo(connection))
            tasks.create_task(_hash(connection))
            tasks.create_task(_count(connection))


async def _echo(connection: bw.Connection) -> None:
    with suppress(bw.PeerClosed):
        while True:
            await connection.send_many(await connection.recv_many())


async def _count(connection: bw.Connection) -> None:
    with suppress(bw.PeerClosed):
        while True:
            assert len(await connection.recv_datagram()) < 1000


async def _hash(connection: bw.Connection) -> None:
    with suppress(bw.PeerClosed):
        async with asyncio.TaskGroup() as tasks:
            async for stream in connection.incoming_streams():
                tasks.create_task(_hash_one(stream))


async def _hash_one(stream: bw.Stream) -> None:
    hasher, buffer = blake2b(), bytearray(64 * KIB)
    with suppress(bw.StreamReset, bw.StreamStopped, bw.PeerClosed):
        while n := await stream.readinto(buffer):
            hasher.update(memoryview(buffer)[:n])
        await stream.write(hasher.digest())
        await stream.finish()


# a long stream


async def steady(size: int, config: bw.Config = QUIET) -> tuple[Samples, dict[str, Any]]:
    """One stream of `size` bytes, sampled as it goes; the time includes the looking."""
    samples = Samples()
    block = random.Random(2).randbytes(256 * KIB)
    async with (
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as server,
        await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as client,
    ):
        here = await client.connect(server.local_address, server.public_key)
        there = await anext(aiter(server.incoming()))
        step = max(size // 400, len(block))

        async def read() -> int:
            stream = await anext(aiter(there.incoming_streams()))
            buffer = bytearray(len(block))
            view = memoryview(buffer)
            got, look_at = 0, step
            while n := await stream.readinto(buffer):
                at = got % len(block)
                same = min(n, len(block) - at, 64)
                if view[:same] != block[at : at + same]:
                    raise BenchError(f"wrong bytes at offset {got:,}")
                got += n
                if got >= look_at:
                    samples.take(server, client)
                    look_at += step
            return got

        gc.collect()
        reading = asyncio.create_task(read())
        started = time.perf_counter()
        stream = await here.open_stream()
        for _ in range(size // len(block)):
            await stream.write(block)
        await stream.finish()
        got = await reading
        seconds = time.perf_counter() - started
        if got != size // len(block) * len(block):
            raise BenchError(f"{got:,} of {size:,} bytes arrived")
        stats = client.stats()
        about = {
            "seconds": seconds, "mb_per_second": got / seconds / 1e6, "datagram": here.stats()["mtu"],
            "aead": " and ".join(dict.fromkeys(fastest("aes-128-gcm"))),
            "receive_buffer": stats["socket_receive_buffer"], "send_buffer": stats["socket_send_buffer"],
        }  # fmt: skip
        for endpoint in (server, client):
            if leased := endpoint.stats()["ring_leased"]:
                raise BenchError(f"{leased} slots were not given back")
    return samples, about


# from the command line


def run(report: Report, *, quick: bool) -> None:
    """Measure, print, and judge."""
    _run_soak(report, 10 if quick else 150)
    _run_steady(report, (256 if quick else 4096) * MIB)


def _table(title: str, samples: Samples) -> Table:
    table = Table(title, ["what", "after warming up", "at the end", "least", "most", "growth"])
    first = int(samples.count * WARM)
    for name, values, unit in (
        ("allocated blocks", samples.blocks, 1),
        ("resident memory, MB", samples.resident, 1e6),
        ("slots leased", samples.leased, 1),
        ("closed connections still held", samples.closed, 1),
    ):
        known = values[first : samples.count]
        growth = samples.growth(values)
        table.add(name, known[0] / unit, known[-1] / unit, min(known) / unit, max(known) / unit, growth / unit)
    table.notes.append(f"{samples.count} samples; growth: from the least of the first quarter to the least of the last")
    if samples.at_rest:
        table.notes.append(
            f"allocated blocks with everything closed: {' and '.join(f'{n:,}' for n in samples.at_rest)}"
        )
    return table


def _judge(report: Report, what: str, samples: Samples) -> None:
    blocks, resident = samples.blocks_growth(), samples.growth(samples.resident)
    report.verdict(f"{what}: allocated blocks grow by less than {BLOCKS:,} ({blocks:,})", blocks < BLOCKS)
    report.verdict(
        f"{what}: resident memory grows by less than {RESIDENT // MIB} MiB ({resident / MIB:.1f} MiB)",
        resident < RESIDENT,
    )
    closed = max(samples.closed[: samples.count])
    report.verdict(f"{what}: at most {CLOSED} closed connections are still held ({closed:,})", closed <= CLOSED)
    leased = max(samples.leased[: samples.count])
    report.verdict(f"{what}: no slot is leased between two steps, and all tables are empty at the end", leased == 0)


def _run_soak(report: Report, seconds: float) -> None:
    say(f"soak: {seconds:g} s of everything at once")
    counts, samples = asyncio.run(soak(seconds))
    table = _table(f"Soak of {seconds:g} s", samples)
    table.notes.append(
        f"{counts.streams:,} streams hashed and {counts.given_up:,} given up, {counts.bytes / 1e9:.1f} GB;"
        f" {counts.messages:,} messages echoed; {counts.datagrams:,} datagrams; {counts.connections:,} connections made"
        " and closed; both sides in one process"
    )
    report.add(table)
    report.raw["soak"] = {"counts": vars(counts), "blocks": list(samples.blocks[: samples.count])}
    _judge(report, "soak", samples)


def _run_steady(report: Report, size: int) -> None:
    say(f"soak: a stream of {size // MIB:,} MiB")
    samples, about = asyncio.run(steady(size))
    table = _table(f"A stream of {size // MIB:,} MiB", samples)
    table.notes.append(", ".join(f"{name} {value}" for name, value in about.items()))
    report.add(table)
    report.raw["steady"] = about
    _judge(report, f"a stream of {size // MIB:,} MiB", samples)


def main() -> int:
    """One of both, or both."""
    parser = argparse.ArgumentParser(prog="python -m benches.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, help="length of the soak")
    parser.add_argument("--steady-mib", type=int, help="length of the stream")
    options = parser.parse_args()
    report = Report()
    if options.seconds or not options.steady_mib:
        _run_soak(report, options.seconds or 150)
    if options.steady_mib or not options.seconds:
        _run_steady(report, (options.steady_mib or 4096) * MIB)
    return 0 if all(report.verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
