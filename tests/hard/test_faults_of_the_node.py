"""Faults without a stand-in: the link goes down, buffers are too small, the loop is blocked, callbacks raise."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loops import LOOPS, run_under, settled

sys.path.insert(0, str(Path(__file__).parent.parent / "net"))  # its helpers are made for this

from hosts import two_hosts
from linked import KEYS, Link, linked

import burstwire as bw
from burstwire import Config
from burstwire.aio import driver as driver_module
from burstwire.core import UdpSocket

Outcome = Callable[[str, str, str], None]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


async def transfer(here: bw.Connection, there: bw.Connection, size: int) -> None:
    """A stream each way at once; what arrives is what was sent."""

    async def one(sender: bw.Connection, receiver: bw.Connection, data: bytes) -> None:
        async def write() -> None:
            stream = await sender.open_stream()
            await stream.write(data)
            await stream.finish()

        async def read() -> bytes:
            stream = await anext(receiver.incoming_streams())
            digest = hashlib.sha256()
            while piece := await stream.read(1 << 18):
                digest.update(piece)
            await stream.finish()
            return digest.digest()

        _, digest = await asyncio.gather(write(), read())
        assert digest == hashlib.sha256(data).digest()

    data = os.urandom(size)
    await asyncio.gather(one(here, there, data), one(there, here, data[::-1]))


def balanced(link: Link) -> None:
    for endpoint in (link.a, link.b):
        assert endpoint.stats()["ring_leased"] == 0
        assert endpoint._driver._ring.leased == 0


@pytest.mark.netns
def test_a_link_that_goes_down_and_comes_up_again_ends_nothing(outcome: Outcome, full: bool) -> None:
    down = 3.0 if full else 0.5
    figures: list[float] = []

    async def main() -> None:
        with two_hosts() as (one, other):
            with other.inside():
                b = await bw.bind((other.address, 0), KEYS[1])
            with one.inside():
                a = await bw.bind((one.address, 0), KEYS[0])
            async with a, b:
                here = await a.connect(b.local_address, KEYS[1].public)
                there = await anext(b.incoming())
                await transfer(here, there, 100_000)
                one.link("down")
                moving = asyncio.create_task(transfer(here, there, 1_000_000))
                await asyncio.sleep(down)
                assert a.stats()["socket_trains_refused"] > 0, "the kernel said that there is no way"
                one.link("up")
                began = time.monotonic()
                await moving
                figures.append(time.monotonic() - began)
                assert not here.closed
                assert not there.closed

    run_under("asyncio", main)
    outcome("faults", f"the interface down for {down:g} s and up", f"2 MB through {figures[0]:.2f} s after it is up")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_receive_buffer_that_is_overrun_loses_datagrams_and_no_byte(
    outcome: Outcome, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer of 4 KiB, and a peer that was told of a large one, so that it sends more than fits."""
    figures: list[int] = []

    async def main() -> None:
        settings = Config(socket_receive_buffer=4096, max_datagram_size=1200, gro=False)
        monkeypatch.setattr(UdpSocket, "receive_buffer", property(lambda _: 1 << 20, _ignore), raising=False)
        async with linked(settings) as link:
            await transfer(link.here, link.there, 300_000)
            figures.append(sum(end.stats()["socket_kernel_drops"] for end in (link.a, link.b)))
            balanced(link)

    run_under(loop, main)
    assert figures[0] > 0, "nothing was dropped, so nothing was tested"
    outcome("faults", f"receive buffer of 4 KiB overrun ({loop})", f"{figures[0]:,} datagrams dropped and counted")


