"""One rate for all connections of an endpoint (`Config.total_bandwidth`), shared max-min fair. Sans-IO.

What is earned (rate x time) lies in the *pool*. A connection that wants to send *joins*; while it is in, it has an
account, and everything in the pool is divided evenly among the accounts: all of them rise with one number, the
*level*, so that dividing costs the same for two connections and for thousands. At the end of its turn a connection
that was held back by the budget stays in, and is woken when its account covers a packet; any other one leaves, and
what it did not need goes back to the pool, and so to those that are held back. That makes the shares max-min fair:
nobody gets less than an even share unless it wants less, and all others divide what is left evenly.

* A floor: whoever has sent nothing for `FLOOR_INTERVAL` may send one packet, however little there is to share, so that
  thousands of connections on a small budget lose none to a timeout. Only floors, and probes after a timeout, can
  exceed the budget; what exceeds it is paid back as far as the pool's debt goes, and counted as overdrawn beyond.
* What is charged is what congestion control counts: whole packets that the peer must acknowledge, without IP and UDP
  headers. Acknowledgements, handshakes, path challenges and CLOSE are neither held back nor charged.
* Bursts: an account holds a packet and `BURST_TIME` of its share, the pool `POOL_TIME` of the rate. More than that is
  not saved up while nobody sends.

The books: ``sent + pool + accounts == earned - expired + overdrawn``, always.
"""

from __future__ import annotations

from math import inf

from burstwire.proto.pacing import BUCKET_TIME, TIMER

__all__ = ["BURST_TIME", "FLOOR_INTERVAL", "POOL_TIME", "Budget", "Share"]

BURST_TIME = BUCKET_TIME
"""Seconds of its share that an account holds beside a packet: as the pacer's bucket, and for the same reason."""

POOL_TIME = 0.020
"""Seconds of the rate that the pool holds, or owes, at most: what late wake-ups of a busy event loop cost, and what one
connection may send at once when all were silent."""

FLOOR_INTERVAL = 0.5
"""Seconds after which a connection may send a packet whatever there is: several for each shortest sensible idle
timeout, and PTOs do not grow beyond it for the budget's sake."""

ALWAYS = 2
"""Packets that the pool and an account hold, or may owe, at least, however low the rate is."""


class Budget:
    """The shared account of an endpoint.

    Args:
        rate: bytes per second.
        now: the time in seconds.

    Attributes:
        earned, expired, sent, overdrawn: see the books above; in bytes, since the start.
        held: connections that are in: they send now, or are held back.
        waits: how often a connection was held back at the end of its turn.
    """

    __slots__ = (
        "_last",
        "_level",
        "_packet",
        "earned",
        "expired",
        "held",
        "overdrawn",
        "pool",
        "rate",
        "sent",
        "waits",
    )

    def __init__(self, rate: float, now: float) -> None:
        self.rate = float(rate)
        self.pool = 0.0
        self.held = 0
        self.earned = 0.0
        self.expired = 0.0
        self.overdrawn = 0.0
        self.sent = 0
        self.waits = 0
        self._level = 0.0
        """What an account has that joined at the start and sent nothing."""
        self._last = now
        self._packet = 0
        """Bytes of the largest packet seen: the bounds are never less than `ALWAYS` of them."""

    # getters

    def stats(self) -> dict[str, int]:
        """For `Endpoint.stats`: bytes, but for the connections held back now and the times that it happened."""
        return {
            "budget_rate": int(self.rate),
            "budget_sent": self.sent,
            "budget_overdrawn": int(self.overdrawn),
            "budget_waiting": self.held,
            "budget_waits": self.waits,
        }

    # inside

    def _refill(self, now: float) -> None:
        """Takes in what was earned meanwhile, and divides it."""
        earned = (now - self._last) * self.rate
        if earned > 0:
            self._last = now
            self.earned += earned
            self.pool += earned
        if self.held and self.pool > 0:
            self._level += self.pool / self.held
            self.pool = 0.0
        self._bound()

    def _bound(self) -> None:
        limit = max(POOL_TIME * self.rate, float(ALWAYS * self._packet))
        if self.pool > limit:
            self.expired += self.pool - limit
            self.pool = limit
        elif self.pool < -limit:
            self.overdrawn += -limit - self.pool
            self.pool = -limit


