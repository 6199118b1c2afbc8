"""Moves one endpoint: socket, clock and event loop on one side, the sans-IO `proto.Endpoint` on the other.

One reader callback, one timer, at most one scheduled step; no task. What happens in a step, always in this order:

1. input: what the socket has (at most `trains_per_wakeup` trains; the loop calls again for the rest), or a timeout;
2. output: flights from `transmit` until there is none, or as many trains as came to a wake-up; the rest in the
   next turn of the loop, so that a bulk transfer starves nobody;
3. events to whoever waits for them;
4. the timer, moved only if the deadline came nearer;
5. how long all of this took, if the protocol wants to know.

Invariants:
- Every slot that `recv` leased is released before the callback returns.
- A flight that the kernel did not take is kept and offered again, byte for byte, when the socket is writable (EAGAIN)
  or after a pause (ENOBUFS); `transmit` is not called before it is gone.
- An exception in a step (a bug, or a dead socket) ends the endpoint and is told to everybody who waits. It is never
  retried, so it cannot spin.
- A descriptor that somebody closed or replaced is noticed within a second, though the kernel reports nothing.
- Nothing spins: a socket that says it is readable or writable, and then gives or takes nothing, is left alone for a
  while.
- `now` never goes back. When the clock does, time goes on from where it was. When the timer fires long after it was
  due (the loop was blocked, the process stopped, the machine asleep, the clock set forward), what arrived meanwhile is
  read before any timeout is handled, and that time is nobody's silence (`Endpoint.overslept`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from burstwire.core import BufferRing, RunTable

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.core import TrainTable, UdpSocket
    from burstwire.proto.endpoint import Endpoint as Protocol
    from burstwire.proto.events import Event

__all__ = ["Driver"]

SHORTEST_TIMER = 0.001
"""Seconds. asyncio fires a timer 1.1 ms after any shorter request, and uvloop counts in whole milliseconds, so that a
shorter one would only be early or late."""

LONGEST_TIMER = 1.0
"""Seconds. A closed descriptor is never readable, so that a listener would wait for ever: it is looked at so often."""

BLOCKED_TIMER = 0.010
"""Seconds between timeouts while the kernel takes nothing: they can send nothing either."""

COALESCE = 50e-6
"""Seconds. Calls of the application that follow a flush of their own sooner than this share the next one: a flush
costs about 15 µs, a request and its response are never so close, and a tight loop of sends always is."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.064
"""Seconds to wait after ENOBUFS, doubled while it lasts: a full device queue drains within a few milliseconds, and the
kernel tells nobody when it has."""


VAIN_WAKE_UPS = 8
"""Wake-ups in a row that bring nothing before the reader pauses. A few are normal: datagrams with a wrong checksum or
without a byte, ICMP answers."""

LONGEST_DEAFNESS = 0.016
"""Seconds that the reader pauses at most. The pause begins with `FIRST_PAUSE` and is doubled while the socket gives not
even an empty datagram; if it gave some, more of them may stand before what matters, so that it must not get long."""

LATE = 0.5
"""Seconds that the timer may fire late before that counts as not having run. Busy loops stall for some 100 ms; the
shortest time after which somebody is given up is a few PTOs, mostly a second and more."""


