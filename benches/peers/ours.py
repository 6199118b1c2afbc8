"""burstwire through its public API."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import burstwire as bw
from benches.machine import aead_words
from benches.peers.link import READ, Handler, Link, Peer, Sink
from benches.peers.process import CountingSelector, main
from burstwire.crypto.aead import check_backend


class Calls:
    """Stands in for the C module's `lib` and counts the calls that go through it."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        value = function = getattr(self._lib, name)
        if callable(function):
            counts = self.counts
            counts[name] = 0

            def value(*arguments: Any) -> Any:
                counts[name] += 1
                return function(*arguments)

        setattr(self, name, value)
        return value

    @classmethod
    def install(cls) -> Calls:
        """Replace `lib` in every module of burstwire that uses it.

        Raises `RuntimeError` when some module holds a C function under a name of its own, which would not be counted.
        """
        from burstwire.core import _burstwire

        lib = _burstwire.lib
        calls = cls(lib)
        functions = {id(getattr(lib, name)) for name in dir(lib)}
        for name, module in list(sys.modules.items()):
            if not name.startswith("burstwire.") or name.startswith("burstwire.core._burstwire"):
                continue
            for attribute, value in list(vars(module).items()):
                if value is lib:
                    setattr(module, attribute, calls)
                elif callable(value) and id(value) in functions:
                    raise RuntimeError(f"{name}.{attribute} is a C function that would escape the count")
        return calls


class OurLink(Link):
    """One connection: its messages, and a stream for bulk."""

    def __init__(self, connection: bw.Connection) -> None:
        self.connection = connection
        self.send = connection.send  # type: ignore[method-assign]
        self.recv = connection.recv  # type: ignore[method-assign]
        self.send_many = connection.send_many  # type: ignore[method-assign]
        self.recv_many = connection.recv_many  # type: ignore[method-assign]

    async def send(self, message: bytes) -> None:
        raise NotImplementedError  # the connection's own method stands in its place

    async def recv(self) -> bytes:
        raise NotImplementedError

    async def write_bulk(self, blocks: Iterator[bytes]) -> None:
        stream = await self.connection.open_stream()
        for block in blocks:
            await stream.write(block)
        await stream.finish()

    async def read_bulk(self, size: int, sink: Sink) -> None:
        async for stream in self.connection.incoming_streams():
            buffer = bytearray(READ)
            while n := await stream.readinto(buffer):
                sink(buffer, n)
            return

    async def close(self) -> None:
        await self.connection.close()


class OurPeer(Peer):
    name = "burstwire"
    both_authenticated = True

    def __init__(self, options: Namespace) -> None:
        super().__init__(options)
        self._key = bw.KeyPair.generate()
        self._endpoint: bw.Endpoint | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted: set[bw.Connection] = set()
        self._config = bw.Config(
            max_datagram_size=options.datagram or None, aead_backend=options.aead, idle_timeout=600, keep_alive=0
        )
        for setting in options.set:
            name, _, value = setting.partition("=")
            self._config = self._config.replace(**{name: _value(value)})
        self._calls = Calls.install() if options.count_calls else None

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("--datagram", type=int, default=0, help="bytes of UDP payload; 0: discovered")
        parser.add_argument("--aead", default=None, help="AEAD back end; default: burstwire's choice")
        parser.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="any Config field: a number or a name"
        )

    async def serve(self, handler: Handler) -> dict[str, Any]:
        endpoint = self._endpoint = await bw.bind("127.0.0.1:0", self._key, config=self._config)
        self._task(self._accept(endpoint, handler))
        return {"port": endpoint.local_address[1], "key": str(self._key.public)}

    async def _accept(self, endpoint: bw.Endpoint, handler: Handler) -> None:
        async for connection in endpoint.incoming():
            self._task(self._handle(handler, connection))

    async def _handle(self, handler: Handler, connection: bw.Connection) -> None:
        self._accepted.add(connection)
        try:
            await handler(OurLink(connection))
        finally:
            self._accepted.discard(connection)

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, info: dict[str, Any]) -> Link:
        if self._endpoint is None:
            self._endpoint = await bw.bind("127.0.0.1:0", self._key, config=self._config)
        return OurLink(await self._endpoint.connect(("127.0.0.1", info["port"]), bw.PublicKey.parse(info["key"])))

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()
        for task in self._tasks:
            task.cancel()

    def counters(self) -> dict[str, float]:
        counted: dict[str, float] = dict(self._endpoint.stats()) if self._endpoint is not None else {}
        for connection in self._accepted:
            for name, value in connection.stats().items():
                if name.startswith("packets_"):
                    counted[f"connection_{name}"] = counted.get(f"connection_{name}", 0) + value
        if self._calls is not None:
            counts = self._calls.counts
            counted["c_calls"] = sum(counts.values())
            counted.update({f"c_call_{name}": count for name, count in counts.items()})
            counted["selects"] = CountingSelector.selects
        return counted

    def about(self) -> dict[str, Any]:
        stats = self._endpoint.stats() if self._endpoint is not None else {}
        return {
            "burstwire": version("burstwire"),
            "aead": aead_words(check_backend(self._config.aead_backend)),
            "datagram": self._config.max_datagram_size or "discovered",
            "receive_buffer": stats.get("socket_receive_buffer"),
            "send_buffer": stats.get("socket_send_buffer"),
        }


def _value(text: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    main(OurPeer)
