"""How a connection ends, and what it does by the clock: closing, draining, idle timeout, keep-alive; sans-IO.

States (RFC 9000 §10.2)::

    OPEN ── close() ──► FLUSHING ── all acknowledged, or close_timeout ──► CLOSING ── 3 PTO ──► ENDED
     │                      │                                                │
     └───── peer's CLOSE ───┴───────────► DRAINING ◄───── peer's CLOSE ──────┘
                                              └────── 3 PTO ──► ENDED
    idle timeout, stateless reset: straight to ENDED

`Lifetime` is the part of a `Connection` that knows this: the base of that class, so that what is asked after every step
costs no detour.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, cast

from burstwire.errors import IdleTimeout, LocallyClosed, PeerClosed, RemoteProtocolError, TransportError
from burstwire.proto.events import ConnectionEnded, Event
from burstwire.proto.key_updates import KEPT_PTOS
from burstwire.proto.watch import Watch
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.crypto.keys import TrafficKeys
    from burstwire.proto.acks import AckManager
    from burstwire.proto.connection import Connection
    from burstwire.proto.control import Item
    from burstwire.proto.ecn import Ecn
    from burstwire.proto.inbound import Inbound
    from burstwire.proto.messages import MessageWriter
    from burstwire.proto.mtu import MtuDiscovery
    from burstwire.proto.outbound import Outbound
    from burstwire.proto.path import Paths
    from burstwire.proto.recovery import Recovery
    from burstwire.proto.sending import SendHalf
    from burstwire.proto.stream_table import StreamTable
    from burstwire.wire.parameters import TransportParameters

__all__ = ["CLOSE_PTOS", "Lifetime", "State"]

CLOSE_PTOS = 3
"""PTOs that closing and draining last (RFC 9000 §10.2)."""

BACK_AFTER_PTOS = 3
"""PTOs of silence after which a peer that is heard again is told at once what may be missing. A back-off thus ends with
the outage, not with its own time. The peer's packets are as rare as its own back-off then, so one that hears nothing of
what it is sent, and says so, gets no more than it sends."""

REASON_LIMIT = 512
"""Bytes of a close reason: it must fit one packet with everything else."""


class State(IntEnum):
    """Where a connection is in its life; see the top of this file."""

    OPEN = 0
    FLUSHING = 1
    CLOSING = 2
    DRAINING = 3
    ENDED = 4


class Lifetime:
    """States and timers of a connection.

    Attributes:
        state: where it is in its life.
        error: why it cannot be used any more; None while it can.
        close_frame: what is said at the end.
        close_due: whether it is to be said now.
        pacing_deadline: when the pacer lets the next packet go, if that is what sending waits for.
        watch: looks whether data keep coming; None until so many came that it matters.
    """

    __slots__ = (
        "_close_code",
        "_close_deadline",
        "_close_reason",
        "_close_resend",
        "_heard_closing",
        "_idle",
        "_idle_from",
        "_key_deadline",
        "_last_heard",
        "_quiet_deadline",
        "close_due",
        "close_frame",
        "error",
        "pacing_deadline",
        "state",
        "watch",
    )

    # what `Connection` adds
    acks: AckManager
    config: Config
    control: dict[Item, None]
    ecn: Ecn
    emit: Callable[[Event], None]
    inbound: Inbound
    keys: TrafficKeys
    next_counter: int
    outbound: Outbound
    path: bytes
    paths: Paths
    peer_parameters: TransportParameters
    pmtu: MtuDiscovery
    recovery: Recovery
    sendable: list[SendHalf]
    streams: StreamTable
    writer: MessageWriter

    if TYPE_CHECKING:

        @property
        def idle_out(self) -> bool: ...
        def ask(self, item: Item) -> None: ...
        def set_mtu(self) -> None: ...
        def wake(self) -> None: ...
        def wants_to_send(self, half: SendHalf) -> None: ...

    def _begin(self, now: float) -> None:
        """The connection is open from now on; `config`, `peer_parameters` and `recovery` are there."""
        self.state = State.OPEN
        self.error: TransportError | None = None
        self._idle = self._idle_timeout()
        self._last_heard = now
        self._idle_from = now
        self.watch: Watch | None = None
        self._quiet_deadline = self._next_quiet(now)
        self.pacing_deadline: float | None = None
        self._close_deadline: float | None = None
        self._close_resend: float | None = None
        self._key_deadline: float | None = None
        self.close_frame = b""
        self.close_due = False
        self._heard_closing = 0
        self._close_code = 0
        self._close_reason = ""

    # getters

    @property
    def established(self) -> bool:
        """Whether the connection can be used."""
        return self.error is None

    @property
    def listening(self) -> bool:
        """Whether frames are still taken."""
        return self.state <= State.FLUSHING

    @property
    def close_deadline(self) -> float | None:
        """When flushing is given up, or when closing or draining is over; None: it is not closing, or has ended."""
        return self._close_deadline

    # the application's calls

    def close(self, now: float, code: int = 0, reason: str = "") -> None:
        """Delivers what was accepted, for at most `Config.close_timeout`, then says CLOSE. Twice is once."""
        if self.state != State.OPEN:
            return
        self.state = State.FLUSHING
        self.writer.collect()
        self._close_code = code
        self._close_reason = reason
        self._close_deadline = now + self.config.close_timeout
        for half in [stream.sending for stream in self.streams.open.values()]:
            half.blocked = False
            if half.pending:
                self.wants_to_send(half)
        self.error = LocallyClosed()
        self._flushed(now)
        self.wake()

    def abort(self, now: float, code: int = 0, reason: str = "") -> None:
        """Says CLOSE at once; what was not acknowledged may be lost."""
        if self.state <= State.FLUSHING:
            self._close_code = code
            self._close_reason = reason
            self._say_close(now, f.encode_close(code, _short(reason), by_application=True), LocallyClosed())

    # inputs

    def heard(self, path: bytes, is_newest: bool, size: int, now: float) -> None:
        """A genuine packet arrived."""
        if self.recovery.pto_count > 1 and now - self._last_heard > BACK_AFTER_PTOS * self.recovery.pto():
            self._is_back(now)
        self._last_heard = self._idle_from = now
        if path != self.path:
            self.paths.seen(path, is_newest, size, now)
        if self.state == State.CLOSING:
            # Ever more rarely, so that two sides cannot keep each other busy (RFC 9000 §10.2.1).
            self._heard_closing += 1
            if not self._heard_closing & (self._heard_closing - 1):
                self.close_due = True
                self.wake()

    def watch_arrivals(self, now: float) -> None:
        """So many data came that it will mean something when they stop."""
        watch = self.watch
        if watch is None:
            watch = self.watch = Watch()
        watch.begin(cast("Connection", self), now)
        self._quiet_deadline = min(self._quiet_deadline, watch.deadline)

    def overslept(self, late: float, now: float) -> None:
        """`late` seconds passed in which this side did not run: they were not the peer's silence."""
        if self.state > State.FLUSHING:
            return
        keep_alive = self._keep_alive_deadline()
        self.recovery.overslept(late, now)
        if keep_alive <= now:  # a NAT does not know that this side did not run
            self.ask((f.PING,))
        if not self._idle:
            return
        if self._idle_deadline() <= now:
            self.ask((f.PING,))  # whoever lost the connection meanwhile answers with RESET
        # At least long enough for an answer to what is asked now.
        least = now + 3 * self.recovery.pto() - max(self._idle, 3 * self.recovery.pto())
        self._idle_from = min(now, max(self._idle_from + late, least))
        self._quiet_deadline = self._next_quiet(now)

    def keys_changed(self, now: float) -> None:
        """The peer's next key generation became the current one: the old one is kept for late packets, 3 PTO."""
        self._key_deadline = now + KEPT_PTOS * self.recovery.pto()

    def peer_closed(self, code: int, reason: str, by_application: bool, now: float) -> None:
        """CLOSE: say CLOSE once in return (RFC 9000 §10.2.2), then drain."""
        if self.state == State.DRAINING:
            return
        if self.state <= State.FLUSHING:
            self.close_frame = f.encode_close(TransportCode.NO_ERROR)
            self.close_due = True
            self.wake()
            if self.state == State.OPEN:
                self.error = PeerClosed(code, reason, by_application)
            self._end(State.DRAINING, now)
        else:
            self.state = State.DRAINING
            self.close_due = False
            self._close_resend = None

    def fail(self, code: int, reason: str, now: float) -> None:
        """The peer broke the protocol: say so and close."""
        if self.state <= State.FLUSHING:
            self._say_close(now, f.encode_close(code, _short(reason), 0), RemoteProtocolError(code, reason))

    def reset_by_peer(self, now: float) -> None:
        """A genuine RESET came: the peer knows nothing of this connection any more (RFC 9000 §10.3)."""
        if self.state <= State.FLUSHING:
            self.error = PeerClosed(0, "the peer restarted and lost the connection's state", by_application=False)
            self._end(State.ENDED, now)

    # timers

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, in seconds."""
        state = self.state
        if state >= State.CLOSING:
            if state == State.ENDED:
                return None
            times = [self._close_deadline, self._close_resend]
            return min((time for time in times if time is not None), default=None)
        # Asked after every step, so without lists and calls.
        due = self._quiet_deadline
        for time in (
            self.recovery.deadline(),
            self.acks.deadline,
            self.pacing_deadline,
            self.paths.deadline,
            self._close_deadline,
            self._key_deadline,
        ):
            if time is not None and time < due:
                due = time
        return due if due < inf else None

    def handle_timeout(self, now: float) -> None:
        """Does what is due."""
        if self.state >= State.CLOSING:
            if self._close_deadline is not None and now >= self._close_deadline:
                self._end(State.ENDED, now)
            elif self._close_resend is not None and now >= self._close_resend:
                # Nothing acknowledges a CLOSE: repeat it, so that one lost packet does not leave the peer waiting.
                self._close_resend = None
                self.close_due = True
                self.wake()
            return
        if now >= self._quiet_deadline and self._idle_deadline() <= now:
            self.error = IdleTimeout(f"nothing was heard from the peer for {now - self._last_heard:.1f} s")
            self._end(State.ENDED, now)
            return
        if self._close_deadline is not None and now >= self._close_deadline:
            self._flushed(now, give_up=True)
            return
        deadline = self.recovery.deadline()
        if deadline is not None and now >= deadline:
            lost = self.recovery.on_timeout(now)
            if lost:
                self.pmtu.missed(lost)
                self.ecn.missed(lost)
                self.inbound.mourn(lost, now)
            if self.recovery.probes:
                self.ecn.on_pto(self.recovery.pto_count, self.next_counter)
                self.outbound.prepare_probe(now)
            self.wake()
        if self.paths.deadline is not None and now >= self.paths.deadline:
            self.paths.on_timeout(now)
        self.acks.on_timeout(now)
        if self.acks.due:
            self.wake()
        if self.pacing_deadline is not None and now >= self.pacing_deadline:
            self.pacing_deadline = None
            self.wake()
        if self._key_deadline is not None and now >= self._key_deadline:
            self._key_deadline = None
            self.keys.drop_previous()
        if now >= self._quiet_deadline:
            if self._keep_alive_deadline() <= now:
                self.ask((f.PING,))
            if self.watch is not None and now >= self.watch.deadline:
                self.watch.look(cast("Connection", self), self._last_heard, now)
            self._quiet_deadline = self._next_quiet(now)

    def sent_eliciting(self, now: float) -> None:
        """An ack-eliciting packet left: the first since the peer was heard restarts the idle time (RFC 9000 §10.1)."""
        if self._idle_from == self._last_heard:
            self._idle_from = max(self._idle_from, now)

    def close_was_sent(self, now: float) -> None:
        """CLOSE left."""
        self.close_due = False
        if self.state == State.CLOSING and self._close_resend is None:
            self._close_resend = now + self.recovery.pto()

    # inside

    def _is_back(self, now: float) -> None:
        """The peer is heard after an outage: the probes that wait for their back-off go now."""
        if self.recovery.probe_now(now):
            self.outbound.prepare_probe(now)
            self.wake()

    def _idle_timeout(self) -> float:
        ours = self.config.idle_timeout
        theirs = self.peer_parameters.max_idle_timeout / 1000
        return min(ours, theirs) if ours and theirs else ours or theirs

    def _idle_deadline(self) -> float:
        return self._idle_from + max(self._idle, 3 * self.recovery.pto()) if self._idle else inf

    def _keep_alive_deadline(self) -> float:
        interval = self.config.keep_alive
        return max(self._last_heard, self.recovery.last_eliciting) + interval if interval else inf

    def _next_quiet(self, now: float) -> float:
        """When silence may mean something next; packets only move it away, so it is asked again when it has come."""
        keep_alive = self._keep_alive_deadline()
        if keep_alive <= now:  # a PING waits to be sent
            keep_alive = now + self.config.keep_alive
        idle = self._idle_from + self._idle if self._idle else inf
        if idle <= now:  # three PTOs are longer; as soon as something is heard, they may be much shorter
            idle = min(self._idle_deadline(), now + self._idle)
        watch = self.watch
        return min(idle, keep_alive) if watch is None else min(idle, keep_alive, watch.deadline)

    def _flushed(self, now: float, give_up: bool = False) -> None:
        if give_up or self.idle_out:
            frame = f.encode_close(self._close_code, _short(self._close_reason), by_application=True)
            self._say_close(now, frame, self.error or LocallyClosed())

    def _say_close(self, now: float, frame: bytes, error: TransportError) -> None:
        self.close_frame = frame
        self.close_due = True
        self.error = error
        self._end(State.CLOSING, now)
        self.wake()

    def _end(self, state: State, now: float) -> None:
        was_open = self.state <= State.FLUSHING
        self.state = state
        self._close_deadline = None if state == State.ENDED else now + CLOSE_PTOS * self.recovery.pto()
        self._close_resend = None
        if was_open:
            self.recovery.log.discard()
            self.sendable.clear()
            self.control.clear()
            self.emit(ConnectionEnded(cast("Connection", self), self.error or LocallyClosed()))
        if state == State.ENDED:
            self.wake()


def _short(reason: str) -> str:
    return reason.encode()[:REASON_LIMIT].decode("utf-8", "ignore")
