"""aioquic, and qh3, which began as a copy of it and does cryptography and parsing in Rust.

Only the server proves itself: neither has a public way to ask for a client's certificate.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benches.peers.certificate import make_certificate
from benches.peers.link import Handler, Link, Peer, StreamLink
from benches.peers.process import main

WINDOW = 8 << 20
"""Credit for a stream and a connection. aioquic's default of 1 MiB is not what limits it, but nobody shall say so."""

BUFFER = 4 << 20
"""SO_RCVBUF and SO_SNDBUF, as burstwire asks for."""

YIELD = 64 * 1024
"""Bytes written after which the loop runs. Neither library pushes back (aioquic's drain() waits for nothing, and qh3's
writer has none), and a yield after each small message would only keep them from filling their packets."""


class QuicLink(StreamLink):
    """One bidirectional stream of a connection of its own."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, leave: Callable[[], None] | None = None
    ) -> None:
        super().__init__(reader, writer)
        self._leave = leave
        self._written = 0

    async def _drain(self, size: int) -> None:
        self._written += size
        if self._written >= YIELD:
            self._written = 0
            await asyncio.sleep(0)

    async def close(self) -> None:
        if self._leave is not None:
            self._leave()


class QuicPeer(Peer):
    name = "QUIC"

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._library = options.library
        self._asyncio = import_module(f"{options.library}.asyncio")
        self._server: Any = None
        self._client: Any = None
        self._granted: dict[str, int] = {}
        self._folder: Path | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("--library", choices=("aioquic", "qh3"), default="aioquic")

    def _configuration(self, *, is_client: bool) -> Any:
        suites = import_module(f"{self._library}.tls").CipherSuite
        return import_module(f"{self._library}.quic.configuration").QuicConfiguration(
            is_client=is_client,
            alpn_protocols=["bench"],
            max_datagram_size=1200,
            max_data=WINDOW,
            max_stream_data=WINDOW,
            cipher_suites=[suites.AES_128_GCM_SHA256],
        )

    async def serve(self, handler: Handler) -> dict[str, Any]:
        certificate, key = make_certificate()
        self._folder = Path(certificate).parent
        configuration = self._configuration(is_client=False)
        configuration.load_cert_chain(certificate, key)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(_handled(handler, QuicLink(reader, writer)))

        self._server = await self._asyncio.serve("127.0.0.1", 0, configuration=configuration, stream_handler=accept)
        self._ask_for_buffers(self._server._transport)
        port = self._server._transport.get_extra_info("sockname")[1]
        return {"port": port, "certificate": Path(certificate).read_text()}

    async def connect(self, info: dict[str, Any]) -> Link:
        if self._client is None:
            self._client = self._configuration(is_client=True)
            self._client.load_verify_locations(cadata=info["certificate"].encode())
            self._client.server_name = "localhost"
        context = self._asyncio.connect("127.0.0.1", info["port"], configuration=self._client)
        protocol = await context.__aenter__()
        self._ask_for_buffers(protocol._transport)
        reader, writer = await protocol.create_stream()

        def leave() -> None:
            # The draining period of three PTOs goes by in the background: it is no part of a handshake.
            self._keep(context.__aexit__(None, None, None))

        return QuicLink(reader, writer, leave)

    def _ask_for_buffers(self, transport: Any) -> None:
        own = transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            own.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._granted = {
            "receive_buffer": own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            "send_buffer": own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        }

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def about(self) -> dict[str, Any]:
        datagram = "1200, probed from there" if self._library == "qh3" else 1200
        return {
            self._library: version(self._library), "cipher": "TLS_AES_128_GCM_SHA256", "datagram": datagram,
            **self._granted,
        }  # fmt: skip


async def _handled(handler: Handler, link: Link) -> None:
    await handler(link)


if __name__ == "__main__":
    main(QuicPeer)