class Driver:
    """The engine of one endpoint. `on_events` and `on_failure` are called from event loop callbacks and must not raise.

    The caller owns nothing that it passes: `stop` closes the socket and both rings.
    """

    __slots__ = (
        "_busy",
        "_deaf",
        "_deafness",
        "_flight",
        "_inode",
        "_input_first",
        "_latest",
        "_loop",
        "_offset",
        "_on_events",
        "_on_failure",
        "_pause",
        "_paused",
        "_quiet_since",
        "_ring",
        "_soon",
        "_table",
        "_taken",
        "_timer",
        "_timer_at",
        "_trains",
        "_trains_before",
        "_vain",
        "_waited",
        "_woken_at",
        "_writing",
        "clock_steps",
        "closing",
        "flushes",
        "loop",
        "oversleeps",
        "pauses",
        "protocol",
        "socket",
        "stopped",
        "timeouts",
        "wakeups",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Protocol,
        socket: UdpSocket,
        config: Config,
        on_events: Callable[[list[Event]], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.protocol = protocol
        self.socket = socket
        self.stopped = False
        self.closing = False  # set by the owner, who then hears of every step
        self.wakeups = 0
        self.timeouts = 0
        self.flushes = 0
        self.pauses = 0
        self.oversleeps = 0
        self.clock_steps = 0
        self.loop: object = loop  # public, to be compared with the running one; nothing in the child of a fork
        self._loop = loop
        self._on_events = on_events
        self._on_failure = on_failure
        self._trains = config.trains_per_wakeup
        self._ring = BufferRing(config.receive_slots)
        self._table = RunTable(held=max(64, config.trains_per_wakeup))
        self._busy = False
        self._soon: asyncio.Handle | None = None
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._flight: TrainTable | None = None  # what the kernel has not taken yet, from train `_taken` on
        self._taken = 0
        self._writing = False
        self._paused: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._inode = 0
        self._vain = 0
        self._deaf: asyncio.TimerHandle | None = None  # reading pauses
        self._deafness = FIRST_PAUSE
        self._trains_before = -1  # that the socket had given when reading paused last
        self._woken_at: tuple[int, int] | None = None  # how far the flight was when the socket became writable
        self._latest = monotonic()
        self._offset = 0.0
        self._input_first = self._waited = False

    def now(self) -> float:
        """The time in seconds, for the protocol; it never goes back."""
        now = monotonic() + self._offset
        if now < self._latest:
            self.clock_steps += 1
            self._offset += self._latest - now
            return self._latest
        self._latest = now
        return now

    def start(self) -> None:
        """Begin to receive."""
        self._inode = os.fstat(self.socket.fileno()).st_ino
        self._arm(self.now())
        self._loop.add_reader(self.socket.fileno(), self._on_readable)

    def touch(self) -> None:
        """The application changed something: send what there is, at once if it is a lone call, else soon."""
        if self._soon is not None or self.stopped:
            return
        now = self.now()
        if self._busy or now - self._quiet_since < COALESCE:
            self._soon = self._loop.call_soon(self._on_soon)
        else:
            self._step(now)
            self._quiet_since = self.now()

    def flush(self) -> None:
        """Send now what there is, as far as the kernel takes it."""
        self._step(self.now())

    def touch_soon(self) -> None:
        """As `touch`, where nobody waits for what may be sent, if anything: the answer to it may take it along."""
        if self._soon is None and not self.stopped and self.protocol.pending:
            self._soon = self._loop.call_soon(self._on_soon)

    def stop(self) -> None:
        """Leave the loop and close socket and rings. No callback of ours runs afterwards."""
        if self.stopped:
            return
        self.stopped = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self.socket.fileno())
            if self._writing:
                self._loop.remove_writer(self.socket.fileno())
        for handle in (self._soon, self._timer, self._paused, self._deaf):
            if handle is not None:
                handle.cancel()
        self._soon = self._timer = self._paused = self._deaf = None
        self._flight = None
        self.socket.close()
        self._ring.close()
        self.protocol.destroy()

    def abandon(self) -> None:
        """Forget everything in the child of a fork: the loop and its registrations belong to the parent."""
        self.stopped = True
        self.loop = object()
        self._soon = self._timer = self._paused = self._deaf = None
        self._flight = None
        # Closing the child's descriptor leaves the parent's registration alone; epoll watches the open file.
        self.socket.close()

    # callbacks of the loop

    def _on_readable(self) -> None:
        self.wakeups += 1
        self._busy = True
        now = 0.0
        costly = False
        try:
            table, ring = self._table, self._ring
            runs = self.socket.recv(ring, table, self._trains)
            now = self.now()
            try:
                if now - self._timer_at > LATE:
                    self._overslept(now)
                if runs:
                    costly = self.protocol.receive(ring, table, now)
            finally:
                table.release(ring)
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._busy = False
        if runs:
            self._vain = 0
            self._step(now)
            if costly:
                end = self.now()
                self.protocol.spent(end - now, end)
            return
        self._vain += 1
        if self._vain >= VAIN_WAKE_UPS:
            self._grow_deaf()

    def _grow_deaf(self) -> None:
        """Stop reading for a while."""
        self._vain = 0
        self.pauses += 1
        trains = self.socket.stats()["trains_received"]
        longer = min(2 * self._deafness, LONGEST_DEAFNESS)
        self._deafness = longer if trains == self._trains_before else FIRST_PAUSE
        self._trains_before = trains
        self._loop.remove_reader(self.socket.fileno())
        self._deaf = self._loop.call_later(self._deafness, self._on_deafness_over)

    def _on_deafness_over(self) -> None:
        self._deaf = None
        self._loop.add_reader(self.socket.fileno(), self._on_readable)

    def _overslept(self, now: float) -> None:
        """The timer was due long ago: whatever the clock says, nobody was listening to this side's silence."""
        self.oversleeps += 1
        self._input_first = True
        late, self._timer_at = now - self._timer_at, now
        self.protocol.overslept(late, now)

    def _on_timer(self) -> None:
        self._timer = None
        self.timeouts += 1
        now = self.now()
        self._busy = True
        try:
            if now - self._timer_at > LATE:
                self._overslept(now)
            if os.fstat(self.socket.fileno()).st_ino != self._inode:
                raise OSError("the descriptor of the socket was replaced by another")
            # After an oversleep the socket is looked at once before, as acknowledgements may wait there; only once.
            self._waited = self._input_first and not self._waited
            self._input_first = False
            # Loops fire up to a millisecond early, and the deadline may have moved away: then it is only set again.
            deadline = self.protocol.next_timeout()
            if deadline is not None and deadline <= now and not self._waited:
                self.protocol.handle_timeout(now)
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._busy = False
        self._step(now)

    def _on_soon(self) -> None:
        self._soon = None
        self._step(self.now())

    def _on_writable(self) -> None:
        self._loop.remove_writer(self.socket.fileno())
        self._writing = False
        self._woken_at = self._progress()
        self._step(self.now())
        self._woken_at = None

    def _on_pause_over(self) -> None:
        self._paused = None
        self._step(self.now())

    # one step

    def _step(self, now: float) -> None:
        """Output, events, timer."""
        if self.stopped:
            return
        self._busy = True
        try:
            protocol = self.protocol
            if not self._writing and self._paused is None and (protocol.pending or self._flight is not None):
                self._flush(now)
            events = protocol.events()
            if events or self.closing:
                self._on_events(events)
            if not self.stopped:
                self._arm(now)
        except Exception as error:
            self._fail(error)
        finally:
            self._busy = False

    def _flush(self, now: float) -> None:
        self.flushes += 1
        protocol = self.protocol
        flight = self._flight
        left = self._trains
        while left > 0:
            if flight is None:
                flight = protocol.transmit(now)
                if flight is None:
                    return
                self._taken = 0
            left -= max(flight.count - self._taken, 1)
            self._taken += self.socket.send(flight, self._taken)
            if self._taken < flight.count:
                self._flight = flight
                self._wait_for_kernel()
                return
            self._flight = flight = None
            self._pause = FIRST_PAUSE
            protocol.sent(now)
            if not protocol.pending:
                return
        if self._soon is None:
            self._soon = self._loop.call_soon(self._on_soon)

    def _progress(self) -> tuple[int, int]:
        """Trains of the waiting flight that the kernel took, and bytes of the next one."""
        flight, taken = self._flight, self._taken
        return taken, flight.results(taken)[0] if flight is not None else 0

    def _wait_for_kernel(self) -> None:
        if self.socket.blocked == "nobufs" or self._woken_at == self._progress():
            self.pauses += 1
            self._paused = self._loop.call_later(self._pause, self._on_pause_over)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._writing = True
            self._loop.add_writer(self.socket.fileno(), self._on_writable)

    def _arm(self, now: float) -> None:
        deadline = self.protocol.next_timeout()
        # After every step, so without calls.
        delay = LONGEST_TIMER if deadline is None or deadline - now > LONGEST_TIMER else deadline - now
        shortest = SHORTEST_TIMER if self._flight is None else BLOCKED_TIMER
        if delay < shortest:
            delay = shortest
        if self._timer is not None:
            if self._timer_at <= now + delay:
                return  # fires early enough, and finds out that it was early
            self._timer.cancel()
        self._timer_at = now + delay
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, OSError):  # a dead socket is no bug of ours; everything else here is
            self._loop.call_exception_handler(
                {"message": "burstwire: an endpoint failed and was closed", "exception": error}
            )
        self._on_failure(error)
