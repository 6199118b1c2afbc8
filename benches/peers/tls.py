"""asyncio's streams over TLS 1.3, on asyncio's own loop or on uvloop; each side proves itself with a certificate.

Both loops set TCP_NODELAY by themselves, and TCP sizes its own buffers; `about` shows what was in force.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from benches.peers.certificate import make_certificate
from benches.peers.link import Handler, Link, Peer, StreamLink
from benches.peers.process import main

LIMIT = 1 << 20
"""Bytes that a StreamReader buffers (it pauses at twice that): more than the default of 64 KiB, so that TLS is compared
without its reader having to pause for want of room."""


class TlsPeer(Peer):
    name = "TLS"
    both_authenticated = True

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._server: asyncio.Server | None = None
        self._folder: Path | None = None
        self._context: ssl.SSLContext | None = None
        self._seen: dict[str, Any] = {}

    async def serve(self, handler: Handler) -> dict[str, Any]:
        certificate, key = make_certificate()
        self._folder = Path(certificate).parent
        own, own_key = make_certificate()
        client = {"certificate": Path(own).read_text(), "key": Path(own_key).read_text()}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client["certificate"])
        shutil.rmtree(Path(own).parent)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._look(writer)
            await handler(StreamLink(reader, writer))

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=LIMIT)
        port = self._server.sockets[0].getsockname()[1]
        return {"port": port, "certificate": Path(certificate).read_text(), "client": client}

    async def connect(self, info: dict[str, Any]) -> Link:
        if self._context is None:
            self._context = self._client_context(info)
        reader, writer = await asyncio.open_connection("127.0.0.1", info["port"], ssl=self._context, limit=LIMIT)
        self._look(writer)
        return StreamLink(reader, writer)

    def _client_context(self, info: dict[str, Any]) -> ssl.SSLContext:
        """Made once, as a client would; sessions are not resumed, for asyncio offers none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=info["certificate"])
        with tempfile.TemporaryDirectory(prefix="bench-client-") as folder:
            certificate, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
            certificate.write_text(info["client"]["certificate"])
            key.write_text(info["client"]["key"])
            context.load_cert_chain(certificate, key)
        return context

    def _look(self, writer: asyncio.StreamWriter) -> None:
        if self._seen:
            return
        own = writer.get_extra_info("socket")
        self._seen = {
            "cipher": writer.get_extra_info("cipher")[0],
            "nodelay": bool(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
            "receive_buffer": own.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            "send_buffer": own.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        }

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def about(self) -> dict[str, Any]:
        return {**self._seen, "openssl": ssl.OPENSSL_VERSION, "python": sys.version.split()[0]}


if __name__ == "__main__":
    main(TlsPeer)
