"""Endpoints behind refusing.c or starving.c, each scenario in a process of its own; prints its figures as JSON.

LD_PRELOAD=… python fault_scenarios.py NAME [ARGUMENTS]
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.faults.shim import ALWAYS, ANY, RECEIVE, SEGMENTED, SEND, Refusals

import burstwire as bw
from burstwire.core import BufferRing, CounterPool
from burstwire.crypto.aead import backends, make_aead
from burstwire.proto import offload

KEYS = [bw.KeyPair.generate() for _ in range(3)]
HANG = 50.0
"""Seconds after which a scenario is given up."""

shim = Refusals()


@asynccontextmanager
async def nodes(*hosts: str, **settings: object) -> AsyncIterator[list[bw.Endpoint]]:
    """Endpoints at these addresses; afterwards their books balance."""
    made: list[bw.Endpoint] = []
    try:
        for key, host in zip(KEYS, hosts, strict=False):
            made.append(await bw.bind((host, 0), key, config=bw.Config(**settings)))
        yield made
    finally:
        if "refusing" in os.environ["LD_PRELOAD"]:
            shim.relent()
        for endpoint in made:
            await endpoint.close()
    for endpoint in made:
        books(endpoint)


def books(endpoint: bw.Endpoint) -> None:
    stats = endpoint.stats()
    assert stats["ring_leased"] == 0, stats
    assert endpoint._driver._ring.leased == 0
    assert stats["connections"] == 0


def moved(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


async def one_way(here: bw.Connection, there: bw.Connection, data: bytes, timeout: float = HANG) -> float:
    """Seconds until these bytes arrived whole."""
    began = time.monotonic()

    async def write() -> None:
        stream = await here.open_stream()
        await stream.write(data)
        await stream.finish()

    async def read() -> bytes:
        stream = await anext(there.incoming_streams())
        digest = hashlib.sha256()
        while piece := await stream.read(1 << 18):
            digest.update(piece)
        await stream.finish()
        return digest.digest()

    async with asyncio.timeout(timeout):
        _, digest = await asyncio.gather(write(), read())
    assert digest == hashlib.sha256(data).digest(), "not the bytes that were sent"
    return time.monotonic() - began


async def riot(seed: str, size: str, permille: str) -> dict[str, object]:
    """Every message may meet any error, both ways, from the handshake on."""
    kind = int(seed) % 3  # many datagrams in trains, many alone, or few large ones
    size_of_datagrams = None if kind == 2 else 1200
    async with nodes("127.0.0.1", "127.0.0.2", max_datagram_size=size_of_datagrams, gso=kind != 1) as (a, b):
        shim.riot(int(seed), int(permille))
        here = await a.connect(b.local_address, b.public_key, timeout=HANG)
        there = await anext(b.incoming())
        data = moved(int(size), int(seed))
        began = time.monotonic()
        await asyncio.gather(one_way(here, there, data), one_way(there, here, data[::-1]))
        took = time.monotonic() - began
        refused = shim.refused
        shim.riot(0, 0)
        recovered = await one_way(here, there, data[:100_000])
        stats = [endpoint.stats() for endpoint in (a, b)]

        def total(name: str) -> int:
            return sum(one[name] for one in stats)

        # What was injected is what is counted: each error that ends a train, and each refusal to segment.
        given_up = sum(
            shim.refused_with(error)
            for error in (errno.EMSGSIZE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPERM, errno.ECONNREFUSED)
        )
        assert total("socket_trains_refused") <= given_up
        assert total("socket_gso_fallbacks") <= shim.refused_with(errno.EIO) + shim.refused_with(errno.EINVAL)
        assert total("gso_refusals") == total("socket_gso_fallbacks")
        assert total("trains_refused") == total("socket_trains_refused")
        assert total("socket_receive_errors") <= given_up
        await there.close()
    return {"refused": refused, "seconds": took, "recovered": recovered}


async def outage(name: str, seconds: str, connections: str) -> dict[str, object]:
    """The kernel refuses everything that anybody sends, with data waiting on every connection."""
    async with nodes("127.0.0.1", "127.0.0.2") as (a, b):
        pairs = []
        for _ in range(int(connections)):
            here = await a.connect(b.local_address, b.public_key)
            pairs.append((here, await anext(b.incoming())))
        await asyncio.gather(*(one_way(here, there, bytes(50_000)) for here, there in pairs))
        shim.refuse(SEND, ANY, getattr(errno, name), times=ALWAYS)
        # One connection has much to send, the others a message each.
        bulk = asyncio.create_task(one_way(*pairs[0], moved(1 << 20, 1)))
        for here, _ in pairs[1:]:
            await here.send(b"through")
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(float(seconds))
        wall, cpu = time.monotonic() - began, time.process_time() - cpu
        refused = shim.refused
        assert refused >= int(connections)
        shim.relent()
        began = time.monotonic()
        async with asyncio.timeout(HANG):
            assert set(await asyncio.gather(*(there.recv() for _, there in pairs[1:]))) == {b"through"}
        recovered = time.monotonic() - began
        await bulk
        assert not any(end.closed for pair in pairs for end in pair)
        stats = a.stats()
        counted = stats["loop_pauses"] if name == "ENOBUFS" else stats["socket_trains_refused"]
        assert counted > 0
    return {"cpu": cpu / wall, "refused": refused, "recovered": recovered, "survived": len(pairs)}


async def endless(what: str, name: str, seconds: str) -> dict[str, object]:
    """One error for ever, from a socket that is all the time ready: it must not take the processor."""
    async with nodes("127.0.0.1", "127.0.0.2") as (a, b):
        here = await a.connect(b.local_address, b.public_key)
        there = await anext(b.incoming())
        await one_way(here, there, bytes(50_000))
        call = {"send": SEND, "receive": RECEIVE}[what]
        shim.refuse(call, ANY, getattr(errno, name), times=ALWAYS)
        await here.send(b"through")
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(float(seconds))
        wall, cpu = time.monotonic() - began, time.process_time() - cpu
        shim.relent()
        began = time.monotonic()
        async with asyncio.timeout(HANG):
            assert await there.recv() == b"through"
        recovered = time.monotonic() - began
    return {"cpu": cpu / wall, "recovered": recovered}


async def segmenting(name: str) -> dict[str, object]:
    """GSO begins to fail in mid-flight for one of two peers, and works again later."""
    offload.FIRST_RETRY = 0.3
    async with nodes("127.0.0.1", "127.0.0.2", "127.0.0.3", max_datagram_size=1200) as (a, bad, good):
        to_bad = await a.connect(bad.local_address, bad.public_key)
        to_good = await a.connect(good.local_address, good.public_key)
        at_bad, at_good = await anext(bad.incoming()), await anext(good.incoming())
        data = moved(1_500_000, 3)
        shim.refuse(SEND, SEGMENTED, getattr(errno, name), skip=5, times=ALWAYS, to="127.0.0.2")
        await asyncio.gather(one_way(to_bad, at_bad, data), one_way(to_good, at_good, data))
        stats = a.stats()
        refusals = stats["gso_refusals"]
        assert refusals >= 1
        assert stats["socket_trains_refused"] == 0
        connections = to_bad.stats(), to_good.stats()
        share = [one["packets_segmented"] / one["packets_sent"] for one in connections]
        assert share[0] < 0.6 < 0.9 < share[1], share
        shim.relent()
        began = time.monotonic()
        before = to_bad.stats()["packets_segmented"]
        while to_bad.stats()["packets_segmented"] == before:
            await one_way(to_bad, at_bad, data[:100_000])
            await asyncio.sleep(0.01)
        retried = time.monotonic() - began
        assert a.stats()["gso_refusals"] == refusals
    return {"refusals": refusals, "segmented": share, "retried": retried}


# --- behind starving.c


class Starving:
    """What starving.c does: the n-th allocation by the C core fails."""

    def __init__(self) -> None:
        self._shim = ctypes.CDLL(None)

    def fail(self, nth: int) -> None:
        self._shim.starve(nth)

    @property
    def seen(self) -> int:
        return int(self._shim.allocations())

    @property
    def failed(self) -> int:
        return int(self._shim.starved())


async def life() -> None:
    """Everything that allocates in C: sockets, rings, counters, ciphers of both directions and back ends."""
    async with nodes("127.0.0.1", "127.0.0.2", close_timeout=0.1) as (a, b):
        here = await a.connect(b.local_address, b.public_key, timeout=2.0)

        async def exchange() -> None:
            there = await anext(b.incoming())
            await here.send(b"whole")
            assert await there.recv() == b"whole"

        # If an endpoint fails, its own side is told; the other side cannot know yet.
        tasks = [asyncio.create_task(exchange()), asyncio.create_task(here.wait_closed())]
        done, left = await asyncio.wait(tasks, timeout=HANG, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert done, "nobody was told"
        for task in done:
            error = task.result()
            if error is not None:
                raise error


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def starving() -> dict[str, object]:
    """Each allocation of a life in C fails in its turn: an error that is told, nothing left over, and then it works."""
    shim = Starving()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the report of a failed endpoint
    await life()
    before = shim.seen
    await life()
    each = shim.seen - before
    held = descriptors()
    errors: dict[str, int] = {}
    for nth in range(1, each + 1):
        shim.fail(nth)
        try:
            await life()
        except (MemoryError, bw.TransportError, OSError) as error:
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
        else:
            errors["none"] = errors.get("none", 0) + 1
        shim.fail(0)
        assert shim.failed == nth, f"allocation {nth} was not reached"
        gc.collect()  # what could not be finished goes with its last reference
        assert descriptors() == held, f"allocation {nth} left a descriptor"
    await life()
    # Without a network: what makes rings, counters and ciphers says so, and then makes them.
    for make in (
        lambda: BufferRing(4),
        lambda: CounterPool(4),
        *(lambda name=name: make_aead("aes-128-gcm", bytes(16), name) for name in backends() if name != "cryptography"),
    ):
        shim.fail(1)
        try:
            made = make()
        except (MemoryError, bw.TransportError):
            pass
        else:
            # Ciphers are made when they are first needed.
            ring = BufferRing(1)
            shim.fail(1)
            try:
                made.seal_run(ring, ring.lease(), 0, 1200, 1, 1200)
            except (MemoryError, bw.TransportError):
                pass
            else:
                raise AssertionError("an allocation that failed was not noticed")
        shim.fail(0)
        make()
    return {"allocations": each, "errors": errors}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))))