def _ignore(_: object, value: object) -> None:
    """What the kernel granted is overridden."""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_single_slot_each_way_and_none_for_a_while_loses_nothing(outcome: Outcome, loop: str) -> None:
    async def main() -> None:
        async with linked(Config(receive_slots=1, send_slots=1)) as link:
            await transfer(link.here, link.there, 500_000)
            ring = link.b._driver._ring
            slot = ring.lease()
            assert slot >= 0
            moving = asyncio.create_task(transfer(link.here, link.there, 500_000))
            await settled(lambda: link.b.stats()["socket_no_slot"] > 3)
            assert not moving.done()
            ring.release(slot)
            await moving
            balanced(link)

    run_under(loop, main)
    outcome("faults", f"one slot each way, and the ring exhausted ({loop})", "nothing lost, counted as socket_no_slot")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_is_blocked_beyond_the_idle_timeout_ends_nothing(outcome: Outcome, full: bool, loop: str) -> None:
    blocked = 5.0 if full else 0.9
    figures: list[float] = []

    async def main() -> None:
        async with linked(Config(idle_timeout=blocked / 2, keep_alive=blocked / 4)) as link:
            await transfer(link.here, link.there, 100_000)
            time.sleep(blocked)
            began = time.monotonic()
            await transfer(link.here, link.there, 500_000)
            figures.append(time.monotonic() - began)
            assert link.a.stats()["loop_oversleeps"] + link.b.stats()["loop_oversleeps"] > 0
            balanced(link)

    run_under(loop, main)
    outcome(
        "faults",
        f"event loop blocked for {blocked:g} s at an idle timeout of {blocked / 2:g} s ({loop})",
        f"no connection ends, 1 MB through {figures[0] * 1e3:.0f} ms later",
    )


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_in_mid_transfer_ends_nothing(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, loop: str, jump: float
) -> None:
    offset = [0.0]
    monkeypatch.setattr(driver_module, "monotonic", lambda: time.monotonic() + offset[0])

    async def main() -> None:
        async with linked(Config()) as link:
            await transfer(link.here, link.there, 100_000)
            moving = asyncio.create_task(transfer(link.here, link.there, 2_000_000))
            for _ in range(3):
                await asyncio.sleep(0)
            offset[0] += jump
            began = time.monotonic()
            await moving
            await transfer(link.here, link.there, 100_000)
            # A round trip that seemed an hour long would hold everything up for most of a minute.
            assert time.monotonic() - began < 15
            stats = link.a.stats()
            assert stats["loop_clock_steps"] == (1 if jump < 0 else 0)
            balanced(link)

    run_under(loop, main)
    outcome("faults", f"the clock jumps by {jump:+,.0f} s in mid-transfer ({loop})", "every byte there, nothing ends")


@pytest.mark.parametrize("loop", LOOPS)
def test_callbacks_of_the_application_that_raise_harm_nobody_else(outcome: Outcome, loop: str) -> None:
    """`authorize` raises beside a transfer; then a bug ends an endpoint, and the loop's exception handler raises."""

    async def main() -> None:
        calls = 0

        def authorize(key: bw.PublicKey, address: tuple[str, int]) -> bool:
            nonlocal calls
            calls += 1
            if key == KEYS[2].public:
                raise KeyError("the application's")
            return True

        async with linked(Config(), Config(authorize=authorize)) as link:
            moving = asyncio.create_task(transfer(link.here, link.there, 2_000_000))
            async with await bw.bind("127.0.0.1:0", KEYS[2]) as stranger:
                with pytest.raises(bw.HandshakeError):
                    await stranger.connect(link.b.local_address, KEYS[1].public)
            await moving
            assert calls == 2
            assert link.b.stats()["authorize_errors"] == 1

            def broken(*_: object) -> None:
                raise ZeroDivisionError("a bug")

            def handler(*_: Any) -> None:
                raise RuntimeError("the application's handler")

            loop_now = asyncio.get_running_loop()
            before = loop_now.get_exception_handler()
            loop_now.set_exception_handler(handler)
            try:
                link.b._driver.protocol.receive = broken  # type: ignore[method-assign]
                waiting = asyncio.create_task(link.there.recv())
                await link.here.send(b"x")
                with pytest.raises(bw.EndpointClosed):
                    await waiting
            finally:
                loop_now.set_exception_handler(before)
            assert link.b.closed
            link.here._give_up(0, "")

    run_under(loop, main)
    outcome("faults", f"authorize and the loop's exception handler raise ({loop})", "the others go on, all are told")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["closed", "replaced"])
def test_the_death_of_the_socket_surfaces_within_a_second(outcome: Outcome, loop: str, how: str) -> None:
    figures: list[float] = []

    async def main() -> None:
        async with linked(Config(close_timeout=0.1)) as link:
            waiting = asyncio.create_task(link.there.recv())
            await asyncio.sleep(0.05)
            other = os.open(os.devnull, os.O_RDONLY)
            descriptor = link.b._driver.socket.fileno()
            began = time.monotonic()
            if how == "closed":
                os.close(descriptor)
            else:
                os.dup2(other, descriptor)
            with pytest.raises(bw.EndpointClosed):
                await waiting
            figures.append(time.monotonic() - began)
            await link.b.close()
            os.close(other)

    run_under(loop, main)
    # The line of the demand, and what a busy machine adds to a timer.
    assert figures[0] < 1.0 + 0.5
    outcome("demands", f"the descriptor of a listener {how} ({loop})", f"told after {figures[0]:.2f} s")
