"""What one writes by hand: a DatagramProtocol, AESGCM for each packet, a sliding window. One packet at a time
throughout.

A fair one: X25519 with both static keys, a counter nonce, cumulative acknowledgements for every few packets, resending
after a timeout. It has no congestion control, no streams and no path checks, so it does less than the others.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from benches.peers.link import Handler, Link, Peer, Sink
from benches.peers.process import main

HELLO, WELCOME, DATA = 1, 2, 3
PAYLOAD = 1158
"""Bytes of the largest message: a packet then has the size of burstwire's in the comparison."""

WINDOW = 256
"""Packets under way at most: half a megabyte of kernel memory, an eighth of the buffer asked for."""

BUFFER = 4 << 20
"""SO_RCVBUF and SO_SNDBUF, as burstwire asks for."""

ACK_EVERY = 16
RESEND_AFTER = 0.05

_HEAD = struct.Struct(">BQ")
_INSIDE = struct.Struct(">QQ")
"""Inside the seal: number of the message (0: only an acknowledgement), and the number up to which all arrived."""


class DatagramLink(Link):
    """One peer address."""

    def __init__(self, transport: asyncio.DatagramTransport, address: tuple[str, int], initiator: bool) -> None:
        self._transport = transport
        self._address = address
        self._initiator = initiator
        self._seal: AESGCM | None = None
        self._open: AESGCM | None = None
        self._loop = asyncio.get_running_loop()
        self._counter = 0
        self._sent = 0
        self._acked = 0
        self._unacked: deque[tuple[int, bytes]] = deque()
        self._arrived = 0
        self._early: dict[int, bytes] = {}
        self._messages: deque[bytes] = deque()
        self._unreported = 0
        self._ack_soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self.ready = asyncio.Event()

    def keys(self, secret: bytes) -> None:
        """The shared secret of the handshake."""
        material = HKDF(hashes.SHA256(), 32, None, b"handwritten").derive(secret)
        first, second = AESGCM(material[:16]), AESGCM(material[16:])
        self._seal, self._open = (first, second) if self._initiator else (second, first)
        self.ready.set()

    def _packet(self, number: int, message: bytes) -> None:
        assert self._seal is not None
        head = _HEAD.pack(DATA, self._counter)
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        sealed = self._seal.encrypt(nonce, _INSIDE.pack(number, self._arrived) + message, head)
        self._transport.sendto(head + sealed, self._address)

    def received(self, datagram: bytes) -> None:
        """A DATA packet came."""
        if self._open is None:
            return
        _, counter = _HEAD.unpack_from(datagram)
        inside = self._open.decrypt(counter.to_bytes(12, "big"), datagram[_HEAD.size :], datagram[: _HEAD.size])
        number, acked = _INSIDE.unpack_from(inside)
        if acked > self._acked:
            self._acked = acked
            while self._unacked and self._unacked[0][0] <= acked:
                self._unacked.popleft()
            self._writable.set()
            self._rearm()
        if not number:
            return
        if number == self._arrived + 1:
            self._arrived = number
            self._messages.append(inside[_INSIDE.size :])
            while self._early and self._arrived + 1 in self._early:
                self._arrived += 1
                self._messages.append(self._early.pop(self._arrived))
            self._readable.set()
        elif number > self._arrived and len(self._early) < WINDOW:
            self._early[number] = inside[_INSIDE.size :]
        self._unreported += 1
        if self._unreported >= ACK_EVERY:
            self._report()
        elif self._ack_soon is None:
            self._ack_soon = self._loop.call_later(0.001, self._report)

    def _report(self) -> None:
        if self._ack_soon is not None:
            self._ack_soon.cancel()
            self._ack_soon = None
        if self._unreported:
            self._unreported = 0
            self._packet(0, b"")

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unacked:
            self._timer = self._loop.call_later(RESEND_AFTER, self._resend)

    def _resend(self) -> None:
        for number, message in self._unacked:
            self._packet(number, message)
        self._timer = None
        self._rearm()

    async def send(self, message: bytes) -> None:
        while self._sent - self._acked >= WINDOW:
            self._writable.clear()
            await self._writable.wait()
        self._sent += 1
        self._unacked.append((self._sent, message))
        self._unreported = 0  # every packet carries the acknowledgement
        self._packet(self._sent, message)
        if self._timer is None:
            self._rearm()

    async def recv(self) -> bytes:
        while not self._messages:
            self._readable.clear()
            await self._readable.wait()
        return self._messages.popleft()

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            for at in range(0, len(block), PAYLOAD):
                await self.send(block[at : at + PAYLOAD])

    async def read_bulk(self, size: int, sink: Sink) -> None:
        while size:
            piece = await self.recv()
            sink(piece, len(piece))
            size -= len(piece)

    async def close(self) -> None:
        while self._unacked:
            self._writable.clear()
            await self._writable.wait()
        self._report()
        self._transport.close()


