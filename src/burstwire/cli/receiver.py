"""The receiving end of one file (the right column of `headers.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import hmac
import stat
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from burstwire.cli.exchange import Exchange, PeerEnded, TransferError
from burstwire.cli.exits import describe_os_error
from burstwire.cli.filework import BUFFER, ShortFile, hash_prefix, in_thread, result_of, settle, start
from burstwire.cli.folder import Folder, NameTaken, Partial, PartialHeld, transfer_identity
from burstwire.cli.headers import Accept, Check, Done, End, HeaderError, Offer, Prefix, Refuse, ResetCode
from burstwire.cli.names import BadName, check_name, partial_name
from burstwire.cli.text import format_size
from burstwire.errors import StreamReset, TransportError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Inbox", "Received", "Rejection"]

TAIL = 8 << 20
"""The last bytes of a file, during which we say busy now and then: by then the sender may have handed everything to its
transport (`Config.send_buffer` is 4 MiB) and wait, on a slow path for minutes. Not before, for it would not listen.
"""

FLUSH_EVERY = 64 << 20
"""Bytes after which a file is flushed in the background: so the last flush, before the file appears, is short, and a
large file does not push everything else out of memory. Figures, 1 GiB received on a virtual machine: 180 MB/s without,
255 with 8 MiB, 268 with 32, 272 with 128.
"""


class Rejection(Exception):
    """This side refuses the file.

    Attributes:
        code: goes to the sender, for programs.
        reason: goes to the sender and to this side's user.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is in place.

    Attributes:
        name: in the directory.
        size: bytes of the whole file.
        resumed_from: bytes that had not to travel.
        identical: it was there before the offer came.
        sha256: of the whole file.
        seconds: from the offer to the file being in place.
    """

    name: str
    size: int
    resumed_from: int
    identical: bool
    sha256: str
    seconds: float


class Inbox:
    """Receives any number of files at the same time into one folder.

    Args:
        folder: where they go.
        limit: how many are received at the same time; the others wait (each holds two buffers of 1 MiB).
    """

    def __init__(self, folder: Folder, limit: int = 16) -> None:
        self.folder = folder
        self._turns = asyncio.Semaphore(limit)
        self._active: dict[str, tuple[Exchange, asyncio.Task[object], asyncio.Event]] = {}

    async def receive(self, exchange: Exchange, sender: bytes) -> Received:
        """One whole conversation. The peer has been told when this raises.

        Args:
            exchange: the stream that the peer opened.
            sender: the peer's public key.

        Raises:
            Rejection: this side refused.
            TransferError, HeaderError, TransportError: the peer, or the way to it, failed.
        """
        started = time.monotonic()
        try:
            offer = await exchange.get(Offer)
            exchange.label = offer.name
            name = _accepted_name(offer)
            identity = transfer_identity(sender, offer)
            async with self._only_attempt(identity, exchange), self._turn(exchange):
                resumed_from, sha256 = await self._take(exchange, offer, name, identity)
        except Rejection as rejection:
            await _refuse(exchange, rejection, ResetCode.REFUSED)
            raise
        except (TransferError, HeaderError) as error:
            await _refuse(exchange, Rejection("protocol", str(error)), ResetCode.BROKEN)
            raise
        identical = resumed_from is None
        with contextlib.suppress(TransferError, HeaderError, TransportError):
            # The file is in place whether or not the sender hears of it.
            await exchange.put(Done(identical))
            await exchange.finish()
            await exchange.expect_end()
        if resumed_from is None:
            resumed_from = offer.size
        return Received(name, offer.size, resumed_from, identical, sha256, time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def _only_attempt(self, identity: str, exchange: Exchange) -> AsyncIterator[None]:
        """End an earlier attempt of the same sender at the same file: it restarted, and we did not notice."""
        while (earlier := self._active.get(identity)) is not None:
            its_exchange, its_task, its_end = earlier
            its_exchange.abandon(ResetCode.SUPERSEDED)
            its_task.cancel()
            await its_end.wait()
        task = asyncio.current_task()
        assert task is not None
        ended = asyncio.Event()
        self._active[identity] = (exchange, task, ended)
        try:
            yield
        finally:
            del self._active[identity]
            ended.set()

    @contextlib.asynccontextmanager
    async def _turn(self, exchange: Exchange) -> AsyncIterator[None]:
        """Wait until fewer than `limit` files are under way."""
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            await exchange.busy_while(turn)
            yield
        finally:
            if not turn.cancelled():
                self._turns.release()

    async def _take(self, exchange: Exchange, offer: Offer, name: str, identity: str) -> tuple[int | None, str]:
        """Get the file into place: bytes that had not to travel (None: it was in place), and the hash."""
        try:
            sha256 = await self._compare_existing(exchange, offer, name)
            if sha256 is not None:
                self.folder.remove(partial_name(name, identity))
                return None, sha256
            return await self._take_partial(exchange, offer, name, identity)
        except OSError as error:
            if isinstance(error, TransportError):
                raise
            cause = describe_os_error(error)
            raise Rejection(_storage_code(error), f"the receiver cannot store the file: {cause}") from error

    async def _compare_existing(self, exchange: Exchange, offer: Offer, name: str) -> str | None:
        """The hash if this very file is in place already; None if the name is free or may be replaced."""
        there = self.folder.exists(name)
        if there is None:
            return None
        if stat.S_ISDIR(there.st_mode):
            raise Rejection("exists", "the receiver has a directory of this name")
        if stat.S_ISREG(there.st_mode) and there.st_size == offer.size:
            with self.folder.existing(name) as fd:
                if fd is not None:
                    digest, matches = await _check(exchange, fd, offer.size)
                    if matches:
                        return digest.hexdigest()
        if not self.folder.overwrite:
            raise Rejection("exists", "the receiver has another file of this name")
        return None

    async def _take_partial(self, exchange: Exchange, offer: Offer, name: str, identity: str) -> tuple[int, str]:
        """Continue or begin the partial file until it can be published: bytes it had before, and the hash."""
        try:
            partial = self.folder.open_partial(name, identity)
        except PartialHeld:
            raise Rejection("busy", "another process of the receiver is at this file") from None
        keep = True
        try:
            if partial.size > offer.size:
                partial.restart()
            digest = hashlib.sha256()
            if partial.size:
                digest, matches = await _check(exchange, partial.fd, partial.size)
                if not matches:
                    partial.restart()
                    digest = hashlib.sha256()
            missing, free = offer.size - partial.size, self.folder.free_bytes()
            if missing > free:
                reason = f"the receiver has {format_size(free)} free and needs {format_size(missing)}"
                raise Rejection("space", reason)
            resumed_from = partial.size
            await exchange.put(Accept(resumed_from))
            await _store(exchange, partial, offer.size, digest)
            end = await exchange.get(End)
            if end.sha256 != digest.hexdigest():
                keep = False
                raise Rejection("mismatch", "what arrived is not the file that was sent; it was dropped")
            await _publish(exchange, partial, offer)
            return resumed_from, end.sha256
        except StreamReset as reset:
            keep = reset.code != ResetCode.CHANGED
            raise
        finally:
            partial.close(keep=keep)


def _accepted_name(offer: Offer) -> str:
    try:
        return check_name(offer.name)
    except BadName as error:
        raise Rejection("name", f"the receiver does not take this name: {error}") from None


def _storage_code(error: OSError) -> str:
    """The refusal's word: "space" for what deleting files would cure."""
    return "space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage"


