"""When a connection moves on to the next key of what it sends, by itself: docs/protocol.md §6.4, RFC 9001 §6.

A key is replaced once it has protected `Config.key_update_packets` packets or `Config.key_update_bytes` bytes, or has
been in use for `Config.key_update_interval` seconds. The limits are looked at once a flight, before it is built; so a
flight may go beyond them, and a connection that sends nothing keeps its key, which protects nothing new.

An update waits until

- a packet of the current generation was acknowledged, so that the peer has the key that the next one comes from;
- `KEPT_PTOS` PTOs have passed since then (RFC 9001 §6.5): so long the peer keeps the key before it for late packets.

Neither stops sending: only the end of a generation's numbers does.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from burstwire.crypto.keys import GENERATION_BITS
from burstwire.wire import frames as f

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["KEPT_PTOS", "KeyUpdates"]

KEPT_PTOS: Final = 3
"""PTOs for which the key before the current one is kept to open with (RFC 9001 §6.5)."""


class KeyUpdates:
    """The limits of the key in use. `check` is to be called when any of them is reached, `acknowledged` with ACKs.

    Attributes:
        number: the packet number, size: the connection's bytes sent, time: the moment from which on to call `check`.
        waiting: whether no packet of the current generation was acknowledged yet.
    """

    __slots__ = ("_allowed_from", "_connection", "_generation", "number", "size", "time", "waiting")

    waiting: bool

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._begin(0, 0, now)

    def acknowledged(self, largest: int, now: float) -> None:
        """The peer has received packet `largest` and none above it."""
        generation = self._generation
        if self.waiting and largest >= generation << GENERATION_BITS:
            self.waiting = False
            self.number = (generation << GENERATION_BITS) + self._connection.config.key_update_packets
            # Before generation 0 there is no key that the peer could drop too early.
            self._allowed_from = now + KEPT_PTOS * self._connection.recovery.pto() if generation else now

    def check(self, now: float) -> None:
        """Begins the next generation, if the current one may be left."""
        connection = self._connection
        generation = connection.next_counter >> GENERATION_BITS
        if generation != self._generation:  # its numbers were used up, or somebody asked for an update
            self._begin(generation, connection.outbound.size, now)
        elif self.waiting:
            # Who only acknowledges is never acknowledged: something must be asked of the peer (RFC 9000 §13.2.4).
            if not connection.recovery.log.in_flight:
                connection.ask((f.PING,))
        elif now >= self._allowed_from:
            connection.update_keys()
            self._begin(generation + 1, connection.outbound.size, now)

    # inside

    def _begin(self, generation: int, sent: int, now: float) -> None:
        config = self._connection.config
        self._generation = generation
        self._allowed_from = now
        self.waiting = True
        # While nothing was acknowledged, half of the packets: once all numbers are used up, nothing can be asked.
        self.number = (generation << GENERATION_BITS) + (config.key_update_packets + 1) // 2
        self.size = sent + config.key_update_bytes if config.key_update_bytes else inf
        self.time = now + config.key_update_interval if config.key_update_interval else inf
