"""A policer: a token bucket that lets through what it has tokens for and drops the rest, without any queue."""

from __future__ import annotations

from dataclasses import dataclass

from burstwire.errors import ConfigError

__all__ = ["Policer", "PolicerState"]


@dataclass(frozen=True, slots=True)
class Policer:
    """Raises `ConfigError` for values out of range.

    Attributes:
        rate: bytes per second.
        burst: bytes that the bucket holds; it starts full.
    """

    rate: float
    burst: int = 64 * 1024

    def __post_init__(self) -> None:
        if self.rate < 1 or self.burst < 1:
            raise ConfigError(f"a policer passes at least 1 byte, not {self.rate!r} a second, {self.burst!r} at once")


class PolicerState:
    """One bucket."""

    __slots__ = ("_filled", "_policer", "_tokens")

    def __init__(self, policer: Policer) -> None:
        self._policer = policer
        self._tokens = float(policer.burst)
        self._filled = 0.0

    def passes(self, now: float, size: int) -> bool:
        """Whether `size` bytes may pass now; if so, they have."""
        policer = self._policer
        self._tokens = min(policer.burst, self._tokens + (now - self._filled) * policer.rate)
        self._filled = now
        if size > self._tokens:
            return False
        self._tokens -= size
        return True