class Protocol(asyncio.DatagramProtocol):
    """Both sides: who sends a HELLO gets a link of its own."""

    def __init__(self, key: X25519PrivateKey, handler: Handler | None) -> None:
        self._key = key
        self._handler = handler
        self._links: dict[tuple[str, int], DatagramLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.link: DatagramLink | None = None
        self.finish: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        own = transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            own.setsockopt(socket.SOL_SOCKET, option, BUFFER)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if data[0] == DATA:
            link = self.link or self._links.get(address)
            if link is not None:
                link.received(data)
        elif data[0] == WELCOME and self.finish is not None:
            self.finish(data[1:33])
        elif data[0] == HELLO and self._handler is not None:
            self._welcome(data, address)

    def _welcome(self, data: bytes, address: tuple[str, int]) -> None:
        theirs, static = (X25519PublicKey.from_public_bytes(data[at : at + 32]) for at in (1, 33))
        ephemeral = X25519PrivateKey.generate()
        link = self._links[address] = DatagramLink(self.transport, address, initiator=False)
        link.keys(ephemeral.exchange(theirs) + self._key.exchange(theirs) + ephemeral.exchange(static))
        self.transport.sendto(bytes((WELCOME,)) + ephemeral.public_key().public_bytes_raw(), address)
        assert self._handler is not None
        work: Any = self._handler(link)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class HandwrittenPeer(Peer):
    name = "DatagramProtocol"
    both_authenticated = True

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._key = X25519PrivateKey.generate()
        self._transport: Any = None

    async def serve(self, handler: Handler) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        make = lambda: Protocol(self._key, handler)  # noqa: E731
        self._transport, _ = await loop.create_datagram_endpoint(make, ("127.0.0.1", 0))
        port = self._transport.get_extra_info("sockname")[1]
        return {"port": port, "key": self._key.public_key().public_bytes_raw().hex()}

    async def connect(self, info: dict[str, Any]) -> Link:
        loop = asyncio.get_running_loop()
        target = ("127.0.0.1", info["port"])
        transport, protocol = await loop.create_datagram_endpoint(lambda: Protocol(self._key, None), ("127.0.0.1", 0))
        link = protocol.link = DatagramLink(transport, target, initiator=True)
        server = X25519PublicKey.from_public_bytes(bytes.fromhex(info["key"]))
        ephemeral = X25519PrivateKey.generate()

        def finish(raw: bytes) -> None:
            theirs = X25519PublicKey.from_public_bytes(raw)
            link.keys(ephemeral.exchange(theirs) + ephemeral.exchange(server) + self._key.exchange(theirs))
            protocol.finish = None

        protocol.finish = finish
        hello = ephemeral.public_key().public_bytes_raw() + self._key.public_key().public_bytes_raw()
        transport.sendto(bytes((HELLO,)) + hello, target)
        await asyncio.wait_for(link.ready.wait(), 5)
        return link

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def about(self) -> dict[str, Any]:
        return {"cipher": "AES-128-GCM by cryptography", "datagram": PAYLOAD + 42, "window": WINDOW}


if __name__ == "__main__":
    main(HandwrittenPeer)
