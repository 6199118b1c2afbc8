"""The way of working that burstwire replaces: one packet at a time, from end to end. The "before" of the comparisons.

What a competent author writes in Python after the design that this one started from:

    send ─ Queue ─ connection: number, serialise, nonce, encrypt ─ Queue ─ socket: sendto          (a task each)
    datagram_received ─ Queue ─ connection: decrypt, deserialise, acknowledge, order ─ Queue ─ recv

Bounded `asyncio.Queue`s between the stages, msgpack of (number, list of acknowledged numbers, payload), a random nonce
in front of each packet, `AESGCM.encrypt` into new bytes, one `sendto` a packet, a `DatagramProtocol` that gets one
datagram at a time. Numbers are acknowledged one by one, at most 16 a packet, at once with data or after a millisecond;
what stays unacknowledged is sent again. There is a window instead of congestion control, and no handshake: both sides
are given the key. So it does less than burstwire does.

`benches.peers.oldway` runs it as one of the peers; `Cipher`, `encode` and `decode` are also measured by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches.peers.link import Handler, Link, Peer, Sink

__all__ = ["CAPACITY", "DATAGRAM", "NONCE", "PAYLOAD", "Cipher", "OldWayLink", "OldWayPeer", "decode", "encode"]

DATAGRAM = 1364
"""Bytes of the largest packet, as in the design's own measurement."""

NONCE, TAG = 12, 16
MAX_ACKS = 16
ENVELOPE = 1 + 5 + 3 + MAX_ACKS * 5 + 3
"""msgpack: a tuple, a number below 2^32, a list of 16 such, and the head of the payload."""

PAYLOAD = DATAGRAM - NONCE - TAG - ENVELOPE
"""Bytes of the largest message."""

CAPACITY = 100
"""Packets in each queue: what the design has raised it to, from 1."""

WINDOW = 64
"""Packets under way at most: they fit the peer's queue, and on loopback more gains nothing."""

ACK_AFTER = 0.001
RESEND_AFTER = 0.05
BUFFER = 4 << 20
"""SO_RCVBUF and SO_SNDBUF, as burstwire asks for."""

HELLO, WELCOME = b"hello", b"welcome"

Address = tuple[str, int]


def encode(number: int, acks: list[int], payload: bytes) -> bytes:
    """One packet's content; number 0 carries acknowledgements only."""
    packed: bytes = msgpack.packb((number, acks, payload))
    return packed


def decode(data: bytes) -> tuple[int, list[int], bytes]:
    """What `encode` was given."""
    number, acks, payload = msgpack.unpackb(data)
    return number, acks, payload


