"""The work that every transport does, and what is measured about it. The server learns the task from the first
message."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

from benches.peers.link import Link, Peer
from benches.peers.meter import Steady, SyscallCounter, memory, usage
from benches.peers.pattern import Checker, blocks, digest

__all__ = ["TASKS", "Server", "run_task"]

MESSAGE = 100
"""Bytes of a small message."""

BATCH = 256
"""Messages handed over at a time where a transport takes many."""

PERIOD = 1 << 12
"""Different messages; they are made before the clock runs, and come again after so many."""

Result = dict[str, Any]

_pool: list[bytes] = [number.to_bytes(8, "big") * 12 + b"\x00" * 4 for number in range(PERIOD)] * 2
"""Twice, so that `PERIOD` of them follow each other wherever one begins."""


def message(number: int) -> bytes:
    """The small message with this number."""
    return _pool[number % PERIOD]


def some(first: int, count: int) -> list[bytes]:
    """The messages from `first` on, at most `PERIOD` of them."""
    at = first % PERIOD
    return _pool[at : at + count]


def right_of(received: list[bytes], first: int) -> int:
    """How many of these are the messages from `first` on."""
    right = 0
    for at in range(0, len(received), PERIOD):
        part = received[at : at + PERIOD]
        expected = some(first + at, len(part))
        right += len(part) if part == expected else sum(a == b for a, b in zip(part, expected, strict=True))
    return right


class Account:
    """What one side of one task used."""

    def __init__(self, peer: Peer, *, syscalls: bool) -> None:
        self._peer = peer
        self._counter = SyscallCounter() if syscalls else None
        self._before: dict[str, float] = {}

    def start(self) -> None:
        if self._counter is not None:
            self._counter.start()
        self._before = self._read()

    def stop(self) -> dict[str, float]:
        after = self._read()
        used = {name: value - self._before.get(name, 0) for name, value in after.items()}
        if self._counter is not None:
            counted = self._counter.stop()
            if counted is not None:
                used["syscalls"] = counted
        return {**used, **memory()}

    def _read(self) -> dict[str, float]:
        return {**self._peer.counters(), **usage()}


class Server:
    """Answers whatever task a client asks for."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.links = 0
        self.finished = 0
        self.failures: list[str] = []

    async def __call__(self, link: Link) -> None:
        self.links += 1
        try:
            await self._serve(link)
        except Exception as error:
            self.failures.append(repr(error))
            raise
        finally:
            self.finished += 1

    async def _serve(self, link: Link) -> None:
        order = json.loads(await link.recv())
        task = order["task"]
        if task in ("handshakes", "idle"):
            await link.send(message(0))
            return
        if task == "live":  # echoes until told to stop, for whoever disturbs the endpoint meanwhile
            while (received := await link.recv()) != b"stop":
                await link.send(received)
            await link.send(received)
            return
        account = Account(self._peer, syscalls=order["syscalls"])
        account.start()
        await link.send(b"go")
        result: Result = {}
        count = order["count"]
        started = time.perf_counter()
        if task == "bulk":
            checker = Checker(hash_all=order["hash_all"])
            steady = Steady(order["warm"])
            await link.read_bulk(count, steady.sink(checker) if order["warm"] else checker)
            result = {"bytes": checker.size, "sha256": checker.hexdigest(), "chunks": checker.chunks}
            result.update(steady.result())
        elif task == "echo":
            for _ in range(count):
                await link.send(await link.recv())
        elif task == "messages":
            right = 0
            for number in range(count):
                right += await link.recv() == _pool[number % PERIOD]
            result = {"right": right}
        elif task == "many":
            right = number = 0
            while number < count:
                received = await link.recv_many()
                right += right_of(received, number)
                number += len(received)
            result = {"right": right}
        else:
            raise AssertionError(f"no such task: {task}")
        result["seconds"] = time.perf_counter() - started
        result["used"] = account.stop()
        await link.send(json.dumps(result).encode())
        with contextlib.suppress(Exception):  # "bye", or the end that some transports let overtake it
            await link.recv()


async def _bulk(link: Link, count: int) -> Result:
    await link.write_bulk(blocks(count))
    return {}


