"""How much unasked-for work a responder does.

`TokenBucket` measures one flow of events, `AddressLimiter` one for each address in a bounded table, `Callers` tells
those who wait for an answer from those who only pour.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from typing import Final
from zlib import crc32

__all__ = ["AddressLimiter", "Callers", "TokenBucket"]

IPV4_HOST: Final = 4
IPV6_NETWORK: Final = 8
"""Bytes of an address that count as one party: an IPv4 host; an IPv6 /64, since a host may use all of it."""

_IPV6: Final = 6
_IP_AT: Final = 8


class TokenBucket:
    """Allows `rate` events a second on average and `burst` at once.

    A rate of 0 allows nothing, not even the burst.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst if rate else 0.0
        self._tokens = self._burst
        self._updated = now

    def take(self, now: float, events: float = 1) -> bool:
        """Whether one more event is within the rate; if so it is counted, as so many."""
        if now > self._updated:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
            self._updated = now
        if self._tokens < events:
            return False
        self._tokens -= events
        return True

    def fine(self, events: int) -> None:
        """Count events that nobody asked for; no more than a burst of them is remembered."""
        self._tokens = max(self._tokens - events, -self._burst)


class AddressLimiter:
    """One `TokenBucket` for each address; the least recently seen one is forgotten beyond `capacity`."""

    __slots__ = ("_buckets", "_burst", "_capacity", "_rate")

    def __init__(self, rate: float, burst: float, capacity: int) -> None:
        self._rate = rate
        self._burst = burst
        self._capacity = capacity
        self._buckets: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: bytes, now: float, events: float = 1) -> bool:
        """Whether one more event from this address (24 bytes) is within the rate, whatever its port; if so it is
        counted, as so many."""
        size = IPV6_NETWORK if address[0] == _IPV6 else IPV4_HOST
        party = address[:1] + address[_IP_AT : _IP_AT + size]
        bucket = self._buckets.get(party)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                self._buckets.popitem(last=False)
            bucket = self._buckets[party] = TokenBucket(self._rate, self._burst, now)
        else:
            self._buckets.move_to_end(party)
        return bucket.take(now, events)


class Callers:
    """Who is asked for a proof of address (COOKIE) when not everybody can be: mostly those who call again.

    An initiator without an answer repeats the same INITIATE from the same address after 0.3, 0.6, 1.2 s and then every
    1.3 s, give or take a fifth. A flood from forged addresses does not, and one that repeats itself all the time is
    known by that. So answers go to those who were here a moment ago but not just now, at `RETURNING_RATE`, and to
    newcomers at `NEWCOMER_RATE`; what comes again too soon is dropped. Whoever floods in an initiator's rhythm from
    very many addresses takes more than his share; the rates still hold.

    Where there is no time to look at everybody, nobody but those who return is looked at: telling them (`meet`) takes
    about half a microsecond, and no cryptography.

    One table of `SLOTS` entries serves all, 2 MiB, made when it is needed first: the time, and a tag of the caller.
    Another caller in the same slot takes it over: with 50,000 newcomers a second one in thirty who returns after 0.3 s
    is not known any more.
    """

    __slots__ = ("_newcomers", "_returning", "_seen")

    SLOTS: Final = 1 << 19
    TICKS: Final = 20
    """Units of time in a second."""

    TOO_SOON: Final = 3
    """Ticks: 0.15 s at least. No initiator repeats itself sooner than after 0.24 s."""

    FORGOTTEN: Final = 32
    """Ticks: 1.6 s, more than the longest wait of an initiator, 1.3 s and a fifth."""

    NEWCOMER_RATE: Final = 2_000
    RETURNING_RATE: Final = 10_000
    """COOKIEs a second: each takes about 12 µs with its packet, so both together at most a seventh of one processor."""

    BURST: Final = 0.025
    """Seconds' worth of either that may come at once: a few milliseconds of work."""

    def __init__(self, now: float) -> None:
        self._seen: array[int] | None = None
        """Tag of the caller ‖ tick, 16 bits each."""
        self._newcomers = TokenBucket(self.NEWCOMER_RATE, self.NEWCOMER_RATE * self.BURST, now)
        self._returning = TokenBucket(self.RETURNING_RATE, self.RETURNING_RATE * self.BURST, now)

    def admit(self, caller: bytes, now: float) -> bool:
        """Whether this caller (its address, and what it repeats) is answered."""
        age = self.meet(caller, now)
        if 0 <= age < self.TOO_SOON:
            return False
        return (self._newcomers if age < 0 else self._returning).take(now)

    def answers(self, now: float) -> bool:
        """Whether one more of those that returned is answered."""
        return self._returning.take(now)

    def meet(self, caller: bytes, now: float) -> int:
        """Ticks since this caller was here; -1 if that is too long ago, or never was. One who is too soon is noted no
        more, so that one who pours is always too soon, until he stops for a moment."""
        seen = self._seen
        if seen is None:
            seen = self._seen = array("I", bytes(4 * self.SLOTS))
        tick = int(now * self.TICKS) & 0xFFFF
        name = crc32(caller)
        slot = name & self.SLOTS - 1
        tag = name >> 16 | 1  # 0: nobody yet
        last = seen[slot]
        age = tick - last & 0xFFFF if last >> 16 == tag else -1
        if age > self.FORGOTTEN:
            age = -1
        if not 0 <= age < self.TOO_SOON:
            seen[slot] = tag << 16 | tick
        return age
