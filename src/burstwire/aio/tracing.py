"""The traces of an endpoint's connections: which are open, that they reach the disk, and what became of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from burstwire.qlog.folder import TraceFolder, open_over, trace_folder
from burstwire.qlog.trace import FLUSH_AFTER, Trace
from burstwire.qlog.writer import SequenceWriter

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.proto.connection import Connection as Protocol

__all__ = ["Tracing"]

log = logging.getLogger("burstwire")


class Tracing:
    """What an endpoint traces. Costs a few hundred bytes and nothing else as long as that is nothing.

    Args:
        loop: the endpoint's; a timer is in it while a trace is open.
        config: the endpoint's.
        local: gives the address of the socket.

    Attributes:
        folder: traces every connection; None unless the settings or the environment say so.
        started: traces that were begun.
        failed: traces that ended because their file could not be opened or written.
    """

    __slots__ = ("_epoch", "_limit", "_local", "_loop", "_open", "_timer", "_warned", "failed", "folder", "started")

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, local: Callable[[], tuple[str, int]]) -> None:
        self._loop = loop
        self._limit = config.qlog_limit
        self._local = local
        self._epoch = time.time() - monotonic()
        self._open: dict[Trace, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False
        self.started = 0
        self.failed = 0
        folder = trace_folder(config)
        self.folder: TraceFolder | None = None
        if folder is not None:
            self.folder = TraceFolder(folder, self._limit, self._epoch, local, self._ended)

    def every(self, connection: Protocol, now: float) -> None:
        """Has a new connection leave its trace in the folder."""
        if self.folder is not None:
            self._begun(self.folder.trace(connection, now))

    def one(self, connection: Protocol, path: str | os.PathLike[str]) -> Trace:
        """Traces one connection from now on; raises `OSError` if the file cannot be opened."""
        name = os.fspath(path)
        writer = SequenceWriter(lambda: open_over(name), self._limit)
        writer.open_now()
        trace = Trace(connection, writer, name, monotonic(), self._epoch, self._local(), self._ended)
        return self._begun(trace)

    def _begun(self, trace: Trace) -> Trace:
        self.started += 1
        if trace.active:
            self._open[trace] = None
            if self._timer is None:
                self._timer = self._loop.call_later(FLUSH_AFTER, self._on_timer)
        return trace

    def _on_timer(self) -> None:
        """A connection that rests tells its trace nothing: what it did before must reach the disk all the same."""
        self._timer = self._loop.call_later(FLUSH_AFTER, self._on_timer)
        for trace in tuple(self._open):
            trace.flush()

    def _ended(self, trace: Trace) -> None:
        self._open.pop(trace, None)
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if trace.failure is not None:
            self.failed += 1
            if not self._warned:
                self._warned = True
                log.warning("a trace ended: %s: %s; this is said once", trace.path, trace.failure.strerror)
