"""The endpoint that an application holds: one UDP socket, any number of connections."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

from burstwire.aio.address import Address, numeric, parse_address, reachable_from, resolve, show
from burstwire.aio.channel import Channel
from burstwire.aio.connection import Connection
from burstwire.aio.deadlines import check_timeout
from burstwire.aio.driver import Driver
from burstwire.aio.failing import fresh
from burstwire.aio.stream import Stream
from burstwire.aio.tracing import Tracing
from burstwire.aio.waiting import WaitLine
from burstwire.config import Config, check_congestion
from burstwire.core import UdpSocket
from burstwire.core.address import unpack_address
from burstwire.errors import (
    AddressError,
    EndpointClosed,
    HandshakeTimeout,
    LocallyClosed,
    TransportError,
)
from burstwire.identity import KeyPair, PublicKey
from burstwire.proto import events as ev
from burstwire.proto.endpoint import Endpoint as Protocol

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Endpoint", "bind"]

log = logging.getLogger("burstwire")

NEXT_ADDRESS_AFTER = 0.25
"""Seconds before the next address of a name is tried beside the first (RFC 8305 §5, Connection Attempt Delay)."""

CONNECTION_REFUSED = 0x02
"""RFC 9000 §20.1: the code for a connection that nobody accepts."""


async def bind(address: Address, key: KeyPair, *, config: Config | None = None) -> Endpoint:
    """Open a UDP socket and return the endpoint that uses it.

    Args:
        address: ``"0.0.0.0:0"`` (any port), ``"host:port"``, ``"[::]:port"`` or ``":port"`` (both families),
            ``(host, port)``.
        key: who this node is.
        config: every limit and choice; the defaults suit a node on the open Internet.

    Raises:
        AddressError: the address is malformed, unknown or in use; the message names it.
    """
    config = config or Config()
    if not isinstance(key, KeyPair):
        raise TypeError(f"the key must be a KeyPair, not {type(key).__name__}")
    host, port = parse_address(address)
    if host:
        host, _ = unpack_address((await resolve(host, port))[0])
    socket = UdpSocket(
        (host, port),
        backend=config.socket_backend,
        gso=config.gso,
        gro=config.gro,
        receive_buffer=config.socket_receive_buffer,
        send_buffer=config.socket_send_buffer,
    )
    try:
        endpoint = Endpoint(socket, key, config)
    except BaseException:
        socket.close()
        raise
    _warn_of_small_buffer(socket.receive_buffer, config.socket_receive_buffer)
    return endpoint


_warned_of_small_buffer = False


def _warn_of_small_buffer(granted: int, asked: int) -> None:
    """Once a process: the kernel drops what does not fit, and only its administrator can change that."""
    global _warned_of_small_buffer
    if granted < asked and not _warned_of_small_buffer:
        _warned_of_small_buffer = True
        log.warning(
            "the kernel grants a receive buffer of %s bytes instead of %s; fast peers will overrun it "
            "(on Linux, raise net.core.rmem_max)",
            f"{granted:,}",
            f"{asked:,}",
        )


class Endpoint:
    """One UDP socket and all its connections; `bind` makes it.

    It belongs to the event loop, thread and process in which it was made. ``async with endpoint`` closes it at the
    end, with every connection, and leaves nothing behind in the loop.
    """

    __slots__ = ("__weakref__", "_attempts", "_backlog", "_closers", "_closing", "_deadline", "_driver", "_failure",
                 "_forked", "_loop", "_tracing", "config", "public_key")  # fmt: skip

    def __init__(self, socket: UdpSocket, key: KeyPair, config: Config) -> None:
        self.config = config
        self.public_key = key.public
        self._loop = asyncio.get_running_loop()
        self._forked = False
        self._closing = False
        self._deadline: asyncio.TimerHandle | None = None
        self._closers = WaitLine()
        self._backlog: Channel[Connection] = Channel(config.accept_backlog)
        self._attempts: dict[int, _Dial] = {}
        protocol = Protocol(
            key, config, now=monotonic(), random=os.urandom, receive_buffer=socket.receive_buffer, gso=socket.gso
        )
        self._driver = Driver(self._loop, protocol, socket, config, self._on_events, self._on_failure)
        self._tracing = Tracing(self._loop, config, lambda: socket.local_address)
        if self._tracing.folder is not None:
            protocol.trace = self._tracing.every
        self._driver.start()
        self._failure: EndpointClosed | None = None
        _watch_forks(self)

    def __repr__(self) -> str:
        state = "closed" if self._failure is not None else "closing" if self._closing else "open"
        return f"<burstwire.Endpoint {show(*self.local_address)}, {state}>"

    # getters

    @property
    def local_address(self) -> tuple[str, int]:
        """Where the socket is bound, ``(host, port)``, with the port that the system chose."""
        return self._driver.socket.local_address

    @property
    def closed(self) -> bool:
        """Whether the endpoint has ended: nothing of it is left in the event loop."""
        return self._failure is not None

    def stats(self) -> dict[str, int]:
        """Counters of the endpoint, its socket (`socket_…`) and its driver (`loop_…`); readable after the end."""
        driver = self._driver
        result = dict(driver.protocol.stats())
        result.update({f"socket_{name}": value for name, value in driver.socket.stats().items()})
        result["socket_receive_buffer"] = driver.socket.receive_buffer
        result["socket_send_buffer"] = driver.socket.send_buffer
        result["loop_wakeups"] = driver.wakeups
        result["loop_flushes"] = driver.flushes
        result["loop_timeouts"] = driver.timeouts
        result["loop_pauses"] = driver.pauses
        result["loop_oversleeps"] = driver.oversleeps
        result["loop_clock_steps"] = driver.clock_steps
        result["traces_started"] = self._tracing.started
        result["traces_failed"] = self._tracing.failed
        return result

    # connections

    async def connect(
        self,
        address: Address,
        peer_public_key: PublicKey,
        timeout: float | None = None,
        *,
        congestion: str | None = None,
    ) -> Connection:
        """Connect to the peer that holds the private key of `peer_public_key`.

        A name with several addresses is tried on the first, and on the next ones too when no answer comes soon.
        Cancelled, the attempt ends at once, and a connection that just came to be is closed.

        Args:
            address: ``"host:port"`` or ``(host, port)``.
            peer_public_key: who must answer there.
            timeout: seconds for everything, the look-up included; None takes `Config.handshake_timeout`.
            congestion: the congestion controller of this connection; None takes `Config.congestion`.

        Raises:
            ConfigError: there is no such congestion controller.
            AddressError: the address is malformed, unknown, or of a family that this socket does not speak.
            HandshakeTimeout: nobody with this key answered. HandshakeRefused, VersionMismatch, HandshakeError: the
            peer said no. EndpointClosed.
        """
        self._check()
        if not isinstance(peer_public_key, PublicKey):
            raise TypeError(f"the peer's key must be a PublicKey, not {type(peer_public_key).__name__}")
        if congestion is not None:
            check_congestion(congestion)
        host, port = parse_address(address)
        peer = show(host, port)
        if not host or not port:
            raise AddressError(f"{peer}: to connect takes a host and a port from 1 to 65535")
        if timeout is None:
            timeout = self.config.handshake_timeout
        else:
            check_timeout(timeout)
        deadline = self._driver.now() + timeout
        known = numeric(host, port)
        if known is not None:  # mostly: no look-up, so no time limit for it
            found = [known]
        else:
            try:
                async with asyncio.timeout(timeout):
                    found = await resolve(host, port)
            except TimeoutError:
                raise HandshakeTimeout(f"{peer}: the name was not looked up within {timeout:g} s") from None
            self._check()  # the endpoint may have been closed meanwhile
        usable = reachable_from(self._driver.socket, found)
        if not usable:
            theirs, ours = ("IPv6", "IPv4") if self._driver.socket.family == 4 else ("IPv4", "IPv6")
            raise AddressError(
                f"{peer} has only {theirs} addresses, and this endpoint at {show(*self.local_address)} speaks {ours}"
            )
        dial = _Dial(self, peer_public_key, deadline, congestion)
        try:
            return await dial.any_of(usable)
        except TransportError as error:
            raise fresh(error, "" if peer in str(error) else f"{peer}: ") from error.__cause__
        finally:
            dial.end()

    def incoming(self) -> AsyncIterator[Connection]:
        """The connections that peers open, each to exactly one of those who iterate.

        Those that nobody takes wait in a queue of `Config.accept_backlog`; further ones are refused. The iteration
        ends when the endpoint is closed, and raises `EndpointClosed` when it failed.
        """
        self._check_context()
        return _Incoming(self)

    # the end

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close every connection as `Connection.close` does, then the socket.

        Takes no longer than `Config.close_timeout` (and a moment). Cancelled, the closing goes on without anybody
        waiting for it. Closing twice waits for the same end.

        Args:
            code: for the peers' applications, 0 for "no error".
            reason: words for people.
        """
        self._check_context()
        if self._failure is not None:
            return
        if not self._closing:
            self._closing = True
            self._backlog.close()
            for dial in set(self._attempts.values()):
                dial.fail(EndpointClosed("the endpoint was closed"))
            self._deadline = self._loop.call_later(self.config.close_timeout, self._on_close_timeout)
            driver = self._driver
            driver.closing = True
            driver.protocol.close(driver.now(), code, reason)
            for core in list(driver.protocol.connections.values()):
                if core.user is not None:
                    core.user._on_closing()
            driver.touch()
        await self._closers.until(lambda: self._failure)

    async def __aenter__(self) -> Endpoint:
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Endpoint cannot be pickled or copied: it belongs to the process and loop that made it")

    def __del__(self) -> None:
        # Only once the loop is gone, for it refers to the endpoint until then. The C objects below may have been freed
        # before, in whatever order, so nothing here touches them; freeing the socket closes its descriptor. And no
        # `source`: whoever records the warning would get hold of them.
        if getattr(self, "_failure", True) is None and not self._forked:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2)

    # inside

    def _check(self) -> None:
        if _get_running_loop() is not self._driver.loop:
            self._refuse_context()
        if self._closing or self._failure is not None:
            raise fresh(self._failure or EndpointClosed("the endpoint is being closed"))

    def _check_context(self) -> None:
        if _get_running_loop() is not self._driver.loop:
            self._refuse_context()

    def _refuse_context(self) -> NoReturn:
        if self._forked:
            raise EndpointClosed(
                "this endpoint belongs to the process that this one was forked from; bind another one in the child"
            )
        raise RuntimeError(
            "an endpoint and its connections may only be used by coroutines and callbacks of the event loop in which "
            "it was bound; from another thread, use asyncio.run_coroutine_threadsafe"
        )

    def _on_close_timeout(self) -> None:
        """Somebody does not let go: say CLOSE to those who are left, and leave."""
        driver = self._driver
        for core in list(driver.protocol.connections.values()):
            core.abort(driver.now())
        driver.flush()
        self._end(EndpointClosed("the endpoint was closed"))

    def _on_failure(self, cause: BaseException) -> None:
        """The driver gave up: a bug, or the socket died."""
        error = EndpointClosed(f"the endpoint failed: {cause!r}")
        error.__cause__ = cause
        self._end(error, failed=True)

    def _end(self, error: EndpointClosed, failed: bool = False) -> None:
        """The end of everything, once: nothing of the endpoint stays in the loop, and all who wait are told."""
        if self._failure is not None:
            return
        self._failure = error
        cores = list(self._driver.protocol.connections.values())
        self._driver.stop()
        if self._deadline is not None:
            self._deadline.cancel()
        self._backlog.close(error if failed else None, discard=True)
        for dial in set(self._attempts.values()):
            dial.fail(error)
        for core in cores:
            if core.error is None:
                core.error = error  # so that its streams raise, too
            if core.user is not None:
                core.user._on_ended(error if failed else LocallyClosed())
        self._closers.wake()

    # events

    def _on_events(self, events: list[ev.Event]) -> None:
        for event in events:
            _HANDLERS[type(event)](self, event)
        if self._closing and self._driver.protocol.closed:
            self._end(EndpointClosed("the endpoint was closed"))

    def _on_established(self, event: ev.ConnectionEstablished) -> None:
        connection = Connection(self, event.connection)
        if event.attempt is None:
            backlog = self._backlog
            if backlog.closed or not backlog.put_nowait(connection):
                # Its handshake was under way when the queue filled up.
                event.connection.abort(self._driver.now(), CONNECTION_REFUSED, "nobody accepts connections here now")
                self._driver.touch()
            self._driver.protocol.backlog_full = len(backlog) >= backlog.capacity
            return
        dial = self._attempts.pop(event.attempt, None)
        if dial is None or not dial.succeed(event.attempt, connection):
            event.connection.close(self._driver.now(), 0, "the caller did not wait for it")
        # After the task that waited has had its turn: what it says at once shares the packet that greets the peer.
        self._driver.touch_soon()

    def _on_connect_failed(self, event: ev.ConnectFailed) -> None:
        dial = self._attempts.pop(event.attempt, None)
        if dial is not None:
            dial.attempt_failed(event.attempt, event.error)


