"""The driver against a protocol and a socket that misbehave on cue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from driver_bench import Bench, Flight, Without, bench
from support.loops import Run, settled, turns

from burstwire.core import BufferRing, RunTable


def test_a_lone_call_is_sent_at_once_and_those_behind_it_together(run: Run) -> None:
    async def test(it: Bench) -> None:
        it.protocol.flights = [Flight()]
        it.driver.touch()
        assert it.protocol.sent_count == 1, "before anything else could run"
        for _ in range(100):
            it.protocol.flights.append(Flight())
            it.driver.touch()
        assert it.protocol.sent_count == 1
        flushes = it.driver.flushes
        await settled(lambda: it.protocol.sent_count == 101)
        assert it.driver.flushes - flushes <= 100 / 8 + 2

    bench(run, test)


def test_a_wake_up_sends_no_more_than_its_share_and_lets_the_others_run(run: Run) -> None:
    async def test(it: Bench) -> None:
        it.protocol.flights = [Flight(2) for _ in range(10)]
        turns_taken = 0
        it.driver.touch()
        while it.protocol.flights:
            assert it.protocol.sent_count == 2 * (turns_taken + 1), "four trains a turn, two flights"
            await asyncio.sleep(0)
            turns_taken += 1
        assert turns_taken == 4

    bench(run, test, trains_per_wakeup=4)


def test_what_the_kernel_does_not_take_waits_until_it_is_writable_and_goes_on_where_it_stopped(run: Run) -> None:
    async def test(it: Bench) -> None:
        flight, behind = Flight(5), Flight(1)
        it.protocol.flights = [flight, behind]
        it.socket.capacity = 2
        # The real descriptor is always writable: keep the loop from noticing until there is room again.
        waited: list[Callable[[], None]] = []
        it.driver._loop = Without(it.driver._loop, add_writer=lambda fd, callback: waited.append(callback))
        it.driver.touch()
        assert it.socket.calls == [(flight, 0)]
        for _ in range(3):
            it.driver.touch()
            it.driver.touch_soon()
            it.socket.arrive()
            await turns()
        assert it.socket.calls == [(flight, 0)], "nothing is offered, and nothing else asked for, meanwhile"
        assert it.protocol.received, "but it is received"
        it.socket.capacity = 100
        (callback,) = waited
        callback()
        assert it.socket.calls == [(flight, 0), (flight, 2), (behind, 0)]
        assert it.protocol.sent_count == 2

    bench(run, test)


def test_a_full_device_queue_is_tried_again_after_pauses_that_grow(run: Run) -> None:
    async def test(it: Bench) -> None:
        pauses: list[float] = []
        real = it.driver._loop

        def call_later(delay: float, callback: Callable[[], None], *args: Any) -> Any:
            pauses.append(delay) if callback == it.driver._on_pause_over else None
            return real.call_later(0 if callback == it.driver._on_pause_over else delay, callback, *args)

        it.driver._loop = Without(real, call_later=call_later)
        it.protocol.flights = [Flight()]
        it.socket.capacity = 0
        it.socket.when_full = "nobufs"
        it.driver.touch()
        await settled(lambda: len(pauses) == 9)
        it.socket.capacity = 100
        await settled(lambda: it.protocol.sent_count == 1)
        assert pauses[:3] == [0.001, 0.002, 0.004]
        assert pauses[-1] == 0.064
        pauses.clear()
        it.socket.capacity = 0
        it.protocol.flights = [Flight()]
        await asyncio.sleep(0.001)
        it.driver.touch()
        await settled(lambda: bool(pauses))
        assert pauses[0] == 0.001, "once it went through, it starts small again"

    bench(run, test)


def test_the_timer_is_moved_only_when_the_deadline_comes_nearer(run: Run) -> None:
    async def test(it: Bench) -> None:
        armed: list[float] = []
        real = it.driver._loop

        def call_later(delay: float, callback: Callable[[], None], *args: Any) -> Any:
            armed.append(delay)
            return real.call_later(delay, callback, *args)

        it.driver._loop = Without(real, call_later=call_later)
        it.protocol.deadline = monotonic() + 0.5
        it.driver.flush()
        for step in range(50):
            it.protocol.deadline += 0.01 * step
            it.driver.flush()
        assert len(armed) == 1
        it.protocol.deadline = monotonic() + 0.02
        it.driver.flush()
        assert len(armed) == 2
        await settled(lambda: bool(it.protocol.timeouts))

    bench(run, test)


def test_a_deadline_that_moved_away_is_not_reported_early(run: Run) -> None:
    async def test(it: Bench) -> None:
        it.protocol.deadline = monotonic() + 0.002
        it.driver.flush()
        it.protocol.deadline = due = monotonic() + 0.05
        await settled(lambda: bool(it.protocol.timeouts))  # the fake asserts that none comes before its time
        assert it.protocol.timeouts[0] >= due

    bench(run, test)


def test_a_deadline_in_the_past_does_not_spin(run: Run) -> None:
    async def test(it: Bench) -> None:
        armed: list[float] = []
        real = it.driver._loop

        def call_later(delay: float, callback: Callable[[], None], *args: Any) -> Any:
            armed.append(delay)
            return real.call_later(delay, callback, *args)

        it.driver._loop = Without(real, call_later=call_later)
        it.protocol.handle_timeout = lambda now: it.protocol.timeouts.append(now)  # type: ignore[method-assign]
        it.protocol.deadline = monotonic() - 1
        it.driver.flush()
        await settled(lambda: len(it.protocol.timeouts) == 20)
        assert len(armed) in (20, 21)
        assert set(armed) == {0.001}

    bench(run, test)


def test_slots_come_back_whatever_the_protocol_does(run: Run) -> None:
    async def test(it: Bench) -> None:
        for _ in range(100):
            it.socket.arrive()
        await settled(lambda: it.protocol.received == 100)
        assert it.driver._ring.leased == 0

    bench(run, test)


@pytest.mark.parametrize("where", ["receive", "transmit", "events", "next_timeout", "sent", "handle_timeout"])
def test_an_exception_anywhere_is_reported_and_ends_it_once(run: Run, where: str) -> None:
    reported: list[dict[str, Any]] = []

    async def test(it: Bench) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

        def broken(*_: object) -> None:
            raise KeyError(where)

        setattr(it.protocol, where, broken)
        it.protocol.flights = [Flight()]
        it.protocol.deadline = monotonic()
        it.socket.arrive()
        await settled(lambda: bool(it.failures))
        it.driver.touch()
        it.driver.touch_soon()
        await turns(20)
        assert [str(error) for error in it.failures] == [repr(where)]
        assert [context["exception"] for context in reported] == it.failures
        reported.clear()

    bench(run, test)


def test_a_socket_that_fails_for_good_ends_it_without_a_report(run: Run) -> None:
    async def test(it: Bench) -> None:
        it.socket.fails = OSError(9, "EBADF")
        it.socket.arrive()
        await settled(lambda: bool(it.failures))
        assert it.failures == [it.socket.fails]

    bench(run, test)


def test_a_call_from_inside_a_step_is_sent_in_the_next(run: Run) -> None:
    """`authorize` runs inside `receive`; whatever it calls must not enter the protocol a second time."""

    async def test(it: Bench) -> None:
        def reenter(ring: BufferRing, table: RunTable) -> None:
            it.protocol.flights.append(Flight())
            before = it.protocol.sent_count
            it.driver.touch()
            assert it.protocol.sent_count == before

        it.protocol.on_receive = reenter
        it.socket.arrive()
        await settled(lambda: it.protocol.sent_count == 1)

    bench(run, test)


def test_a_stopped_driver_does_nothing_more(run: Run) -> None:
    async def test(it: Bench) -> None:
        it.protocol.flights = [Flight(), Flight()]
        it.protocol.deadline = monotonic() + 0.001
        it.driver.touch()
        it.driver.touch()
        it.driver.stop()
        it.driver.stop()
        it.driver.touch()
        it.driver.touch_soon()
        it.driver.flush()
        await asyncio.sleep(0.005)
        assert it.protocol.sent_count <= 2
        assert not it.protocol.timeouts
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(it.socket.fileno())

    bench(run, test)