class Cipher:
    """One direction: packets as nonce ‖ ciphertext ‖ tag."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plain: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + self._aead.encrypt(nonce, plain, None)

    def open(self, packet: bytes) -> bytes:
        """Raises `InvalidTag`."""
        return self._aead.decrypt(packet[:NONCE], packet[NONCE:], None)


class OldWayLink(Link):
    """One connection: its queues, and the tasks between them."""

    def __init__(self, to_socket: asyncio.Queue[tuple[bytes, Address]], address: Address, keys: list[bytes]) -> None:
        capacity = to_socket.maxsize
        self._seal, self._open = (Cipher(key) for key in keys)
        self._address = address
        self._to_socket = to_socket
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue(capacity)
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(capacity)
        self._delivered: asyncio.Queue[bytes] = asyncio.Queue(capacity)
        self._number = 0
        self._window = min(WINDOW, capacity)
        self._unacked: dict[int, bytes] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._expected = 1
        self._early: dict[int, bytes] = {}
        self._to_ack: deque[int] = deque()
        self._ack_soon = asyncio.Event()
        self._newest_ack = 0.0
        self._loop = asyncio.get_running_loop()
        self._tasks = [
            self._loop.create_task(work) for work in (self._run_out(), self._run_in(), self._run_acks(), self._resend())
        ]
        self.resent = 0

    def _acks(self) -> list[int]:
        pending = self._to_ack
        return [pending.popleft() for _ in range(min(MAX_ACKS, len(pending)))]

    async def _run_out(self) -> None:
        """From messages to sealed packets."""
        while True:
            payload = await self._outgoing.get()
            while len(self._unacked) >= self._window:
                self._room.clear()
                await self._room.wait()
            self._number += 1
            if not self._unacked:
                self._newest_ack = self._loop.time()
            self._unacked[self._number] = payload
            packet = self._seal.seal(encode(self._number, self._acks(), payload))
            await self._to_socket.put((packet, self._address))

    async def _run_in(self) -> None:
        """From sealed packets to messages in order."""
        while True:
            packet = await self.incoming.get()
            try:
                number, acks, payload = decode(self._open.open(packet))
            except InvalidTag:
                continue
            for acked in acks:
                self._unacked.pop(acked, None)
            if acks:
                self._newest_ack = self._loop.time()
                self._room.set()
            if not number:
                continue
            self._to_ack.append(number)
            if len(self._to_ack) == 1 or len(self._to_ack) >= MAX_ACKS:
                self._ack_soon.set()
            if number == self._expected:
                self._expected += 1
                await self._delivered.put(payload)
                while self._expected in self._early:
                    early = self._early.pop(self._expected)
                    self._expected += 1
                    await self._delivered.put(early)
            elif number > self._expected:
                self._early[number] = payload

    async def _run_acks(self) -> None:
        """Acknowledgements that no data took along: 16 at once, fewer after a millisecond."""
        while True:
            await self._ack_soon.wait()
            self._ack_soon.clear()
            if len(self._to_ack) < MAX_ACKS:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ACK_AFTER):
                        await self._ack_soon.wait()
                self._ack_soon.clear()
            while self._to_ack:
                await self._to_socket.put((self._seal.seal(encode(0, self._acks(), b"")), self._address))

    async def _resend(self) -> None:
        while True:
            await asyncio.sleep(RESEND_AFTER)
            if self._unacked and self._loop.time() - self._newest_ack >= RESEND_AFTER:
                for number, payload in list(self._unacked.items()):
                    self.resent += 1
                    await self._to_socket.put((self._seal.seal(encode(number, [], payload)), self._address))

    async def send(self, message: bytes) -> None:
        await self._outgoing.put(message)

    async def recv(self) -> bytes:
        return await self._delivered.get()

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            for at in range(0, len(block), PAYLOAD):
                await self._outgoing.put(block[at : at + PAYLOAD])

    async def read_bulk(self, size: int, sink: Sink) -> None:
        while size:
            piece = await self._delivered.get()
            sink(piece, len(piece))
            size -= len(piece)

    async def close(self) -> None:
        while self._unacked or self._outgoing.qsize() or self._to_ack:
            await asyncio.sleep(ACK_AFTER)
        for task in self._tasks:
            task.cancel()


class Protocol(asyncio.DatagramProtocol):
    """The socket's end: one datagram at a time to the queue of its connection, one from the queue to `sendto`."""

    def __init__(self, keys: list[bytes], capacity: int, handler: Handler | None) -> None:
        self._keys = keys
        self._handler = handler
        self._links: dict[Address, OldWayLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_socket: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue(capacity)
        self._writable = asyncio.Event()
        self._writable.set()
        self.welcome = asyncio.Event()
        self.dropped = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        own = transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            own.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._start(self._run_socket())

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _run_socket(self) -> None:
        while True:
            packet, address = await self._to_socket.get()
            if not self._writable.is_set():
                await self._writable.wait()
            self._transport.sendto(packet, address)

    def datagram_received(self, data: bytes, address: Address) -> None:
        link = self._links.get(address)
        if data == WELCOME:
            self.welcome.set()
        elif data == HELLO and self._handler is not None:
            if link is None:
                link = self.link(address)
                work: Any = self._handler(link)
                self._start(work)
            self._transport.sendto(WELCOME, address)
        elif link is not None:
            try:
                link.incoming.put_nowait(data)
            except asyncio.QueueFull:
                self.dropped += 1

    def link(self, address: Address) -> OldWayLink:
        """A new connection with this address."""
        link = self._links[address] = OldWayLink(self._to_socket, address, self._keys)
        return link

    async def hello(self, address: Address) -> OldWayLink:
        """Announce oneself until there is an answer."""
        link = self.link(address)
        while not self.welcome.is_set():
            self._transport.sendto(HELLO, address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESEND_AFTER):
                    await self.welcome.wait()
        return link

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._transport.close()

    def counters(self) -> dict[str, float]:
        return {"dropped": self.dropped, "resent": sum(link.resent for link in self._links.values())}


class OldWayPeer(Peer):
    """Both sides as one of the peers of the comparison."""

    name = "one packet at a time"

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._protocols: list[Protocol] = []

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("--capacity", type=int, default=CAPACITY, help="packets in each queue")

    async def _open(self, keys: list[bytes], handler: Handler | None) -> Protocol:
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Protocol(keys, self.options.capacity, handler), ("127.0.0.1", 0)
        )
        self._protocols.append(protocol)
        return protocol

    async def serve(self, handler: Handler) -> dict[str, Any]:
        keys = [AESGCM.generate_key(128), AESGCM.generate_key(128)]
        protocol = await self._open(keys, handler)
        port = protocol._transport.get_extra_info("sockname")[1]
        return {"port": port, "keys": [key.hex() for key in keys]}

    async def connect(self, info: dict[str, Any]) -> Link:
        keys = [bytes.fromhex(key) for key in reversed(info["keys"])]
        protocol = await self._open(keys, None)
        return await protocol.hello(("127.0.0.1", info["port"]))

    async def close(self) -> None:
        for protocol in self._protocols:
            protocol.stop()

    def about(self) -> dict[str, Any]:
        found = {"aead": f"AES-128-GCM by cryptography {version('cryptography')}", "datagram": DATAGRAM}
        if self._protocols:
            own = self._protocols[0]._transport.get_extra_info("socket")
            found["receive_buffer"] = own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            found["send_buffer"] = own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return {**found, "capacity": self.options.capacity, "window": WINDOW}

    def counters(self) -> dict[str, float]:
        total: dict[str, float] = {"dropped": 0, "resent": 0}
        for protocol in self._protocols:
            for name, value in protocol.counters().items():
                total[name] += value
        return total
