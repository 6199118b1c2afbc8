"""The connections of an endpoint: found by ID, key or reset, woken by the clock, put to rest, and forgotten. Sans-IO.

Three things are kept about each one, and all of them cost nothing per packet:

- its next deadline, in one heap for all: looked at once a step for those that something happened to;
- whether it was quiet lately: then it gives memory back that is made anew when needed;
- for 3 PTO after its end, its ID: late packets of it are then no stranger's (RFC 9000 §10.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeVar

from burstwire.proto.lifetime import State

if TYPE_CHECKING:
    from burstwire.identity import PublicKey
    from burstwire.proto.connection import Connection

__all__ = ["MAX_GONE", "MOST_RESTED", "QUIET", "Roster"]

_K = TypeVar("_K")

MAX_GONE = 4096
"""Connection IDs remembered of connections that are over, about 400 KB; they are needed for 3 PTO."""

QUIET = 0.25
"""Seconds between looks at which connections rest: after one to two of them without a packet. What is made anew
afterwards costs a few microseconds, once; what is kept by thousands of idle connections costs megabytes."""

MOST_RESTED = 1000
"""Connections put to rest in one look: a millisecond or two of work."""


class Roster:
    """Who there is.

    Attributes:
        connections: by local connection ID.
        noisy: connections that sent or received since the latest look; whoever sees that enters them.
        unarmed: those whose deadlines may have changed since `next_timeout` was asked; entered likewise.
    """

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.noisy: dict[Connection, None] = {}
        self.unarmed: dict[Connection, None] = {}
        # By connection ID, so that a heap entry that is stale keeps no ended connection in memory.
        self._timers: list[tuple[float, int]] = []
        self._armed: dict[int, float] = {}
        self._calming: dict[Connection, None] = {}
        """Those that were noisy before the latest look, and have not been put to rest."""
        self._look_at: float | None = None
        self._by_key: dict[PublicKey, list[Connection]] = {}
        self._by_remote_cid: dict[int, list[Connection]] = {}
        self._gone: dict[int, float] = {}
        """Connection IDs of closed connections, and until when their packets are dropped without a word."""

    # getters

    def __len__(self) -> int:
        return len(self.connections)

    def of_key(self, key: PublicKey) -> Sequence[Connection]:
        """The connections with a peer, the oldest first."""
        return self._by_key.get(key, ())

    def of_remote_cid(self, cid: int) -> Sequence[Connection]:
        """The connections whose peer has chosen this ID; several peers may choose the same."""
        return self._by_remote_cid.get(cid, ())

    def knows(self, cid: int) -> bool:
        """Whether a local connection ID is or was lately in use."""
        return cid in self.connections or cid in self._gone

    def is_gone(self, cid: int, now: float) -> bool:
        """Whether an ID belonged to a connection that is over, and packets of it may still be under way."""
        return self._gone.get(cid, now) > now

    def lately(self) -> Iterator[Connection]:
        """Those that sent or received within the last `QUIET` seconds, and some that did in those before."""
        yield from self.noisy
        yield from (connection for connection in self._calming if connection not in self.noisy)

    def next_timeout(self) -> float | None:
        """When `due` or `look` has something to do, in seconds; None for never."""
        if self.unarmed:
            unarmed, self.unarmed = self.unarmed, {}
            for connection in unarmed:
                self._rearm(connection)
        timers = self._timers
        armed = self._armed
        while timers and armed.get(timers[0][1]) != timers[0][0]:
            heappop(timers)
        look_at = self._look_at
        if not timers:
            return look_at
        when = timers[0][0]
        return when if look_at is None or when < look_at else look_at

    # inputs

    def due(self, now: float) -> Iterator[Connection]:
        """Those whose deadline was armed for a moment that has come; it may have moved away since."""
        timers = self._timers
        armed = self._armed
        while timers and timers[0][0] <= now:
            when, cid = heappop(timers)
            if armed.get(cid) != when:
                continue
            del armed[cid]
            yield self.connections[cid]

    def heard(self, now: float) -> None:
        """Something arrived: before long it is time for a look."""
        if self._look_at is None:
            self._look_at = now + QUIET

    def look(self, now: float) -> None:
        """Puts those to rest that were quiet since the look before, if it is time."""
        if self._look_at is None or now < self._look_at:
            return
        calm = self._calming
        self._calming, self.noisy = self.noisy, {}
        rested = 0
        for connection in calm:
            if connection in self._calming:
                continue
            if rested < MOST_RESTED:
                rested += 1
                connection.rest()
            else:
                self._calming[connection] = None
        self._look_at = now + QUIET if self._calming else None

    # mutators

    def add(self, connection: Connection) -> None:
        """One more."""
        self.connections[connection.local_cid] = connection
        self._by_key.setdefault(connection.peer_key, []).append(connection)
        self._by_remote_cid.setdefault(connection.remote_cid, []).append(connection)

    def remove(self, connection: Connection) -> bool:
        """Forgets a connection; False if it was not here any more."""
        if self.connections.pop(connection.local_cid, None) is None:
            return False
        _leave(self._by_key, connection.peer_key, connection)
        _leave(self._by_remote_cid, connection.remote_cid, connection)
        self._armed.pop(connection.local_cid, None)
        for table in (self.unarmed, self.noisy, self._calming):
            table.pop(connection, None)
        return True

    def bury(self, connection: Connection, now: float) -> bool:
        """Forgets a connection that neither sends nor takes anything any more; its ID is known for 3 PTO. That takes
        no timer."""
        until = connection.close_deadline
        connection.state = State.ENDED
        if until is not None and connection.local_cid in self.connections:
            gone = self._gone
            while gone and (len(gone) >= MAX_GONE or gone[next(iter(gone))] <= now):
                del gone[next(iter(gone))]
            gone[connection.local_cid] = until
        return self.remove(connection)

    def clear(self) -> None:
        """Forgets everything but the connections, which the caller has removed."""
        self._timers.clear()
        self._armed.clear()
        self.unarmed.clear()
        self._gone.clear()
        self._look_at = None

    # inside

    def _rearm(self, connection: Connection) -> None:
        """Arms the connection's timer if it is due earlier than armed for; a later one corrects itself on firing."""
        when = connection.next_timeout()
        if when is None:
            return
        cid = connection.local_cid
        armed = self._armed
        due = armed.get(cid)
        if (due is None or when < due) and self.connections.get(cid) is connection:
            armed[cid] = when
            timers = self._timers
            heappush(timers, (when, cid))
            if len(timers) > 64 + 2 * len(armed):  # mostly entries that an earlier deadline made stale
                timers[:] = [(when, cid) for cid, when in armed.items()]
                heapify(timers)


def _leave(table: dict[_K, list[Connection]], key: _K, connection: Connection) -> None:
    """Takes a connection out of a table of lists."""
    entries = table.get(key, [])
    if connection in entries:
        entries.remove(connection)
        if not entries:
            del table[key]
