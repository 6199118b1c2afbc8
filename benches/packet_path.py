"""Where the time of a packet of 1,364 bytes goes on its way out: one packet at a time, and by the run.

    python -m benches.packet_path

Each way starts with a block of the application's bytes and ends when the kernel has the packets. The steps of a way are
done one after the other on the same 48 packets and timed each by itself; the ways take turns in every round, and
figures are medians. What arrives is opened and compared. The receiving socket is in the same process and empty before
each send: the time of the system call has the kernel's delivery in it, but no other process is woken up.

Beside it stand the claims of the design that burstwire started from, and what they come to here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from statistics import median

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches import level0_nonce, level1_channel, level2_sockets
from benches.harness import BenchError
from benches.oldway import CAPACITY, DATAGRAM, NONCE, TAG, decode, encode
from benches.report import Report, Table, say
from burstwire.core import (
    ANY_LOCAL,
    BufferRing,
    CounterPool,
    FillTable,
    RunTable,
    StreamRing,
    TrainTable,
    UdpSocket,
    pack_address,
)
from burstwire.crypto.aead import backends, make_aead

__all__ = ["run", "table"]

RUN = 48
"""Packets: as many as one GSO train holds, 65,472 bytes."""

STEPS = ("copy from the application", "channel", "serialisation", "nonce", "AEAD", "send system call")
BEFORE = "one packet at a time"

CLAIMED = {"serialisation": "3.82 (21 %)", "nonce": "0.035", "AEAD": "1.14 (6 %)", "send system call": "12.7 (70 %)"}
"""µs a packet, and their share, as the design's own measurement of the same packet has them."""

ACKS = list(range(8))
QUEUES = 2
"""On the way out of the old way: from the application to the connection, and from there to the socket."""


class Path(ABC):
    """One way of working. `spent` has the seconds of each step, round by round."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, list[float]] = defaultdict(list)
        self.about = ""

    @abstractmethod
    def once(self, block: bytes) -> None:
        """Bring 48 packets of `block` to the kernel, and check what arrived."""

    @abstractmethod
    def close(self) -> None:
        """Close the sockets."""

    def figure(self, step: str) -> float:
        """µs a packet; 0 for what this way does not do."""
        rounds = self.spent.get(step)
        return median(rounds) / RUN * 1e6 if rounds else 0.0


class OneByOne(Path):
    """The steps of `benches.oldway`."""

    payload = DATAGRAM - NONCE - TAG - len(encode(1 << 20, ACKS, bytes(DATAGRAM // 2))) + DATAGRAM // 2

    def __init__(self, runner: asyncio.Runner) -> None:
        super().__init__()
        self._runner = runner
        self._aead = AESGCM(bytes(16))
        self._near, self._far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self._near, self._far):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        self._number = 1 << 20
        self.about = f"SO_RCVBUF {self._far.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF):,}"

    def once(self, block: bytes) -> None:
        clock, spent, first = time.perf_counter, self.spent, self._number
        self._number += RUN
        started = clock()
        payloads = [block[at : at + self.payload] for at in range(0, RUN * self.payload, self.payload)]
        spent["copy from the application"].append(clock() - started)

        spent["channel"].append(QUEUES * self._runner.run(_through_a_queue(payloads)))

        started = clock()
        contents = [encode(number, ACKS, payload) for number, payload in enumerate(payloads, first)]
        spent["serialisation"].append(clock() - started)

        started = clock()
        nonces = [os.urandom(NONCE) for _ in range(RUN)]
        spent["nonce"].append(clock() - started)

        encrypt = self._aead.encrypt
        started = clock()
        packets = [nonce + encrypt(nonce, content, None) for nonce, content in zip(nonces, contents, strict=True)]
        spent["AEAD"].append(clock() - started)

        send, target = self._near.sendto, self._far.getsockname()
        started = clock()
        for packet in packets:
            send(packet, target)
        spent["send system call"].append(clock() - started)

        for number, payload in enumerate(payloads, first):
            received = self._far.recv(65536)
            plain = self._aead.decrypt(received[:NONCE], received[NONCE:], None)
            if len(received) != DATAGRAM or decode(plain) != (number, ACKS, payload):
                raise BenchError(f"{BEFORE}: a packet did not arrive as it was")

    def close(self) -> None:
        self._near.close()
        self._far.close()


async def _through_a_queue(items: list[bytes]) -> float:
    """Seconds from one task to another through a bounded queue, many times over, for as many items as there are."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(CAPACITY)
    times = 10

    async def put() -> None:
        for _ in range(times):
            for item in items:
                await queue.put(item)

    putting = asyncio.create_task(put())
    started = time.perf_counter()
    got = [await queue.get() for _ in range(times * len(items))]
    seconds = time.perf_counter() - started
    await putting
    assert got == items * times
    return seconds / times


