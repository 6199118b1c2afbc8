"""One connection: its parts, its streams, and what the application asks of it. Sans-IO.

What arrives is `inbound.py`, what leaves is `outbound.py`; both work on the fields of this object. The driver sees
only the part marked for it, and reaches the rest through `Endpoint`.

How it ends, and what it does by the clock, is `lifetime.py`; what the application does with messages is
`message_calls.py`. They are its bases, as they share its fields.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from burstwire.config import Config, check_congestion
from burstwire.core.counter import CounterPool
from burstwire.crypto.keys import GENERATION_BITS, INTEGRITY_LIMITS, TrafficKeys
from burstwire.errors import LocalProtocolError, MessageTooLarge
from burstwire.proto.acks import AckManager
from burstwire.proto.control import Item
from burstwire.proto.datagrams import Datagrams
from burstwire.proto.ecn import Ecn
from burstwire.proto.events import Event, StreamReadable, StreamWritable
from burstwire.proto.flow import FlowControl
from burstwire.proto.inbound import Inbound
from burstwire.proto.key_updates import KeyUpdates
from burstwire.proto.lifetime import Lifetime, State
from burstwire.proto.message_calls import MessageCalls
from burstwire.proto.messages import MessageReader, MessageWriter
from burstwire.proto.mtu import MtuDiscovery
from burstwire.proto.outbound import Outbound
from burstwire.proto.path import Paths
from burstwire.proto.recovery import Recovery
from burstwire.proto.sending import DEFAULT_URGENCY, SendHalf
from burstwire.proto.stream_table import StreamTable
from burstwire.proto.streams import Stream, check_priority
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.header import DATA_OVERHEAD
from burstwire.wire.parameters import AEAD_IDS

if TYPE_CHECKING:
    from burstwire.proto.handshake import Established
    from burstwire.proto.tracing import Tracer

__all__ = ["Connection", "State"]


class Connection(Lifetime, MessageCalls):
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
        "_wake",
        "acks",
        "aead_name",
        "attempt",
        "config",
        "confirmed",
        "control",
        "counter_index",
        "counters",
        "datagrams",
        "ecn",
        "emit",
        "flow",
        "inbound",
        "integrity_limit",
        "is_initiator",
        "key_updates",
        "keys",
        "local_cid",
        "mtu",
        "next_counter",
        "observed_address",
        "outbound",
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
            config.fixed_rate,
        )
        self.ecn = Ecn(config.ecn)
        self.paths = Paths(self, random)
        self.inbound = Inbound(self)
        self.outbound = Outbound(self)
        self.key_updates = KeyUpdates(self, now)

        self.streams = StreamTable(self)
        self.flow = FlowControl(self)
        self.writer = MessageWriter(self.streams.messages, peer.max_message_size)
        self.reader = MessageReader(self.streams.messages, config.max_message_size)
        self.sendable: list[SendHalf] = []  # mostly one: an empty deque takes 600 bytes of every connection
        """The sending order: by urgency, then by turn; see `wants_to_send`."""
        self.control: dict[Item, None] = {}
        """Control frames to be sent, in order; each is written with the values of the moment."""
        self.datagrams = Datagrams(config.max_datagrams, config.datagram_buffer)
        self._begin(now)

    def __repr__(self) -> str:
        return f"<Connection {self.local_cid:08x} {self.state.name.lower()}>"

    # getters

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
        """Counters and estimates; sizes in bytes, times in seconds. `key_updates` counts those of what this side sends,
        `key_updates_peer` those of what the peer sends."""
        recovery = self.recovery
        log = recovery.log
        result: dict[str, int | float] = {
            "packets_sent": self.outbound.packets,
            "packets_received": self.inbound.packets,
            "bytes_sent": self.outbound.size,
            "bytes_received": self.inbound.size,
            "packets_segmented": recovery.packets_segmented,
            "packets_lost": recovery.packets_lost,
            "packets_lost_segmented": recovery.packets_lost_segmented,
            "packets_lost_spuriously": recovery.packets_spurious,
            "packets_duplicate": self.inbound.duplicates,
            "packets_invalid": self.inbound.invalid,
            "packets_unopened": self.inbound.unopened,
            "packets_limited": self.inbound.limited,
            "pto_expired": recovery.pto_expired,
            "silence_probes": self.watch.probes if self.watch is not None else 0,
            "bytes_in_flight": log.in_flight,
            "congestion_window": recovery.controller.window,
            "rtt": recovery.rtt.smoothed,
            "rtt_minimum": recovery.rtt.minimum,
            "mtu": self.mtu,
            "key_updates": self.keys.sealing,
            "key_updates_peer": self.keys.opening,
            "streams": len(self.streams),
            "path_changes": self.paths.moves,
            "ecn_state": self.ecn.state.value,
            "ecn_ce": self.ecn.ce,
            "datagrams_dropped_sending": self.datagrams.outgoing_dropped,
            "datagrams_dropped_receiving": self.datagrams.incoming_dropped,
        }
        result.update({f"congestion_{name}": value for name, value in recovery.controller.stats().items()})
        return result

    # the application's calls

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
        return self.datagrams.take()

    def open_stream(self, priority: int = DEFAULT_URGENCY) -> Stream | None:
        """A new stream, or None when the peer allows no more now (`StreamsAvailable` follows)."""
        self._check_open()
        check_priority(priority)
        stream = self.streams.add()
        if stream is not None:
            stream.sending.urgency = priority
        return stream

    def set_congestion(self, name: str, now: float) -> None:
        """Sends by another congestion controller from now on, a fresh one; round-trip time and what is in flight stay.

        Raises `ConfigError` for a name that is not one of `CONGESTION_CONTROLLERS`; nothing changes then.
        """
        check_congestion(name)
        if name != self.recovery.controller_name:
            self.recovery.set_controller(name, now)
            self.wake()

    def update_keys(self) -> None:
        """Moves on to the next key generation with the next packet, once the current one was acknowledged."""
        generation = self.next_counter >> GENERATION_BITS
        if self.recovery.log.largest_acked < generation << GENERATION_BITS:
            raise LocalProtocolError("the keys were updated before the peer acknowledged the current ones")
        self.next_counter = (generation + 1) << GENERATION_BITS
        self.counters.skip_to(self.counter_index, self.next_counter)

    # the streams' calls

    def wants_to_send(self, half: SendHalf) -> None:
        """Puts a half into the sending order.

        The more urgent go first (RFC 9218 §4.1). Of equal ones each has its turn, in the order in which they came; but
        what was lost goes before what is new.
        """
        if not half.queued:
            half.queued = True
            queue = self.sendable
            if not queue or (queue[-1].urgency <= half.urgency and not half.resend.total):
                queue.append(half)
            else:
                self._enqueue(half)
        elif half.resend.total:
            self._advance(half)
        self._wake(self)

    def turn_over(self, half: SendHalf) -> None:
        """A half that stands in the sending order has sent what one turn gives: back behind its equals."""
        queue = self.sendable
        if queue and (queue[-1].urgency > half.urgency or half.resend.total):
            self._enqueue(half)
        else:
            queue.append(half)

    def set_urgency(self, half: SendHalf, urgency: int) -> None:
        """Gives a half another place in the sending order."""
        half.urgency = urgency
        if half in self.sendable:
            self.sendable.remove(half)
            self._enqueue(half)

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

    def too_large(self, is_probe: bool, now: float) -> None:
        """The kernel refused a packet because of its size (EMSGSIZE), a probe of the path MTU or another."""
        if self.pmtu.refused(is_probe, now):
            self.set_mtu()
        self._wake(self)

    def set_mtu(self) -> None:
        """Packets have the size that the search has arrived at from now on."""
        self.mtu = self.pmtu.size
        self.recovery.set_mtu(self.mtu)
        self.outbound.mtu_changed()
        self._wake(self)

    def path_changed(self, size: int, now: float) -> None:
        """The peer is at another host; packets of `size` bytes are known to pass on the way there."""
        self.pmtu.new_path(size)
        self.mtu = self.recovery.mtu = self.pmtu.size
        self.recovery.new_path(now)
        self.outbound.mtu_changed()
        self.ecn.new_path(self.next_counter)
        self._resume(now)

    def port_changed(self, now: float) -> None:
        """The peer has another port, as when a NAT forgot its binding: the way there stays the same (RFC 9000 §9.4)."""
        self.recovery.moved()
        self._resume(now)

    def stream_arrived(self, stream: Stream) -> None:
        """More of a stream is readable, or its end is known."""
        if stream is self.streams.messages:
            credited = self.reader.arrived()
            if credited:
                self.flow.consume(stream, credited)
            if not self.reader.announced and self.reader.available:
                self.messages_arrived()
            return
        self._read_to_the_end(stream)
        half = stream.receiving
        if not half.announced and (half.readable or half.at_end):
            half.announced = True
            self.emit(StreamReadable(stream))

    def batch_ended(self, now: float) -> None:
        """Everything of this wake-up was taken in."""
        if self.acks.due or self.control or self.sendable or self.datagrams.outgoing or self.paths.outgoing:
            self._wake(self)
        if self.state == State.FLUSHING:
            self._flushed(now)

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

    def rest(self) -> None:
        """Gives memory back that serves others better while nothing happens here; it is made anew when needed."""
        self.keys.rest()
        for stream in self.streams.open.values():
            stream.sending.release_if_idle()
            stream.receiving.release_if_idle()
        self.reader.release_if_idle()

    def destroy(self) -> None:
        """Gives back what the connection holds of the endpoint, once it has ended."""
        if self.counter_index >= 0:
            self.counters.release(self.counter_index)
            self.counter_index = -1
        self.keys.forget()

    # inside

    def _resume(self, now: float) -> None:
        """Has the peer hear at once, where it is now, what may have been sent in vain."""
        if self.recovery.probes:
            self.outbound.prepare_probe(now)
        if self.acks.received.largest >= 0:
            self.acks.due = True
        self._wake(self)

    def _enqueue(self, half: SendHalf) -> None:
        find = bisect_left if half.resend.total else bisect_right
        self.sendable.insert(find(self.sendable, half.urgency, key=_urgency), half)

    def _advance(self, half: SendHalf) -> None:
        """To the front of its equals, because something of it was lost."""
        queue = self.sendable
        if queue and queue[0] is not half and half in queue:
            queue.remove(half)
            self._enqueue(half)

    def _read_to_the_end(self, stream: Stream) -> None:
        """Whoever read all bytes up to the end need not ask for the end, too, before the stream's place is free."""
        half = stream.receiving
        if half.at_end and not half.end_read:
            half.end_read = True
            self.streams.retire(stream)

    def _check_open(self) -> None:
        if self.error is not None:
            raise self.error


def _urgency(half: SendHalf) -> int:
    return half.urgency
