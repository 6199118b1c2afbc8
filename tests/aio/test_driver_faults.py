"""The driver beside clocks that jump, loops that stall, and a kernel that says ready and is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from driver_bench import Bench, Flight, Without, bench
from support.loops import Run, settled

from burstwire.aio import driver as driver_module
from burstwire.aio.driver import FIRST_PAUSE, LATE, LONGEST_DEAFNESS, VAIN_WAKE_UPS


class Clock:
    """The clock of the driver, which can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        monkeypatch.setattr(driver_module, "monotonic", lambda: time.monotonic() + self.offset)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_time_never_goes_back_and_goes_on_when_the_clock_did(run: Run, clock: Clock) -> None:
    async def test(it: Bench) -> None:
        seen = [it.driver.now()]
        for jump in (0.0, -1000.0, 0.0, -1.0, 0.0):
            clock.offset += jump
            seen.append(it.driver.now())
        assert seen == sorted(seen)
        assert it.driver.clock_steps == 2
        # Time goes on, so what is due comes to pass.
        it.protocol.deadline = it.driver.now() + 0.01
        it.driver.flush()
        await settled(lambda: bool(it.protocol.timeouts))
        assert 0.01 <= it.protocol.timeouts[0] - seen[0] < 30

    bench(run, test)


def test_a_jump_forward_is_told_once_and_the_socket_is_read_before_any_timeout(run: Run, clock: Clock) -> None:
    async def test(it: Bench) -> None:
        order: list[str] = []
        it.protocol.on_receive = lambda ring, table: order.append("input")
        real = it.protocol.handle_timeout

        def handle_timeout(now: float) -> None:
            order.append("timeout")
            real(now)

        it.protocol.handle_timeout = handle_timeout  # type: ignore[method-assign]
        it.protocol.deadline = it.driver.now() + 0.01
        it.driver.flush()
        clock.offset += 500.0
        it.socket.arrive()
        await settled(lambda: len(order) == 2)
        assert order == ["input", "timeout"]
        ((late, now),) = it.protocol.oversleeps
        assert 499.9 <= late < 530
        assert now <= it.protocol.timeouts[0]
        assert it.driver.oversleeps == 1

    bench(run, test)


def test_a_loop_that_is_blocked_again_and_again_starves_no_timeout(run: Run, clock: Clock) -> None:
    async def test(it: Bench) -> None:
        for _ in range(4):
            it.protocol.deadline = it.driver.now() + 0.001
            it.driver.flush()
            before = len(it.protocol.timeouts)
            while len(it.protocol.timeouts) == before:
                clock.offset += 2 * LATE
                await asyncio.sleep(0.002)
        assert it.driver.oversleeps >= 4

    bench(run, test)


def test_a_timer_that_is_a_little_late_is_nothing_special(run: Run, clock: Clock) -> None:
    async def test(it: Bench) -> None:
        it.protocol.deadline = it.driver.now() + 0.002
        it.driver.flush()
        clock.offset += LATE / 2
        await settled(lambda: bool(it.protocol.timeouts))
        assert not it.protocol.oversleeps

    bench(run, test)


def test_a_socket_that_is_writable_and_takes_nothing_is_offered_it_after_pauses(run: Run) -> None:
    """The descriptor is real and always writable, so waiting for that would take a whole processor."""

    async def test(it: Bench) -> None:
        pauses: list[float] = []
        real = it.driver._loop

        def call_later(delay: float, callback: Callable[[], None], *args: Any) -> Any:
            pauses.append(delay) if callback == it.driver._on_pause_over else None
            return real.call_later(0 if callback == it.driver._on_pause_over else delay, callback, *args)

        it.driver._loop = Without(real, call_later=call_later)
        it.protocol.flights = [Flight(3)]
        it.socket.capacity = 1
        it.driver.touch()
        assert pauses == [], "at first it waits until the socket is writable"
        await settled(lambda: len(pauses) >= 4)
        assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
        assert len(it.socket.calls) <= 2 + 2 * len(pauses)
        it.socket.capacity = 100
        await settled(lambda: it.protocol.sent_count == 1)

    bench(run, test)


@pytest.mark.parametrize("empty", [False, True])
def test_a_socket_that_is_readable_and_gives_nothing_is_left_alone_for_a_while(run: Run, empty: bool) -> None:
    """For ever longer if it gives really nothing; empty datagrams are taken as fast as before."""

    async def test(it: Bench) -> None:
        readings = 0
        real_recv, real_loop = it.socket.recv, it.driver._loop
        pauses: list[float] = []

        def recv(*_: Any) -> int:
            nonlocal readings
            readings += 1
            it.socket.trains_received += empty
            return 0

        def call_later(delay: float, callback: Callable[[], None], *args: Any) -> Any:
            pauses.append(delay) if callback == it.driver._on_deafness_over else None
            return real_loop.call_later(delay, callback, *args)

        it.driver._loop = Without(real_loop, call_later=call_later)
        it.socket.recv = recv  # type: ignore[method-assign]
        it.socket.arrive()
        await settled(lambda: len(pauses) == 7)
        assert readings == 7 * VAIN_WAKE_UPS
        if empty:
            assert set(pauses) == {FIRST_PAUSE}
        else:
            assert pauses == [min(FIRST_PAUSE * 2**n, LONGEST_DEAFNESS) for n in range(7)]
        it.socket.recv = real_recv  # type: ignore[method-assign]
        await settled(lambda: it.protocol.received == 1)
        # What gave something is trusted anew.
        it.socket.trains_received += 1
        del pauses[:]
        it.socket.recv = recv  # type: ignore[method-assign]
        it.socket.arrive()
        await settled(lambda: len(pauses) == 1)
        assert pauses == [FIRST_PAUSE]

    bench(run, test)
