"""What `burstwire doctor` measures: each layer on its own, then all of them together over loopback.

The figures are of this process alone: both ends of every measurement share one core and one interpreter, so two
machines, or two processes, do better.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import struct
import time
from dataclasses import dataclass

import burstwire as bw
from burstwire.config import AEADS
from burstwire.core import ANY_LOCAL, BufferRing, RunTable, TrainTable, UdpSocket, pack_address
from burstwire.crypto.aead import backends, make_aead

__all__ = ["AeadSpeed", "Loopback", "SocketSpeed", "aead_speed", "loopback", "socket_speed"]

PACKET = 1200
"""Bytes of UDP payload: what every path carries."""

COUNT = 50
"""Packets in a train: as many of this size as bulk transfer puts into one."""

ROUNDS = 400
"""Trains for each figure: about 0.1 s of it."""

BULK = 64 << 20
"""Bytes of the transfer over loopback."""

ECHOES = 300

_HEADER = struct.Struct(">BIQ")


@dataclass(frozen=True, slots=True)
class AeadSpeed:
    """Nanoseconds to seal and to open one packet of 1,200 bytes."""

    backend: str
    aead: str
    seal: float
    open: float


@dataclass(frozen=True, slots=True)
class SocketSpeed:
    """Nanoseconds to send and receive one packet of 1,200 bytes over loopback, and how many arrived."""

    backend: str
    gso: bool
    gro: bool
    nanoseconds: float
    delivered: float


@dataclass(frozen=True, slots=True)
class Loopback:
    """The whole transport over loopback; times in seconds, rate in bytes per second.

    Attributes:
        intact: whether every byte came back as it was sent.
        stats: of the sending connection.
    """

    handshake: float
    echo: float
    rate: float
    intact: bool
    stats: dict[str, int | float]


def aead_speed() -> list[AeadSpeed]:
    """Every packet protection by every back end that is present. Takes about 0.1 s for each."""
    found = []
    ring = BufferRing(1, 1 << 16)
    slot = ring.lease()
    view = ring.views[slot]
    everything = (1 << COUNT) - 1
    try:
        for backend in backends():
            for name in AEADS:
                aead = make_aead(name, os.urandom(16 if name == "aes-128-gcm" else 32), backend)
                seals, opens = [], []
                for turn in range(ROUNDS):
                    for index in range(COUNT):
                        _HEADER.pack_into(view, index * PACKET, 0x10, 1, turn * COUNT + index)
                    start = time.perf_counter_ns()
                    aead.seal_run(ring, slot, 0, PACKET, COUNT, PACKET)
                    middle = time.perf_counter_ns()
                    opened = aead.open_run(ring, slot, 0, PACKET, COUNT, PACKET, everything)
                    end = time.perf_counter_ns()
                    if opened != everything:
                        raise bw.CryptoError(f"{name} of {backend} did not open what it sealed")
                    seals.append(middle - start)
                    opens.append(end - middle)
                found.append(
                    AeadSpeed(backend, name, statistics.median(seals) / COUNT, statistics.median(opens) / COUNT)
                )
    finally:
        ring.release(slot)
        ring.close()
    return found


def socket_speed() -> list[SocketSpeed]:
    """Trains from one socket to another, in each way that this machine has, the slowest first."""
    ways = [("portable", False, False), ("auto", False, False), ("auto", True, False), ("auto", True, True)]
    found: dict[tuple[str, bool, bool], SocketSpeed] = {}
    for backend, gso, gro in ways:
        speed = _train_speed(backend, gso, gro)
        found[speed.backend, speed.gso, speed.gro] = speed
    return list(found.values())


def _train_speed(backend: str, gso: bool, gro: bool) -> SocketSpeed:
    ring = BufferRing(64, 1 << 16)
    slot = ring.lease()
    data = bytes(COUNT * PACKET)
    ring.views[slot][: len(data)] = data
    sender = UdpSocket(("127.0.0.1", 0), backend=backend, gso=gso, gro=gro)
    receiver = UdpSocket(("127.0.0.1", 0), backend=backend, gso=gso, gro=gro)
    try:
        trains, runs = TrainTable(ring), RunTable()
        path = pack_address(*receiver.local_address) + ANY_LOCAL
        rounds = ROUNDS // 2
        started = time.perf_counter_ns()
        for _ in range(rounds):
            trains.clear()
            trains.append(slot, 0, len(data), PACKET, 0, path)
            while not sender.send(trains):
                pass
            while receiver.recv(ring, runs, 32):
                runs.release(ring)
        seconds = time.perf_counter_ns() - started
        delivered = receiver.stats()["datagrams_received"]
        return SocketSpeed(
            sender.backend, sender.gso, receiver.gro, seconds / (rounds * COUNT), delivered / (rounds * COUNT)
        )
    finally:
        sender.close()
        receiver.close()
        ring.release(slot)
        ring.close()


async def loopback(timeout: float = 10.0) -> Loopback:
    """Two endpoints of this process: a handshake, echoes of 100 bytes, and one bulk stream.

    Raises `TransportError` or TimeoutError when packets do not get through.
    """
    async with asyncio.timeout(timeout * 3):
        async with (
            await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as server,
            await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as client,
        ):
            started = time.perf_counter()
            near = await client.connect(server.local_address, server.public_key, timeout=timeout)
            handshake = time.perf_counter() - started
            far = await anext(aiter(server.incoming()))
            echo = await _echo(near, far)
            rate, intact = await _bulk(near, far)
            return Loopback(handshake, echo, rate, intact, near.stats())


async def _echo(near: bw.Connection, far: bw.Connection) -> float:
    async def answer() -> None:
        for _ in range(ECHOES):
            await far.send(await far.recv())

    answering = asyncio.ensure_future(answer())
    times = []
    message = bytes(100)
    for _ in range(ECHOES):
        started = time.perf_counter()
        await near.send(message)
        await near.recv()
        times.append(time.perf_counter() - started)
    await answering
    return statistics.median(times)


async def _bulk(near: bw.Connection, far: bw.Connection) -> tuple[float, bool]:
    block = os.urandom(1 << 20)

    async def write() -> None:
        stream = await near.open_stream()
        for _ in range(BULK // len(block)):
            await stream.write(block)
        await stream.finish()

    started = time.perf_counter()
    writing = asyncio.ensure_future(write())
    stream = await anext(aiter(far.incoming_streams()))
    buffer = memoryview(bytearray(len(block)))
    received, intact = 0, True
    while count := await stream.readinto(buffer[received % len(block) :]):
        received += count
        if received % len(block) == 0:
            intact = intact and buffer == block
    seconds = time.perf_counter() - started
    await writing
    await stream.finish()
    return received / seconds, intact and received == BULK
