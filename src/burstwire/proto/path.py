"""Where the peer is: its address may change at any time (NAT timeouts, roaming), and is believed once proven.

RFC 9000 §8.2 and §9: only the packet with the highest number says that the peer moved. The new address is then
challenged, and the old one, too (§9.3.3); only a response moves the path. Until then nothing but challenges goes to the
new address, and never more than three times the bytes that came from it (§8.1). So nobody who copies packets, or makes
them up, moves a path to where the peer is not, and a path that is not proven in time is forgotten: the old one was
never left.

A challenge that had to be smaller than 1,200 bytes proves the address, not that the path carries such packets: it is
repeated at full size once the address is proven, and the old path taken again if that is never answered (§8.2.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from burstwire.config import MIN_DATAGRAM_SIZE
from burstwire.proto.datagrams import NOTHING
from burstwire.proto.rtt import GRANULARITY, INITIAL_RTT
from burstwire.wire.frames import encode_path_challenge, encode_path_response
from burstwire.wire.header import DATA_OVERHEAD

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["Paths"]

ADDRESS = 24
"""Bytes of the remote address at the front of a path."""

MAX_WAITING = 4
"""Challenges and responses that wait to be sent; what comes faster is not answered."""

AMPLIFICATION = 3
"""Times the bytes received that an unproven address is sent (RFC 9000 §8.1)."""

VALIDATION_PTOS = 3
"""PTOs after which a path that has not answered is given up (RFC 9000 §8.2.4), of the longer kind: that of the path in
use, or of one of which nothing is known."""

FIRST_PTO = 3 * INITIAL_RTT
"""The PTO of a path of which nothing is known, in seconds."""

SMALLEST = DATA_OVERHEAD + 9
"""Bytes of a packet with nothing but a challenge."""


def _host(path: bytes) -> bytes:
    """A path without the remote port and the local address."""
    return path[:2] + path[4:ADDRESS]


class _Trial:
    """A path that is being validated.

    Attributes:
        path: which one.
        data: the 8 bytes of its full challenges: all have the same, so that any answer counts.
        small: the 8 bytes of those that had to be smaller than 1,200 bytes.
        credit: bytes that may still go there; None once the address is proven.
        tries: challenges sent, or that the credit did not suffice for.
        deadline: when the next one is due.
        end: when it is given up.
        fallback: the path to go back to if it fails, when the path was taken already.
    """

    __slots__ = ("credit", "data", "deadline", "end", "fallback", "path", "small", "tries")

    def __init__(self, path: bytes, data: bytes, credit: int | None, now: float, lasts: float) -> None:
        self.path = path
        self.data = data[:8]
        self.small = data[8:]
        self.credit = credit
        self.tries = 0
        self.deadline = now
        self.end = now + lasts
        self.fallback = b""


class Paths:
    """The path in use and the one that is being tried.

    Args:
        connection: whose paths they are.
        random: a source of random bytes.

    Attributes:
        outgoing: (path, frame, bytes of the packet) of validation frames to be sent in packets of their own.
        deadline: when `on_timeout` has something to do, or None.
        moves: how often the peer's address changed.
    """

    __slots__ = ("_connection", "_left", "_random", "_trial", "deadline", "moves", "outgoing")

    def __init__(self, connection: Connection, random: Callable[[int], bytes]) -> None:
        self._connection = connection
        self._random = random
        self.outgoing: deque[tuple[bytes, bytes, int]] = NOTHING
        self._trial: _Trial | None = None
        self._left: tuple[bytes, int] | None = None
        """The host that the peer was at before, and the size of packets that passed there."""
        self.deadline: float | None = None
        self.moves = 0

    # getters

    @property
    def candidate(self) -> bytes | None:
        """The path that is being tried and not in use yet, or None."""
        trial = self._trial
        return trial.path if trial is not None and trial.credit is not None else None

    # inputs

    def seen(self, path: bytes, is_newest: bool, size: int, now: float) -> None:
        """Genuine packets of `size` bytes came from another path than the one in use."""
        connection = self._connection
        if path[:ADDRESS] == connection.path[:ADDRESS]:
            # Only our own address differs (or was not known yet): answer from where the peer sends to.
            if is_newest:
                connection.path = path
            return
        trial = self._trial
        is_known = trial is not None and trial.credit is not None and trial.path == path
        if is_newest and not is_known:
            self._try(_Trial(path, self._random(16), AMPLIFICATION * size, now, self._patience()), now)
            # The peer may still be where it was, and somebody else have sent a copy. If it answers there, that is the
            # newest packet again.
            if len(self.outgoing) < MAX_WAITING:
                self._queue(connection.path, encode_path_challenge(self._random(8)), MIN_DATAGRAM_SIZE)
        elif is_known and trial is not None and trial.credit is not None:
            trial.credit += AMPLIFICATION * size

    def challenged(self, path: bytes, data: bytes) -> None:
        """PATH_CHALLENGE: answer with the same data, to where it came from (RFC 9000 §8.2.2)."""
        room = MIN_DATAGRAM_SIZE
        if path[:ADDRESS] != self._connection.path[:ADDRESS]:
            trial = self._trial
            if trial is None or trial.credit is None or path != trial.path:
                return
            room = min(room, trial.credit)
            if room < SMALLEST:
                return
            trial.credit -= room
        if len(self.outgoing) < MAX_WAITING:
            self._queue(path, encode_path_response(data), room)

    def answered(self, data: bytes, now: float) -> None:
        """PATH_RESPONSE: the address is the peer's if the data are those of the challenge."""
        trial = self._trial
        if trial is None or data not in (trial.data, trial.small):
            return
        self._end()
        if trial.credit is None:
            return
        before = self._connection.path
        self._move(trial.path, now)
        if data == trial.small:
            again = _Trial(trial.path, self._random(16), None, now, self._patience())
            again.fallback = before
            self._try(again, now)

    def on_timeout(self, now: float) -> None:
        """A challenge was not answered in time: it is repeated, or the path given up."""
        trial = self._trial
        if trial is None or now < trial.deadline:
            return
        if now < trial.end:
            self._challenge(trial, now)
            return
        self._end()
        if trial.fallback and trial.path == self._connection.path:
            self._move(trial.fallback, now)

    # inside

    def _patience(self) -> float:
        return VALIDATION_PTOS * max(self._connection.recovery.pto(), FIRST_PTO)

    def _try(self, trial: _Trial, now: float) -> None:
        self._trial = trial
        self._challenge(trial, now)

    def _end(self) -> None:
        self._trial = None
        self.deadline = None

    def _challenge(self, trial: _Trial, now: float) -> None:
        """Sends a challenge as large as may be, and says when the next one is due: each time twice as long after."""
        wait = max(self._connection.recovery.pto(), GRANULARITY) * (1 << trial.tries)
        trial.tries += 1
        self.deadline = trial.deadline = min(now + wait, trial.end)
        room = MIN_DATAGRAM_SIZE if trial.credit is None else min(trial.credit, MIN_DATAGRAM_SIZE)
        if room < SMALLEST or len(self.outgoing) >= MAX_WAITING:
            return
        if trial.credit is not None:
            trial.credit -= room
        self._queue(trial.path, encode_path_challenge(trial.data if room == MIN_DATAGRAM_SIZE else trial.small), room)

    def _move(self, path: bytes, now: float) -> None:
        connection = self._connection
        old, new = _host(connection.path), _host(path)
        connection.path = path
        self.moves += 1
        if old == new:
            connection.port_changed(now)
            return
        size = self._left[1] if self._left is not None and self._left[0] == new else MIN_DATAGRAM_SIZE
        self._left = old, connection.mtu
        connection.path_changed(size, now)

    def _queue(self, path: bytes, frame: bytes, size: int) -> None:
        if self.outgoing is NOTHING:
            self.outgoing = deque()
        self.outgoing.append((path, frame, size))
        self._connection.wake()
