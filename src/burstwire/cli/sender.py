"""The sending end of one file (the left column of `headers.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from burstwire.cli.exchange import Exchange, TransferError
from burstwire.cli.exits import ExitCode, Failure, describe_os_error
from burstwire.cli.filework import (
    BUFFER,
    ShortFile,
    hash_prefix,
    in_thread,
    read_full,
    result_of,
    settle,
    start,
)
from burstwire.cli.headers import Accept, Check, Done, End, HeaderError, Offer, Prefix, ResetCode
from burstwire.cli.text import printable
from burstwire.errors import StreamStopped, TransportError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Changed", "Progress", "Sent", "Source", "open_source", "send_file"]


class Changed(Exception):
    """The file was written to, or could not be read any further, while it was sent."""


class Progress(Protocol):
    """Is told how a transfer goes; every method returns at once."""

    def begin(self, name: str, size: int) -> None:
        """A file's turn came."""

    def checking(self) -> None:
        """Comparing what the receiver has already; no bytes move."""

    def resume(self, offset: int) -> None:
        """The first `offset` bytes need not travel."""

    def advance(self, count: int) -> None:
        """So many more bytes were handed to the transport."""

    def confirming(self) -> None:
        """Everything was handed over; the receiver checks and stores it."""

    def end(self) -> None:
        """The file's turn is over, well or not."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be sent, open.

    Attributes:
        path: as the user wrote it.
        name: what the receiver shall call it.
        fd: open for reading.
        size, mtime_ns, mode: as they were when it was opened.
    """

    path: str
    name: str
    fd: int
    size: int
    mtime_ns: int
    mode: int

    def unchanged(self) -> bool:
        """Whether it still looks as it did when it was opened."""
        now = os.fstat(self.fd)
        return (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that the receiver confirmed.

    Attributes:
        resumed_from: bytes that had not to travel.
        sent: bytes that did.
        identical: the receiver had the whole file before.
        sha256: of the whole file.
        seconds: from the offer to the confirmation.
    """

    resumed_from: int
    sent: int
    identical: bool
    sha256: str
    seconds: float


@contextlib.contextmanager
def open_source(path: str, name: str | None = None) -> Iterator[Source]:
    """Open a regular file for sending; raises `Failure` (exit code 4) with the reason in words."""
    shown = printable(path)
    sent_name = os.path.basename(path) if name is None else name
    try:
        sent_name.encode()
    except UnicodeEncodeError:
        raise Failure(ExitCode.LOCAL, f"{shown}: the name is not UTF-8; choose one with --as") from None
    try:
        # Not blocking: a FIFO must not hold the command before it is refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        cause = describe_os_error(error) if isinstance(error, OSError) else "not a path"
        raise Failure(ExitCode.LOCAL, f"{shown}: {cause}") from error
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise Failure(ExitCode.LOCAL, f"{shown}: is a directory; send an archive of it instead")
        if not stat.S_ISREG(found.st_mode):
            raise Failure(ExitCode.LOCAL, f"{shown}: is not a regular file")
        yield Source(path, sent_name, fd, found.st_size, found.st_mtime_ns, stat.S_IMODE(found.st_mode))
    finally:
        os.close(fd)


async def send_file(exchange: Exchange, source: Source, progress: Progress) -> Sent:
    """Offer the file and send what the receiver lacks of it; returns when the receiver has it in place.

    Raises:
        Changed: the file changed, or reading failed; the receiver drops what it got.
        Refused, TransferError, HeaderError, TransportError: the receiver, or the way to it, failed.
    """
    started = time.monotonic()
    try:
        resumed_from, identical, sha256 = await _converse(exchange, source, progress)
    except StreamStopped as stopped:
        # Its last header, which may still be under way, says why.
        raise await exchange.refusal_after(stopped) from None
    except Changed:
        exchange.stream.reset(ResetCode.CHANGED)
        raise
    except (TransferError, HeaderError):
        exchange.abandon(ResetCode.BROKEN)
        raise
    except asyncio.CancelledError:
        exchange.abandon(ResetCode.CANCELLED)
        raise
    sent = 0 if identical else source.size - resumed_from
    return Sent(resumed_from, sent, identical, sha256, time.monotonic() - started)


async def _converse(exchange: Exchange, source: Source, progress: Progress) -> tuple[int, bool, str]:
    """Bytes that had not to travel, whether the receiver had everything, and the file's hash."""
    await exchange.put(Offer(source.name, source.size, source.mtime_ns, source.mode))
    digest = hashlib.sha256()
    offset = 0
    first: Accept | Check | Done = await exchange.get(Accept, Check, Done)
    reply: Accept | Done
    if isinstance(first, Check):
        if not 0 < first.size <= source.size:
            raise HeaderError("the receiver asks about more than was offered")
        offset = first.size
        progress.checking()
        digest = await _hashed(exchange, source, offset)
        await exchange.put(Prefix(digest.hexdigest()))
        reply = await exchange.get(Accept, Done)
    else:
        reply = first
    if isinstance(reply, Done):
        if offset != source.size:
            raise HeaderError("the receiver confirms what it never got")
        await exchange.finish()
        await _expect_end(exchange)
        progress.resume(offset)
        return offset, True, digest.hexdigest()
    if reply.offset == 0:
        digest = hashlib.sha256()
    elif reply.offset != offset:
        raise HeaderError("the receiver wants to resume where it did not ask")
    progress.resume(reply.offset)
    await _send_bytes(exchange, source, reply.offset, digest, progress)
    if not source.unchanged():
        raise Changed("the file changed while it was being sent")
    await exchange.put(End(digest.hexdigest()))
    await exchange.finish()
    progress.confirming()
    await exchange.get(Done)
    await _expect_end(exchange)
    return reply.offset, False, digest.hexdigest()


async def _expect_end(exchange: Exchange) -> None:
    """The file is in place; a receiver that goes away before the end of its stream changes nothing about it."""
    with contextlib.suppress(TransferError, HeaderError, TransportError):
        await exchange.expect_end()


async def _hashed(exchange: Exchange, source: Source, size: int) -> _Hash:
    stop = threading.Event()
    try:
        work = functools.partial(hash_prefix, source.fd, size, stop)
        return await exchange.busy_while(in_thread(work, stop))
    except (ShortFile, OSError) as error:
        raise _unreadable(error) from error


async def _send_bytes(exchange: Exchange, source: Source, offset: int, digest: _Hash, progress: Progress) -> None:
    """The file from `offset` on: one buffer is read and hashed while the other is sent."""
    length = min(BUFFER, source.size - offset)
    reading, sending = memoryview(bytearray(length)), memoryview(bytearray(length))

    def load(view: memoryview, position: int) -> memoryview:
        read_full(source.fd, view, position)
        digest.update(view)
        return view

    def load_at(view: memoryview, position: int) -> asyncio.Future[memoryview] | None:
        if position >= source.size:
            return None
        return start(functools.partial(load, view[: min(length, source.size - position)], position))

    loading = load_at(reading, offset)
    try:
        while loading is not None:
            try:
                view = await result_of(loading)
            except (ShortFile, OSError) as error:
                raise _unreadable(error) from error
            offset += len(view)
            reading, sending = sending, reading
            loading = load_at(reading, offset)
            await exchange.write(view)
            progress.advance(len(view))
    finally:
        await settle(loading)


def _unreadable(error: ShortFile | OSError) -> Exception:
    if isinstance(error, TransportError):
        return error
    if isinstance(error, ShortFile):
        return Changed("the file became shorter while it was being sent")
    return Changed(f"the file cannot be read: {describe_os_error(error)}")