class ByRun(Path):
    """What burstwire's bulk path does with a run, by one of the AEAD back ends."""

    payload = DATAGRAM - 42

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._aead = make_aead("aes-128-gcm", bytes(16), backend)
        self._near, self._far = UdpSocket(("127.0.0.1", 0)), UdpSocket(("127.0.0.1", 0))
        self._pool = CounterPool()
        self._index = self._pool.acquire()
        self._source = StreamRing(1 << 17)
        self._ring, self._into = BufferRing(4), BufferRing(RUN)
        self._fill, self._trains, self._runs = FillTable(), TrainTable(self._ring), RunTable()
        self._path = pack_address(*self._far.local_address) + ANY_LOCAL
        self._offset = 0
        self.about = (
            f"AEAD {backend}, SO_RCVBUF {self._far.receive_buffer:,}, GSO {self._near.gso}, GRO {self._far.gro}"
        )

    def once(self, block: bytes) -> None:
        clock, spent, ring, fill, source = time.perf_counter, self.spent, self._ring, self._fill, self._source
        length, offset = RUN * self.payload, self._offset
        self._offset += length
        data = memoryview(block)[:length]
        started = clock()
        source.write(offset, data)
        spent["copy from the application"].append(clock() - started)

        started = clock()
        first = self._pool.reserve(self._index, RUN)
        spent["nonce"].append(clock() - started)

        started = clock()
        slot = ring.lease()
        fill.clear()
        fill.append(first, offset, source.address, source.mask, 7, 4, slot, 0, length, DATAGRAM, RUN, 0)
        fill.run(ring)
        spent["serialisation"].append(clock() - started)

        started = clock()
        self._aead.seal_run(ring, slot, 0, DATAGRAM, RUN, DATAGRAM)
        spent["AEAD"].append(clock() - started)

        trains = self._trains
        started = clock()
        trains.clear()
        trains.append(slot, 0, RUN * DATAGRAM, DATAGRAM, 0, self._path)
        sent = self._near.send(trains)
        spent["send system call"].append(clock() - started)

        ring.release(slot)
        if sent != 1 or trains.results(0) != (RUN * DATAGRAM, 0):
            raise BenchError("the kernel did not take the train")
        self._check(block, first)

    def _check(self, block: bytes, first: int) -> None:
        packets = 0
        while packets < RUN:
            if not self._far.recv(self._into, self._runs, RUN):
                raise BenchError(f"only {packets} of {RUN} packets arrived")
            for counter, _, slot, start, size, last, count, _, _, _ in self._runs.records():
                mask = (1 << count) - 1
                if counter != first + packets or size != last or size != DATAGRAM:
                    raise BenchError("a packet did not arrive as it was")
                if self._aead.open_run(self._into, slot, start, size, count, last, mask) != mask:
                    raise BenchError("a packet did not verify")
                for index in range(count):
                    at = start + index * size
                    part = (packets + index) * self.payload
                    if self._into.views[slot][at + 26 : at + size - TAG] != block[part : part + self.payload]:
                        raise BenchError("a packet brought other bytes")
                packets += count
            self._runs.release(self._into)

    def close(self) -> None:
        self._near.close()
        self._far.close()


def run(report: Report, *, quick: bool) -> None:
    """Measure and print both tables."""
    table(report, 50 if quick else 500)
    _claims(report, 3 if quick else 9)


