"""A process that seals by way of nonce_log.so: threads with endpoints that talk over bad relays, and its own children.

    python nonce_worker.py SEED AMOUNT THREADS CHILDREN [broken]

CHILDREN is a word of the letters f (a fork in the midst of it) and s (a fresh process). With `broken` packet numbers
go back now and then. Prints, for all processes, the packets that their connections say they have sealed, at least.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "proto")]

from pair import Pair
from support.relay import Faults, Relay

from burstwire import Config, Connection, KeyPair, bind
from burstwire.crypto import cookie, noise
from burstwire.crypto.keys import TrafficKeys
from burstwire.errors import CryptoError, TransportError
from burstwire.proto.events import StreamReadable
from burstwire.proto.outbound import Outbound

FAULTS = Faults(drop=0.02, duplicate=0.02, reorder=0.03, corrupt=0.01)
LOG = ctypes.CDLL(os.environ["BURSTWIRE_LIBCRYPTO"])


def note_handshakes() -> None:
    """Has what the handshake seals, by way of cryptography, written down as well."""
    cipher = noise.ChaCha20Poly1305

    class Noted:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = bytes(key), cipher(key)
            self.decrypt = self._cipher.decrypt

        def encrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
            LOG.nonce_note(self._key, len(self._key), nonce)
            return self._cipher.encrypt(nonce, data, associated)

    noise.ChaCha20Poly1305 = cookie.ChaCha20Poly1305 = Noted  # type: ignore[misc,assignment]


def break_counters() -> None:
    """Gives the numbers of one packet or run in fifty again."""
    calls = 0

    def broken(self: Outbound, first: int, count: int) -> None:
        nonlocal calls
        calls += 1
        self.connection.next_counter = first + count if calls % 50 else first

    Outbound._take = broken  # type: ignore[method-assign]


class Talk:
    """Two endpoints that talk over a bad relay, so many bytes each way, within a time in seconds."""

    def __init__(self, seed: int, amount: int, within: float = 120.0) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.amount = amount
        self.within = within
        self.sealed = 0
        self.alive: list[Connection] = []
        self.started = threading.Event()

    def config(self) -> Config:
        """Small packets, many keys, each packet protection."""
        aead = self.random.choice(("aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"))
        return Config(
            aeads=(aead,),
            max_datagram_size=1200,
            key_update_packets=self.random.choice((30, 300)),
            close_timeout=0.1,
        )

    async def whole(self) -> None:
        config = self.config()
        async with (
            asyncio.timeout(self.within),
            await bind("127.0.0.1:0", KeyPair.generate(), config=config) as listener,
            await bind("127.0.0.1:0", KeyPair.generate(), config=config) as dialer,
        ):
            with Relay(listener.local_address, FAULTS, self.seed) as relay:
                here = await dialer.connect(relay.address, listener.public_key, timeout=60.0)
                there = await anext(listener.incoming())
                self.alive = [here, there]
                self.started.set()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self.stream(here, there, self.amount))
                    tasks.create_task(self.messages(here, there, self.amount // 1000))
                self.sealed = sum(int(one.stats()["packets_sent"]) for one in self.alive)
                await dialer.close()
                await listener.close()

    async def stream(self, here: Connection, there: Connection, amount: int) -> None:
        mine = await here.open_stream()
        await mine.write(b"!")
        other = await anext(there.incoming_streams())

        async def write(stream: Any) -> None:
            left = amount
            while left > 0:
                n = min(left, self.random.randrange(1, 40_000))
                await stream.write(bytes(n))
                left -= n
            await stream.finish()

        async def read(stream: Any) -> None:
            while await stream.read(1 << 16):
                pass

        await asyncio.gather(write(mine), write(other), read(mine), read(other))

    async def messages(self, here: Connection, there: Connection, count: int) -> None:
        for n in range(count):
            await here.send(bytes(n % 50))
            if n % 5 == 0:
                await there.send(await there.recv())
                await here.recv()


def go_on_after_failed_seals(seed: int, amount: int) -> None:
    """A connection that is kept although seals of it failed: what it sends again has other numbers."""
    pair = Pair(Config(aead_backend="libcrypto", max_datagram_size=1200, key_update_packets=50), seed=seed)
    secrets = [os.urandom(32) for _ in range(2)]
    pair.a.connection.keys = TrafficKeys(*secrets, 0, "libcrypto")
    pair.b.connection.keys = TrafficKeys(*reversed(secrets), 0, "libcrypto")
    stream = pair.a.connection.open_stream()
    assert stream is not None
    LOG.nonce_fail(ctypes.c_uint64(61))
    left = bytes(amount)
    while left or not pair.a.connection.idle_out:
        left = left[stream.write(left) :]
        for event in pair.b.take(StreamReadable):
            while event.stream.read(1 << 16):
                pass
        try:
            if not pair.step():
                pair.wait()
        except CryptoError:
            for side in (pair.a, pair.b):
                side.outbox.clear()
    LOG.nonce_fail(ctypes.c_uint64(0))


def try_what_was_inherited(talks: list[Talk]) -> None:
    """The child of a fork: every way to seal with what the parent has must be refused."""
    for talk in talks:
        for connection in talk.alive:
            for use in (
                lambda core=connection._core: core.counters.reserve(core.counter_index, 1),
                lambda core=connection._core: core.counters.acquire(),
                lambda core=connection._core: core.outbound._numbers(1),
            ):
                try:
                    use()
                except CryptoError:
                    continue
                raise AssertionError("the child of a fork got a number of its parent")


def main() -> int:
    seed, amount, threads, children, *options = sys.argv[1:]
    note_handshakes()
    if "broken" in options:  # which does not work well: a little of it will do
        break_counters()
        with suppress(TimeoutError, TransportError, BaseExceptionGroup):
            asyncio.run(Talk(int(seed), int(amount), 1.0).whole())
        print(0)
        return 0
    talks = [Talk(int(seed) * 100 + n, int(amount)) for n in range(int(threads))]
    running = [threading.Thread(target=lambda talk=talk: asyncio.run(talk.whole())) for talk in talks]
    again = [sys.executable, __file__, str(int(seed) + 7), str(int(amount) // 2), "1", ""]
    fresh = [subprocess.Popen(again, stdout=subprocess.PIPE) for letter in children if letter == "s"]
    for thread in running:
        thread.start()
    forked = []
    for talk in talks:
        talk.started.wait()
    for n, letter in enumerate(children):
        if letter == "f":
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    try_what_was_inherited(talks)
                    own = Talk(int(seed) * 100 + 50 + n, int(amount) // 2)
                    asyncio.run(own.whole())
                    os.write(writing, str(own.sealed).encode())
                    os._exit(0)
                finally:
                    traceback.print_exc()
                    os._exit(1)
            os.close(writing)
            forked.append((child, reading))
    go_on_after_failed_seals(int(seed), int(amount))
    for thread in running:
        thread.join()
    sealed = sum(talk.sealed for talk in talks)
    for child, reading in forked:
        with open(reading, "rb") as pipe:
            sealed += int(pipe.read() or b"0")
        if os.waitpid(child, 0)[1]:
            return 1
    for process in fresh:
        sealed += int(process.communicate()[0] or b"0")
        if process.returncode:
            return 1
    print(sealed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
