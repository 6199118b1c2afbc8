"""How much unasked-for work a responder does: two token buckets.

`TokenBucket` measures one flow of events, `AddressLimiter` one for each address in a bounded table.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["AddressLimiter", "TokenBucket"]

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

    def take(self, now: float) -> bool:
        """Whether one more event is within the rate; if so it is counted."""
        if now > self._updated:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
            self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


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

    def take(self, address: bytes, now: float) -> bool:
        """Whether one more event from this address (24 bytes) is within the rate, whatever its port."""
        size = IPV6_NETWORK if address[0] == _IPV6 else IPV4_HOST
        party = address[:1] + address[_IP_AT : _IP_AT + size]
        bucket = self._buckets.get(party)
        if bucket is None:
            if len(self._buckets) >= self._capacity:
                self._buckets.popitem(last=False)
            bucket = self._buckets[party] = TokenBucket(self._rate, self._burst, now)
        else:
            self._buckets.move_to_end(party)
        return bucket.take(now)
