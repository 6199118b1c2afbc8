"""Losses in bursts: the model of Gilbert and Elliott.

The channel is good or bad and changes from one datagram to the next with a fixed chance; each state loses its own
share. What a caller asks for is what people measure, the share lost and how many are lost in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, log1p
from random import Random

from burstwire.errors import ConfigError

__all__ = ["BurstState", "Bursts"]


@dataclass(frozen=True, slots=True)
class Bursts:
    """Raises `ConfigError` for values that no channel has.

    Attributes:
        loss: share of all datagrams that is lost, 0 to 0.9.
        length: datagrams that a bad stretch spans on average, at least 1.
        density: share that is lost within a bad stretch, more than `loss`; 1 loses all of it (Gilbert's simple model).
        limit: seconds that a bad stretch lasts at most. Counted in datagrams alone, one would not end for somebody who
            sends little because of it.
    """

    loss: float
    length: float = 5.0
    density: float = 1.0
    limit: float = inf

    def __post_init__(self) -> None:
        if not (0 <= self.loss < self.density <= 1 and self.loss <= 0.9):
            raise ConfigError(f"bursts lose {self.loss:g} of all and {self.density:g} inside; 0 ≤ all < inside ≤ 1")
        if self.length < 1:
            raise ConfigError(f"bursts of {self.length:g} datagrams; they have at least 1")
        if self.enter > 1:
            raise ConfigError(f"bursts of {self.length:g} are too short to lose {self.loss:g} of all datagrams")

    @property
    def leave(self) -> float:
        """The chance that a bad stretch ends with a datagram."""
        return 1 / self.length

    @property
    def enter(self) -> float:
        """The chance that one begins: the share of time in it, loss / density, is enter / (enter + leave)."""
        bad = self.loss / self.density
        return bad * self.leave / (1 - bad)


class BurstState:
    """Where one direction is in the model; draws once a stretch, and for each datagram only in a bad one that is not
    dense."""

    __slots__ = ("_bad", "_bursts", "_left", "_random", "_until")

    def __init__(self, bursts: Bursts, random: Random) -> None:
        self._bursts = bursts
        self._random = random
        self._bad = False
        self._until = inf
        self._left = self._stretch(bursts.enter)

    def lost(self, now: float) -> bool:
        """Whether the next datagram is lost, which is sent at `now`."""
        if self._left <= 0 or now >= self._until:
            bursts = self._bursts
            self._bad = not self._bad
            self._left = self._stretch(bursts.leave if self._bad else bursts.enter)
            self._until = now + bursts.limit if self._bad else inf
        self._left -= 1
        if not self._bad:
            return False
        density = self._bursts.density
        return density >= 1 or self._random.random() < density

    def _stretch(self, end: float) -> int:
        """Datagrams of a stretch that ends with this chance after each: at least one."""
        if end <= 0:
            return 1 << 62
        if end >= 1:
            return 1
        return 1 + int(log(1 - self._random.random()) / log1p(-end))