class Share:
    """One connection's part in a `Budget`. A turn: `allowance`, `charge` for what is sent, `next_time` if there is more
    to send, `end_turn`.

    Attributes:
        waiting: whether the budget held the connection back at the end of its latest turn.
    """

    __slots__ = ("_budget", "_granted", "_in", "_last_sent", "_left", "_wants", "_zero", "waiting")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._in = False
        self._zero = 0.0
        """The level at which the account is empty."""
        self._left = budget._level
        """The level when the account was closed."""
        self._last_sent = -inf
        self._granted = 0.0
        self._wants = False
        self.waiting = False

    @property
    def account(self) -> float:
        """Bytes in the account; 0 of a connection that is not in."""
        return self._budget._level - self._zero if self._in else 0.0

    def allowance(self, now: float, mtu: int) -> int:
        """Bytes that may be sent now, 0 when that is less than one packet of `mtu` bytes."""
        budget = self._budget
        if mtu > budget._packet:
            budget._packet = mtu
        if not self._in:
            self._join(now, mtu)
        budget._refill(now)
        account = budget._level - self._zero
        most = mtu + max((ALWAYS - 1) * mtu, BURST_TIME * budget.rate / budget.held)
        if account > most:
            self._zero += account - most
            budget.pool += account - most  # for the others, or for later
            budget._bound()
            account = most
        if account < mtu and now - self._last_sent >= FLOOR_INTERVAL:
            account = mtu
        self._granted = account
        return int(account) if account >= mtu else 0

    def charge(self, now: float, size: int) -> None:
        """Reports `size` bytes that leave now, allowed or not."""
        budget = self._budget
        budget.sent += size
        self._granted -= size
        self._last_sent = now
        if not self._in:
            budget.pool -= size
            budget._bound()
            return
        self._zero += size
        debt = self._zero - budget._level - ALWAYS * budget._packet
        if debt > 0:
            self._zero -= debt
            budget.overdrawn += debt

    def next_time(self, now: float, mtu: int) -> float:
        """When the rest may go, there being more to send: `now` if the budget holds nothing back, else a time at least
        `TIMER` ahead."""
        if self._granted >= mtu:
            return now
        self._wants = True
        budget = self._budget
        missing = mtu - (budget._level - self._zero)
        if budget.pool < 0:
            missing -= budget.pool / budget.held
        when = now + missing * budget.held / budget.rate
        return max(now + TIMER, min(when, self._last_sent + FLOOR_INTERVAL))

    def end_turn(self) -> None:
        """The connection sends no more now: it stays in if the budget is why."""
        self.waiting, self._wants = self._wants, False
        if self.waiting:
            self._budget.waits += 1
        elif self._in:
            self.leave()

    def leave(self) -> None:
        """Gives back what is in the account."""
        self._wants = self.waiting = False
        if self._in:
            budget = self._budget
            self._in = False
            self._left = budget._level
            budget.held -= 1
            budget.pool += budget._level - self._zero
            budget._bound()

    def _join(self, now: float, mtu: int) -> None:
        """Opens the account with what it would have had without being closed, up to what it may hold: a connection that
        stays below its share is not held back by those that want more, nor gains by coming and going."""
        budget = self._budget
        budget._refill(now)
        held = budget.held + 1
        entrance = 0.0
        if budget.held and budget.pool > -POOL_TIME * budget.rate:
            entrance = min((budget._level - self._left) * budget.held / held, mtu + BURST_TIME * budget.rate / held)
        budget.pool -= entrance
        budget._bound()
        budget.held = held
        self._zero = budget._level - entrance
        self._in = True
