"""`burstwire receive`: files from anybody, or from those who are allowed, into one directory."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import burstwire as bw
from burstwire.cli.exchange import Exchange, TransferError, explain
from burstwire.cli.exits import ExitCode, Failure, describe_os_error
from burstwire.cli.folder import Folder
from burstwire.cli.headers import MAX_PING, PING, PONG, HeaderError
from burstwire.cli.hosts import format_address, reachable_host
from burstwire.cli.identity import load_identity
from burstwire.cli.output import Output, complain
from burstwire.cli.receiver import Inbox, Received, Rejection
from burstwire.cli.session import Common, make_config, opened
from burstwire.cli.text import format_duration, format_rate, format_size, printable, short_key

__all__ = ["ReceiveOptions", "receive"]

MAX_STREAMS = 4
"""Files that one sender may offer at the same time; ours sends one after the other."""

MAX_CONNECTIONS = 256
"""Senders at the same time; each costs its transport buffers."""


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What the command line says.

    Attributes:
        directory: where the files go.
        listen: (host, port); port 0 takes any free one.
        allow: public keys that may send; empty for anybody.
        count: stop after so many files; None to go on for ever.
        overwrite: whether files may be replaced.
    """

    directory: str
    listen: tuple[str, int]
    allow: frozenset[bw.PublicKey]
    count: int | None
    overwrite: bool
    common: Common


async def receive(options: ReceiveOptions) -> ExitCode:
    """Serve until `count` files are in place, or for ever. Raises `Failure`."""
    key = load_identity(options.common.identity)
    try:
        folder = Folder(options.directory, overwrite=options.overwrite)
    except OSError as error:
        raise Failure(ExitCode.LOCAL, f"{printable(options.directory)}: {describe_os_error(error)}") from error
    allow = options.allow
    config = make_config(
        options.common,
        authorize=(lambda peer, address: peer in allow) if allow else None,
        max_streams=MAX_STREAMS,
        max_connections=MAX_CONNECTIONS,
        max_message_size=MAX_PING,
    )
    with closing(folder):
        async with opened(options.listen, key, config) as endpoint:
            output = Output(options.common.json)
            _announce(output, options, key.public, endpoint.local_address, folder)
            await _Server(endpoint, folder, options, output).run()
    return ExitCode.OK


def _announce(
    output: Output, options: ReceiveOptions, key: bw.PublicKey, local: tuple[str, int], folder: Folder
) -> None:
    """Where we listen, who may send, and the command line for the sender."""
    reachable = format_address((reachable_host(local[0]), local[1]))
    command = f"burstwire send FILE --to {shlex.quote(reachable)} --key {key}"
    leftovers = list(folder.leftovers())
    output.say(f"listening on {format_address(local)}, saving to {printable(options.directory)}")
    if options.allow:
        output.say(f"accepting files from {len(options.allow)} key{'s' if len(options.allow) > 1 else ''} only")
    else:
        output.say("accepting files from ANYONE who has the key below; --allow KEY limits that")
    if leftovers:
        total = format_size(sum(size for _, size in leftovers))
        output.say(f"{len(leftovers)} unfinished files ({total}) wait here as .NAME.ID.part to be resumed")
    output.say(f"on the sending machine, run:\n\n    {command}\n")
    output.event(
        "listening",
        address=format_address(local),
        reachable=reachable,
        key=str(key),
        command=command,
        anyone=not options.allow,
        unfinished=len(leftovers),
    )


class _Server:
    """All connections of one endpoint; what goes wrong on one of them is a line, and stays there."""

    def __init__(self, endpoint: bw.Endpoint, folder: Folder, options: ReceiveOptions, output: Output) -> None:
        self._endpoint = endpoint
        self._inbox = Inbox(folder)
        self._options = options
        self._output = output
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished = 0
        self._enough = asyncio.Event()

    async def run(self) -> None:
        """Until enough files have come, or the endpoint fails."""
        reason = "the receiver was stopped"
        accepting = self._spawn(self._accept())
        waiting = asyncio.ensure_future(self._enough.wait())
        try:
            await asyncio.wait((accepting, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not self._enough.is_set():
                raise Failure(ExitCode.LOCAL, f"no longer listening: {accepting.exception() or 'the endpoint closed'}")
            reason = "the receiver has all the files that it waited for"
        finally:
            tasks = [waiting, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Closing delivers the answers that were given, so the last sender hears that its file is in place.
            await self._endpoint.close(0, reason)

    async def _accept(self) -> None:
        async for connection in self._endpoint.incoming():
            self._spawn(self._attend(connection))

    async def _attend(self, connection: bw.Connection) -> None:
        """One sender, until its connection ends; how that ended concerns only the transfers on it."""
        self._spawn(self._answer_pings(connection))
        with suppress(bw.ConnectionLost):
            async for stream in connection.incoming_streams():
                self._spawn(self._serve(connection, stream))

    async def _answer_pings(self, connection: bw.Connection) -> None:
        with suppress(bw.ConnectionLost):
            async for message in connection:
                if message[:1] == PING and len(message) <= MAX_PING:
                    await connection.send(PONG + message[1:])

    async def _serve(self, connection: bw.Connection, stream: bw.Stream) -> None:
        exchange = Exchange(stream, self._options.common.timeout)
        try:
            received = await self._inbox.receive(exchange, bytes(connection.peer_key))
        except (Rejection, TransferError, HeaderError, bw.TransportError) as error:
            peer = f"{short_key(connection.peer_key)} at {format_address(connection.peer_address)}"
            cause = explain(error, "sender") if isinstance(error, bw.StreamError) else printable(str(error))
            complain(f"{printable(exchange.label) or 'a transfer'} from {peer}: {cause}")
            return
        self._report(received, connection)
        self._finished += 1
        if self._options.count is not None and self._finished >= self._options.count:
            self._enough.set()

    def _report(self, received: Received, connection: bw.Connection) -> None:
        size = format_size(received.size)
        if received.identical:
            how = f"was here already ({size})"
        else:
            moved = received.size - received.resumed_from
            resumed = f", resumed after {format_size(received.resumed_from)}" if received.resumed_from else ""
            rate = format_rate(moved, received.seconds)
            how = f"received {size} in {format_duration(received.seconds)} ({rate}{resumed})"
        peer = f"{short_key(connection.peer_key)} at {format_address(connection.peer_address)}"
        self._output.say(f"{printable(received.name)}: {how} from {peer}")
        self._output.event(
            "received",
            name=received.name,
            size=received.size,
            resumed_from=received.resumed_from,
            identical=received.identical,
            seconds=round(received.seconds, 6),
            sha256=received.sha256,
            peer=str(connection.peer_key),
            address=format_address(connection.peer_address),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A mistake of ours: say so, and go on serving the others.
            complain(f"internal error: {type(error).__name__}: {error}")
