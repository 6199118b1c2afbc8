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


@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_binding_that_is_lost_in_mid_transfer_costs_one_pto_and_no_byte(
    sender: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(ends: Ends, home: Home) -> None:
        silence = Silence()
        expired = 0
        pto = 0.0
        sending, receiving = (ends.up, ends.down) if sender == "client" else (ends.down, ends.up)
        by = ends.here if sender == "client" else ends.there

        def rebind() -> None:
            nonlocal expired, pto
            expired = int(by.stats()["pto_expired"])
            pto = by._core.recovery.pto()
            home.rebind()
            silence.begin()

        _, digest = await asyncio.gather(send(sending, DATA), receive(receiving, len(DATA) // 3, rebind, silence.read))
        assert digest == DIGEST
        assert ends.there.stats()["path_changes"] == 1
        assert ends.there.peer_address == (home.link.addresses[0], home.port)
        assert ends.here.stats()["path_changes"] == 0
        with capsys.disabled():
            print(
                f" [silent for {silence.longest * 1e3:.0f} ms: {silence.longest / RTT:.1f} RTT of {RTT * 1e3:.0f} ms;"
                f" PTO {pto * 1e3:.0f} ms]",
                end="",
            )
        assert by.stats()["pto_expired"] - expired <= 1

    at_home(test)


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
