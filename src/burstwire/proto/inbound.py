"""A connection's way in: runs are opened, bulk data go to their stream in one piece, other packets frame by frame.

Nothing in a packet is believed before its tag verified (RFC 9001 §5.3), nothing is opened twice: duplicates are
dropped before opening, because an open in place has one try. So a span passes here twice: `admit` looks at its numbers
and chooses the key, the intake opens all of the wake-up together, and `opened` believes what verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from burstwire.config import MIN_DATAGRAM_SIZE
from burstwire.crypto.keys import GENERATION_BITS
from burstwire.proto import control
from burstwire.proto.events import DatagramsReadable, StreamWritable
from burstwire.proto.intake import Gathering, Intake, Span
from burstwire.proto.sent import bit_runs
from burstwire.proto.watch import WORTH_WATCHING
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.header import HEADER_SIZE, RUN_OVERHEAD, TAG

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.recovery import Acked, Lost
    from burstwire.proto.sending import SendHalf
    from burstwire.proto.streams import Stream
    from burstwire.proto.toll import Account

__all__ = ["Inbound"]

WORTH_GATHERING = 4096
"""Bytes of a lone packet from which on C copies it to its stream; a smaller one is read sooner than described."""

WAKE_WRITER_SHARE = 8
"""A writer is woken when this part of the send buffer is free (or all of it): waking it for every ACK costs more."""

WORK_OF_PACKET = 4
"""Units of work that reading a packet takes beside its frames, which take one each; a unit is about a microsecond."""

MOST_WORK = 16384
"""Units of work that one wake-up does for a connection: more packets than that are dropped, and come again later."""

VIOLATION = 4
"""Times `MOST_WORK` that ends the connection: packets that stand among bulk data are noted before they are read."""

PIECE = 16
"""Packets of a span that are noted and read together where each of them is work."""

RECEIVING = frozenset((f.STREAM, f.RESET_STREAM, f.CLOSE))
"""Frames that change what a stream has received."""

VARINT4 = 0x80000000
VARINT8 = 0xC000000000000000
"""The length bits of the varints in a run's frame header."""


