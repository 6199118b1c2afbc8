"""A process of two endpoints that talk and replace their keys, and look for old keys in the memory of the process.

    python memory_of_keys.py BACKEND GENERATIONS

The last line that it prints is JSON: how often each kind of secret was found before and after. The process searches its
own memory, all of it that can be written to. It remembers what to look for in disguise (each byte xor 0x5a), and looks
in a disguised copy, so that it finds nothing of its own making.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable

from burstwire import Config, Connection, KeyPair, bind
from burstwire.crypto import keys, noise
from burstwire.crypto.aead import Aead, make_aead

DISGUISE = bytes(value ^ 0x5A for value in range(256))
CHUNK = 1 << 20
OVERLAP = 64

seen: dict[str, list[bytes]] = {}
"""What was in use so far, by kind, in disguise."""


def note(kind: str, *values: Iterable[int]) -> None:
    seen.setdefault(kind, []).extend(bytes(byte ^ 0x5A for byte in value) for value in values)


def undisguised(secret: bytes) -> Iterable[int]:
    return (value ^ 0x5A for value in secret)


def found(needles: Iterable[bytes]) -> int:
    """How many of these are in memory."""
    buffer = bytearray(CHUNK)
    missing = set(needles)
    count = len(missing)
    with open("/proc/self/maps") as maps:
        ranges = [
            (int(low, 16), int(high, 16))
            for low, high, flags in re.findall(r"^(\w+)-(\w+) (\S+)", maps.read(), re.M)
            if flags.startswith("rw")
        ]
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    for low, high in ranges:
        for start in range(low, high, CHUNK - OVERLAP):
            try:
                n = os.preadv(memory, [memoryview(buffer)[: min(CHUNK, high - start)]], start)
            except OSError:  # a mapping that is not memory
                break
            disguised = buffer.translate(DISGUISE)[:n]
            missing = {needle for needle in missing if needle not in disguised}
    os.close(memory)
    buffer[:] = bytes(CHUNK)
    return count - len(missing)


def watch() -> None:
    """Has the parts of the key schedule noted as they come into being."""
    derive, split = keys.derive, noise.HandshakeState.split

    def noted_derive(parts: tuple[bytes, bytes], initiator: bool, digest: bytes) -> tuple[bytes, bytes]:
        secrets = derive(parts, initiator, digest)
        note("split", *parts)
        note("first secrets", *secrets)
        return secrets

    def noted_split(state: noise.HandshakeState) -> tuple[bytes, bytes]:
        note("chaining key", state._symmetric.chaining)
        return split(state)

    def noted_make_aead(name: str, key: bytes, backend: str | None = None) -> Aead:
        note("packet keys", key)
        return make_aead(name, key, backend)

    keys.derive, noise.HandshakeState.split, keys.make_aead = noted_derive, noted_split, noted_make_aead  # type: ignore


async def exchange(here: Connection, there: Connection, rounds: int) -> None:
    for n in range(rounds):
        await here.send(b"question %d" % n)
        await there.send((await there.recv()) * 200)
        await here.recv()


def secrets_of(*connections: Connection) -> list[Iterable[int]]:
    found: list[Iterable[int]] = []
    for connection in connections:
        of = connection._core.keys
        found += [of._seal._secret, of._open._secret]
    return found


async def main(backend: str, generations: int) -> dict[str, object]:
    watch()
    config = Config(aead_backend=backend, key_update_interval=0.0, aeads=("aes-256-gcm",))
    async with (
        await bind("127.0.0.1:0", KeyPair.generate(), config=config) as a,
        await bind("127.0.0.1:0", KeyPair.generate(), config=config) as b,
    ):
        here = await a.connect(b.local_address, b.public_key)
        there = await anext(b.incoming())
        await exchange(here, there, 20)
        before = {kind: found(secrets) for kind, secrets in seen.items()}
        inner = [connection._core for connection in (here, there)]
        for _ in range(generations):
            note("secrets of generations", *secrets_of(here, there))
            old = {kind: list(secrets) for kind, secrets in seen.items()}
            for connection in inner:
                connection.update_keys()
            await exchange(here, there, 2)
        while any(one._key_deadline is not None for one in inner):  # the 3 PTO after the update
            await asyncio.sleep(0.005)
        await exchange(here, there, 20)
        after = {kind: found(secrets) for kind, secrets in old.items()}
        note("current", *secrets_of(here, there), *map(undisguised, set(seen["packet keys"]) - set(old["packet keys"])))
        return {
            "searched": {kind: len(set(secrets)) for kind, secrets in old.items()},
            "before": before,
            "after": after,
            "current": found(seen["current"]),
            "generations": [one.stats()["key_updates"] for one in inner],
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))))
