"""Handshakes that a responder answered and whose initiator has not shown yet that it can read the answer.

An entry is also the cache that answers a repeated INITIATE. Invariants:

- At most `capacity` entries, each at most `lifetime` seconds old (counted anew when its address is proven).
- An entry whose initiator proved its address with a cookie goes only when no other is left to go.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burstwire.proto.handshake import Established

__all__ = ["HalfOpen", "HalfOpenTable"]


@dataclass(slots=True)
class HalfOpen:
    """One answered INITIATE.

    Attributes:
        mac1: of the INITIATE, so a hash of it; with the address that it came from, what makes a repeat known.
        respond: the RESPOND datagram, sent again for every repeat.
        established: what becomes the connection.
        rival: the number of this side's own attempt that it stands in for (simultaneous open), or None.
        proven: whether a cookie proved the initiator's address.
        answered_at: when RESPOND was sent last.
        answered: how often it was sent.
        expires: when the entry is dropped.
    """

    mac1: bytes
    respond: bytes
    established: Established
    rival: int | None
    proven: bool
    answered_at: float
    answered: int = 1
    expires: float = 0.0

    @property
    def source(self) -> bytes:
        """mac1 and address: the key of the table."""
        return self.mac1 + self.established.path[:24]


class HalfOpenTable:
    """Half-open handshakes by connection ID and by mac1 and address."""

    __slots__ = ("_by_cid", "_by_source", "_capacity", "_lifetime", "_proven", "_unproven")

    def __init__(self, capacity: int, lifetime: float) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._by_cid: dict[int, HalfOpen] = {}
        self._by_source: dict[bytes, HalfOpen] = {}  # mac1 and address
        # Both in the order of `expires`, which is that of insertion, since the lifetime is one constant.
        self._unproven: OrderedDict[int, HalfOpen] = OrderedDict()
        self._proven: OrderedDict[int, HalfOpen] = OrderedDict()

    # getters

    def __len__(self) -> int:
        return len(self._by_cid)

    def __contains__(self, cid: object) -> bool:
        return cid in self._by_cid

    def get(self, cid: int) -> HalfOpen | None:
        """The entry of a local connection ID."""
        return self._by_cid.get(cid)

    def find(self, mac1: bytes, address: bytes) -> HalfOpen | None:
        """The entry of an INITIATE that was answered at this address before."""
        return self._by_source.get(mac1 + address)

    @property
    def crowded(self) -> bool:
        """Whether only initiators with a proven address should still be let in.

        So from the moment when forged addresses hold half of the table: an honest initiator that comes
        without proof needs one round trip to get in and another to leave, and must not be pushed out
        meanwhile.
        """
        return len(self._by_cid) >= self._capacity or 2 * len(self._unproven) >= self._capacity

    @property
    def next_expiry(self) -> float | None:
        """When the first entry expires."""
        if not self._by_cid:  # mostly
            return None
        return min(next(iter(t.values())).expires for t in (self._unproven, self._proven) if t)

    # mutators

    def add(self, entry: HalfOpen, now: float) -> bool:
        """Take an entry in; True if another one had to go for it."""
        evicted = len(self._by_cid) >= self._capacity
        if evicted:
            self.remove(next(iter(self._unproven or self._proven)))
        cid = entry.established.local_cid
        entry.expires = now + self._lifetime
        self._by_cid[cid] = entry
        self._by_source[entry.source] = entry
        (self._proven if entry.proven else self._unproven)[cid] = entry
        return evicted

    def prove(self, entry: HalfOpen, now: float) -> None:
        """The initiator has shown that it owns its address."""
        if not entry.proven:
            cid = entry.established.local_cid
            del self._unproven[cid]
            entry.proven = True
            entry.expires = now + self._lifetime
            self._proven[cid] = entry

    def remove(self, cid: int) -> HalfOpen | None:
        """Take an entry out and return it."""
        entry = self._by_cid.pop(cid, None)
        if entry is not None:
            del self._by_source[entry.source]
            del (self._proven if entry.proven else self._unproven)[cid]
        return entry

    def expire(self, now: float) -> int:
        """Drop what is too old; how many."""
        dropped = 0
        for table in (self._unproven, self._proven):
            while table and (entry := next(iter(table.values()))).expires <= now:
                self.remove(entry.established.local_cid)
                dropped += 1
        return dropped

    def clear(self) -> None:
        """Forget everything."""
        for table in (self._by_cid, self._by_source, self._unproven, self._proven):
            table.clear()