async def _echo(link: Link, count: int) -> Result:
    clock = time.perf_counter
    times = []
    for number in range(count):
        sent = message(number)
        started = clock()
        await link.send(sent)
        answer = await link.recv()
        times.append(clock() - started)
        assert answer == sent, f"request {number} came back changed"
    times.sort()
    return {"p50": times[count // 2], "p99": times[count * 99 // 100]}


async def _messages(link: Link, count: int) -> Result:
    send = link.send
    for number in range(count):
        await send(_pool[number % PERIOD])
    return {}


async def _many(link: Link, count: int) -> Result:
    for first in range(0, count, BATCH):
        await link.send_many(some(first, min(BATCH, count - first)))
    return {}


TASKS: dict[str, Callable[[Link, int], Any] | None] = {
    "bulk": _bulk,
    "echo": _echo,
    "messages": _messages,
    "many": _many,
    "handshakes": None,
}
"""What a client can be told to do; `handshakes` makes its own connections."""


async def run_task(
    peer: Peer,
    info: dict[str, Any],
    task: str,
    count: int,
    *,
    hash_all: bool = False,
    syscalls: bool = False,
    warm: int = 0,
    started: Callable[[], None] = lambda: None,
) -> Result:
    """Do one task as the client; raises `AssertionError` unless the work was done.

    With `warm`, both sides of bulk tell by how much their memory grew between so many bytes and the end. `started` is
    called when the work begins.
    """
    if task == "handshakes":
        started()
        return await _handshakes(peer, info, count)
    work = TASKS[task]
    assert work is not None
    expected = digest(count) if task == "bulk" and hash_all else ""
    list(blocks(0 if task != "bulk" else min(count, 1)))  # made before the clock runs
    link = await peer.connect(info)
    account = Account(peer, syscalls=syscalls)
    order = {"task": task, "count": count, "hash_all": hash_all, "syscalls": syscalls, "warm": warm}
    steady = Steady(warm)
    await link.send(json.dumps(order).encode())
    assert await link.recv() == b"go"
    started()
    account.start()
    begun = time.perf_counter()
    if warm:
        await link.write_bulk(steady.source(blocks(count)))
        result = steady.result()
    else:
        result = await work(link, count)
    if task == "echo":
        seconds = time.perf_counter() - begun
        far = json.loads(await link.recv())
    else:
        far = json.loads(await link.recv())
        seconds = time.perf_counter() - begun
    used = account.stop()
    await link.send(b"bye")
    if task == "bulk":
        assert far["bytes"] == count, f"{far['bytes']:,} of {count:,} bytes arrived"
        assert far["sha256"] == expected, "the bytes that arrived have another hash"
    elif task in ("messages", "many"):
        assert far["right"] == count, f"{far['right']:,} of {count:,} messages arrived unchanged and in order"
    result.update(
        task=task, count=count, seconds=seconds, rate=count / seconds, client=used, server=far.pop("used"), far=far
    )
    result["about"] = peer.about()
    await link.close()
    return result


async def _handshakes(peer: Peer, info: dict[str, Any], count: int) -> Result:
    order = json.dumps({"task": "handshakes"}).encode()
    account = Account(peer, syscalls=False)
    account.start()
    clock = time.perf_counter
    times = []
    started = clock()
    for _ in range(count):
        begun = clock()
        link = await peer.connect(info)
        await link.send(order)
        assert await link.recv() == message(0)
        await link.close()
        times.append(clock() - begun)
    seconds = clock() - started
    times.sort()
    return {
        "task": "handshakes", "count": count, "seconds": seconds, "rate": count / seconds, "p50": times[count // 2],
        "p99": times[count * 99 // 100], "client": account.stop(),
        "about": {**peer.about(), "proven": peer.authenticates()},
    }  # fmt: skip


async def open_idle(peer: Peer, info: dict[str, Any], count: int) -> list[Link]:
    """`count` connections, each proven by one exchange, open and idle."""
    order = json.dumps({"task": "idle"}).encode()
    links = []
    for _ in range(count):
        link = await peer.connect(info)
        await link.send(order)
        assert await link.recv() == message(0)
        links.append(link)
    return links
