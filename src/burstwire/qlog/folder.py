"""A folder of traces: every connection of an endpoint leaves a file there."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from burstwire.qlog.trace import Trace
from burstwire.qlog.writer import SequenceWriter

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.proto.connection import Connection

__all__ = ["SUFFIX", "VARIABLE", "TraceFolder", "open_new", "open_over", "trace_folder"]

VARIABLE = "QLOGDIR"
"""The environment variable that names the folder, as with other stacks of QUIC."""

SUFFIX = ".sqlog"
"""What files of JSON text sequences should be called (draft-ietf-quic-qlog-main-schema-04 §7.2)."""

NAMESAKES = 100
"""Files of one name, told apart by a number, before it is given up: a simulation repeats its times and IDs."""

MODE = 0o600
"""Who may read a trace: it says who talked with whom, and when."""


def trace_folder(config: Config) -> str | None:
    """Where the connections of an endpoint with these settings leave traces; None: nowhere."""
    if config.qlog_dir is not None:
        return config.qlog_dir or None
    return os.environ.get(VARIABLE) or None


class TraceFolder:
    """Gives each connection a trace in a folder; `Endpoint.trace` may be its `trace`.

    The folder and a file are made when a trace has something to write. If that fails, the trace ends and knows why.

    Args:
        folder: its name.
        limit: bytes of each file at most.
        epoch: what has to be added to the connections' time for the time since 1970, in seconds.
        local: gives the address of this side's socket, if it is known.
        on_end: called with each trace that has ended.
    """

    __slots__ = ("_epoch", "_folder", "_limit", "_local", "_on_end")

    def __init__(
        self,
        folder: str,
        limit: int,
        epoch: float,
        local: Callable[[], tuple[str, int] | None] = lambda: None,
        on_end: Callable[[Trace], None] | None = None,
    ) -> None:
        self._folder = os.path.abspath(folder)  # the process may go elsewhere
        self._limit = limit
        self._epoch = epoch
        self._local = local
        self._on_end = on_end

    def trace(self, connection: Connection, now: float) -> Trace:
        """Begins the trace of a connection."""
        path = os.path.join(self._folder, self._name(connection, now))

        def make() -> io.FileIO:
            os.makedirs(self._folder, exist_ok=True)
            return open_new(path)

        writer = SequenceWriter(make, self._limit)
        return Trace(connection, writer, path, now, self._epoch, self._local(), self._on_end)

    def _name(self, connection: Connection, now: float) -> str:
        """When, and between whom: the IDs are in the same order on both sides, so that both traces stand together."""
        moment = datetime.fromtimestamp(now + self._epoch, UTC)
        ids = (connection.local_cid, connection.remote_cid)
        role = "client" if connection.is_initiator else "server"
        initiator, responder = ids if connection.is_initiator else ids[::-1]
        stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03}Z"
        return f"{stamp}-{initiator:08x}{responder:08x}-{role}{SUFFIX}"


def open_new(path: str) -> io.FileIO:
    """A new file, never one that is there, nor where a link leads: a shared folder may hold anything."""
    base = path.removesuffix(SUFFIX)
    for number in range(1, NAMESAKES + 1):
        try:
            return io.FileIO(path if number == 1 else f"{base}-{number}{SUFFIX}", "xb", opener=_private)
        except FileExistsError:
            if number == NAMESAKES:
                raise
    raise AssertionError("unreachable")


def open_over(path: str) -> io.FileIO:
    """A file that the application named; one that is there is replaced."""
    return io.FileIO(path, "wb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)