async def _check(exchange: Exchange, fd: int, size: int) -> tuple[_Hash, bool]:
    """The hash over the first `size` bytes of our file, and whether the sender's begins with the same ones.

    The sender tells its hash first and we compare: so nobody learns about a file here that he does not have.
    """
    if size == 0:
        return hashlib.sha256(), True
    await exchange.put(Check(size))
    stop = threading.Event()
    try:
        digest = await exchange.busy_while(in_thread(functools.partial(hash_prefix, fd, size, stop), stop))
    except ShortFile:
        digest = hashlib.sha256()
    prefix = await exchange.get(Prefix)
    return digest, hmac.compare_digest(prefix.sha256, digest.hexdigest())


async def _store(exchange: Exchange, partial: Partial, size: int, digest: _Hash) -> None:
    """The bytes still missing, from the stream to the disk: one buffer fills while the other is written.

    However it ends, all that arrived before is in the partial file.
    """
    length = min(BUFFER, size - partial.size)
    filling, other = memoryview(bytearray(length)), memoryview(bytearray(length))
    writing: asyncio.Future[None] | None = None
    flushing: asyncio.Future[None] | None = None
    flushed = partial.size
    missing = size - partial.size
    filled = 0

    def write(data: memoryview) -> None:
        partial.append(data)
        digest.update(data)

    try:
        while missing:
            view = filling[: min(length, missing)]
            filled = 0
            while filled < len(view):
                count = await exchange.readinto(view[filled:])
                if count == 0:
                    raise PeerEnded("the sender ended the transfer early")
                filled += count
                if missing <= TAIL:
                    await exchange.busy_now_and_then()
            if writing is not None:
                await result_of(writing)
                # A slow disk's flush is not waited for: the sender would take that for silence.
                if partial.size - flushed >= FLUSH_EVERY and (flushing is None or flushing.done()):
                    if flushing is not None:
                        flushing.result()
                    flushing = start(functools.partial(partial.flush, flushed, partial.size))
                    flushed = partial.size
            writing = start(functools.partial(write, view))
            missing -= filled
            filled = 0
            filling, other = other, filling
        if writing is not None:
            await result_of(writing)
        if flushing is not None:
            await exchange.busy_while(result_of(flushing))
    finally:
        await settle(writing)
        await settle(flushing)
        if filled and (writing is None or writing.exception() is None):
            with contextlib.suppress(OSError):
                partial.append(filling[:filled])


async def _publish(exchange: Exchange, partial: Partial, offer: Offer) -> None:
    """Flush the file and give it its name, even if the sender goes away meanwhile."""
    publishing = start(functools.partial(partial.publish, offer))
    try:
        with contextlib.suppress(TransferError, TransportError):
            await exchange.busy_while(asyncio.wait((publishing,)))
        await result_of(publishing)
    except NameTaken:
        raise Rejection("exists", "the receiver got another file of this name meanwhile") from None
    finally:
        await settle(publishing)


async def _refuse(exchange: Exchange, rejection: Rejection, code: ResetCode) -> None:
    """Tell the sender, as far as it still listens."""
    with contextlib.suppress(TransferError, TransportError):
        await exchange.put(Refuse(rejection.code, rejection.reason))
        await exchange.finish()
    with contextlib.suppress(TransportError):
        exchange.stream.stop(code)