class _Incoming:
    """Iterates over accepted connections; room in the queue lets the protocol accept again."""

    __slots__ = ("_endpoint",)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> Connection:
        endpoint = self._endpoint
        endpoint._check_context()
        connection = await endpoint._backlog.__anext__()
        endpoint._driver.protocol.backlog_full = False
        return connection


class _Dial:
    """One `connect`: an attempt for each address tried, of which the first to succeed wins."""

    __slots__ = ("_congestion", "_deadline", "_endpoint", "_future", "_key", "_pending", "_taken")

    def __init__(self, endpoint: Endpoint, key: PublicKey, deadline: float, congestion: str | None) -> None:
        self._endpoint = endpoint
        self._key = key
        self._deadline = deadline
        self._congestion = congestion
        self._pending: set[int] = set()
        self._taken = False
        self._future: asyncio.Future[Connection] = endpoint._loop.create_future()

    async def any_of(self, addresses: list[bytes]) -> Connection:
        """The connection with whichever address answers first; raises what the last attempt to fail raised."""
        endpoint = self._endpoint
        protocol = endpoint._driver.protocol
        for address in addresses:
            if self._future.done():
                if endpoint._closing or endpoint._failure is not None or self._future.exception() is None:
                    break
                self._future = endpoint._loop.create_future()  # all attempts so far have failed
            now = endpoint._driver.now()
            attempt = protocol.connect(address, self._key, now, max(self._deadline - now, 0.001), self._congestion)
            self._pending.add(attempt)
            endpoint._attempts[attempt] = self
            endpoint._driver.touch()
            if address is not addresses[-1]:
                await asyncio.wait((self._future,), timeout=NEXT_ADDRESS_AFTER)
        # Taken in the same step in which it is seen: a cancelled caller leaves the connection to `end`.
        connection = await self._future
        self._taken = True
        return connection

    def succeed(self, attempt: int, connection: Connection) -> bool:
        """An attempt led to a connection; False when it comes too late."""
        self._pending.discard(attempt)
        if self._future.done():
            return False
        self._future.set_result(connection)
        return True

    def attempt_failed(self, attempt: int, error: TransportError) -> None:
        self._pending.discard(attempt)
        if not self._pending:
            self.fail(error)

    def fail(self, error: TransportError) -> None:
        if not self._future.done():
            self._future.set_exception(fresh(error))

    def end(self) -> None:
        """Cancel what is still under way, and close a connection that was won but not fetched."""
        endpoint = self._endpoint
        driver = endpoint._driver
        for attempt in self._pending:
            endpoint._attempts.pop(attempt, None)
            if not driver.stopped:
                driver.protocol.cancel(attempt, driver.now())
        self._pending.clear()
        if not self._future.done():
            self._future.cancel()
        elif self._future.cancelled():
            return  # together with the caller, before anything came of it
        elif self._future.exception() is None and not self._taken:
            core = self._future.result()._core
            core.close(driver.now(), 0, "the caller did not wait for it")
            driver.touch()


