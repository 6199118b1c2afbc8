"""All connections of one socket: who a packet is for, who may send, whose timer is next. Sans-IO.

The order in which a driver calls it:

1. inputs as they come: `receive`, `handle_timeout`, and the application's calls on connections and streams;
2. `transmit` until it gives None; each flight is sent and then settled with `sent`;
3. `events`, after which there may be something to transmit again: a new connection greets its peer only when the
   application has been told of it, so that what the application says at once shares the packet;
4. `next_timeout`; and `spent`, if `receive` asked for it.

Time is always an argument, in seconds of a clock that does not run backwards; randomness is given at construction.
"""

from __future__ import annotations

import errno
import hmac
from collections import deque
from collections.abc import Callable

from burstwire.config import Config, check_congestion
from burstwire.core.address import unpack_address
from burstwire.core.counter import CounterPool
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunRecord, RunTable, TrainTable
from burstwire.crypto.aead import FASTEST, check_backend
from burstwire.crypto.keys import GENERATION_BITS
from burstwire.crypto.reset import reset_key, reset_token
from burstwire.errors import EndpointClosed
from burstwire.identity import KeyPair, PublicKey
from burstwire.proto.budget import Budget, Share
from burstwire.proto.connection import Connection, State
from burstwire.proto.desk import Failed, HandshakeDesk
from burstwire.proto.events import ConnectFailed, ConnectionEstablished, Event
from burstwire.proto.handshake import Established
from burstwire.proto.intake import MAX_SPAN, Intake, Span
from burstwire.proto.load import TokenBucket
from burstwire.proto.negotiation import Refusal
from burstwire.proto.offload import Offload
from burstwire.proto.outbox import Outbox
from burstwire.proto.roster import Roster
from burstwire.proto.toll import HANDSHAKE, Toll
from burstwire.wire import frames as f
from burstwire.wire.errors import WireError
from burstwire.wire.header import DATA, RESET
from burstwire.wire.packets import Reset

__all__ = ["Endpoint"]

IN_GENERATION = (1 << GENERATION_BITS) - 1
"""The bits of a packet number that are zero only in the first packet of a key generation."""

FIRST_COUNTERS = 64
"""Packet number counters made at once; the pool grows by itself."""

SIBLINGS_PROBED = 4
"""Older connections of a peer that are asked whether they still live when it opens another. A node has one or two; with
all of a thousand, every further one would cost a thousand packets each way."""

RESETS_PER_SECOND = 100
"""RESETs sent: a restarted node tells its peers within seconds, and nobody can make it shout."""

MAX_GREETINGS = 64
"""Handshake packets and RESETs in one flight, so that the ACKs and the data of connections have room beside them."""

MAX_RESETS = 64
"""RESETs that wait to be sent."""

COUNTERS = (
    "datagrams_unknown",
    "resets_sent",
    "resets_received",
    "resets_unmatched",
    "trains_refused",
    "authorize_errors",
    "connections_accepted",
    "connections_opened",
    "connections_over_limit",
)


