"""What ends a wait when the connection lives on: a `timeout` of the call, or a peer that lets nothing be sent.

Whoever waits to *receive* waits for the peer's application, which may have nothing to say for days: only a `timeout`
ends that, or the end of the connection. Whoever waits to *send* waits for a peer that should read: that has a bound of
its own, `Config.stall_timeout`.

Nothing of this costs anything while nobody waits, and a wait costs one look at whether its connection is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf, isnan
from typing import TYPE_CHECKING, Any, TypeVar

from burstwire.aio.waiting import WaitLine
from burstwire.errors import DeadlineExceeded, PeerStalled

if TYPE_CHECKING:
    from burstwire.proto.flow import FlowControl
    from burstwire.proto.sending import SendHalf

__all__ = ["LOOKS", "SendLine", "Watch", "check_timeout", "held_up", "progress", "within"]

LOOKS = 4
"""Looks at who waits in one `Config.stall_timeout`: a stall is noticed up to this share of it late."""

T = TypeVar("T")

_WANTED = "it must be a number of seconds, or None to wait without one"


async def within(
    seconds: float, waiting: Coroutine[Any, Any, T], action: Callable[[], str], reason: Callable[[], str] | None = None
) -> T:
    """Waits at most so long.

    Raises:
        DeadlineExceeded: time is up; `action` says what was waited for, `reason` why it did not come.
        TypeError, ValueError: see `check_timeout`; nothing was waited for then.
    """
    try:
        check_timeout(seconds)
    except BaseException:
        waiting.close()
        raise
    try:
        async with asyncio.timeout(seconds) as scope:
            return await waiting
    except TimeoutError as error:
        if type(error) is not TimeoutError or not scope.expired():  # one of ours is a TimeoutError, too
            raise
        why = f": {reason()}" if reason is not None else ""
        raise DeadlineExceeded(f"{action()} took longer than {seconds:g} s{why}") from None


def check_timeout(seconds: object) -> None:
    """Raises TypeError unless it is an int or a float, and ValueError for nan, which would never be over. What is not
    above zero is over at once."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"timeout is {seconds!r}; {_WANTED}")
    if isnan(seconds):
        raise ValueError(f"timeout is {seconds!r}; {_WANTED}")


def progress(half: SendHalf, flow: FlowControl) -> tuple[int, ...]:
    """Something that changes whenever the peer takes anything of a half or lets more of it be sent."""
    if half.sent >= half.max_data:  # this stream's reader is what counts, however well others are read
        return half.base, half.max_data
    return half.base, half.max_data, flow.sent, flow.peer_limit


def held_up(half: SendHalf, flow: FlowControl) -> str:
    """What a half waits for."""
    name = f"stream {half.stream_id}" if half.stream_id else "the messages' stream"
    if half.sent >= half.max_data:
        return f"the peer does not read {name}, and allows no more than the {half.max_data:,} bytes that it was sent"
    if flow.allowance <= 0:
        return f"the peer leaves its streams unread, and allows no more than the {flow.sent:,} bytes that it was sent"
    return f"the peer has not acknowledged what it was sent of {name} behind byte {half.base:,}"


class SendLine(WaitLine):
    """Tasks that wait until the peer lets them send.

    Args:
        group: see `WaitLine`.
        progress: gives something that changes whenever the peer takes or allows anything.
        reason: gives what is waited for in words.
    """

    __slots__ = ("_looked", "_progress", "_seen", "_since", "reason")

    def __init__(self, group: set[WaitLine], progress: Callable[[], object], reason: Callable[[], str]) -> None:
        super().__init__(group)
        self._progress = progress
        self.reason = reason
        self._seen: object = None
        self._since = self._looked = -inf

    def unchanged(self, now: float, again: float) -> float:
        """Seconds since the first of the looks in a row that all saw the same; `again`: how often there is one."""
        seen = self._progress()
        if seen != self._seen or now - self._looked > 2 * again:  # nobody stood here meanwhile
            self._seen = seen
            self._since = now
        self._looked = now
        return now - self._since


class Watch:
    """Looks at the send lines of one connection, as long as anybody stands in one.

    Args:
        loop: where it runs.
        seconds: `Config.stall_timeout`, not 0.
        lines: the lines in which anybody waits.
        peer: who the peer is, in words.
    """

    __slots__ = ("_handle", "_lines", "_loop", "_peer", "_seconds")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, lines: set[WaitLine], peer: Callable[[], str]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._lines = lines
        self._peer = peer
        self._handle: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether it will look again."""
        return self._handle is not None

    def start(self) -> None:
        """Somebody waits."""
        if self._handle is None:
            self._handle = self._loop.call_later(self._seconds / LOOKS, self._look)

    def stop(self) -> None:
        """Nobody needs it any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        self._handle = None
        now = self._loop.time()
        again = self._seconds / LOOKS
        waiting = False
        for line in tuple(self._lines):
            if not isinstance(line, SendLine):
                continue
            waiting = True
            if line.unchanged(now, again) >= self._seconds - again / 2:  # loops fire a little early
                line.fail(PeerStalled(f"{self._peer()}: {line.reason()}; nothing changed for {self._seconds:g} s"))
                # One that was woken meanwhile (the one before it was cancelled) tries in vain, and goes on waiting.
        if waiting:
            self.start()
