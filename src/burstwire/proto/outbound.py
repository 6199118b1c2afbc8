"""A connection's way out: what to send now, laid into the endpoint's outbox.

Bulk data leave as runs of full packets that C frames; everything else (ACKs, control frames, datagrams, the rest of
a stream that does not fill a packet) shares *mixed* packets, written here, which close the train behind the runs, so
that an ACK between full packets never cuts a train in two.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from burstwire.crypto.keys import GENERATION_BITS
from burstwire.proto import control
from burstwire.proto.control import Item
from burstwire.proto.mtu import PAIR, PROBE
from burstwire.proto.outbox import Outbox, most_packets
from burstwire.proto.recovery import SHORT_PATH
from burstwire.proto.sent import SentRecord
from burstwire.wire import frames as f
from burstwire.wire import varint
from burstwire.wire.header import DATA_OVERHEAD, RUN_OVERHEAD

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.sending import SendHalf

__all__ = ["Outbound"]

SKIP_SPAN = 1 << 15
"""A packet number is skipped once in about so many: acknowledging it unreceived shows (RFC 9000 §21.4)."""

ACKS_PER_WINDOW = 8
"""ACKs for which a bulk sender asks in a round trip: fewer blur what HyStart++ watches (RFC 9406 §4.2 takes 8 samples),
more are of no use, and cost both ends, and paths whose way back is narrow."""

FEWER_ACKS_FROM = 64
"""Packets of the congestion window from which on it asks at all."""

MOST_BEFORE_ACK = 64
"""Packets for which it asks for one ACK at most."""

ACK_DELAY_SHARE = 4
"""An ACK may be held back for one part in so many of the round trip, where that is longer than `max_ack_delay`,"""

LONGEST_ACK_DELAY = 0.025
"""but for this many seconds at most."""

LENGTH_ROOM = 4
"""Bytes kept for a STREAM frame's length."""

MOST_ITEMS = f.MAX_FRAMES // 2 - 2
"""Frames that a packet is given of what waits, at most; an ACK and one piece of a stream may come on top."""

TURNS_IN_WINDOW = 8
"""A stream's turn is at most this part of the congestion window: on a slow path a train may be seconds."""

REST_OVERHEAD = 24
"""Bytes that a rest takes of its packet beside its own, at most: the frame's header."""

Piece = tuple["SendHalf", int, int]
"""A range of a stream in a mixed packet: its half, offset and bytes."""


