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
from typing import Any

__all__ = ["Attacker", "Campaign", "main"]

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
            head = struct.pack(
                ">BIIB",
                INITIATE,
                rng.choice((1, 1, 2, rng.getrandbits(32))),
                rng.getrandbits(32),
                rng.choice((0, 0, 1, 9)),
            )
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
        counter = rng.choice(
            (
                self.counter + rng.randrange(1000),
                rng.randrange(self.counter + 1),
                rng.getrandbits(62),
                rng.getrandbits(64),
            )
        )
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


class Campaign:
    """The sockets of the attack, the relay between the live client and the victim, and what went through them."""

    def __init__(self, port: int, attacker: Attacker) -> None:
        self._target = ("127.0.0.1", port)
        self._attacker = attacker
        self._victim = Victim(port)
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._inner, self._outer, *strangers = sockets
        self._senders = [*strangers, self._inner, self._inner, self._inner]
        self._client: tuple[str, int] | None = None
        self._sent = 0
        self.port: int = self._outer.getsockname()[1]
        self.sockets = sockets
        self.counts = dict.fromkeys((*KINDS, "forwarded", "bytes", "answered", "answered_bytes", "refused"), 0)

    def relay(self, ready: socket.socket) -> None:
        """Move what waits at one socket."""
        counts = self.counts
        try:
            for _ in range(64):
                datagram, source = ready.recvfrom(65536)
                if ready is self._outer:
                    self._client = source
                    self._attacker.record(datagram)
                    self._inner.sendto(datagram, self._target)
                    counts["forwarded"] += 1
                elif ready is self._inner and self._client is not None:
                    # Answers to what was forged from the client's address go to the client, as they would.
                    self._outer.sendto(datagram, self._client)
                else:
                    counts["answered"] += 1
                    counts["answered_bytes"] += len(datagram)
        except BlockingIOError:
            pass

    def batch(self, count: int) -> bool:
        """Send some more datagrams; returns whether `count` have been sent."""
        if self._victim.look()[0] > FULL:
            time.sleep(0.0005)
            return False
        end = min(self._sent + BATCH, count)
        for index in range(self._sent, end):
            kind, datagram = self._attacker.next(index)
            try:
                self._senders[index % len(self._senders)].sendto(datagram, self._target)
            except OSError:
                self.counts["refused"] += 1
                continue
            self.counts[kind] += 1
            self.counts["bytes"] += len(datagram)
        self._sent = end
        return end == count

    def dropped(self) -> int:
        """Datagrams that the kernel dropped at the victim's socket, however it counts them."""
        return self._victim.look()[1]


def main(arguments: list[str]) -> None:
    """The attacking process: prints the relay's port, waits for a line, attacks, prints what it sent."""
    parser = argparse.ArgumentParser(prog="python -m benches.attack")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--public", required=True, help="the victim's public key, 64 hexadecimal digits")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="stop after this time in any case")
    options = parser.parse_args(arguments)
    campaign = Campaign(options.port, Attacker(bytes.fromhex(options.public), options.seed))
    print(json.dumps({"port": campaign.port}), flush=True)
    started: float | None = None
    while True:
        watched: list[Any] = [0, *campaign.sockets]
        for ready in select.select(watched, [], [], 0.05 if started is None else 0)[0]:
            if ready != 0:
                campaign.relay(ready)
            elif not os.read(0, 100):
                return
            else:
                started = time.monotonic()
        if started is None:
            continue
        seconds = time.monotonic() - started
        if campaign.batch(options.count) or seconds > options.seconds:
            started = None
            time.sleep(0.2)  # what is under way arrives
            print(json.dumps({**campaign.counts, "seconds": seconds, "dropped": campaign.dropped()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
