"""The node's time, shared: a peer whose packets cost far more than their bytes has its part of it, and no more.

Bulk data cost next to nothing for each packet, for C does the work; a packet of a thousand tiny frames costs as much
as a thousand of them. Whoever sends such packets as fast as it can would take all the time that there is, and take it
from those beside it.

So the work of each connection in a wake-up is counted, in units of about a microsecond, outside of the bulk path. If
there was much, the driver says how long the wake-up took; the costly peers are charged their part of that, and their
debt shrinks as time passes, by their share of it. Whose debt grows beyond what a burst may be has its packets dropped
before they are opened, until most of the debt is paid; the loss is repaired as any other, at the rate that there is
time for. No clock is drawn here: without what the driver says nobody is ever charged.

What the share is depends on who else there is:

- nobody: all of the time;
- peers with small traffic: all but `Config.costly_share`, or evenly among the costly ones;
- peers that move bulk data: `Config.costly_share`, evenly among the costly ones.

Accounts belong to public keys: another connection of the same peer has no fresh one. Handshakes, which belong to
nobody yet, have one account together, of `Config.handshake_share` while anybody moves bulk data and of all the time
otherwise; what their debt means is for `answers.Answers` to say.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burstwire.identity import PublicKey
    from burstwire.proto.connection import Connection
    from burstwire.proto.roster import Roster

__all__ = ["CHARGED_FROM", "HANDSHAKE", "Account", "Toll"]

CHARGED_FROM = 32
"""Units of work in one wake-up from which on it is charged: requests and answers stay below, and cost no look at the
clock."""

BYTES_A_UNIT = 3000
"""Bulk data that take as long as one unit of work."""

MOST_A_UNIT = 20e-6
"""Seconds that are charged for a unit at most: what else the wake-up did, such as sending, was not the peer's doing."""

STREAM = 50e-6
"""Seconds that are charged for a stream that a peer opens: what the application does about it comes later."""

MESSAGE = 0.5e-6
"""Seconds that are charged for a tiny message (`message_calls.TINY`): it is cut out, and told to the application."""

BURST = 0.05
"""Seconds of work beyond its share that a peer may have done."""

MOST_DEBT = 4 * BURST
"""More is forgiven: what a single wake-up cost must not shut somebody out for long."""

LOOK = 0.05
"""Seconds between looks at who moves bulk data."""

LOOKED_AT = 512
"""Connections that one look takes in, at most: a fifth of a millisecond."""

BULK_RATE = 160_000
"""Bytes per second, either way, from which on a peer moves bulk data: even one that hardly gets to it,"""

BULK_PACKET = 600
"""in packets of this size on average."""

REMEMBERED = 2.0
"""Seconds for which a peer counts as one with bulk data: one that was starved tries again within less."""

CHARGED_LATELY = 1.0
"""Seconds for which a costly peer counts among those that share."""

HANDSHAKE = 200
"""Units of work for a handshake that is confirmed: a connection is made, and told to the application."""

MAX_ACCOUNTS = 1024
"""Accounts at most, about 200 KB; the one charged least recently goes first."""


class Account:
    """What one peer has cost.

    Attributes:
        debt: seconds of work beyond its share, as of `charged`.
        charged: when it was charged last.
        until: its packets are dropped until then.
    """

    __slots__ = ("charged", "debt", "until")

    def __init__(self, now: float) -> None:
        self.debt = 0.0
        self.charged = now
        self.until = now

    def charge(self, seconds: float, share: float, now: float) -> None:
        """So much work was done for it, of which it may have that share of the time."""
        debt = max(0.0, self.debt - (now - self.charged) * share) + seconds
        self.debt = debt = min(debt, MOST_DEBT) if share < 1 else 0.0
        self.charged = now
        if debt > BURST:
            self.until = now + (debt - BURST / 2) / share


