"""Runs a coroutine under asyncio or uvloop, and checks that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

try:
    import uvloop
except ImportError:  # pragma: no cover
    uvloop = None  # type: ignore[assignment]

__all__ = ["HANG", "LOOPS", "Run", "open_descriptors", "run_under", "settled"]

HANG = 60.0
"""Seconds after which a test is given up as hanging. Nothing waits for it, and nothing is measured by it."""

LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")),
]

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def open_descriptors() -> set[str]:
    """The descriptors of this process, with what they refer to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # that of the listing itself
    return found


def run_under(kind: str, main: Callable[[], Coroutine[Any, Any, Any]], hang: float = HANG) -> Any:
    """Run `main()` in a fresh loop.

    Fails if it takes more than `hang` seconds, if a task is left or an exception was reported to the loop, or if a
    descriptor stayed open.
    """
    factory = uvloop.new_event_loop if kind == "uvloop" else asyncio.SelectorEventLoop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.sleep(0))  # the first loop of a process makes descriptors that stay
    gc.collect()
    before = open_descriptors() if sys.platform == "linux" else set()
    reported: list[dict[str, Any]] = []

    async def watched() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context))
        async with asyncio.timeout(hang):
            result = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(watched())
    gc.collect()
    assert not reported, f"reported to the loop: {reported}"
    if sys.platform == "linux":
        left = open_descriptors() - before
        assert not left, f"descriptors left open: {left}"
    return result


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition()`; the test as a whole is guarded against never."""
    while not condition():
        await asyncio.sleep(0)


async def turns(n: int = 5) -> None:
    """Let everything that is ready run, a few times over."""
    for _ in range(n):
        await asyncio.sleep(0)


async def cancelled(awaitable: Awaitable[Any], after: int = 1) -> None:
    """Start something, let the loop turn, cancel it, and see that it was cancelled (not finished)."""
    task = asyncio.ensure_future(awaitable)
    await turns(after)
    assert not task.done(), "it did not wait, so there was nothing to cancel"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
