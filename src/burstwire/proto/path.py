"""Where the peer is: its address may change at any time (NAT timeouts, roaming), and is believed once proven.

RFC 9000 §8.2 and §9: only the packet with the highest number says that the peer moved; the new address is then
challenged, and only a response moves the path. Until then nothing but challenges goes there, at most one for each
packet that came from it, and never more than three times the bytes (RFC 9000 §8.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from burstwire.config import MIN_DATAGRAM_SIZE
from burstwire.proto.datagrams import NOTHING
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


SMALLEST = DATA_OVERHEAD + 9
"""Bytes of a packet with nothing but a challenge."""


class Paths:
    """The path in use and the one that is being tried.

    Args:
        connection: whose paths they are.
        random: a source of random bytes.

    Attributes:
        outgoing: (path, frame, bytes of the packet) of validation frames to be sent in packets of their own.
        candidate: the path that is being tried, or None.
        moves: how often the peer's address changed.
    """

    __slots__ = ("_challenge", "_connection", "_credit", "_random", "candidate", "moves", "outgoing")

    def __init__(self, connection: Connection, random: Callable[[int], bytes]) -> None:
        self._connection = connection
        self._random = random
        self.outgoing: deque[tuple[bytes, bytes, int]] = NOTHING
        self.candidate: bytes | None = None
        self._challenge = b""
        self._credit = 0
        self.moves = 0

    def seen(self, path: bytes, is_newest: bool, size: int) -> None:
        """Genuine packets of `size` bytes came from another path than the one in use."""
        connection = self._connection
        if path[:ADDRESS] == connection.path[:ADDRESS]:
            # Only our own address differs (or was not known yet): answer from where the peer sends to.
            if is_newest:
                connection.path = path
            return
        if is_newest and path != self.candidate:
            self.candidate = path
            self._challenge = self._random(8)
            self._credit = 0
        if path == self.candidate:
            self._credit += AMPLIFICATION * size
            room = min(self._credit, MIN_DATAGRAM_SIZE)
            if room >= SMALLEST and len(self.outgoing) < MAX_WAITING:
                self._credit -= room
                self._queue(path, encode_path_challenge(self._challenge), room)

    def challenged(self, path: bytes, data: bytes) -> None:
        """PATH_CHALLENGE: answer with the same data, to where it came from (RFC 9000 §8.2.2)."""
        connection = self._connection
        room = MIN_DATAGRAM_SIZE
        if path[:ADDRESS] != connection.path[:ADDRESS]:
            if path != self.candidate:
                return
            room = min(room, self._credit)
            self._credit -= room
        if room >= SMALLEST and len(self.outgoing) < MAX_WAITING:
            self._queue(path, encode_path_response(data), room)

    def answered(self, data: bytes, now: float) -> None:
        """PATH_RESPONSE: the address is the peer's if the data are those of the challenge."""
        if self.candidate is not None and data == self._challenge:
            connection = self._connection
            connection.path = self.candidate
            self.candidate = None
            self.moves += 1
            connection.path_changed(now)

    def _queue(self, path: bytes, frame: bytes, size: int) -> None:
        if self.outgoing is NOTHING:
            self.outgoing = deque()
        self.outgoing.append((path, frame, size))
        self._connection.wake()
