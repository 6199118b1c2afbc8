"""A driver between a protocol and a socket that misbehave on cue; both are fakes with the real interfaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from support.loops import Run, turns

from burstwire import Config
from burstwire.aio.driver import Driver
from burstwire.core import BufferRing, RunTable

__all__ = ["Bench", "FakeProtocol", "FakeSocket", "Flight", "Without", "bench"]


class Flight:
    """A flight of `count` trains, of which the kernel takes all or nothing."""

    def __init__(self, count: int = 1) -> None:
        self.count = count

    def results(self, row: int) -> tuple[int, int]:
        return 0, 0


class FakeSocket:
    """Takes what `capacity` allows, and is readable while `incoming` is not empty (a real descriptor underneath)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.capacity = 1_000_000
        self.blocked = ""
        self.when_full = "again"
        self.trains_received = 0
        self.calls: list[tuple[Flight, int]] = []
        self.fails: OSError | None = None

    def fileno(self) -> int:
        return self._socket.fileno()

    def stats(self) -> dict[str, int]:
        return {"trains_received": self.trains_received}

    def arrive(self) -> None:
        self._socket.sendto(b"x", self._socket.getsockname())

    def recv(self, ring: BufferRing, table: RunTable, max_slots: int) -> int:
        if self.fails is not None:
            raise self.fails
        try:
            self._socket.recv(100)
        except BlockingIOError:
            return 0
        slot = ring.lease()
        ring.views[slot][:20] = bytes(20)
        table.parse(ring, slot, 20, 0, bytes([4]) + bytes(47), 0)
        return 1

    def send(self, flight: Flight, first: int) -> int:
        self.calls.append((flight, first))
        taken = min(self.capacity, flight.count - first)
        self.capacity -= taken
        self.blocked = "" if taken == flight.count - first else self.when_full
        return taken

    def close(self) -> None:
        self._socket.close()


class FakeProtocol:
    """Gives the flights it was told to give, and writes down what it was asked."""

    def __init__(self) -> None:
        self.flights: list[Flight] = []
        self.flying: Flight | None = None
        self.deadline: float | None = None
        self.sent_count = 0
        self.received = 0
        self.timeouts: list[float] = []
        self.oversleeps: list[tuple[float, float]] = []
        self.happened: list[Any] = []
        self.on_receive: Callable[[BufferRing, RunTable], None] = lambda ring, table: None
        self.destroyed = False

    @property
    def pending(self) -> bool:
        return bool(self.flights)

    def receive(self, ring: BufferRing, table: RunTable, now: float) -> None:
        assert ring.leased == 1
        self.received += 1
        self.on_receive(ring, table)

    def transmit(self, now: float) -> Flight | None:
        assert self.flying is None, "asked for another flight before the last one was settled"
        if self.flights:
            self.flying = self.flights.pop(0)
        return self.flying

    def sent(self, now: float) -> None:
        assert self.flying is not None
        self.flying = None
        self.sent_count += 1

    def events(self) -> list[Any]:
        events, self.happened = self.happened, []
        return events

    def next_timeout(self) -> float | None:
        return self.deadline

    def handle_timeout(self, now: float) -> None:
        assert self.deadline is not None
        assert now >= self.deadline, "early"
        self.timeouts.append(now)
        self.deadline = None

    def overslept(self, late: float, now: float) -> None:
        self.oversleeps.append((late, now))

    def destroy(self) -> None:
        self.destroyed = True


class Bench:
    """A started driver between the two."""

    def __init__(self, **config: Any) -> None:
        self.protocol = FakeProtocol()
        self.socket = FakeSocket()
        self.events: list[Any] = []
        self.failures: list[BaseException] = []
        self.driver = Driver(
            asyncio.get_running_loop(),
            self.protocol,  # type: ignore[arg-type]
            self.socket,  # type: ignore[arg-type]
            Config(**config),
            self.events.extend,
            self._failed,
        )
        self.driver.start()

    def _failed(self, error: BaseException) -> None:
        self.failures.append(error)
        self.driver.stop()


def bench(run: Run, test: Callable[[Bench], Any], **config: Any) -> None:
    async def main() -> None:
        it = Bench(**config)
        try:
            await test(it)
            assert it.driver.stopped or it.driver._ring.leased == 0
        finally:
            it.driver.stop()
        assert it.protocol.destroyed
        await turns(3)

    run(main)


class Without:
    """A loop with some methods replaced."""

    def __init__(self, loop: Any, **replaced: Any) -> None:
        self._loop = loop
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)
