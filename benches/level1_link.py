"""Level 1: two endpoints over memory, without kernel and event loop: what the protocol itself costs, and where.

Trains are copied from the sender's slot into a slot of the receiver's ring and parsed there, as the socket would have
delivered them. `python -m benches.level1_link` prints the time of each step by train of bulk and by message.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from burstwire.config import Config
from burstwire.core import ANY_LOCAL, BufferRing, RunTable, pack_address
from burstwire.crypto.aead import backends
from burstwire.identity import KeyPair
from burstwire.proto import events as ev
from burstwire.proto.connection import Connection
from burstwire.proto.endpoint import Endpoint

MIB = 1 << 20
WAKEUP = 8
"""Trains delivered at a time, as the driver takes them."""


BUFFER = 8 * MIB
"""SO_RCVBUF as the endpoints believe it: what a kernel grants that is asked for 4 MiB."""


class Host:
    """An endpoint with the rings of a driver. `spent` sums the processor seconds of each step, `calls` counts them."""

    def __init__(self, port: int, config: Config, seed: int) -> None:
        self.key = KeyPair.generate()
        self.endpoint = Endpoint(self.key, config, now=0.0, random=random.Random(seed).randbytes, receive_buffer=BUFFER)
        self.address = pack_address("127.0.0.1", port)
        self.ring = BufferRing(16)
        self.table = RunTable()
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def timed(self, step: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do something on this host's account."""
        started = time.thread_time()  # not the clock: others use this machine, too
        result = work(*arguments)
        self.spent[step] += time.thread_time() - started
        self.calls[step] += 1
        return result


class Memory:
    """A link without delay: what one side transmits, the other receives."""

    def __init__(self, backend: str | None = "cryptography", **settings: Any) -> None:
        config = Config(pacing=False, aead_backend=backend, **settings)
        self.near, self.far = Host(1, config, 1), Host(2, config, 2)
        self.now = 0.0
        self.trains = 0
        near = self.near
        near.endpoint.connect(self.far.address, self.far.key.public, 0.0)
        self.pump()
        (self.near_connection,) = self._established(near)
        self.pump()  # the greeting leaves once the application knows of the connection
        (self.far_connection,) = self._established(self.far)
        self.pump()
        for host in (self.near, self.far):
            host.spent.clear()
            host.calls.clear()
        self.trains = 0

    def _established(self, host: Host) -> list[Connection]:
        found = [event for event in host.endpoint.events() if isinstance(event, ev.ConnectionEstablished)]
        return [event.connection for event in found]

    def carry(self, source: Host, target: Host) -> bool:
        """One flight from one side to the other; whether there was any."""
        self.now += 1e-4
        table = source.timed("transmit", source.endpoint.transmit, self.now)
        if table is None:
            return False
        path = source.address + ANY_LOCAL
        for index, (slot, start, length, segment, *_) in enumerate(table.records()):
            if index and index % WAKEUP == 0:
                self._deliver(target)
            # The kernel's part: its cost appears in no step.
            into = target.ring.lease()
            target.ring.views[into][:length] = source.endpoint.ring.views[slot][start : start + length]
            target.table.parse(target.ring, into, length, segment, path, 0)
            table.settle(index, length)
            self.trains += source is self.near
        source.timed("sent", source.endpoint.sent, self.now)
        self._deliver(target)
        return True

    def _deliver(self, target: Host) -> None:
        target.timed("receive", target.endpoint.receive, target.ring, target.table, self.now)
        target.table.release(target.ring)

    def pump(self) -> None:
        """Until nobody has anything to say."""
        while self.carry(self.near, self.far) | self.carry(self.far, self.near):
            pass

    def wait(self) -> None:
        """Nothing moves: go to the next timer."""
        for host in (self.near, self.far):
            due = host.endpoint.next_timeout()
            assert due is not None
            self.now = max(self.now, min(due, self.now + 1))
            host.endpoint.handle_timeout(self.now)

    def bulk(self, size: int) -> int:
        """`size` bytes on one stream; what the far side read of it."""
        block = bytes(range(256)) * 1024
        target = memoryview(bytearray(len(block)))
        near, far = self.near, self.far
        stream = self.near_connection.open_stream()
        assert stream is not None
        written = read = 0
        source = memoryview(block)
        receiving: Any = None
        while read < size:
            while written < size:
                at = written % len(block)
                taken = near.timed("write", stream.write, source[at : min(len(block), at + size - written)])
                if not taken:
                    break
                written += taken
            moved = self.carry(near, far)
            if receiving is None:
                opened = [event for event in far.endpoint.events() if isinstance(event, ev.StreamOpened)]
                receiving = opened[0].stream if opened else None
            while receiving is not None and read < size:
                n = far.timed("read", receiving.readinto, target)
                if not n:
                    break
                assert target[0] == read & 255
                read += n
            moved |= self.carry(far, near)
            near.timed("events", near.endpoint.events)
            far.timed("events", far.endpoint.events)
            if not moved:
                self.wait()
        stream.finish()
        self.pump()
        near.endpoint.events()
        far.endpoint.events()
        return read

    def echo(self, count: int) -> int:
        """Messages of 100 bytes there and back; how many came back right."""
        right = 0
        for number in range(count):
            message = number.to_bytes(4, "big") * 25
            self.near.timed("write", self.near_connection.send_message, message)
            self.carry(self.near, self.far)
            self.far.timed("events", self.far.endpoint.events)
            received = self.far.timed("read", self.far_connection.next_message)
            self.far.timed("write", self.far_connection.send_message, received)
            self.carry(self.far, self.near)
            self.near.timed("events", self.near.endpoint.events)
            right += self.near.timed("read", self.near_connection.next_message) == message
        return right

    def spent_by(self, unit: str, count: float) -> dict[str, float]:
        """Where the time went: µs of each step of each side, by so many of some unit."""
        return {
            f"{side}_{step}_us_per_{unit}": seconds / count * 1e6
            for side, host in (("near", self.near), ("far", self.far))
            for step, seconds in sorted(host.spent.items(), key=lambda item: -item[1])
        }


