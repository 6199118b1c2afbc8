"""A NAT that forgets its bindings, and links that are gone for a while, in the middle of a transfer.

The NAT is the kernel's (nftables, connection tracking) in a namespace between client and server. What is asserted are
counters of the protocol and bytes; how long the receiver went without data is printed.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from benches.shaped import Home, Shape, behind_nat
from support.loops import run_under
from support.shaped import Ends, connected, payload, receive, send, shaped

from burstwire import Config

pytestmark = shaped

DATA = payload(3 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()

SHAPE = Shape(rate=30e6, delay=0.01, queue=75_000)
RTT = 2 * SHAPE.delay

Test = Callable[[Ends, Home], Coroutine[Any, Any, None]]


def at_home(test: Test, config: Config | None = None) -> None:
    """Run a test on two endpoints, `here` at home and `there` outside."""
    with behind_nat(SHAPE) as home:

        async def main() -> None:
            async with connected(home.client, home.server, home.server_address, config) as ends:
                assert ends.there.peer_address == (home.link.addresses[0], home.port)  # the router's
                await test(ends, home)

        run_under("asyncio", main)


class Silence:
    """The longest time between two reads from some moment on."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = 0.0

    def begin(self) -> None:
        self._last = time.monotonic()

    def read(self) -> None:
        if self._last:
            now = time.monotonic()
            self.longest = max(self.longest, now - self._last)
            self._last = now


TRIES = 3
"""Of a time that a busy machine may spoil, the best of so many counts."""


@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_binding_that_is_lost_in_mid_transfer_costs_three_rtt_and_one_pto_at_most_and_no_byte(
    sender: str, capsys: pytest.CaptureFixture[str]
) -> None:
    silence = Silence()
    allowed = 0.0

    async def test(ends: Ends, home: Home) -> None:
        nonlocal silence
        silence = Silence()
        expired = 0
        sending, receiving = (ends.up, ends.down) if sender == "client" else (ends.down, ends.up)
        by = ends.here if sender == "client" else ends.there

        def rebind() -> None:
            nonlocal expired, allowed
            expired = int(by.stats()["pto_expired"])
            allowed = 3 * by._core.recovery.rtt.smoothed + by._core.recovery.pto()
            home.rebind()
            silence.begin()

        _, digest = await asyncio.gather(send(sending, DATA), receive(receiving, len(DATA) // 3, rebind, silence.read))
        assert digest == DIGEST
        assert ends.there.stats()["path_changes"] == 1
        assert ends.there.peer_address == (home.link.addresses[0], home.port)
        assert ends.here.stats()["path_changes"] == 0
        assert by.stats()["pto_expired"] - expired <= 1
        with capsys.disabled():
            print(
                f" [silent for {silence.longest * 1e3:.0f} ms; 3 RTT + 1 PTO are {allowed * 1e3:.0f} ms,"
                f" the path's RTT without its queue {RTT * 1e3:.0f} ms]",
                end="",
            )

    for _ in range(TRIES):
        at_home(test)
        if silence.longest <= allowed:
            break
    assert silence.longest <= allowed


def test_a_receiver_with_nothing_to_send_asks_when_its_binding_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even an acknowledgement is left to make a new binding, and the keep-alive is half a minute away."""
    config = Config(stream_window_initial=4 << 20, connection_window_initial=8 << 20)  # no credit to be sent soon

    async def test(ends: Ends, home: Home) -> None:
        silence = Silence()
        core = ends.here._core
        tasks: list[asyncio.Task[None]] = []
        pto = 0.0

        async def mute() -> None:
            """The binding is lost, and so is what the receiver still had to say."""
            nonlocal pto
            pto = core.recovery.pto()
            home.link.change(down=True)
            home.rebind()
            silence.begin()
            quiet = 0
            while quiet < 5 and not ends.here.stats()["silence_probes"]:
                await asyncio.sleep(0.001)
                quiet = 0 if core.acks.owed or core.acks.due or core.recovery.log.in_flight else quiet + 1
            home.link.change(down=False)

        def begin() -> None:
            tasks.append(asyncio.create_task(mute()))

        _, digest = await asyncio.gather(send(ends.down, DATA), receive(ends.up, len(DATA) // 6, begin, silence.read))
        await tasks[0]
        assert digest == DIGEST
        assert ends.here.stats()["silence_probes"] == 1
        assert ends.there.stats()["path_changes"] == 1
        assert silence.longest < config.keep_alive / 2
        with capsys.disabled():
            print(
                f" [silent for {silence.longest * 1e3:.0f} ms: {silence.longest / RTT:.1f} RTT of {RTT * 1e3:.0f} ms;"
                f" PTO {pto * 1e3:.0f} ms]",
                end="",
            )

    at_home(test, config)


def test_a_quiet_connection_is_found_again_once_its_client_keeps_it_alive() -> None:
    """Whoever is outside cannot reach a client whose binding is gone; keep-alives from inside make a new one."""

    async def test(ends: Ends, home: Home) -> None:
        home.rebind()
        await ends.there.send(b"to a port that nobody has")
        assert await ends.here.recv() == b"to a port that nobody has"
        assert ends.there.stats()["path_changes"] == 1
        await ends.here.send(b"and back")
        assert await ends.there.recv() == b"and back"

    at_home(test, Config(keep_alive=0.3))


@pytest.mark.parametrize("moved", [False, True], ids=["same binding", "new binding"])
def test_an_outage_is_survived_if_the_idle_timeout_allows(moved: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing passes for two seconds and nobody is told. PTOs double, so only few expire meanwhile."""
    outage = 2.0

    async def test(ends: Ends, home: Home) -> None:
        silence = Silence()
        expired = 0

        def cut() -> None:
            nonlocal expired
            expired = int(ends.here.stats()["pto_expired"])
            home.link.change(down=True)
            if moved:
                home.rebind()
            silence.begin()
            asyncio.get_running_loop().call_later(outage, lambda: home.link.change(down=False))

        pto = ends.here._core.recovery.pto()
        _, digest = await asyncio.gather(send(ends.up, DATA), receive(ends.down, len(DATA) // 3, cut, silence.read))
        assert digest == DIGEST
        assert ends.there.stats()["path_changes"] == int(moved)
        assert silence.longest >= outage
        with capsys.disabled():
            print(f" [silent for {silence.longest:.2f} s, {outage:g} s of it without a link]", end="")
        doublings = math.log2(1 + outage / RTT) + 2
        assert ends.here.stats()["pto_expired"] - expired <= doublings
        assert pto < outage

    at_home(test, Config(idle_timeout=10.0, keep_alive=5.0))