def table(report: Report, rounds: int) -> None:
    """The steps of each way."""
    say(f"packet path: {rounds} rounds of {RUN} packets each way")
    block = os.urandom(1 << 16)
    with asyncio.Runner() as runner:
        paths: dict[str, Path] = {
            BEFORE: OneByOne(runner),
            **{f"by the run, {backend}": ByRun(backend) for backend in backends()},
        }
        try:
            for path in paths.values():
                path.once(block)
                path.spent.clear()
            for _ in range(rounds):
                for path in paths.values():
                    path.once(block)
        finally:
            for path in paths.values():
                path.close()
    totals = {name: sum(map(path.figure, STEPS)) for name, path in paths.items()}
    columns = ["step", *[column for name in paths for column in (f"{name}, µs", "share, %")], "claimed, µs"]
    steps = Table(f"The way out of a packet of {DATAGRAM:,} bytes", columns)
    for step in STEPS:
        cells: list[object] = []
        for name, path in paths.items():
            figure = path.figure(step)
            cells += [figure, 100 * figure / totals[name]] if figure else ["–", "–"]
        steps.add(step, *cells, CLAIMED.get(step, "–"))
    steps.add("all", *[cell for total in totals.values() for cell in (total, 100.0)], "18.1")
    before = totals[BEFORE]
    steps.add("as fast as before", *[cell for total in totals.values() for cell in (f"{before / total:.1f}x", "")], "")
    steps.notes += [f"{name}: {path.about}" for name, path in paths.items()]
    steps.notes += [
        f"AES-128-GCM; medians of {rounds} rounds",
        f"{BEFORE}: {QUEUES} queues of {CAPACITY}, msgpack with {len(ACKS)} acks,"
        " os.urandom, AESGCM.encrypt into new bytes, sendto",
        "by the run: no channel, C framing, counters, sealed in place, one send with GSO",
        "claimed: measured in Rust, on another machine",
    ]
    report.add(steps)
    report.raw["packet_path"] = {
        name: {**{step: path.figure(step) for step in STEPS}, "about": path.about} for name, path in paths.items()
    }


def _claims(report: Report, rounds: int) -> None:
    """The ratios that the design claims, each by the contest that examines it."""
    say("packet path: channels, nonces, batches of datagrams")
    best = level1_channel.BEST
    channel = level1_channel.ITEMS.only("asyncio.Queue of 100", best, rounds=rounds)
    pipeline = level1_channel.PIPELINE.only("queues of 100", rounds=rounds)
    nonce = level0_nonce.ONE_BY_ONE.only("connection ID and counter", rounds=rounds)
    by_run = level0_nonce.BY_RUN.only("reserved by one C call", rounds=rounds)
    datagrams = level2_sockets.BATCHES.only(level2_sockets.BARE, "mmsg, 64", "gso, 64", rounds=rounds)
    path = report.raw["packet_path"]
    share = {name: sum(steps[step] for step in STEPS) for name, steps in path.items()}
    before = path[BEFORE]
    rows: list[tuple[str, str, str]] = [
        ("asyncio.Queue of 100 against 1, items/s", "27x", f"{channel.ratio('asyncio.Queue of 100'):.1f}x"),
        ("the old pipeline with queues of 100 against 1", "27x", f"{pipeline.ratio('queues of 100'):.1f}x"),
        (f"{best}, against asyncio.Queue of 1", "–", f"{channel.ratio(best):.0f}x"),
        ("counter nonce against random, one by one", "5.5x", f"{nonce.ratio('connection ID and counter'):.1f}x"),
        ("nonces of a run, reserved by one C call", "–", f"{by_run.ratio('reserved by one C call'):.0f}x"),
        ("sendmmsg of 64 against one by one, packets/s", "5–10x", f"{datagrams.ratio('mmsg, 64'):.1f}x"),
        ("with GSO and GRO, 64", "–", f"{datagrams.ratio('gso, 64'):.1f}x"),
        ("one by one against bare socket.sendto", "–", f"{1 / datagrams.ratio(level2_sockets.BARE):.2f}x"),
        ("serialisation, share of the old path", "21 %", f"{before['serialisation'] / share[BEFORE]:.0%}"),
        ("send system call, share of the old path", "70 %", f"{before['send system call'] / share[BEFORE]:.0%}"),
        ("AES-GCM, share of the old path", "6 %", f"{before['AEAD'] / share[BEFORE]:.0%}"),
    ]
    table = Table("What the design claims, and what it comes to in Python", ["what", "claimed", "measured"])
    for row in rows:
        table.add(*row)
    report.add(table)
    report.raw["claims"] = [list(row) for row in rows]


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benches.packet_path", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    options = parser.parse_args()
    run(Report(), quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
