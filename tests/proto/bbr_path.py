"""A sender with the real `Recovery` over a model of one bottleneck: its rate, round trip and queue, chosen losses."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from burstwire.proto.congestion.bbr import Bbr, State
from burstwire.proto.recovery import Recovery
from burstwire.proto.sent import SentRecord

TICK = 0.001


class BbrPath:
    """Time goes in milliseconds; what arrives in one is acknowledged in one frame.

    Attributes:
        rate: bytes per second. delay: seconds of a round trip without a queue. queue: bytes that may wait.
        supply: bytes per second that the application gives, from now on.
        lose: told a packet number, says whether it is lost.
        bundle: seconds for which acknowledgements are held back, to come together.
        visited: (time, state) of each change. peak: the largest window. delivered: bytes.
    """

    def __init__(
        self, rate: float = 1e6, delay: float = 0.05, queue: float = inf, mtu: int = 1200, pacing: bool = True
    ) -> None:
        self.now = 0.0
        self.rate, self.delay, self.queue, self.mtu = rate, delay, queue, mtu
        self._supply = inf
        self.lose: Callable[[int], bool] = lambda number: False
        self.bundle = 0.0
        self.recovery = Recovery(0.0, "bbr", mtu, 0.0, 0, pacing, delay)
        self.visited: list[tuple[float, State]] = []
        self.peak = 0
        self.delivered = 0
        self.dropped = 0
        self._given = 0.0
        self._next = 0
        self._free_at = 0.0
        self._arrivals: list[tuple[float, int]] = []

    @property
    def cc(self) -> Bbr:
        controller = self.recovery.controller
        assert isinstance(controller, Bbr)
        return controller

    @property
    def supply(self) -> float:
        return self._supply

    @supply.setter
    def supply(self, rate: float) -> None:
        self._supply = rate
        self._given = 0.0

    @property
    def bdp(self) -> float:
        return self.rate * self.delay

    @property
    def waiting(self) -> float:
        """Bytes in the queue."""
        return max(0.0, self._free_at - self.now) * self.rate

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Let time pass, or until something is true; that must happen if it is given."""
        end = self.now + seconds
        while self.now < end:
            self._tick()
            if until is not None and until():
                return
        assert until is None, f"not within {seconds} s: {self.cc.state}, {self.cc.stats()}"

    def reach(self, state: State, within: float = 20.0) -> None:
        self.run(within, lambda: self.cc.state is state)

    def states(self) -> list[State]:
        return [state for _, state in self.visited]

    def _tick(self) -> None:
        self.now += TICK
        recovery = self.recovery
        if not self.bundle or self.now % self.bundle < TICK:
            self._acknowledge()
        recovery.on_timeout(self.now)
        self._note()
        self._given = min(self._given + self._supply * TICK, 1e12)
        allowed = max(recovery.allowance(self.now), recovery.probes * self.mtu)
        count = int(min(allowed, self._given) // self.mtu)
        if count:
            self._given -= count * self.mtu
            self._send(count)
        recovery.limited = self._given >= self.mtu
        self.peak = max(self.peak, self.cc.window)

    def _send(self, count: int) -> None:
        first, self._next = self._next, self._next + count
        self.recovery.sent(SentRecord(first, count, self.recovery.log.sent, self.mtu, self.now))
        for number in range(first, first + count):
            if self.waiting + self.mtu > self.queue:
                self.dropped += 1
                continue
            self._free_at = max(self.now, self._free_at) + self.mtu / self.rate
            if not self.lose(number):
                self._arrivals.append((self._free_at + self.delay, number))

    def _acknowledge(self) -> None:
        ranges: list[tuple[int, int]] = []
        while self._arrivals and self._arrivals[0][0] <= self.now:
            number = self._arrivals.pop(0)[1]
            self.delivered += self.mtu
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1] = (ranges[-1][0], number)
            else:
                ranges.append((number, number))
        if ranges:
            self.recovery.acknowledged(ranges[::-1], 0.0, self.now)

    def _note(self) -> None:
        state = self.cc.state
        if not self.visited or self.visited[-1][1] is not state:
            self.visited.append((self.now, state))


def steady(**options: float) -> BbrPath:
    """A path whose sender has found its rate and cruises."""
    path = BbrPath(**options)
    path.reach(State.CRUISE)
    return path


class Once:
    """Loses one packet."""

    def __init__(self, packets: int = 1) -> None:
        self.left = packets

    def __call__(self, number: int) -> bool:
        self.left -= 1
        return self.left >= 0
