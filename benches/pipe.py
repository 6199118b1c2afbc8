"""The same pipe without reliability: what framing, sealing, sending, opening and copying cost on their own.

A yardstick for burstwire's bulk, made of the same parts (`burstwire.core`, `burstwire.crypto.aead`): trains of packets
framed from a ring, sealed in place and sent with GSO; received with GRO, opened in place and copied to a reused buffer.
It has no connections, acknowledgements, recovery, congestion control, pacing, flow control of streams and no event
loop, only a credit window, so that nothing is lost. What burstwire is slower than this is what being reliable costs.

    python -m benches.pipe --datagram 1200 --aead libcrypto serve
    python -m benches.pipe --datagram 1200 --aead libcrypto run bulk --info '{…}' --count 1000000000

talks like a peer of `benches.peers`, so that both can be measured in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from hashlib import shake_128
from typing import Any

from benches.machine import aead_words
from burstwire.core import (
    ANY_LOCAL,
    BufferRing,
    CounterPool,
    FillTable,
    GatherTable,
    RunTable,
    StreamRing,
    TrainTable,
    UdpSocket,
    pack_address,
)
from burstwire.crypto.aead import make_aead

WINDOW = 1 << 20
"""Bytes under way at most: what burstwire's own window comes to on loopback."""

CREDIT = WINDOW // 8
"""Bytes after which the receiver gives credit."""

FLIGHT = 8
"""Trains in a send and in a receive, as burstwire's default."""

SOURCE = 1 << 20
TARGET = 1 << 19
"""Bytes of the ring that is sent from and of the buffer that is received into. The buffer is the smaller one: so what
it held a lap before is something else, and cannot pass for what belongs there now."""

OVERHEAD = 42
SAMPLE = 32
PATIENCE = 5.0
"""Seconds without anything new after which a datagram must have been lost."""

_credit = struct.Struct(">Q")


def pattern() -> StreamRing:
    """What is sent: byte `o` of the transfer lies at `o & mask`."""
    ring = StreamRing(SOURCE)
    ring.write(0, shake_128(b"burstwire pipe").digest(SOURCE))
    return ring