@pytest.mark.parametrize("size", [1200, 1452, 65507])
@pytest.mark.parametrize("backend", backends())
def test_bulk_over_memory(benchmark: Any, backend: str, size: int) -> None:
    link = Memory(backend, max_datagram_size=size)
    amount = MIB if benchmark.disabled else 32 * MIB
    rounds = 1 if benchmark.disabled else 5
    benchmark.group = "bulk over memory, both sides on one core"
    before = link.near_connection.stats()["packets_sent"]
    read = benchmark.pedantic(link.bulk, (amount,), rounds=rounds)
    assert read == amount
    packets = link.near_connection.stats()["packets_sent"] - before
    assert packets * size > rounds * amount
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(
            way=f"{size:,} bytes, {backend}",
            aead=backend,
            datagram=size,
            mb_per_second=amount / seconds / 1e6,
            packets_per_second=packets / rounds / seconds,
            **link.spent_by("mib", rounds * amount / MIB),
        )


@pytest.mark.parametrize("backend", backends())
def test_echo_over_memory(benchmark: Any, backend: str) -> None:
    link = Memory(backend, max_datagram_size=1200)
    count = 50 if benchmark.disabled else 2000
    rounds = 1 if benchmark.disabled else 5
    benchmark.group = "100 bytes there and back over memory"
    assert benchmark.pedantic(link.echo, (count,), rounds=rounds) == count
    if benchmark.stats is not None:
        benchmark.extra_info.update(
            way=backend,
            aead=backend,
            us_per_echo=benchmark.stats.stats.median / count * 1e6,
            **link.spent_by("echo", rounds * count),
        )


def main() -> None:
    """Print where the time goes."""
    parser = argparse.ArgumentParser(prog="python -m benches.level1_link", description=__doc__)
    parser.add_argument("--datagram", type=int, default=1200)
    parser.add_argument("--aead", choices=backends(), default="cryptography")
    parser.add_argument("--mib", type=int, default=128)
    parser.add_argument("--messages", type=int, default=5000)
    options = parser.parse_args()
    link = Memory(options.aead, max_datagram_size=options.datagram)
    assert link.bulk(options.mib * MIB) == options.mib * MIB
    _show(link, f"train of bulk ({link.trains:,} trains)", link.trains * 1.0)
    link = Memory(options.aead, max_datagram_size=options.datagram)
    assert link.echo(options.messages) == options.messages
    _show(link, "message there and back", options.messages * 1.0)


def _show(link: Memory, unit: str, count: float) -> None:
    for name, host in (("near", link.near), ("far", link.far)):
        print(f"{name}: µs by {unit}")
        for step, seconds in sorted(host.spent.items(), key=lambda item: -item[1]):
            print(f"  {step:10} {seconds / count * 1e6:8.1f}   ({host.calls[step] / count:.2f} calls)")


if __name__ == "__main__":
    main()