class Inbound:
    """Takes what arrives for one connection.

    Attributes:
        packets: packets that verified. size: their bytes.
        duplicates: packets dropped before opening, because their number was seen or is too old.
        invalid: packets whose tag did not verify (RFC 9001 §6.6).
        unopened: packets of a key generation that cannot be opened now.
        watch_from: bytes of streams received from which on their coming to a stop means something (`watch.py`).
        limited: packets dropped unread because the peer's packets take more time than it has a share of (`toll.py`), or
            one wake-up brought more of them than can be looked at.
        cost: units of work (about a microsecond each) that the latest batch took beside bulk data.
        opened_streams: streams that the peer has opened and the toll has not yet heard of.
        tiny_messages: likewise, messages beyond one for each `TINY` bytes of them.
        account: what the peer owes, if its packets were costly.
    """

    __slots__ = (
        "_ahead",
        "_arrived",
        "_eliciting",
        "_path",
        "_work",
        "account",
        "connection",
        "cost",
        "duplicates",
        "invalid",
        "limited",
        "opened_streams",
        "packets",
        "size",
        "tiny_messages",
        "unopened",
        "watch_from",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.packets = 0
        self.size = 0
        self.duplicates = 0
        self.invalid = 0
        self.unopened = 0
        self.watch_from = WORTH_WATCHING
        self.limited = 0
        self.cost = 0
        self._work = 0
        """`cost` of the current batch so far."""
        self.opened_streams = 0
        self.tiny_messages = 0
        self.account: Account | None = None
        self._ahead = -1
        """The highest number that was admitted in this batch."""
        self._eliciting = 0
        self._path = b""
        self._arrived: dict[Stream, None] = {}

    def admit(self, intake: Intake, span: Span) -> None:
        """Takes DATA packets with consecutive numbers: has those opened that are new; `opened` follows."""
        counter = span[0][0]
        tail = span[-1]
        count = tail[0] + tail[6] - counter
        account = self.account
        if account is not None and account.until > intake.now:
            self._limit(span, count, (1 << count) - 1, intake.now)
            return
        if counter <= self._ahead:  # a copy, or late: what waits to be opened is noted first
            intake.opened_all()
        self._ahead = counter + count - 1
        connection = self.connection
        received = connection.acks.received
        mask = (1 << count) - 1
        if counter <= received.largest:
            new = received.new_mask(counter, count)
            if new != mask:
                self.duplicates += (mask ^ new).bit_count()
                if connection.tracer is not None:
                    connection.tracer.dropped(span, mask ^ new, "rejected", intake.now)
                if not new:
                    return
                mask = new
        aead = connection.keys.opener(counter >> GENERATION_BITS)
        if aead is None:
            self.unopened += mask.bit_count()
            if connection.tracer is not None:
                connection.tracer.dropped(span, mask, "decryption_failure", intake.now)
            return
        intake.open(self, span, count, mask, aead)

    def opened(self, intake: Intake, span: Span, count: int, mask: int, opened: int, now: float) -> bool:
        """What verified of the packets in `mask` of an admitted span; returns whether any of it was new."""
        counter, _, slot, start, size, _, _, _, ecn, path = span[0]
        if self._work >= MOST_WORK:
            self._limit(span, count, opened, now)
            return False
        if count > PIECE and not (opened & 1 and intake.views[slot][start + HEADER_SIZE] & 0xFE == 0x0C):
            # No bulk data, so every packet is work, and there may be too much: what is noted must be read.
            new = False
            for part, packets in _pieces(span):
                bits = (1 << packets) - 1
                new |= self.opened(intake, part, packets, mask & bits, opened & bits, now)
                mask >>= packets
                opened >>= packets
            return new
        connection = self.connection
        acks = connection.acks
        if opened != mask:
            self.invalid += (mask ^ opened).bit_count()
            if connection.tracer is not None:
                connection.tracer.dropped(span, mask ^ opened, "decryption_failure", now)
            if self.invalid > connection.integrity_limit:
                connection.fail(TransportCode.AEAD_LIMIT_REACHED, "too many packets did not verify", now)
                return False
            if not opened:
                return False
        newest = acks.received.largest
        opened = acks.note(counter, opened, ecn, now)
        if not opened:
            return False
        if connection.tracer is not None:
            connection.tracer.received(intake.views, span, opened, now)
        packets = opened.bit_count()
        self.packets += packets
        self.size += packets * size
        keys = connection.keys
        generation = counter >> GENERATION_BITS
        if generation != keys.opening and keys.received(generation):
            connection.keys_changed(now)
        self._path = path
        if self not in intake.touched or path != connection.path:
            connection.heard(path, counter + opened.bit_length() - 1 > newest, packets * size, now)
            intake.touched[self] = None
        if connection.state >= 2:  # not `listening` any more: see State
            self._farewell(intake, span, opened, now)
            return True
        try:
            if size < WORTH_GATHERING and count == 1:
                self._packet(intake, slot, start, size, now)
            else:
                self._sort(intake, span, count, opened, now)
        except WireError as error:
            connection.fail(error.code, error.reason, now)
        return True

    def gathered(self, gathering: Gathering, taken: int, fin: bool, now: float) -> None:
        """What became of a span that `opened` gave to the intake: `fin` if the stream ends with its last packet."""
        connection = self.connection
        g = gathering
        try:
            if taken and connection.listening:
                chunk = g.size - RUN_OVERHEAD
                half = g.stream.receiving
                more = False
                for low, high in bit_runs(taken):
                    begin = g.offset + low * chunk
                    end = g.offset + high * chunk
                    at_end = high == g.count
                    if at_end:
                        end -= g.size - g.last
                    connection.flow.charge(half.check(end, fin and at_end))
                    more |= half.noted(begin, end)
                self._eliciting += taken.bit_count()
                if more or fin:
                    self._arrived[g.stream] = None
        except WireError as error:
            connection.fail(error.code, error.reason, now)

    def deliver(self, now: float) -> None:
        """Tells the streams, once each, of what `gathered` noted."""
        connection = self.connection
        arrived, self._arrived = self._arrived, {}
        try:
            for stream in arrived:
                connection.stream_arrived(stream)
        except WireError as error:
            connection.fail(error.code, error.reason, now)

    def left_over(self, intake: Intake, gathering: Gathering, rest: int, now: float) -> None:
        """Packets of a gathered run that were not bulk data of its stream after all."""
        connection = self.connection
        path, self._path = self._path, gathering.span[0][9]
        try:
            if connection.listening:
                self._packets(intake, gathering.span, rest, now)
        except WireError as error:
            connection.fail(error.code, error.reason, now)
        self._path = path  # perhaps the packet that had the intake flushed is still being read

    def batch_ended(self, now: float) -> None:
        """The wake-up is over: whatever it brought decides about one ACK."""
        self._ahead = -1
        self.cost = self._work
        self._work = 0
        if self._eliciting:
            self.connection.acks.elicited(self._eliciting, now)
            self._eliciting = 0
            if self.connection.flow.received >= self.watch_from:
                self.connection.watch_arrivals(now)
        self.connection.batch_ended(now)

    # inside

    def _limit(self, span: Span, count: int, mask: int, now: float) -> None:
        """Drops the packets in `mask` of a span as if they had never come."""
        self.limited += mask.bit_count()
        if self.connection.tracer is not None:
            self.connection.tracer.dropped(span, mask, "rejected", now)

    def _sort(self, intake: Intake, span: Span, count: int, opened: int, now: float) -> None:
        """Gives a span to the intake if it looks like bulk data of one stream. Else each of its runs is looked at by
        itself, and what does not look so even then is read packet by packet."""
        connection = self.connection
        size = span[0][4]
        slot, start, length = next(_each(span, opened))
        if size > RUN_OVERHEAD and length > RUN_OVERHEAD:
            kind, stream_id, offset = f.RUN_FRAME.unpack_from(intake.views[slot], start + HEADER_SIZE)
            if kind & 0xFE == 0x0C and stream_id >> 30 == 2 and offset >> 62 == 3:
                base = (offset ^ VARINT8) - ((opened & -opened).bit_length() - 1) * (size - RUN_OVERHEAD)
                stream = connection.streams.find(stream_id ^ VARINT4)
                if (
                    stream is not None
                    and stream.receiving.stop_code is None
                    # Behind `max_data` the peer must not send; there offsets may become larger than C takes them.
                    and 0 <= base < stream.receiving.max_data
                    and (len(span) == 1 or _goes_on(intake, span, count, stream_id, base))
                ):
                    self._gather(intake, stream, base, span, count, opened)
                    return
        if len(span) == 1:
            self._packets(intake, span, opened, now)
            return
        for record in span:
            part = opened & (1 << record[6]) - 1
            opened >>= record[6]
            if part and connection.state < 2:  # still `listening`: see State
                self._sort(intake, [record], record[6], part, now)

    def _packets(self, intake: Intake, span: Span, mask: int, now: float) -> None:
        """Reads the packets in `mask` of a span one by one."""
        for slot, start, size in _each(span, mask):
            self._packet(intake, slot, start, size, now)

    def _farewell(self, intake: Intake, span: Span, opened: int, now: float) -> None:
        """After our CLOSE only the peer's matters: once both have said it, nobody waits for the other any more."""
        for slot, start, size in _each(span, opened):
            with suppress(WireError):
                frames = f.parse(intake.views[slot][start + HEADER_SIZE : start + size - TAG])
                self._work += WORK_OF_PACKET + len(frames)
                for frame in frames:
                    if frame[0] == f.CLOSE:
                        self.connection.peer_closed(frame[1], frame[3], frame[4], now)

    def _gather(self, intake: Intake, stream: Stream, base: int, span: Span, count: int, opened: int) -> None:
        half = stream.receiving
        high = min(half.max_data, base + count * (span[0][4] - RUN_OVERHEAD))
        if intake.full(span) or not half.fits(high):
            # Growing moves the ring, and what was added before still points into the old one.
            intake.flush()
        ring = half.ring_for(max(high, half.read_offset + 1))
        low = half.read_offset
        intake.add(Gathering(self, stream, ring, base, span, count, opened), low, max(low, high))

    def _packet(self, intake: Intake, slot: int, start: int, size: int, now: float) -> None:
        """Reads one opened packet frame by frame."""
        connection = self.connection
        payload = intake.views[slot][start + HEADER_SIZE : start + size - TAG]
        eliciting = acked = False
        frames = f.parse(payload)
        if len(frames) == 1 and frames[0][0] == f.ACK:
            # What acknowledges something new is as much as this side has sent; who sends nothing else owes nothing.
            if not self._ack(frames[0], now):
                self._work += WORK_OF_PACKET + 1
            return
        self._work += WORK_OF_PACKET + len(frames)
        if self._work > VIOLATION * MOST_WORK:  # between packets of bulk data, where an honest peer has one or two
            raise WireError(TransportCode.PROTOCOL_VIOLATION, "more frames among bulk data than anybody needs")
        for frame in frames:
            kind = frame[0]
            if connection.state >= 2:  # not `listening` any more: see State
                return
            if kind == f.ACK:
                if not acked:  # each walks over all that is in flight, and one says everything
                    acked = True
                    self._ack(frame, now)
                continue
            if intake.waiting and kind in RECEIVING:
                intake.flush()  # what came before it first: these frames may replace a ring, or end everything
            if kind == f.CLOSE:
                connection.peer_closed(frame[1], frame[3], frame[4], now)
                return
            eliciting = True
            if kind == f.STREAM:
                self._stream(frame)
            elif kind != f.PING:
                self._control(kind, frame, now)
        if eliciting:
            self._eliciting += 1

    def _stream(self, frame: f.Frame) -> None:
        _, stream_id, offset, data, fin = frame
        connection = self.connection
        stream = connection.streams.find(stream_id)
        if stream is None:
            return
        half = stream.receiving
        grown = half.check(offset + len(data), fin)
        if grown:
            connection.flow.charge(grown)
        if half.stop_code is not None or half.reset_code is not None:
            connection.discard_unread(stream)
            connection.streams.retire(stream)
            return
        if stream is connection.streams.messages and connection.reader.whole(offset, data):
            connection.messages_arrived()
        elif half.place(offset, data) or fin:
            connection.stream_arrived(stream)

    def _ack(self, frame: f.Frame, now: float) -> bool:
        """An ACK frame; returns whether it says anything new."""
        _, largest, delay, ranges, counts = frame
        connection = self.connection
        recovery = connection.recovery
        if largest >= connection.next_counter:
            raise WireError(TransportCode.PROTOCOL_VIOLATION, f"packet {largest} was acknowledged but never sent")
        if recovery.log.skipped:
            skipped = recovery.log.acks_unsent(ranges)
            if skipped is not None:
                raise WireError(TransportCode.PROTOCOL_VIOLATION, f"packet {skipped} was acknowledged but never sent")
        seconds = (delay << connection.peer_parameters.ack_delay_exponent) / 1e6
        before = recovery.log.largest_acked
        acked, lost = recovery.acknowledged(ranges, seconds, now)
        if connection.key_updates.waiting:
            connection.key_updates.acknowledged(recovery.log.largest_acked, now)
        pmtu = connection.pmtu
        if lost and connection.mtu > MIN_DATAGRAM_SIZE:
            pmtu.missed(lost)
        if pmtu.suspects:
            pmtu.arrived(acked)
        if acked and connection.ecn.watching:
            marked = connection.ecn.acknowledged(acked, lost, counts, largest > before, connection.next_counter)
            if marked > 0:
                recovery.controller.on_ecn(now, acked[-1][0].time)
        if acked:
            self.settle(acked, now)
        if lost:
            self.mourn(lost, now)
        return bool(acked)

    def settle(self, acked: Acked, now: float) -> None:
        """Tells the streams what was acknowledged and wakes writers."""
        connection = self.connection
        for record, pending, late in acked:
            half = record.half
            if half is not None:
                chunk = record.chunk
                mask = pending | late
                if mask & (mask + 1):
                    for low, high in bit_runs(mask):
                        half.on_acked(record.offset + low * chunk, (high - low) * chunk, False)
                else:  # no holes, from the first packet on
                    half.on_acked(record.offset, mask.bit_length() * chunk, False)
                self._acked(half)
            if record.ack >= 0:
                connection.acks.acked(record.ack)
            for item in record.items:
                control.acked(connection, item, now)
                if item[0] == f.STREAM:
                    self._acked(item[1])

    def mourn(self, lost: Lost, now: float) -> None:
        """Asks for what was lost to be sent again."""
        connection = self.connection
        if connection.tracer is not None:
            connection.tracer.lost(lost, now)
        for record, mask in lost:
            half = record.half
            if half is not None:
                chunk = record.chunk
                for low, high in bit_runs(mask):
                    half.on_lost(record.offset + low * chunk, (high - low) * chunk, False)
                connection.wants_to_send(half)
            for item in record.items:
                control.lost(connection, item, now)

    def _acked(self, half: SendHalf) -> None:
        """Bytes of a half were acknowledged, by whatever kind of packet."""
        if half.wants_room or half.reset_acked or half.fin_acked:
            self._wake_writer(half.stream)
        if not half.queued and half.pending:  # a partial packet that was held back
            self.connection.wants_to_send(half)

    def _wake_writer(self, stream: Stream) -> None:
        half = stream.sending
        if half.wants_room and (half.room >= half.budget // WAKE_WRITER_SHARE or half.base == half.written):
            half.wants_room = False
            connection = self.connection
            if stream is connection.streams.messages:
                connection.messages_writable()
            else:
                connection.emit(StreamWritable(stream))
        if half.finished:
            self.connection.streams.retire(stream)

    def _control(self, kind: int, frame: f.Frame, now: float) -> None:
        connection = self.connection
        if kind == f.MAX_STREAM_DATA:
            stream = connection.streams.find(frame[1])
            if stream is not None and frame[2] > stream.sending.max_data:
                stream.sending.max_data = frame[2]
                connection.wants_to_send(stream.sending)
        elif kind == f.MAX_DATA:
            connection.flow.allow(frame[1])
        elif kind == f.DATAGRAM:
            if connection.datagrams.arrived(bytes(frame[1])):
                connection.emit(DatagramsReadable(connection))
        elif kind == f.RESET_STREAM:
            connection.peer_reset(frame[1], frame[2], frame[3])
        elif kind == f.STOP_SENDING:
            connection.peer_stopped(frame[1], frame[2])
        elif kind == f.MAX_STREAMS_BIDI:
            connection.streams.allow(frame[1])
        elif kind in (f.DATA_BLOCKED, f.STREAM_DATA_BLOCKED):
            # The peer waits for credit: perhaps an update was lost, and repeating it is cheap.
            connection.flow.repeat(frame[1] if kind == f.STREAM_DATA_BLOCKED else None)
        elif kind == f.CONFIRM:
            connection.peer_confirmed()
        elif kind == f.PATH_CHALLENGE:
            connection.paths.challenged(self._path, frame[1])
        elif kind == f.PATH_RESPONSE:
            connection.paths.answered(frame[1], now)
        elif kind == f.ACK_FREQUENCY:
            connection.acks.wanted(frame[1], frame[2], frame[3] / 1e6, frame[4])
        elif kind == f.OBSERVED_ADDRESS:
            connection.observed_address = frame[1]


def _goes_on(intake: Intake, span: Span, count: int, stream_id: int, base: int) -> bool:
    """Whether the last run of a span begins where a stream would be by then if all of the span were of it."""
    _, _, slot, start, size, _, behind, *_ = span[-1]
    expected = base + (count - behind) * (size - RUN_OVERHEAD) | VARINT8
    return f.RUN_FRAME.unpack_from(intake.views[slot], start + HEADER_SIZE)[1:] == (stream_id, expected)


def _pieces(span: Span) -> Iterator[tuple[Span, int]]:
    """The packets of a span, a few at a time, as spans of their own with their number."""
    for counter, cid, slot, start, size, last, count, kind, ecn, path in span:
        for at in range(0, count, PIECE):
            n = min(PIECE, count - at)
            tail = last if at + n == count else size
            # A lone packet is as long as itself, not as those before it were.
            yield [(counter + at, cid, slot, start + at * size, size if n > 1 else tail, tail, n, kind, ecn, path)], n


def _each(span: Span, mask: int) -> Iterator[tuple[int, int, int]]:
    """Slot, start and bytes of each packet in `mask` of a span."""
    for _, _, slot, start, size, last, count, *_ in span:
        for low, high in bit_runs(mask & (1 << count) - 1):
            for i in range(low, high):
                yield slot, start + i * size, last if i == count - 1 else size
        mask >>= count