class Outbound:
    """Builds one connection's packets.

    Attributes:
        packets: packets built. size: their bytes.
    """

    __slots__ = (
        "_ack_packets",
        "_ack_requests",
        "_ack_small_window",
        "_ack_window",
        "_datagrams_turn",
        "_next_skip",
        "connection",
        "packets",
        "size",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.packets = 0
        self.size = 0
        self._next_skip = self._skip_after(connection.next_counter)
        self._datagrams_turn = False
        self._ack_packets = 0
        """Packets for which one ACK was asked for; 0: it never was."""
        self._ack_requests = 0
        self._ack_window = FEWER_ACKS_FROM * connection.mtu
        """The window, in bytes, from which on fewer ACKs would do,"""
        self._ack_small_window = 0
        """and the one below which more are needed."""

    def transmit(self, now: float, outbox: Outbox) -> bool:
        """Puts what may be sent now into the outbox; returns whether the outbox, not the connection, ended it."""
        connection = self.connection
        violation = connection.reader.violation
        if violation is not None:
            connection.fail(violation.code, violation.reason, now)
        if connection.state >= 2:  # closing, draining, ended: see State
            return self._close(now, outbox)
        updates = connection.key_updates
        if now >= updates.time or self.size >= updates.size or connection.next_counter >= updates.number:
            updates.check(now)
        if connection.writer.collected:
            connection.writer.collect()
        recovery = connection.recovery
        if not (
            connection.sendable
            or connection.control
            or connection.datagrams.outgoing
            or connection.paths.outgoing
            or recovery.probes
            or connection.pmtu.searching
        ):
            # Who only receives has no more to say than this, and says it after every wake-up.
            recovery.limited = False
            connection.pacing_deadline = None
            return connection.acks.due and self._acknowledge(now, outbox)
        allowed = recovery.allowance(now)
        room = (connection.config.max_sent_records - len(recovery.log.records)) * connection.mtu
        if allowed > room:  # mixed packets have a record each
            allowed = room
        pairing = connection.pmtu.pairing
        if recovery.probes:
            if connection.pmtu.may_shrink and connection.sendable and not connection.control:
                pairing = True  # a large packet and a small one, see mtu.py
                recovery.probes = 1
            allowed = max(allowed, recovery.probes * connection.mtu)
        if connection.paths.outgoing:
            self._challenges(now, outbox)
        before_flight = self.packets
        large = False
        sendable = connection.sendable
        # Bulk data would take all that is allowed; what goes into mixed packets gets one of them for certain.
        held = connection.mtu if self._mixed_first() else 0
        while True:
            before = allowed, len(sendable)
            full = False
            tails: list[SendHalf] = []
            if sendable:
                packets = self.packets
                allowed, full = self._runs(now, outbox, allowed, held, tails)
                large = large or self.packets != packets
            allowed, full = self._mixed(now, outbox, allowed, tails, full)
            held = 0
            if full or not sendable or allowed < connection.mtu or before == (allowed, len(sendable)):
                break
        if pairing and large and outbox.room:
            self._small_of_pair(now, outbox)
        if connection.confirmed and outbox.room:
            self._probe_mtu(now, outbox)
        if connection.ecn.mark and self.packets != before_flight:
            connection.ecn.left(self.packets - before_flight, connection.next_counter)
        if not full and (sendable or connection.control or connection.datagrams.outgoing):
            recovery.limited = not recovery.held_by_peer
            connection.pacing_deadline = recovery.pacing_time(now)
            if recovery.limited and not self._ack_small_window <= recovery.controller.window < self._ack_window:
                self._ask_for_acks()
        else:
            recovery.limited = False
            connection.pacing_deadline = None
        return full

    def prepare_probe(self, now: float) -> None:
        """A PTO expired: the oldest unacknowledged packets are sent again, or else a PING (RFC 9002 §6.2.4)."""
        connection = self.connection
        left = connection.recovery.probes
        for record in connection.recovery.log.records:
            pending = record.pending
            if not pending or record.is_probe:
                continue
            half = record.half
            while half is not None and pending and left:
                index = (pending & -pending).bit_length() - 1
                pending &= pending - 1
                half.on_lost(record.offset + index * record.chunk, record.chunk, False)
                left -= 1
            if half is not None:
                connection.wants_to_send(half)
            else:
                left -= 1
            for item in record.items:
                control.lost(connection, item, now)
            if left <= 0:
                break
        if not connection.sendable and not connection.control:
            connection.ask((f.PING,))

    def ack_frequency(self) -> bytes:
        """ACK_FREQUENCY as it is asked for now."""
        recovery = self.connection.recovery
        delay = max(recovery.max_ack_delay, min(recovery.rtt.smoothed / ACK_DELAY_SHARE, LONGEST_ACK_DELAY))
        recovery.max_ack_delay = delay  # of which the PTO must know
        self._ack_requests += 1
        return f.encode_ack_frequency(self._ack_requests, self._ack_packets - 1, int(delay * 1e6), 1)

    def mtu_changed(self) -> None:
        """Packets have another size, so that the window holds another number of them."""
        if self._ack_packets:
            self._ack_window = 0

    # inside

    def _ask_for_acks(self) -> None:
        """The window is another one than when ACKs were last asked for: so are the packets that one may stand for."""
        connection = self.connection
        recovery = connection.recovery
        window = recovery.controller.window
        in_flight = recovery.window() + recovery.log.in_flight  # at most
        packets = min(max(in_flight // (ACKS_PER_WINDOW * connection.mtu), 2), MOST_BEFORE_ACK)
        self._ack_window = 2 * window
        self._ack_small_window = window // 4 if packets > 2 else 0
        # On short paths a wake-up takes in more packets than that, and timers are longer than round trips. But what was
        # asked for must never be more than is in flight: then all would wait for the longest delay of an ACK.
        if packets < self._ack_packets or (recovery.rtt.smoothed >= SHORT_PATH and packets != self._ack_packets):
            self._ack_packets = packets
            connection.ask((f.ACK_FREQUENCY,))

    def _mixed_first(self) -> bool:
        """Whether a packet is kept free: always for control frames; for datagrams every other time, so that neither
        they nor bulk data starve where only a packet at a time may go."""
        connection = self.connection
        if connection.control:
            return True
        self._datagrams_turn = bool(connection.datagrams.outgoing) and not self._datagrams_turn
        return self._datagrams_turn

    def _runs(self, now: float, outbox: Outbox, allowed: int, held: int, tails: list[SendHalf]) -> tuple[int, bool]:
        """Full packets of streams, the most urgent first: a flight of a single one, of several as much each in turn
        (deficit round robin; the quantum is a train, or less where that would be much of the window).

        `held` of the `allowed` bytes are not used, and as soon as streams have less than a packet to send, as many
        packets' as that takes. Returns what is left of `allowed`, and whether the outbox is full.
        """
        connection = self.connection
        recovery = connection.recovery
        queue = connection.sendable
        mtu = connection.mtu
        chunk = mtu - RUN_OVERHEAD
        path = connection.path
        mark = connection.ecn.mark
        rests = 0
        while queue and allowed - held >= mtu:
            half = queue[0]
            low, high = half.next_range(connection.flow.allowance)
            count = (high - low) // chunk
            if count <= 0 or half.reset_code is not None:
                del queue[0]
                tails.append(half)
                half.turn = 0
                rests += high - low + REST_OVERHEAD
                held = max(held, mtu * (1 + rests // mtu))
                continue
            alone = len(queue) == 1 or queue[1].urgency > half.urgency
            if alone:
                room = outbox.flight_room(path, mtu, mark)
            else:
                quantum = min(recovery.controller.window // TURNS_IN_WINDOW // mtu or 1, most_packets(mtu))
                room = min(outbox.run_room(path, mtu, mark), max(1, quantum - half.turn))
            if room <= 0:
                return allowed, True
            first, count = self._numbers(min(count, room, (allowed - held) // mtu))
            if not count:
                return 0, False
            length = count * chunk
            aead = connection.keys.sealer(first >> GENERATION_BITS)
            outbox.run(
                path, mark, aead, connection.remote_cid, first, mtu, count, half.stream_id, half.ring, low, length
            )
            record = SentRecord(first, count, recovery.log.sent, mtu, now, half, low, chunk)
            if count > 1 and outbox.segments(path):
                record.segmented = True
                recovery.packets_segmented += count
            recovery.sent(record)
            self._sent_stream(half, low, length, False)
            connection.sent_eliciting(now)
            self.packets += count
            self.size += count * mtu
            allowed -= count * mtu
            if not alone and not half.resend.total:  # what was lost goes before what is new
                half.turn += count
                if half.turn >= quantum:
                    half.turn = 0
                    del queue[0]
                    connection.turn_over(half)
        return allowed, False

    def _mixed(self, now: float, outbox: Outbox, allowed: int, tails: list[SendHalf], full: bool) -> tuple[int, bool]:
        """Packets of everything that is not a full packet of one stream; returns like `_runs`."""
        connection = self.connection
        recovery = connection.recovery
        acks = connection.acks
        mtu = connection.mtu
        mark = connection.ecn.mark
        waiting = tails
        while True:
            may_elicit = allowed >= mtu and (
                bool(waiting) or bool(connection.control) or bool(connection.datagrams.outgoing) or recovery.probes > 0
            )
            if not may_elicit and not acks.due:
                break
            if not outbox.room:
                full = True
                break
            first = self._next_number()
            if first < 0:
                break
            parts: list[bytes] = []
            items: list[Item] = []
            # Whatever is sent takes along what is known to have arrived; alone, an ACK goes only when it is due.
            if acks.unreported:
                ack = acks.frame(now)
                parts.append(ack)
                room = mtu - DATA_OVERHEAD - len(ack)
            else:
                room = mtu - DATA_OVERHEAD
            piece: Piece | None = None
            if may_elicit:
                if connection.control:
                    room = self._add_control(parts, items, room, now)
                if connection.datagrams.outgoing:
                    room = self._add_datagrams(parts, items, room)
                if waiting:
                    waiting, piece = self._add_streams(parts, items, room, waiting, full)
                if recovery.probes and not items and piece is None:
                    parts.append(f.encode_ping())
                    items.append((f.PING,))
            elicits = bool(items) or piece is not None
            if not elicits and not acks.due:
                break
            named = acks.sent() if acks.unreported else -1
            self._take(first, 1)
            aead = connection.keys.sealer(first >> GENERATION_BITS)
            size = outbox.packet(connection.path, mark, aead, connection.remote_cid, first, b"".join(parts))
            self.packets += 1
            self.size += size
            if elicits:
                order = recovery.log.sent
                if piece is None:
                    record = SentRecord(first, 1, order, size, now, None, 0, 0, tuple(items), named)
                else:
                    record = SentRecord(first, 1, order, size, now, *piece, tuple(items), named)
                recovery.sent(record)
                connection.sent_eliciting(now)
                allowed -= size
        for half in waiting:
            connection.turn_over(half)
        return allowed, full

    def _acknowledge(self, now: float, outbox: Outbox) -> bool:
        """A packet of nothing but an ACK; returns whether there was no room for it."""
        if not outbox.room:
            return True
        first = self._next_number()
        if first >= 0:
            connection = self.connection
            acks = connection.acks
            frame = acks.frame(now)
            acks.sent()
            self._take(first, 1)
            aead = connection.keys.sealer(first >> GENERATION_BITS)
            self.size += outbox.packet(connection.path, 0, aead, connection.remote_cid, first, frame)
            self.packets += 1
        return False

    def _probe_mtu(self, now: float, outbox: Outbox) -> None:
        """A packet of PING and PADDING that is larger than the others, in a train of its own (RFC 8899 §3)."""
        connection = self.connection
        recovery = connection.recovery
        size = connection.pmtu.next_probe(now, connection.flow.sent, recovery.controller.window)
        if not size or self._next_number() < 0:
            return
        first, _ = self._numbers(1)
        payload = f.encode_ping() + f.encode_padding(size - DATA_OVERHEAD - 1)
        aead = connection.keys.sealer(first >> GENERATION_BITS)
        mark = connection.ecn.mark
        outbox.lone_packet(connection.path, aead, connection.remote_cid, first, payload, connection, mark)
        self.packets += 1
        self.size += size
        # Of no weight in flight: held against the window until it is known to be lost, a probe of 64 KiB would pause
        # a slow path for a round trip, and with it the round-trip times that slow start watches.
        record = SentRecord(first, 1, recovery.log.sent, 0, now, items=((PROBE, size),))
        record.is_probe = True
        recovery.sent(record)
        connection.pmtu.sent(size)
        connection.sent_eliciting(now)

    def _small_of_pair(self, now: float, outbox: Outbox) -> None:
        """A small packet behind large ones: if only it arrives, they do not pass any more (RFC 8899 §4.3)."""
        first = self._next_number()
        if first < 0:
            return
        connection = self.connection
        recovery = connection.recovery
        self._take(first, 1)
        aead = connection.keys.sealer(first >> GENERATION_BITS)
        mark = connection.ecn.mark
        size = outbox.packet(connection.path, mark, aead, connection.remote_cid, first, f.encode_ping())
        self.packets += 1
        self.size += size
        recovery.sent(SentRecord(first, 1, recovery.log.sent, size, now, items=((PAIR,),)))
        connection.sent_eliciting(now)

    def _challenges(self, now: float, outbox: Outbox) -> None:
        """Path validation: packets to the address in question, not counted against the path in use."""
        connection = self.connection
        outgoing = connection.paths.outgoing
        while outgoing and outbox.room:
            path, frame, size = outgoing.popleft()
            first, count = self._numbers(1)
            if not count:
                return
            padding = f.encode_padding(size - DATA_OVERHEAD - len(frame))
            aead = connection.keys.sealer(first >> GENERATION_BITS)
            self.size += outbox.packet(path, 0, aead, connection.remote_cid, first, frame + padding)
            self.packets += 1

    def _add_control(self, parts: list[bytes], items: list[Item], room: int, now: float) -> int:
        connection = self.connection
        waiting = connection.control
        for item in list(islice(waiting, MOST_ITEMS)):
            frame = control.encode(connection, item, now)
            if len(frame) > room:
                break
            del waiting[item]
            if frame:
                parts.append(frame)
                items.append(item)
                room -= len(frame)
        return room

    def _add_datagrams(self, parts: list[bytes], items: list[Item], room: int) -> int:
        datagrams = self.connection.datagrams
        outgoing = datagrams.outgoing
        while outgoing and len(items) < MOST_ITEMS:
            frame = f.encode_datagram(outgoing[0])
            if len(frame) > room:
                if len(frame) <= self.connection.mtu - DATA_OVERHEAD:
                    break
                datagrams.outgoing_dropped += 1  # the path has become too narrow for it
                datagrams.sent()
                continue
            datagrams.sent()
            parts.append(frame)
            items.append((f.DATAGRAM,))
            room -= len(frame)
        return room

    def _add_streams(
        self, parts: list[bytes], items: list[Item], room: int, waiting: list[SendHalf], full: bool
    ) -> tuple[list[SendHalf], Piece | None]:
        """Puts the rests of streams into the packet.

        Returns the halves that still have something to send, and the first piece of a stream, which the packet's record
        has fields for; further ones, and ends, are among its items.
        """
        connection = self.connection
        chunk = connection.mtu - RUN_OVERHEAD
        left: list[SendHalf] = []
        piece: Piece | None = None
        for position, half in enumerate(waiting):
            if len(items) >= MOST_ITEMS:
                left.extend(waiting[position:])
                break
            if half.reset_code is not None:
                half.queued = False
                continue
            allowance = connection.flow.allowance
            low, high = half.next_range(allowance)
            is_new = low >= half.sent
            overhead = 1 + varint.size(half.stream_id) + varint.size(low) + LENGTH_ROOM
            n = high - low
            if n > room - overhead:
                n = room - overhead
            if n <= 0:
                at_end = half.fin_pending and low == half.fin_offset
                if not at_end:
                    if high > low:  # no room left in this packet
                        left.extend(waiting[position:])
                        break
                    self._blocked(half, allowance)
                    half.queued = False
                    continue
                if room < overhead:
                    left.extend(waiting[position:])
                    break
                n = 0
            elif is_new and half.blocked and half.base < half.sent and high == half.written and n < chunk:
                half.queued = False  # more will be written as soon as there is room: wait for a full packet
                continue
            elif full and high - low >= chunk:
                left.append(half)  # full packets are for runs, in the next flight
                continue
            fin = half.fin_pending and low + n == half.fin_offset
            data = half.ring.read(low, n) if n else b""
            frame = f.encode_stream(half.stream_id, low, data, fin)
            parts.append(frame)
            if piece is None and not fin:
                piece = half, low, n
            else:
                items.append((f.STREAM, half, low, n, fin))
            room -= len(frame)
            self._sent_stream(half, low, n, fin)
            if half.pending:
                left.append(half)
            else:
                if half.sent < half.written:
                    self._blocked(half, allowance - n if is_new else allowance)
                half.queued = False
        return left, piece

    def _sent_stream(self, half: SendHalf, low: int, length: int, fin: bool) -> None:
        new = low + length - half.sent
        if new > 0:
            self.connection.flow.sent += new
        half.on_sent(low, length, fin)

    def _blocked(self, half: SendHalf, allowance: int) -> None:
        """Tells the peer once for each limit that it holds us back (RFC 9000 §4.1)."""
        connection = self.connection
        if half.sent >= half.written:
            return
        if half.sent >= half.max_data:
            if half.told_blocked != half.max_data:
                half.told_blocked = half.max_data
                connection.ask((f.STREAM_DATA_BLOCKED, half.stream_id))
        elif allowance <= 0 and connection.flow.told_blocked != connection.flow.peer_limit:
            connection.flow.told_blocked = connection.flow.peer_limit
            connection.ask((f.DATA_BLOCKED,))

    def _next_number(self) -> int:
        """The packet number that `_numbers` will give next, -1 when its key must not be used yet."""
        connection = self.connection
        first = connection.next_counter
        if first >= self._next_skip:
            skipped = connection.counters.reserve(connection.counter_index, 1)
            connection.recovery.log.skipped.append(skipped)
            first = connection.next_counter = skipped + 1
            self._next_skip = self._skip_after(first)
        generation = first >> GENERATION_BITS
        # Nothing is sealed in generation g + 1 before a packet of g was acknowledged.
        if generation and connection.recovery.log.largest_acked >> GENERATION_BITS < generation - 1:
            return -1
        return first

    def _numbers(self, count: int) -> tuple[int, int]:
        """Reserves up to `count` packet numbers of one generation; (-1, 0) when the next key must not be used yet."""
        first = self._next_number()
        if first < 0:
            return first, 0
        generation = first >> GENERATION_BITS
        count = min(count, ((generation + 1) << GENERATION_BITS) - first, max(1, self._next_skip - first))
        self._take(first, count)
        return first, count

    def _take(self, first: int, count: int) -> None:
        """Reserves what `_next_number` gave, and as many numbers after it as fit its generation."""
        connection = self.connection
        reserved = connection.counters.reserve(connection.counter_index, count)
        if reserved != first:
            raise RuntimeError(f"packet numbers are out of step: {reserved} instead of {first}")
        connection.next_counter = first + count

    def _skip_after(self, first: int) -> int:
        """The next number to be left out, at a distance that nobody can foresee."""
        return first + SKIP_SPAN // 2 + int.from_bytes(self.connection.random(2), "big") % SKIP_SPAN

    def _close(self, now: float, outbox: Outbox) -> bool:
        connection = self.connection
        if not connection.close_due:
            return False
        if not outbox.room:
            return True
        first, count = self._numbers(1)
        if count:
            aead = connection.keys.sealer(first >> GENERATION_BITS)
            self.size += outbox.packet(connection.path, 0, aead, connection.remote_cid, first, connection.close_frame)
            self.packets += 1
        connection.close_was_sent(now)
        return False