def _tell_stream(tell: Callable[[Stream], None]) -> Callable[[Endpoint, Any], None]:
    def handle(endpoint: Endpoint, event: ev.StreamReadable | ev.StreamWritable) -> None:
        if event.stream.user is not None:
            tell(event.stream.user)

    return handle


def _tell_connection(tell: Callable[[Connection, Any], None]) -> Callable[[Endpoint, Any], None]:
    def handle(endpoint: Endpoint, event: Any) -> None:
        if event.connection.user is not None:
            tell(event.connection.user, event)

    return handle


_HANDLERS: dict[type, Callable[[Endpoint, Any], None]] = {
    ev.ConnectionEstablished: Endpoint._on_established,
    ev.ConnectFailed: Endpoint._on_connect_failed,
    ev.ConnectionEnded: _tell_connection(lambda connection, event: connection._on_ended(event.error)),
    ev.MessagesReadable: _tell_connection(lambda connection, event: connection._on_messages_readable()),
    ev.MessagesWritable: _tell_connection(lambda connection, event: connection._on_messages_writable()),
    ev.DatagramsReadable: _tell_connection(lambda connection, event: connection._on_datagrams_readable()),
    ev.StreamsAvailable: _tell_connection(lambda connection, event: connection._on_streams_available()),
    ev.StreamOpened: _tell_connection(lambda connection, event: connection._on_stream_opened(event.stream)),
    ev.StreamReadable: _tell_stream(Stream._on_readable),
    ev.StreamWritable: _tell_stream(Stream._on_writable),
}


_living: WeakSet[Endpoint] = WeakSet()
_watching_forks = False


def _watch_forks(endpoint: Endpoint) -> None:
    """Have a fork poison the child's copy: two processes must never seal with the same keys and counters."""
    global _watching_forks
    _living.add(endpoint)
    if not _watching_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_poison)
        _watching_forks = True


def _poison() -> None:
    for endpoint in list(_living):
        endpoint._forked = True
        if endpoint._failure is None:
            endpoint._driver.abandon()
