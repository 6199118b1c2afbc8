"""One connection: its state, its streams, its timers, and what the application asks of it. Sans-IO.

What arrives is `inbound.py`, what leaves is `outbound.py`; both work on the fields of this object. The driver sees
only the part marked for it, and reaches the rest through `Endpoint`.

States (RFC 9000 §10.2)::

    OPEN ── close() ──► FLUSHING ── all acknowledged, or close_timeout ──► CLOSING ── 3 PTO ──► ENDED
     │                      │                                                │
     └───── peer's CLOSE ───┴───────────► DRAINING ◄───── peer's CLOSE ──────┘
                                              └────── 3 PTO ──► ENDED
    idle timeout, stateless reset: straight to ENDED
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Any

from burstwire.config import Config
from burstwire.core.counter import CounterPool
from burstwire.crypto.keys import GENERATION_BITS, INTEGRITY_LIMITS, TrafficKeys
from burstwire.errors import (
    IdleTimeout,
    LocallyClosed,
    LocalProtocolError,
    MessageTooLarge,
    PeerClosed,
    RemoteProtocolError,
    TransportError,
)
from burstwire.proto.acks import AckManager
from burstwire.proto.control import Item
from burstwire.proto.datagrams import Datagrams
from burstwire.proto.events import (
    ConnectionEnded,
    Event,
    MessagesReadable,
    MessagesWritable,
    StreamReadable,
    StreamWritable,
)
from burstwire.proto.flow import FlowControl
from burstwire.proto.inbound import Inbound
from burstwire.proto.messages import MessageReader, MessageWriter
from burstwire.proto.mtu import MtuDiscovery
from burstwire.proto.outbound import Outbound
from burstwire.proto.path import Paths
from burstwire.proto.recovery import Recovery
from burstwire.proto.sending import SendHalf
from burstwire.proto.stream_table import StreamTable
from burstwire.proto.streams import Stream
from burstwire.wire import frames as f
from burstwire.wire import varint
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.header import DATA_OVERHEAD
from burstwire.wire.parameters import AEAD_IDS

if TYPE_CHECKING:
    from burstwire.proto.handshake import Established
    from burstwire.proto.tracing import Tracer

__all__ = ["Connection", "State"]

CLOSE_PTOS = 3
"""PTOs that closing and draining last (RFC 9000 §10.2)."""

SMALL = 16 * 1024
"""Bytes of a message from which on it is written to the ring at once instead of being kept until packets are made."""

CREDIT_AT = 64 * 1024
"""Bytes of messages taken one by one for which the peer is credited together."""

REASON_LIMIT = 512
"""Bytes of a close reason: it must fit one packet with everything else."""


class State(IntEnum):
    """Where a connection is in its life; see the top of this file."""

    OPEN = 0
    FLUSHING = 1
    CLOSING = 2
    DRAINING = 3
    ENDED = 4


class Connection:
    """A connection whose handshake is done.

    Args:
        established: the outcome of the handshake.
        config: the endpoint's.
        now: the time in seconds.
        random: a source of random bytes.
        counters: the endpoint's packet number pool.
        emit: takes events for the driver.
        wake: called when there is something to send.
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
        "_messages_announced",
        "_quiet_deadline",
        "_wake",
        "acks",
        "aead_name",
        "attempt",
        "close_due",
        "close_frame",
        "config",
        "confirmed",
        "control",
        "counter_index",
        "counters",
        "datagrams",
        "emit",
        "error",
        "flow",
        "inbound",
        "integrity_limit",
        "is_initiator",
        "keys",
        "local_cid",
        "mtu",
        "next_counter",
        "observed_address",
        "outbound",
        "pacing_deadline",
        "path",
        "paths",
        "peer_key",
        "peer_parameters",
        "pmtu",
        "random",
        "reader",
        "recovery",
        "remote_cid",
        "sendable",
        "state",
        "streams",
        "tracer",
        "user",
        "writer",
    )

    def __init__(
        self,
        established: Established,
        config: Config,
        now: float,
        random: Callable[[int], bytes],
        counters: CounterPool,
        emit: Callable[[Event], None],
        wake: Callable[[Connection], None],
    ) -> None:
        self.config = config
        self.random = random
        self.emit = emit
        self._wake = wake
        self.user: Any = None
        self.tracer: Tracer | None = None
        self.peer_key = established.peer_key
        self.path = established.path
        self.is_initiator = established.is_initiator
        self.local_cid = established.local_cid
        self.remote_cid = established.remote_cid
        self.attempt = established.attempt
        self.peer_parameters = established.peer_parameters
        aead = AEAD_IDS[established.aead]
        self.keys = TrafficKeys(established.send_secret, established.receive_secret, aead, config.aead_backend)
        self.aead_name = established.aead
        self.integrity_limit = INTEGRITY_LIMITS[aead]
        self.state = State.OPEN
        self.error: TransportError | None = None
        self.confirmed = False
        """Whether the other side is known to have the keys: responder at once (it saw DATA), initiator with CONFIRM."""
        self.observed_address: bytes | None = None

        peer = established.peer_parameters
        self.pmtu = MtuDiscovery(config.max_datagram_size, peer.max_udp_payload_size, peer.receive_buffer)
        self.mtu = self.pmtu.size
        self.counters = counters
        self.counter_index = counters.acquire()
        self.next_counter = 0
        self.acks = AckManager(config.max_ack_delay)
        self.recovery = Recovery(
            now,
            config.congestion,
            self.mtu,
            peer.max_ack_delay / 1000,
            peer.receive_buffer,
            config.pacing,
            established.handshake_rtt,
        )
        self.paths = Paths(self, random)
        self.inbound = Inbound(self)
        self.outbound = Outbound(self)

        self.streams = StreamTable(self)
        self.flow = FlowControl(self)
        self.writer = MessageWriter(self.streams.messages, peer.max_message_size)
        self.reader = MessageReader(self.streams.messages, config.max_message_size)
        self.sendable: list[SendHalf] = []  # mostly one: an empty deque takes 600 bytes of every connection
        self.control: dict[Item, None] = {}
        """Control frames to be sent, in order; each is written with the values of the moment."""
        self.datagrams = Datagrams(config.max_datagrams)
        self._messages_announced = False

        self._idle = self._idle_timeout()
        self._last_heard = now
        self._idle_from = now
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

    def __repr__(self) -> str:
        return f"<Connection {self.local_cid:08x} {self.state.name.lower()}>"

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

    @property
    def idle_out(self) -> bool:
        """Whether everything that was accepted has been acknowledged."""
        if self.datagrams.outgoing or self.writer.collected:
            return False
        return all(stream.sending.all_acked for stream in self.streams.open.values())

    @property
    def max_datagram(self) -> int:
        """Bytes of the largest unreliable datagram that can be sent now; 0 when the peer takes none."""
        peer = self.peer_parameters.max_datagram_frame_size
        return max(0, min(self.mtu - DATA_OVERHEAD, peer) - 3) if peer else 0

    def stats(self) -> dict[str, int | float]:
        """Counters and estimates; sizes in bytes, times in seconds."""
        recovery = self.recovery
        log = recovery.log
        result: dict[str, int | float] = {
            "packets_sent": self.outbound.packets,
            "packets_received": self.inbound.packets,
            "bytes_sent": self.outbound.size,
            "bytes_received": self.inbound.size,
            "packets_lost": recovery.packets_lost,
            "packets_lost_spuriously": recovery.packets_spurious,
            "packets_duplicate": self.inbound.duplicates,
            "packets_invalid": self.inbound.invalid,
            "packets_unopened": self.inbound.unopened,
            "pto_expired": recovery.pto_expired,
            "bytes_in_flight": log.in_flight,
            "congestion_window": recovery.controller.window,
            "rtt": recovery.rtt.smoothed,
            "rtt_minimum": recovery.rtt.minimum,
            "mtu": self.mtu,
            "streams": len(self.streams),
            "path_changes": self.paths.moves,
            "datagrams_dropped_sending": self.datagrams.outgoing_dropped,
            "datagrams_dropped_receiving": self.datagrams.incoming_dropped,
        }
        result.update({f"congestion_{name}": value for name, value in recovery.controller.stats().items()})
        return result

    # the application's calls

    def message_room(self) -> bool:
        """Whether `send_message` may be called; if not, `MessagesWritable` follows once."""
        if self.error is not None or self.writer.room:
            return True
        half = self.streams.messages.sending
        half.blocked = half.wants_room = True
        return False

    def send_message(self, data: bytes | bytearray | memoryview) -> None:
        """Takes a message whole. Call it when `message_room` says so.

        Raises:
            MessageTooLarge: nothing was taken. TransportError: the connection has ended.
        """
        self._check_open()
        self.writer.check(data)
        self.writer.put((data,))
        self.wants_to_send(self.streams.messages.sending)

    def add_message(self, data: bytes) -> bool:
        """Takes a small message if there is room, at little cost: many are written together when packets are made.

        False: it was not taken, for any reason; `send_messages` knows which.
        """
        writer = self.writer
        if len(data) >= SMALL or self.error is not None:
            return False
        if not writer.collected and writer.room:
            self.wants_to_send(self.streams.messages.sending)
        return writer.add(data)

    def send_messages(self, messages: Sequence[bytes | bytearray | memoryview]) -> int:
        """Takes messages from the front while there is room; returns how many. What raises takes none."""
        self._check_open()
        for message in messages:
            self.writer.check(message)
        taken = self.writer.put(messages)
        if taken:
            self.wants_to_send(self.streams.messages.sending)
        return taken

    def next_message(self) -> bytes | None:
        """The next whole message, or None when there is none."""
        reader = self.reader
        if not reader.ready:
            if not self._messages_announced:
                return None
            reader.fetch()
            if not reader.ready:
                messages = self.next_messages(1)
                return messages[0] if messages else None
        message = reader.ready.popleft()
        size = len(message)
        reader.uncredited += size + (1 if size < 0x40 else 2 if size < 0x4000 else varint.size(size))
        if not reader.ready or reader.uncredited >= CREDIT_AT or self.flow.peer_blocked:
            self.credit_messages()
        return message

    def credit_messages(self) -> None:
        """Gives the peer credit for the messages that were taken one by one."""
        credit = self.reader.credit()
        if credit:
            self.flow.consume(self.streams.messages, credit)

    def next_messages(self, limit: int) -> list[bytes]:
        """Up to `limit` whole messages."""
        if not self._messages_announced:  # exact, and what most calls find that are about to wait
            return []
        messages, freed = self.reader.take(limit)
        if freed:
            self.flow.consume(self.streams.messages, freed)
        if self.reader.violation is not None:
            self.wake()
        self._messages_announced = self.reader.available if len(messages) == limit else False
        return messages

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Queues an unreliable datagram; the oldest is dropped when the queue is full.

        Raises:
            MessageTooLarge: it does not fit a packet of this path, or the peer takes none.
        """
        self._check_open()
        view = memoryview(data)
        if view.nbytes > self.max_datagram:
            raise MessageTooLarge(view.nbytes, self.max_datagram, "datagram")
        self.datagrams.put(bytes(data))
        self.wake()

    def next_datagram(self) -> bytes | None:
        """The oldest datagram that arrived, or None."""
        incoming = self.datagrams.incoming
        return incoming.popleft() if incoming else None

    def open_stream(self) -> Stream | None:
        """A new stream, or None when the peer allows no more now (`StreamsAvailable` follows)."""
        self._check_open()
        return self.streams.add()

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

    def update_keys(self) -> None:
        """Moves on to the next key generation with the next packet, once the current one was acknowledged."""
        generation = self.next_counter >> GENERATION_BITS
        if self.recovery.log.largest_acked < generation << GENERATION_BITS:
            raise LocalProtocolError("the keys were updated before the peer acknowledged the current ones")
        self.next_counter = (generation + 1) << GENERATION_BITS
        self.counters.skip_to(self.counter_index, self.next_counter)

    # the streams' calls

    def wants_to_send(self, half: SendHalf) -> None:
        """Puts a half into the sending order."""
        if not half.queued:
            half.queued = True
            self.sendable.append(half)
        self._wake(self)

    def wake(self) -> None:
        """Has the endpoint ask for packets."""
        self._wake(self)

    def ask(self, item: Item) -> None:
        """Has a control frame sent; asking twice is asking once."""
        self.control[item] = None
        self._wake(self)

    def stream_was_read(self, stream: Stream, n: int) -> None:
        """The application took `n` bytes."""
        self.flow.consume(stream, n)
        self._read_to_the_end(stream)

    def stream_ended(self, stream: Stream) -> None:
        """The application has seen the end of the stream's receiving half."""
        self.streams.retire(stream)

    def stream_was_reset(self, stream: Stream) -> None:
        """The application abandoned the stream's sending half."""
        half = stream.sending
        self.ask((f.RESET_STREAM, stream.id))
        if half.wants_room:
            half.wants_room = False
            self.emit(StreamWritable(stream))

    def stream_was_stopped(self, stream: Stream) -> None:
        """The application wants no more of the stream."""
        if not stream.receiving.complete:
            self.ask((f.STOP_SENDING, stream.id))
        self.discard_unread(stream)
        self.emit(StreamReadable(stream))
        self.streams.retire(stream)

    def discard_unread(self, stream: Stream) -> None:
        """Gives up what lies unread, and its credit back to the connection."""
        unread = stream.receiving.drop()
        if unread:
            self.flow.consume(stream, unread)

    # inputs, from Inbound

    def heard(self, path: bytes, is_newest: bool, size: int, now: float) -> None:
        """A genuine packet arrived."""
        self._last_heard = self._idle_from = now
        if path != self.path:
            self.paths.seen(path, is_newest, size)
        if self.state == State.CLOSING:
            # Ever more rarely, so that two sides cannot keep each other busy (RFC 9000 §10.2.1).
            self._heard_closing += 1
            if not self._heard_closing & (self._heard_closing - 1):
                self.close_due = True
                self._wake(self)

    def too_large(self, now: float) -> None:
        """The kernel refused a packet because of its size (EMSGSIZE)."""
        if self.pmtu.refused(now):
            self.set_mtu()
        self._wake(self)

    def set_mtu(self) -> None:
        """Packets have the size that the search has arrived at from now on."""
        self.mtu = self.pmtu.size
        self.recovery.set_mtu(self.mtu)
        self._wake(self)

    def path_changed(self, now: float) -> None:
        """The peer is somewhere else."""
        self.pmtu.new_path()
        self.mtu = self.recovery.mtu = self.pmtu.size
        self.recovery.new_path(now)

    def keys_changed(self, now: float) -> None:
        """The peer's next key generation became the current one: the old one is kept for late packets, 3 PTO."""
        self._key_deadline = now + CLOSE_PTOS * self.recovery.pto()

    def stream_arrived(self, stream: Stream) -> None:
        """More of a stream is readable, or its end is known."""
        if stream is self.streams.messages:
            credited = self.reader.arrived()
            if credited:
                self.flow.consume(stream, credited)
            if not self._messages_announced and self.reader.available:
                self.messages_arrived()
            return
        self._read_to_the_end(stream)
        half = stream.receiving
        if not half.announced and (half.readable or half.at_end):
            half.announced = True
            self.emit(StreamReadable(stream))

    def messages_arrived(self) -> None:
        """A whole message is there."""
        if not self._messages_announced:
            self._messages_announced = True
            self.emit(MessagesReadable(self))

    def batch_ended(self, now: float) -> None:
        """Everything of this wake-up was taken in."""
        if self.acks.due or self.control or self.sendable or self.datagrams.outgoing or self.paths.outgoing:
            self._wake(self)
        if self.state == State.FLUSHING:
            self._flushed(now)

    def messages_writable(self) -> None:
        """Stream 0 has room again."""
        self.streams.messages.sending.blocked = False
        self.emit(MessagesWritable(self))

    def peer_reset(self, stream_id: int, code: int, final_size: int) -> None:
        """RESET_STREAM."""
        stream = self.streams.find(stream_id)
        if stream is None:
            return
        if stream is self.streams.messages:
            raise WireError(TransportCode.STREAM_STATE_ERROR, "the message stream was reset")
        half = stream.receiving
        read = half.read_offset
        self.flow.charge(half.on_reset(code, final_size))
        if half.reset_code is not None:
            self.flow.consume(stream, half.read_offset - read)
            if not half.announced:
                half.announced = True
                self.emit(StreamReadable(stream))
        self.streams.retire(stream)

    def peer_stopped(self, stream_id: int, code: int) -> None:
        """STOP_SENDING: the stream is reset with the same code (RFC 9000 §3.5)."""
        stream = self.streams.find(stream_id)
        if stream is None:
            return
        if stream is self.streams.messages:
            raise WireError(TransportCode.STREAM_STATE_ERROR, "the message stream was stopped")
        half = stream.sending
        if half.stop_code is None and not half.finished:
            half.stop_code = code
            if half.reset(code):
                self.ask((f.RESET_STREAM, stream.id))
            half.wants_room = False
            self.emit(StreamWritable(stream))

    def peer_confirmed(self) -> None:
        """CONFIRM: the responder has a connection for us, not only a half-open entry."""
        self.confirmed = True

    def peer_closed(self, code: int, reason: str, by_application: bool, now: float) -> None:
        """CLOSE: say CLOSE once in return (RFC 9000 §10.2.2), then drain."""
        if self.state == State.DRAINING:
            return
        if self.state <= State.FLUSHING:
            self.close_frame = f.encode_close(TransportCode.NO_ERROR)
            self.close_due = True
            self._wake(self)
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
                self._wake(self)
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
                self.inbound.mourn(lost, now)
            if self.recovery.probes:
                if self.pmtu.silence(self.recovery.pto_count, now):
                    self.set_mtu()
                self.outbound.prepare_probe(now)
            self._wake(self)
        self.acks.on_timeout(now)
        if self.acks.due:
            self._wake(self)
        if self.pacing_deadline is not None and now >= self.pacing_deadline:
            self.pacing_deadline = None
            self._wake(self)
        if self._key_deadline is not None and now >= self._key_deadline:
            self._key_deadline = None
            self.keys.drop_previous()
        if now >= self._quiet_deadline:
            if self._keep_alive_deadline() <= now:
                self.ask((f.PING,))
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

    def rest(self) -> None:
        """Gives memory back that serves others better while nothing happens here; it is made anew when needed."""
        self.keys.rest()
        for stream in self.streams.open.values():
            stream.sending.release_if_idle()
            stream.receiving.release_if_idle()

    def destroy(self) -> None:
        """Gives back what the connection holds of the endpoint, once it has ended."""
        if self.counter_index >= 0:
            self.counters.release(self.counter_index)
            self.counter_index = -1

    # inside

    def _read_to_the_end(self, stream: Stream) -> None:
        """Whoever read all bytes up to the end need not ask for the end, too, before the stream's place is free."""
        half = stream.receiving
        if half.at_end and not half.end_read:
            half.end_read = True
            self.streams.retire(stream)

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error

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
        return min(idle, keep_alive)

    def _flushed(self, now: float, give_up: bool = False) -> None:
        if give_up or self.idle_out:
            frame = f.encode_close(self._close_code, _short(self._close_reason), by_application=True)
            self._say_close(now, frame, self.error or LocallyClosed())

    def _say_close(self, now: float, frame: bytes, error: TransportError) -> None:
        self.close_frame = frame
        self.close_due = True
        self.error = error
        self._end(State.CLOSING, now)
        self._wake(self)

    def _end(self, state: State, now: float) -> None:
        was_open = self.state <= State.FLUSHING
        self.state = state
        self._close_deadline = None if state == State.ENDED else now + CLOSE_PTOS * self.recovery.pto()
        self._close_resend = None
        if was_open:
            self.recovery.log.discard()
            self.sendable.clear()
            self.control.clear()
            self.emit(ConnectionEnded(self, self.error or LocallyClosed()))
        if state == State.ENDED:
            self._wake(self)


def _short(reason: str) -> str:
    return reason.encode()[:REASON_LIMIT].decode("utf-8", "ignore")