class Toll:
    """All accounts of one endpoint.

    Args:
        share: `Config.costly_share`.
        roster: the endpoint's connections.
        handshakes: `Config.handshake_share`.
    """

    def __init__(self, share: float, roster: Roster, handshakes: float = 1.0) -> None:
        self._share = share
        self._handshake_share = handshakes
        self._handshakes = Account(-math.inf)
        self._handshake_work = 0
        self._roster = roster
        self._accounts: dict[PublicKey, Account] = {}
        """The one charged least recently first."""
        self._costly: list[tuple[Connection, int]] = []
        self._work = 0.0
        self._looked_at = 0.0
        self._moved: dict[int, tuple[int, int, int, int]] = {}
        self._bulk: dict[PublicKey, float] = {}
        """Who moves bulk data, and when that was seen last."""
        self._others = False
        """Whether more than one peer was heard lately."""

    # getters

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, key: PublicKey) -> Account | None:
        """The account of a peer that was costly lately."""
        return self._accounts.get(key)

    def strain(self, now: float) -> int:
        """How far handshakes are beyond their share: 0 not at all; 1: whoever can wait must; 2: all but few must."""
        account = self._handshakes
        if now >= account.until:
            return 0
        return 2 if account.debt - (now - account.charged) * self._handshake_share > 2 * BURST else 1

    # inputs

    def handshaken(self, work: int) -> None:
        """Handshakes cost so many units in this wake-up."""
        self._work += work
        self._handshake_work += work

    def worked(self, connection: Connection, work: int) -> None:
        """A connection's packets of this wake-up cost so many units."""
        self._work += work
        if work >= CHARGED_FROM:
            self._costly.append((connection, work))
        else:
            connection.inbound.tiny_messages = 0  # now and then one costs nobody anything

    def charges(self, bulk: int) -> bool:
        """The wake-up brought `bulk` bytes that C took; returns whether `spent` must say how long all of it took."""
        if (self._costly and len(self._roster) > 1) or (self._handshake_work >= CHARGED_FROM and len(self._roster)):
            self._work += bulk / BYTES_A_UNIT
            return True
        self._costly.clear()
        self._handshake_work = 0
        self._work = 0.0
        return False

    def spent(self, seconds: float, now: float) -> None:
        """The wake-up, with everything that followed at once, took so long, and ended now."""
        costly, self._costly = self._costly, []
        work, self._work = self._work, 0.0
        handshakes, self._handshake_work = self._handshake_work, 0
        if now >= self._looked_at + LOOK:
            self._look(now)
        if handshakes:
            cost = handshakes * min(seconds / work, MOST_A_UNIT)
            self._handshakes.charge(cost, self._handshake_share if self._bulk else 1.0, now)
        accounts = self._accounts
        for connection, units in costly:
            key = connection.peer_key
            account = accounts.pop(key, None)
            if account is None:
                account = Account(now)
                if len(accounts) >= MAX_ACCOUNTS:
                    del accounts[next(iter(accounts))]
            accounts[key] = account  # behind all others
            connection.inbound.account = account
            share = self._share_of(key, now)
            inbound = connection.inbound
            cost = units * min(seconds / work, MOST_A_UNIT)
            cost += inbound.opened_streams * STREAM + inbound.tiny_messages * MESSAGE
            inbound.opened_streams = inbound.tiny_messages = 0
            account.charge(cost, share, now)

    # inside

    def _share_of(self, key: PublicKey, now: float) -> float:
        """The part of the time that a costly peer may take."""
        costly = 0
        for account in reversed(self._accounts.values()):
            if account.charged < now - CHARGED_LATELY:
                break
            costly += 1
        if any(other != key for other in self._bulk):
            return self._share / max(1, costly)
        if costly > 1:
            return 1 / costly
        return max(self._share, 1 - self._share) if self._others else 1.0

    def _look(self, now: float) -> None:
        """Sees who has moved bulk data since the last look, and forgets who has not for long."""
        least = BULK_RATE * min(now - self._looked_at, 1.0)
        self._looked_at = now
        before, self._moved = self._moved, {}
        first = None
        self._others = False
        for connection in islice(self._roster.lately(), LOOKED_AT):
            key = connection.peer_key
            first = first or key
            self._others |= key != first
            inbound, outbound = connection.inbound, connection.outbound
            counts = self._moved[connection.local_cid] = inbound.packets, inbound.size, outbound.packets, outbound.size
            last = before.get(connection.local_cid, counts)
            for packets, size in ((0, 1), (2, 3)):
                moved = counts[size] - last[size]
                if moved >= least and moved >= BULK_PACKET * (counts[packets] - last[packets]):
                    self._bulk[key] = now
        self._bulk = {key: when for key, when in self._bulk.items() if when >= now - REMEMBERED}
        accounts = self._accounts
        while accounts:  # who owes nothing any more needs no account
            key, account = next(iter(accounts.items()))
            if account.charged >= now - 10 or account.until > now:
                break
            del accounts[key]
