"""Run one asynchronous command: signals end it cleanly, failures end it with their code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from burstwire.cli.exits import ExitCode, Failure

__all__ = ["run_async"]

_SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


def run_async(command: Callable[[], Coroutine[Any, Any, ExitCode]], interrupted: str = "interrupted") -> ExitCode:
    """The exit code of `command`. A first SIGINT or SIGTERM cancels it and waits, a second one ends the process.

    Raises `Failure` as the command does, or with the line `interrupted` after a signal.
    """
    return asyncio.run(_supervise(command, interrupted))


async def _supervise(command: Callable[[], Coroutine[Any, Any, ExitCode]], interrupted: str) -> ExitCode:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(command())
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        if received:
            # The user insists: no more waiting for the peer, and nothing on disk needs us (see folder.py).
            os._exit(_SIGNALS[number])
        received.append(number)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise Failure(_SIGNALS[received[0]], interrupted) from None
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
