"""A node under a flood of INITIATEs: it goes on transferring, lets honest peers in, and its timers fire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest
from flood import GENUINE, KINDS, Role

import burstwire as bw

RATE = 50_000
"""INITIATEs a second, with --hard."""

ADDRESSES = 60_000
"""Source addresses of the flood, in turn; more than a node could tell apart by remembering them."""

MEMORY = 24 << 20
"""Bytes by which the node may grow: the table of callers, known INITIATEs, half-open handshakes, buffers of the
newcomers' connections, and the allocator's slack."""

TRIES = 3
"""Measurements at most, until one shows what is promised: what else the machine does takes from the node while it is
flooded, and not while it is not, or the other way round. All figures are in the outcome."""

LATE = 0.050
"""Seconds by which a timer may be late, apart from what others on the machine take."""

Outcome = Callable[[str, str, str], None]


@dataclass
class Scene:
    """The processes, and what is measured between two looks at them."""

    node: Role
    sender: Role
    flooder: Role

    @property
    def public(self) -> bw.PublicKey:
        return bw.PublicKey(bytes.fromhex(self.node.info["key"]))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.node.info["port"]

    @contextmanager
    def flood(self, kind: str, rate: float, *, idle: bool) -> Iterator[dict[str, Any]]:
        """While this lasts; `idle`: as busy, but to a socket that nobody reads. Afterwards it says what was sent."""
        done: dict[str, Any] = {}
        self.flooder.ask(kind=kind, rate=rate, spread=ADDRESSES, idle=idle, seconds=120)
        try:
            yield done
        finally:
            done |= self.flooder.ask(enough=True)

    def window(self, seconds: float) -> tuple[float, dict[str, Any], dict[str, Any]]:
        """(bytes a second that the transfer moved, the node before, the node after)."""
        before = self.node.ask()
        time.sleep(seconds)
        after = self.node.ask()
        return (after["moved"] - before["moved"]) / (after["now"] - before["now"]), before, after


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        node = stack.enter_context(Role("node", "{}"))
        place = str(node.info["port"]), node.info["key"]
        sender = stack.enter_context(Role("sender", *place, "take"))
        flooder = stack.enter_context(Role("flooder", *place))
        yield Scene(node, sender, flooder)


async def meet(scene: Scene, count: int) -> list[float]:
    """So many new peers, one after another: how long each took to connect and to get its message back (seconds)."""
    times = []
    for number in range(count):
        async with await bw.bind("127.0.0.1:0", bw.KeyPair.generate()) as endpoint:
            started = time.monotonic()
            connection = await endpoint.connect(scene.address, scene.public, timeout=20)
            await connection.send(b"%d" % number)
            assert await connection.recv() == b"%d" % number
            times.append(time.monotonic() - started)
    return times


@pytest.mark.parametrize("kind", KINDS)
def test_a_transfer_keeps_half_of_its_rate_and_a_new_peer_gets_in_while_initiates_pour(
    kind: str, scene: Scene, full: bool, outcome: Outcome
) -> None:
    rate, seconds, rounds, peers = (RATE, 1.5, 3, 5) if full else (RATE / 10, 0.5, 1, 1)
    least = 0.5 if full else 0.02
    sent, times, multiplications, shares = [], [0.0], [], []
    before = scene.node.ask()
    while len(shares) < TRIES and (not shares or shares[-1] < least):
        calm, flooded = [], []
        for idle in (True, False) * rounds:
            with scene.flood(kind, rate, idle=idle) as done:
                start = scene.node.ask()
                time.sleep(seconds / 3)
                speed, _, after = scene.window(seconds)
                if not idle:
                    flooded.append(speed)
                    multiplications.append(after["x25519"] - start["x25519"])
                    if len(flooded) == rounds and not shares:
                        times = asyncio.run(meet(scene, peers))
                else:
                    calm.append(speed)
            if not idle:
                sent.append(done["sent"] / done["seconds"])
        shares.append(median(flooded) / median(calm))
    after = scene.node.ask()
    grown = after["rss"] - before["rss"]
    received, postponed = (
        after["stats"][name] - before["stats"][name] for name in ("initiates_received", "initiates_postponed")
    )
    tried = ", ".join(f"{share:.0%}" for share in shares)
    outcome(
        "attacks",
        f"flood of INITIATEs {KINDS[kind]}, from {ADDRESSES:,} addresses",
        f"{median(sent):,.0f}/s; a transfer keeps {tried} of {median(calm) / 1e6:,.0f} MB/s; {peers} new peers in "
        f"at most {max(times) * 1e3:,.0f} ms; at most {max(multiplications):,} X25519 in {seconds * 4 / 3:g} s; "
        f"{postponed / received:.0%} dropped unseen; "
        f"memory {grown / 2**20:+.1f} MiB",
    )
    assert received > 100
    assert grown <= MEMORY
    assert after["stats"]["half_open"] <= bw.Config().max_half_open
    if kind == "strangers":
        assert max(multiplications) == 0
    if kind == "replayed":
        assert max(multiplications) <= 4 * GENUINE  # of the first copy of each
    assert shares[-1] >= least
    assert max(times) <= (3.0 if full else 20.0)


@pytest.mark.parametrize("kind", ["strangers", "forged"])
def test_a_timer_fires_and_a_connection_lives_in_a_flood_at_line_rate(kind: str, full: bool, outcome: Outcome) -> None:
    """As many as one process can send, for 10 s; a connection that is quiet lives by its keep-alives."""
    seconds = 10.0 if full else 1.0
    lively = bw.Config(idle_timeout=4.0, keep_alive=0.5) if full else bw.Config()
    with ExitStack() as stack:
        node = stack.enter_context(Role("node", '{"idle_timeout": 4.0, "keep_alive": 0.5}' if full else "{}"))
        flooder = stack.enter_context(Role("flooder", str(node.info["port"]), node.info["key"]))
        echoes, alive, late, sent, stats = asyncio.run(_endure(Scene(node, node, flooder), kind, seconds, lively))
    outcome(
        "demands",
        f"7, flood at line rate for {seconds:g} s, INITIATEs {KINDS[kind]}",
        f"{sent:,.0f}/s sent, {stats['initiates_received'] / seconds:,.0f}/s looked at; a timer of 20 ms at most "
        f"{late['late'] * 1e3:.1f} ms late, {late['late_own'] * 1e3:.1f} ms without waits for a processor; "
        f"{len(echoes)} messages there and back, p50 {median(echoes) * 1e3:.1f} ms, slowest "
        f"{max(echoes) * 1e3:.0f} ms; a quiet connection lives",
    )
    assert alive
    assert echoes
    assert stats["initiates_received"] > 1000
    assert late["late_own"] <= (LATE if full else 5.0)


async def _endure(
    scene: Scene, kind: str, seconds: float, config: bw.Config
) -> tuple[list[float], bool, dict[str, float], float, dict[str, int]]:
    loop = asyncio.get_running_loop()
    async with await bw.bind("127.0.0.1:0", bw.KeyPair.generate(), config=config) as endpoint:
        quiet = await endpoint.connect(scene.address, scene.public, timeout=20)
        talking = await endpoint.connect(scene.address, scene.public, timeout=20)
        echoes = []
        with scene.flood(kind, 1e9, idle=False) as done:
            before = scene.node.ask()
            end = loop.time() + seconds
            while loop.time() < end:
                started = loop.time()
                await talking.send(b"still there?")
                await talking.recv()
                echoes.append(loop.time() - started)
                await asyncio.sleep(0.02)
            after = scene.node.ask()
        received = {name: after["stats"][name] - before["stats"][name] for name in ("initiates_received",)}
        await quiet.send(b"and you?")
        alive = await quiet.recv() == b"and you?"
    return echoes, alive, after, done["sent"] / done["seconds"], received
