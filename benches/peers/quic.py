"""aioquic: QUIC in Python, one packet at a time."""

from __future__ import annotations

import asyncio
import shutil
from argparse import Namespace
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite

from benches.peers.certificate import make_certificate
from benches.peers.link import Handler, Link, Peer, StreamLink
from benches.peers.process import main

WINDOW = 8 << 20
"""Credit for a stream and a connection. The default of 1 MiB is not what limits aioquic either, but nobody shall say so."""


class QuicLink(StreamLink):
    """One bidirectional stream of a connection of its own."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, leave: Callable[[], None] | None = None
    ) -> None:
        super().__init__(reader, writer)
        self._leave = leave

    async def close(self) -> None:
        if self._leave is not None:
            self._leave()


class QuicPeer(Peer):
    name = "aioquic"

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._server: Any = None
        self._folder: Path | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=is_client,
            alpn_protocols=["bench"],
            max_datagram_size=1200,
            max_data=WINDOW,
            max_stream_data=WINDOW,
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        )

    async def serve(self, handler: Handler) -> dict[str, Any]:
        certificate, key = make_certificate()
        self._folder = Path(certificate).parent
        configuration = self._configuration(is_client=False)
        configuration.load_cert_chain(certificate, key)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(_handled(handler, QuicLink(reader, writer)))

        self._server = await serve("127.0.0.1", 0, configuration=configuration, stream_handler=accept)
        port = self._server._transport.get_extra_info("sockname")[1]
        return {"port": port, "certificate": Path(certificate).read_text()}

    async def connect(self, info: dict[str, Any]) -> Link:
        configuration = self._configuration(is_client=True)
        configuration.load_verify_locations(cadata=info["certificate"].encode())
        configuration.server_name = "localhost"
        context = connect("127.0.0.1", info["port"], configuration=configuration)
        protocol: QuicConnectionProtocol = await context.__aenter__()
        reader, writer = await protocol.create_stream()

        def leave() -> None:
            # The draining period of three PTOs goes by in the background: it is no part of a handshake.
            self._keep(context.__aexit__(None, None, None))

        return QuicLink(reader, writer, leave)

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
        return {"aioquic": version("aioquic"), "cipher": "TLS_AES_128_GCM_SHA256", "datagram": 1200}


async def _handled(handler: Handler, link: Link) -> None:
    await handler(link)


if __name__ == "__main__":
    main(QuicPeer)
