"""ZeroMQ with CURVE: DEALER to ROUTER on TCP, in asyncio. Bulk is a sequence of large messages."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import zmq
import zmq.asyncio

from benches.peers.link import Handler, Link, Peer, Sink
from benches.peers.process import main

HIGH_WATER = 1000
"""Messages queued on a side before sending waits: ZeroMQ's own default."""


class DealerLink(Link):
    """The dialling side: a socket of its own."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        # The same socket without futures: what is there already is taken without a trip through the loop.
        self._direct: Any = zmq.Socket.shadow(socket.underlying)

    async def send(self, message: bytes) -> None:
        try:
            self._direct.send(message, zmq.NOBLOCK)
        except zmq.Again:
            await self._socket.send(message)

    async def recv(self) -> bytes:
        try:
            return bytes(self._direct.recv(zmq.NOBLOCK))
        except zmq.Again:
            return bytes(await self._socket.recv())

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            await self.send(block)

    async def read_bulk(self, size: int, sink: Sink) -> None:
        while size:
            block = await self.recv()
            sink(block, len(block))
            size -= len(block)

    async def close(self) -> None:
        self._socket.close(linger=1000)


class RouterLink(Link):
    """The accepting side: one identity among those of the ROUTER socket."""

    def __init__(self, socket: Any, identity: bytes) -> None:
        self._socket = socket
        self._direct: Any = zmq.Socket.shadow(socket.underlying)
        self._identity = identity
        self._messages: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, message: bytes) -> int:
        """A message came; returns how many wait."""
        self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return len(self._messages)

    async def send(self, message: bytes) -> None:
        try:
            self._direct.send_multipart((self._identity, message), zmq.NOBLOCK)
        except zmq.Again:
            await self._socket.send_multipart((self._identity, message))

    async def _wait(self) -> None:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def recv(self) -> bytes:
        await self._wait()
        return self._messages.popleft()

    async def recv_many(self) -> list[bytes]:
        await self._wait()
        messages = list(self._messages)
        self._messages.clear()
        return messages

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            await self.send(block)

    async def read_bulk(self, size: int, sink: Sink) -> None:
        while size:
            block = await self.recv()
            sink(block, len(block))
            size -= len(block)

    async def close(self) -> None:
        """The socket belongs to all of them."""


class CurvePeer(Peer):
    name = "ZeroMQ CURVE"
    both_authenticated = True

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._context = zmq.asyncio.Context()
        self._context.max_sockets = 4096
        self._public, self._secret = zmq.curve_keypair()
        self._router: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, handler: Handler) -> dict[str, Any]:
        router = self._router = self._context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = self._public, self._secret
        router.router_mandatory = True
        port = router.bind_to_random_port("tcp://127.0.0.1")
        self._spawn(self._dispatch(router, handler))
        return {"port": port, "key": self._public.decode()}

    async def _dispatch(self, router: Any, handler: Handler) -> None:
        links: dict[bytes, RouterLink] = {}
        direct: Any = zmq.Socket.shadow(router.underlying)
        while True:
            try:
                identity, message = direct.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                identity, message = await router.recv_multipart()
            link = links.get(identity)
            if link is None:
                link = links[identity] = RouterLink(router, identity)
                self._spawn(handler(link))
            if link.feed(message) >= HIGH_WATER:
                await asyncio.sleep(0)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, info: dict[str, Any]) -> Link:
        dealer = self._context.socket(zmq.DEALER)
        dealer.curve_serverkey = info["key"].encode()
        dealer.curve_publickey, dealer.curve_secretkey = self._public, self._secret
        dealer.connect(f"tcp://127.0.0.1:{info['port']}")
        return DealerLink(dealer)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._router is not None:
            self._router.close(linger=0)
        self._context.term()

    def about(self) -> dict[str, Any]:
        return {"pyzmq": version("pyzmq"), "libzmq": zmq.zmq_version(), "cipher": "XSalsa20-Poly1305"}


if __name__ == "__main__":
    main(CurvePeer)