def train_packets(size: int) -> int:
    """Packets that one GSO send takes."""
    return min(64, 65507 // size)


class Receiver:
    """The receiving side: one data socket, and a TCP socket for orders."""

    def __init__(self, size: int, aead: str | None) -> None:
        self._size = size
        self._aead = aead
        self._udp = UdpSocket(("127.0.0.1", 0))
        self._control = socket.create_server(("127.0.0.1", 0))
        self._source = pattern()
        self._target = StreamRing(TARGET)
        self._ring, self._runs, self._gather = BufferRing(16), RunTable(), GatherTable()
        self._failures: list[str] = []
        self._poll = select.epoll()
        self._poll.register(self._udp.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Answer orders until standard input ends."""
        info = {"control": self._control.getsockname()[1], "port": self._udp.local_address[1]}
        print(json.dumps(info), flush=True)
        while True:
            readable, _, _ = select.select([0, self._control], [], [])
            if 0 in readable:
                data = os.read(0, 4096)
                if not data:
                    return
                print(json.dumps({"failures": self._failures}), flush=True)
            if self._control in readable:
                connection, _ = self._control.accept()
                with connection, connection.makefile("rwb") as lines:
                    order = json.loads(lines.readline())
                    lines.write(b"go\n")
                    lines.flush()
                    result = self._receive(order)
                    lines.write(json.dumps(result).encode() + b"\n")
                    lines.flush()

    def _receive(self, order: dict[str, Any]) -> dict[str, Any]:
        credit = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        credit.connect(("127.0.0.1", order["credit"]))
        aead = make_aead("aes-128-gcm", bytes(16), self._aead)
        count, check_all = order["count"], order["check_all"]
        payload = self._size - OVERHEAD
        got = reported = 0
        ring, runs, gather, target = self._ring, self._runs, self._gather, self._target
        recv, poll = self._udp.recv, self._poll.poll
        try:
            while got < count:
                if not recv(ring, runs, FLIGHT):
                    if not poll(PATIENCE):
                        raise AssertionError(f"{got:,} of {count:,} bytes came, then nothing for {PATIENCE:g} s")
                    continue
                gather.clear()
                taken = []
                for counter, _, slot, start, size, last, packets, _, _, _ in runs.records():
                    mask = (1 << packets) - 1
                    if aead.open_run(ring, slot, start, size, packets, last, mask) != mask:
                        raise AssertionError(f"not every packet from {counter} on could be opened")
                    offset = counter * payload
                    length = (packets - 1) * payload + last - OVERHEAD
                    end = offset + length
                    gather.append(
                        mask, offset, target.address, target.mask, offset, end, 4, slot, start, size, last, packets
                    )
                    taken.append((mask, offset, length))
                gather.run(ring)
                for row, (mask, offset, length) in enumerate(taken):
                    assert gather.result(row)[0] == mask, "a packet holds something else than the stream"
                    self._check(offset, length, check_all)
                    got += length
                runs.release(ring)
                if got - reported >= CREDIT or got == count:
                    credit.send(_credit.pack(got))
                    reported = got
        except AssertionError as error:
            self._failures.append(str(error))
            runs.release(ring)
        finally:
            credit.close()
        return {"bytes": got, "failures": self._failures}

    def _check(self, offset: int, length: int, everything: bool) -> None:
        step = min(length, SAMPLE)
        spans = range(offset, offset + length, SAMPLE) if everything else (offset, offset + length - step)
        for at in spans:
            n = min(step, offset + length - at)
            assert self._target.read(at, n) == self._source.read(at, n), f"wrong bytes at offset {at:,}"


class Sender:
    """The sending side of one transfer."""

    def __init__(self, size: int, aead: str | None, port: int) -> None:
        self._size = size
        self._aead = make_aead("aes-128-gcm", bytes(16), aead)
        self.udp = UdpSocket(("127.0.0.1", 0))
        self._path = pack_address("127.0.0.1", port) + ANY_LOCAL
        self.credit = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.credit.bind(("127.0.0.1", 0))
        self.credit.settimeout(PATIENCE)
        self._ring = BufferRing(16)
        self._source = pattern()
        self._pool = CounterPool()
        self._counter = self._pool.acquire()
        self._fill, self._trains = FillTable(), TrainTable(self._ring)

    def send(self, count: int) -> None:
        """Send everything; returns when credit for all of it came."""
        payload = self._size - OVERHEAD
        train = train_packets(self._size) * payload
        sent = acknowledged = 0
        while acknowledged < count:
            ahead = sent - acknowledged
            lengths = list(_trains(count - sent, train, min(FLIGHT, (WINDOW - ahead) // train)))
            if lengths:
                self._flight(sent, lengths, payload)
                sent += sum(lengths)
            else:
                acknowledged = _credit.unpack(self.credit.recv(8))[0]

    def _flight(self, offset: int, lengths: list[int], payload: int) -> None:
        ring, fill, trains, size, source = self._ring, self._fill, self._trains, self._size, self._source
        fill.clear()
        trains.clear()
        rows = []
        for length in lengths:
            packets = -(-length // payload)
            last = length - (packets - 1) * payload + OVERHEAD
            slot = ring.lease()
            first = self._pool.reserve(self._counter, packets)
            fill.append(first, offset, source.address, source.mask, 7, 4, slot, 0, length, size, packets, 0)
            trains.append(slot, 0, (packets - 1) * size + last, size, 0, self._path)
            rows.append((slot, packets, last))
            offset += length
        fill.run(ring)
        for slot, packets, last in rows:
            self._aead.seal_run(ring, slot, 0, size, packets, last)
        done = 0
        while (done := done + self.udp.send(trains, done)) < trains.count:
            select.select([], [self.udp.fileno()], [], PATIENCE)
        for row, (slot, *_) in enumerate(rows):
            sent, error = trains.results(row)
            assert not error, f"the kernel refused a train: errno {-error}"
            assert sent
            ring.release(slot)


def _trains(left: int, train: int, most: int) -> Iterator[int]:
    """The bytes of each of the next trains."""
    for _ in range(most):
        if left <= 0:
            return
        yield min(left, train)
        left -= train


def _run(size: int, aead: str | None, info: dict[str, Any], count: int, *, check_all: bool) -> dict[str, Any]:
    sender = Sender(size, aead, info["port"])
    with socket.create_connection(("127.0.0.1", info["control"])) as control, control.makefile("rwb") as lines:
        order = {"count": count, "check_all": check_all, "credit": sender.credit.getsockname()[1]}
        lines.write(json.dumps(order).encode() + b"\n")
        lines.flush()
        assert lines.readline() == b"go\n"
        started = time.perf_counter()
        sender.send(count)
        far = json.loads(lines.readline())
        seconds = time.perf_counter() - started
    assert far["bytes"] == count, f"{far['bytes']:,} of {count:,} bytes arrived: {far['failures']}"
    stats = sender.udp.stats()
    about = {
        "aead": aead_words(aead), "datagram": size, "window": WINDOW, "datagrams": stats["datagrams_sent"],
        "receive_buffer": sender.udp.receive_buffer, "send_buffer": sender.udp.send_buffer,
    }  # fmt: skip
    return {"task": "bulk", "count": count, "seconds": seconds, "rate": count / seconds, "about": about}


def main() -> None:
    """What `python -m benches.pipe` does."""
    parser = argparse.ArgumentParser(prog="python -m benches.pipe", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--datagram", type=int, default=1200)
    parser.add_argument("--aead", default=None)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("serve")
    run = what.add_parser("run")
    run.add_argument("task", choices=("bulk",))
    run.add_argument("--info", type=json.loads, required=True)
    run.add_argument("--count", type=int, required=True)
    run.add_argument("--hash-all", action="store_true", help="compare every byte, not only both ends of each run")
    options = parser.parse_args()
    if options.what == "serve":
        Receiver(options.datagram, options.aead).serve()
        return
    result = _run(options.datagram, options.aead, options.info, options.count, check_all=options.hash_all)
    json.dump(result, sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
