"""asyncio's streams over TLS 1.3, on asyncio's own loop or on uvloop."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import sys
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

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._server: asyncio.Server | None = None
        self._folder: Path | None = None
        self._cipher = ""

    async def serve(self, handler: Handler) -> dict[str, Any]:
        certificate, key = make_certificate()
        self._folder = Path(certificate).parent
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._cipher = writer.get_extra_info("cipher")[0]
            await handler(StreamLink(reader, writer))

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=LIMIT)
        port = self._server.sockets[0].getsockname()[1]
        return {"port": port, "certificate": Path(certificate).read_text()}

    async def connect(self, info: dict[str, Any]) -> Link:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=info["certificate"])
        reader, writer = await asyncio.open_connection("127.0.0.1", info["port"], ssl=context, limit=LIMIT)
        self._cipher = writer.get_extra_info("cipher")[0]
        return StreamLink(reader, writer)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def about(self) -> dict[str, Any]:
        return {"cipher": self._cipher, "openssl": ssl.OPENSSL_VERSION, "python": sys.version.split()[0]}


if __name__ == "__main__":
    main(TlsPeer)