class Endpoint:
    """The protocol of one socket.

    Args:
        key: this node's identity.
        config: limits and choices.
        now: the time in seconds.
        random: gives as many random bytes as asked; from a cryptographic source outside of simulations.
        receive_buffer: SO_RCVBUF as the kernel granted it, in bytes; peers are told.
        gso: whether the socket leaves it to the kernel to segment trains; what connections count depends on it.

    Attributes:
        ring: the slots that flights lie in.
        connections: by local connection ID.
        backlog_full: set by the driver while nobody takes incoming connections; further ones are refused.
    """

    def __init__(
        self,
        key: KeyPair,
        config: Config,
        *,
        now: float,
        random: Callable[[int], bytes],
        receive_buffer: int = 212992,
        gso: bool = False,
    ) -> None:
        # The environment is asked once, not for every key.
        backend = check_backend(config.aead_backend) or FASTEST
        self.config = config = config.replace(aead_backend=backend)
        self.key = key
        self._roster = Roster()
        self.connections = self._roster.connections
        self._toll = Toll(config.costly_share, self._roster, config.handshake_share)
        self.backlog_full = False
        self._random = random
        self._events: deque[Event] = deque()
        self._offload = Offload(config.max_gso_refusals)
        self._outbox = Outbox(config.send_slots, config.trains_per_wakeup, offload=self._offload)
        self._outbox.gso = gso
        self.ring = self._outbox.ring
        self._intake = Intake()
        self._counters = CounterPool(FIRST_COUNTERS)
        self._reset_key = reset_key(key.private_bytes())
        self.desk = HandshakeDesk(
            key,
            config,
            random,
            now,
            new_cid=self._new_cid,
            receive_buffer=receive_buffer,
            reset_token=self._token,
            admit=self._admit,
        )
        self._ready: dict[Connection, None] = {}
        self._greetings: list[Connection] = []
        """New connections that owe their peer a frame as soon as the application knows of them."""
        self._resets: deque[tuple[bytes, bytes]] = deque()
        self._reset_bucket = TokenBucket(RESETS_PER_SECOND, RESETS_PER_SECOND, now)
        self._flying: TrainTable | None = None
        self.trace: Callable[[Connection, float], object] | None = None
        """Called with each new connection, and the time, to give it its `tracer` if it is to be traced."""
        self._closing = False
        self._chosen: dict[int, str] = {}
        """Congestion controllers chosen for single attempts."""
        self._budget = Budget(config.total_bandwidth, now) if config.total_bandwidth else None
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._limited = 0
        """`Inbound.limited` of all connections that are over."""

    # getters

    @property
    def closed(self) -> bool:
        """Whether `close` was called and nothing is left to be told to anybody."""
        return (
            self._closing
            and self._flying is None
            and all(c.state >= State.DRAINING and not c.close_due for c in self.connections.values())
        )

    @property
    def pending(self) -> bool:
        """Whether `transmit` may have something to give; cheap, so that a driver need not ask for nothing."""
        return bool(self._ready or self.desk.outgoing or self._resets)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called, in seconds; None for never."""
        when = self._roster.next_timeout()
        handshakes = self.desk.next_timeout()
        if when is None or (handshakes is not None and handshakes < when):
            return handshakes
        return when

    def stats(self) -> dict[str, int]:
        """Counters since the start; `ring_*` are slots of the send ring, `budget_*` are there with a
        `Config.total_bandwidth`, the rest is named where it is counted."""
        ring = self.ring
        return {
            **self._counts,
            **self.desk.stats(),
            **self._offload.stats(),
            "connections": len(self.connections),
            "packets_limited": self._limited + sum(c.inbound.limited for c in self.connections.values()),
            "ring_leased": ring.leased,
            "ring_high_water": ring.high_water,
            "ring_exhausted": ring.exhausted,
            **(self._budget.stats() if self._budget is not None else {}),
        }

    # inputs

    def receive(self, ring: BufferRing, table: RunTable, now: float) -> bool:
        """Takes in everything that one wake-up brought; the slots may be given back afterwards.

        Returns whether `spent` should say at the end of the step how long it took.
        """
        intake = self._intake
        intake.begin(ring, now)
        handshakes: list[tuple[memoryview, bytes]] = []
        resets: list[bytes] = []
        span: Span = []
        following = -1  # the number that continues the span
        for record in table.records():
            counter, cid, slot, start, size, last, count, kind, ecn, path = record
            if counter == following:
                before = span[-1]
                same = cid == before[1] and ecn == before[8] and path == before[9]
                if same and size == before[4] and len(span) < MAX_SPAN:
                    span.append(record)
                    following = counter + count if last == size and (counter + count) & IN_GENERATION else -1
                    continue
            if span:
                self._admit_span(intake, span, now)
                span = []
            if kind == DATA:
                span.append(record)
                following = counter + count if last == size and (counter + count) & IN_GENERATION else -1
            else:
                following = -1
                datagram = ring.views[slot][start : start + size]
                if kind == RESET:
                    resets.append(bytes(datagram))
                else:
                    handshakes.append((datagram, path))
        if span:
            self._admit_span(intake, span, now)
        roster = self._roster
        for connection in intake.finish():
            roster.noisy[connection] = None
            cost = connection.inbound.cost
            if cost:
                self._toll.worked(connection, cost)
            self._changed(connection, now)
        roster.heard(now)
        for reset in resets:  # DATA before resets and handshakes
            self._reset_received(reset, now)
        if handshakes and not self._closing:
            self.desk.strained(self._toll.strain(now))
            self.desk.receive_all(handshakes, now)
            self._toll.handshaken(self.desk.spent_work())
        if self.desk.results:
            self._collect(now)
        return self._toll.charges(intake.bulk)

    def spent(self, seconds: float, now: float) -> None:
        """What `receive` took in took so long, with everything that followed from it in the same step."""
        self._toll.spent(seconds, now)

    def handle_timeout(self, now: float) -> None:
        """Does what is due; calling it too early does no harm."""
        for connection in self._roster.due(now):
            due = connection.next_timeout()
            if due is not None and due <= now:
                connection.handle_timeout(now)
                self._ready[connection] = None
            else:
                self._changed(connection, now)
        self._roster.look(now)
        self.desk.handle_timeout(now)
        if self.desk.results:
            self._collect(now)

    def overslept(self, late: float, now: float) -> None:
        """For `late` seconds until now nobody called although something was due: this side did not run, or its clock
        was set forward. No peer was silent for it: idle timeouts are that much later, and who would have been given up
        is asked by PING."""
        for connection in list(self.connections.values()):
            connection.overslept(late, now)
            self._changed(connection, now)

    def sent(self, now: float) -> None:
        """The flight that `transmit` gave is finished: every train of it was sent or refused."""
        if self._flying is None:
            return
        self._flying = None
        for path, error, owner in self._outbox.settle(now):
            self._counts["trains_refused"] += 1
            if error == -errno.EMSGSIZE:
                # Probes are sent to learn this; for other packets it means that the interface has become narrower.
                narrow = [owner] if owner is not None else [c for c in self.connections.values() if c.path == path]
                for connection in narrow:
                    connection.too_large(owner is not None, now)
        self._outbox.clear()

    # outputs

    def transmit(self, now: float) -> TrainTable | None:
        """A flight, sealed and ready, its trains in `ring`; None when there is nothing to send now.

        It must be settled with `sent` before the next one is asked for; until then this gives None.
        """
        if self._flying is not None:
            return None
        outbox = self._outbox
        if self._offload.avoided:
            self._offload.expire(now)
        self._greet(outbox)
        ready = self._ready
        if ready:
            share = max(1, self.config.trains_per_wakeup // len(ready))
            for connection in list(ready):
                if not outbox.room:
                    break
                outbox.share(share)
                outbox.tracer = connection.tracer
                if connection.tracer is not None:
                    connection.tracer.now = now
                self._roster.noisy[connection] = None
                if not connection.outbound.transmit(now, outbox):
                    ready.pop(connection, None)
                    if self._budget is not None:
                        self._end_turn(connection)
                else:  # to the back, so that each has its turn
                    ready[connection] = ready.pop(connection)
                self._changed(connection, now)
        if outbox.empty:
            return None
        self._flying = outbox.finish()
        return self._flying

    def events(self) -> list[Event]:
        """What happened since the last call."""
        if not self._events:
            return []
        events = list(self._events)
        self._events.clear()
        for connection in self._greetings:
            if connection.is_initiator:
                connection.ask((f.PING,))  # the responder waits for a first packet to confirm the keys
            else:  # CONFIRM travels with the first answer, or with the acknowledgement of the packet that it answers
                connection.control[(f.CONFIRM,)] = None
                if connection.acks.due or connection.acks.deadline is None:
                    connection.wake()
        self._greetings.clear()
        return events

    # mutators

    def connect(
        self,
        remote: bytes,
        peer_key: PublicKey,
        now: float,
        timeout: float | None = None,
        congestion: str | None = None,
    ) -> int:
        """Starts a handshake.

        Args:
            remote: the peer's address (24 bytes).
            peer_key: who must answer there.
            now: the time.
            timeout: seconds until it is given up; None takes `Config.handshake_timeout`.
            congestion: the connection's congestion controller; None takes `Config.congestion`.

        Returns:
            the attempt's number: `ConnectionEstablished` or `ConnectFailed` will name it.

        Raises:
            ConfigError: there is no such congestion controller. EndpointClosed.
        """
        if congestion is not None:
            check_congestion(congestion)
        if self._closing:
            raise EndpointClosed("the endpoint is closed")
        if timeout is None:
            timeout = self.config.handshake_timeout
        attempt = self.desk.connect(remote, peer_key, now, timeout)
        if congestion is not None:
            self._chosen[attempt] = congestion
        return attempt

    def cancel(self, attempt: int, now: float) -> None:
        """Gives an attempt up; no event follows."""
        self._chosen.pop(attempt, None)
        self.desk.cancel(attempt)

    def close(self, now: float, code: int = 0, reason: str = "") -> None:
        """Closes every connection and answers no handshake any more; `closed` tells when all peers were told."""
        if self._closing:
            return
        self._closing = True
        self.desk.close()
        for connection in list(self.connections.values()):
            connection.close(now, code, reason)
            self._changed(connection, now)

    def destroy(self) -> None:
        """Drops everything at once and gives the memory of the rings back."""
        for connection in list(self.connections.values()):
            self._remove(connection)
        self._ready.clear()
        self._roster.clear()
        self._flying = None
        self._outbox.close()

    # inside: connections

    def _token(self, cid: int) -> bytes:
        return reset_token(self._reset_key, cid)

    def _new_cid(self) -> int:
        while True:
            cid = int.from_bytes(self._random(4), "big")
            if cid and not self._roster.knows(cid) and not self.desk.owns(cid):
                return cid

    def _wake(self, connection: Connection) -> None:
        self._ready[connection] = None

    def _end_turn(self, connection: Connection) -> None:
        """The connection has sent what it may: if the budget is why it stopped, its window must not grow (RFC 9002
        §7.8)."""
        share = connection.recovery.share
        if share is not None:
            share.end_turn()
            if share.waiting:
                connection.recovery.limited = False

    def _changed(self, connection: Connection, now: float) -> None:
        """Something happened to the connection: its timer is looked at before the next sleep, or it is forgotten."""
        if connection.tracer is not None:
            connection.tracer.updated(now)
        if connection.state >= State.DRAINING and not connection.close_due:
            if self._roster.bury(connection, now):
                self._let_go(connection)
        else:
            self._roster.unarmed[connection] = None

    def _make(self, established: Established, now: float) -> Connection:
        made = Connection(established, self.config, now, self._random, self._counters, self._events.append, self._wake)
        made.inbound.account = self._toll.account(made.peer_key)
        if self.trace is not None:
            self.trace(made, now)
        return made

    def _register(self, connection: Connection, now: float) -> None:
        if connection.attempt is not None and connection.attempt in self._chosen:
            connection.set_congestion(self._chosen.pop(connection.attempt), now)
        if self._budget is not None:
            connection.recovery.share = Share(self._budget)
        self._probe(connection.peer_key)
        self._roster.add(connection)
        self._changed(connection, now)

    def _remove(self, connection: Connection) -> None:
        if self._roster.remove(connection):
            self._let_go(connection)

    def _let_go(self, connection: Connection) -> None:
        """The roster knows a connection no more."""
        self._limited += connection.inbound.limited
        if connection.recovery.share is not None:
            connection.recovery.share.leave()
        self._ready.pop(connection, None)
        if connection.tracer is not None:
            connection.tracer.ended()
        connection.destroy()

    def _has_all(self, peer: PublicKey) -> bool:
        """Whether a peer has as many connections as it may have."""
        return len(self._roster.of_key(peer)) >= self.config.max_connections_per_peer

    def _probe(self, peer: PublicKey) -> None:
        """The peer may have restarted: a PING shows whether its older connections still live."""
        for connection in self._roster.of_key(peer)[-SIBLINGS_PROBED:]:
            if connection.listening:
                connection.ask((f.PING,))

    # inside: handshakes

    def _admit(self, peer: PublicKey, remote: bytes) -> tuple[int, str] | None:
        if self._closing:
            return Refusal.CAPACITY, "the node is shutting down"
        if len(self.connections) >= self.config.max_connections:
            return Refusal.CAPACITY, "the node has as many connections as it allows"
        if self._has_all(peer):
            self._probe(peer)  # some of them may be those of a peer that has restarted since
            return Refusal.CAPACITY, "the node has as many connections with this peer as it allows"
        if self.backlog_full:
            return Refusal.CAPACITY, "the node accepts no connections at the moment"
        allow, authorize = self.config.allow, self.config.authorize
        if allow is not None and peer not in allow:
            return Refusal.AUTHORIZATION, "this key is not allowed here"
        if authorize is not None:
            try:
                allowed = authorize(peer, unpack_address(remote))
            except Exception:  # the application's fault must not become the peer's way in, nor end the node
                self._counts["authorize_errors"] += 1
                allowed = False
            if not allowed:
                return Refusal.AUTHORIZATION, "this key is not allowed here"
        return None

    def _collect(self, now: float) -> None:
        """The outcomes of this side's attempts."""
        results = self.desk.results
        while results:
            result = results.popleft()
            if isinstance(result, Failed):
                self._chosen.pop(result.attempt, None)
                self._events.append(ConnectFailed(result.attempt, result.error))
                continue
            connection = self._make(result, now)
            self._counts["connections_opened"] += 1
            self._register(connection, now)
            self._greetings.append(connection)
            self._events.append(ConnectionEstablished(connection, result.attempt))

    def _admit_span(self, intake: Intake, span: Span, now: float) -> None:
        connection = self.connections.get(span[0][1])
        if connection is not None:
            connection.inbound.admit(intake, span)
        else:
            self._data_for_nobody(intake, span, now)

    def _data_for_nobody(self, intake: Intake, span: Span, now: float) -> None:
        """DATA of a connection ID without a connection: the first of a half-open one, or a stranger's."""
        cid = span[0][1]
        established = self.desk.half_open(cid)
        if established is None:
            if self._roster.is_gone(cid, now):
                return
            for record in span:
                self._stranger(record, now)
            return
        if len(self.connections) >= self.config.max_connections or self._has_all(established.peer_key):
            # Several handshakes were under way at once: this one waits for room until it expires.
            self._counts["connections_over_limit"] += 1
            return
        place = len(self._events)
        connection = self._make(established, now)
        if not intake.open_now(connection.inbound, span):
            if connection.tracer is not None:
                connection.tracer.discard()
            connection.destroy()
            self._ready.pop(connection, None)
            return
        self._toll.handshaken(HANDSHAKE)
        confirmed = self.desk.confirm(cid, now)
        connection.attempt = confirmed.attempt if confirmed is not None else None
        connection.confirmed = True
        if confirmed is not None and confirmed.handshake_rtt is not None:
            connection.recovery.rtt.update(confirmed.handshake_rtt, 0.0, now)
        self._counts["connections_accepted"] += 1
        self._register(connection, now)
        self._greetings.append(connection)
        self._events.insert(place, ConnectionEstablished(connection, connection.attempt))

    def _greet(self, outbox: Outbox) -> None:
        """Handshakes and resets go first."""
        left = MAX_GREETINGS
        for queue in (self.desk.outgoing, self._resets):
            while queue and left and outbox.room:
                path, datagram = queue.popleft()
                outbox.datagram(path, datagram)
                left -= 1

    # inside: stateless reset (RFC 9000 §10.3)

    def _stranger(self, record: RunRecord, now: float) -> None:
        self._counts["datagrams_unknown"] += record[6]
        size = record[4]
        if not self._closing and size > Reset.SIZE and len(self._resets) < MAX_RESETS and self._reset_bucket.take(now):
            self._counts["resets_sent"] += 1
            self._resets.append((record[9], Reset(record[1], self._token(record[1])).encode()))

    def _reset_received(self, datagram: bytes, now: float) -> None:
        try:
            reset = Reset.parse(datagram)
        except WireError:
            self._counts["resets_unmatched"] += 1
            return
        # The peer may have moved since, so the token alone decides; only the peer and this side know it.
        for connection in list(self._roster.of_remote_cid(reset.cid)):
            token = connection.peer_parameters.stateless_reset_token
            if token is not None and hmac.compare_digest(token, reset.token):
                self._counts["resets_received"] += 1
                connection.reset_by_peer(now)
                self._changed(connection, now)
                return
        self._counts["resets_unmatched"] += 1
