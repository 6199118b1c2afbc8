"""Hostile datagrams, made and sent by a process of its own, and the relay that it listens in on.

The live client connects through the relay, so the attacker sees its packets, may forge from its address, and knows its
connection ID, as somebody on the path does. A third of the datagrams are random bytes of random size, a third have
well-formed headers, a third are recorded packets, mutated or sent again as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from hashlib import blake2s
from pathlib import Path

__all__ = ["Attacker", "main"]

INITIATE, RESPOND, COOKIE, VERSIONS, RESET, DATA = 0x01, 0x02, 0x03, 0x04, 0x05, 0x10
MAX_UDP = 65507

BATCH = 32
"""Datagrams between two looks at the relay."""

FULL = 1 << 20
"""Bytes waiting at the victim's socket above which the attacker waits: datagrams that the kernel drops test nothing."""

RECORDED = 4096
"""Packets of the live connection that are kept, the newest."""

KINDS = ("random", "headers", "recorded")


class Victim:
    """What the kernel says about the socket under attack."""

    def __init__(self, port: int) -> None:
        self._suffix = f":{port:04X}"

    def look(self) -> tuple[int, int]:
        """(bytes that wait to be read, datagrams dropped so far)."""
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[1].endswith(self._suffix):
                return int(parts[4].split(":")[1], 16), int(parts[-1])
        return 0, 0


class Attacker:
    """Makes the datagrams; `next` gives one and the kind that it is of."""

    def __init__(self, public: bytes, seed: int) -> None:
        self._random = random.Random(seed)
        self._noise = self._random.randbytes(1 << 20)
        self._mac1_key = blake2s(b"mac1----" + public).digest()
        self.recorded: deque[bytes] = deque(maxlen=RECORDED)
        self.cid = 0
        self.counter = 0

    def record(self, datagram: bytes) -> None:
        """Look at a packet of the live connection on its way to the victim."""
        self.recorded.append(datagram)
        if datagram[0] == DATA and len(datagram) >= 29:
            self.cid, self.counter = struct.unpack_from(">IQ", datagram, 1)

    def next(self, number: int) -> tuple[str, bytes]:
        """The hostile datagram with this number."""
        kind = KINDS[number % 3]
        if kind == "random":
            return kind, self._bytes(self._random.randrange(MAX_UDP + 1))
        if kind == "headers":
            return kind, self._headers()
        return kind, self._mutated()

    def _bytes(self, n: int) -> bytes:
        at = self._random.randrange(len(self._noise) - MAX_UDP)
        return self._noise[at : at + n]

    def _headers(self) -> bytes:
        rng = self._random
        cid = self.cid if rng.random() < 0.6 else rng.getrandbits(32)
        choice = rng.randrange(12)
        if choice == 0:
            head = struct.pack(">BIIB", INITIATE, rng.choice((1, 1, 2, rng.getrandbits(32))), rng.getrandbits(32), rng.choice((0, 0, 1, 9)))
            body = head + self._bytes(1200 - len(head) - 32)
            if rng.random() < 0.2:  # whoever knows the public key can make this one good, and so cost an X25519
                return body + blake2s(body, key=self._mac1_key, digest_size=16).digest() + bytes(16)
            return body + self._bytes(32)
        if choice == 1:
            return struct.pack(">BII", RESPOND, cid, rng.getrandbits(32)) + self._bytes(rng.randrange(400))
        if choice == 2:
            return struct.pack(">BI", COOKIE, cid) + self._bytes(rng.choice((48, 48, rng.randrange(80))))
        if choice == 3:
            return struct.pack(">BI", VERSIONS, cid) + self._bytes(16 + 4 * rng.randrange(5))
        if choice == 4:
            return struct.pack(">BI", RESET, cid) + self._bytes(rng.choice((16, 16, rng.randrange(40))))
        counter = rng.choice((self.counter + rng.randrange(1000), rng.randrange(self.counter + 1), rng.getrandbits(62), rng.getrandbits(64)))
        size = rng.choice((0, 16, 17, 30, 100, 1171, rng.randrange(1500), rng.randrange(MAX_UDP - 13)))
        return struct.pack(">BIQ", DATA, cid, counter) + self._bytes(size)

    def _mutated(self) -> bytes:
        rng = self._random
        if not self.recorded:
            return self._headers()
        datagram = bytearray(self.recorded[rng.randrange(len(self.recorded))])
        choice = rng.randrange(8)
        if choice <= 2:
            for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
                datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
        elif choice == 3:
            del datagram[rng.randrange(len(datagram)) :]
        elif choice == 4:
            datagram += self._bytes(rng.randrange(1, 200))
        elif choice == 5 and len(datagram) > 13:
            struct.pack_into(">Q", datagram, 5, self.counter + rng.randrange(1 << rng.randrange(1, 62)))
        elif choice == 6:
            other = self.recorded[rng.randrange(len(self.recorded))]
            cut = rng.randrange(len(datagram))
            datagram[cut:] = other[cut:]
        return bytes(datagram)


def main(arguments: list[str]) -> None:
    """The attacking process: prints the relay's port, waits for a line, attacks, prints what it sent."""
    parser = argparse.ArgumentParser(prog="python -m benches.attack")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--public", required=True, help="the victim's public key, 64 hexadecimal digits")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="stop after this time in any case")
    options = parser.parse_args(arguments)
    target = ("127.0.0.1", options.port)
    inner, outer, *strangers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
    for each in (inner, outer, *strangers):
        each.bind(("127.0.0.1", 0))
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    print(json.dumps({"port": outer.getsockname()[1]}), flush=True)
    attacker = Attacker(bytes.fromhex(options.public), options.seed)
    victim = Victim(options.port)
    counts = dict.fromkeys((*KINDS, "forwarded", "bytes", "answered", "answered_bytes", "refused"), 0)
    client: tuple[str, int] | None = None
    attacking = False
    number = 0
    started = time.monotonic()
    senders = [outer_side for outer_side in strangers] + [inner] * 3
    inputs = [inner, outer, *strangers, sys.stdin]
    while True:
        idle = 0.0 if attacking and number < options.count else 0.05
        for ready in select.select(inputs, [], [], idle)[0]:
            if ready is sys.stdin:
                line = os.read(0, 100)
                if not line:
                    return
                attacking = True
                started = time.monotonic()
                continue
            try:
                for _ in range(64):
                    datagram, source = ready.recvfrom(65536)
                    if ready is outer:
                        client = source
                        attacker.record(datagram)
                        inner.sendto(datagram, target)
                        counts["forwarded"] += 1
                    elif ready is inner and client is not None:
                        # Answers to what was forged from the client's address go to the client, as they would.
                        outer.sendto(datagram, client)
                    else:
                        counts["answered"] += 1
                        counts["answered_bytes"] += len(datagram)
            except BlockingIOError:
                pass
        if not attacking:
            continue
        if number < options.count and time.monotonic() - started < options.seconds:
            waiting, _ = victim.look()
            if waiting > FULL:
                time.sleep(0.0005)
                continue
            for number in range(number, min(number + BATCH, options.count)):
                kind, datagram = attacker.next(number)
                try:
                    senders[number % len(senders)].sendto(datagram, target)
                except (BlockingIOError, OSError):
                    counts["refused"] += 1
                    continue
                counts[kind] += 1
                counts["bytes"] += len(datagram)
            number += 1
        else:
            seconds = time.monotonic() - started
            time.sleep(0.2)
            print(json.dumps({**counts, "seconds": seconds, "dropped": victim.look()[1]}), flush=True)
            attacking = False
            number = options.count


if __name__ == "__main__":
    main(sys.argv[1:])
