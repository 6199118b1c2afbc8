"""Frames: what the ciphertext of a DATA packet holds (RFC 9000 §19 and RFC 9221, same numbers, same meaning).

`parse` is called for every packet that the bulk path does not take, so it gives plain tuples. Item 0 is
the type; types that only differ in their flag bits are brought to one:

=====================  =====================================================================================
`ACK`                  (ACK, largest, delay, ranges, ecn). delay: raw, in units of 2**exponent µs; ranges:
                       list of (lowest, highest), inclusive, descending; ecn: (ect0, ect1, ce) or None
`STREAM`               (STREAM, stream_id, offset, data, fin). data: a slice of the payload; fin: bool
`DATAGRAM`             (DATAGRAM, data). data: a slice of the payload
`CLOSE`                (CLOSE, code, frame_type, reason, by_application). frame_type: int, None from an
                       application; reason: str
`PING`, `CONFIRM`      (type,)
`RESET_STREAM`         (type, stream_id, code, final_size)
`STOP_SENDING`         (type, stream_id, code)
`MAX_DATA`             (type, limit); so too `MAX_STREAMS_BIDI`, `MAX_STREAMS_UNI`, `DATA_BLOCKED`,
                       `STREAMS_BLOCKED_BIDI`, `STREAMS_BLOCKED_UNI`
`MAX_STREAM_DATA`      (type, stream_id, limit); so too `STREAM_DATA_BLOCKED`
`PATH_CHALLENGE`       (type, data of 8 bytes); so too `PATH_RESPONSE`
`OBSERVED_ADDRESS`     (type, address of 24 bytes)
`ACK_FREQUENCY`        (type, number, packets, delay, reordering). delay: µs
any other from 0x40    (type, data): unknown to this version, to be ignored, but ack-eliciting
=====================  =====================================================================================

PADDING leaves no tuple, so a packet of nothing else gives an empty list. A packet elicits an
acknowledgement when it has a frame whose type is not in `NOT_ELICITING`.
The data slices of a memoryview are views: they live as long as the buffer below keeps its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

from burstwire.wire import varint
from burstwire.wire.errors import FrameEncodingError, TransportCode, WireError

__all__ = [
    "ACK",
    "ACK_ECN",
    "ACK_FREQUENCY",
    "CLOSE",
    "CLOSE_APPLICATION",
    "CONFIRM",
    "DATAGRAM",
    "DATA_BLOCKED",
    "MAX_ACK_RANGES",
    "MAX_DATA",
    "MAX_FRAMES",
    "MAX_STREAMS_BIDI",
    "MAX_STREAMS_UNI",
    "MAX_STREAM_COUNT",
    "MAX_STREAM_DATA",
    "NOT_ELICITING",
    "OBSERVED_ADDRESS",
    "PADDING",
    "PATH_CHALLENGE",
    "PATH_RESPONSE",
    "PING",
    "RESET_STREAM",
    "RUN_FRAME",
    "STOP_SENDING",
    "STREAM",
    "STREAMS_BLOCKED_BIDI",
    "STREAMS_BLOCKED_UNI",
    "STREAM_DATA_BLOCKED",
    "Frame",
    "encode_ack",
    "encode_ack_frequency",
    "encode_close",
    "encode_confirm",
    "encode_data_blocked",
    "encode_datagram",
    "encode_max_data",
    "encode_max_stream_data",
    "encode_max_streams",
    "encode_observed_address",
    "encode_padding",
    "encode_path_challenge",
    "encode_path_response",
    "encode_ping",
    "encode_reset_stream",
    "encode_run_stream",
    "encode_stop_sending",
    "encode_stream",
    "encode_stream_data_blocked",
    "encode_streams_blocked",
    "frame_name",
    "parse",
]

Buffer = bytes | memoryview
Frame = tuple[Any, ...]

PADDING: Final = 0x00
PING: Final = 0x01
ACK: Final = 0x02
ACK_ECN: Final = 0x03
RESET_STREAM: Final = 0x04
STOP_SENDING: Final = 0x05
STREAM: Final = 0x08
MAX_DATA: Final = 0x10
MAX_STREAM_DATA: Final = 0x11
MAX_STREAMS_BIDI: Final = 0x12
MAX_STREAMS_UNI: Final = 0x13
DATA_BLOCKED: Final = 0x14
STREAM_DATA_BLOCKED: Final = 0x15
STREAMS_BLOCKED_BIDI: Final = 0x16
STREAMS_BLOCKED_UNI: Final = 0x17
PATH_CHALLENGE: Final = 0x1A
PATH_RESPONSE: Final = 0x1B
CLOSE: Final = 0x1C
CLOSE_APPLICATION: Final = 0x1D
CONFIRM: Final = 0x1E
DATAGRAM: Final = 0x30
OBSERVED_ADDRESS: Final = 0x40
ACK_FREQUENCY: Final = 0xAF

NOT_ELICITING: Final = frozenset({PADDING, ACK, CLOSE})
"""Types (as in tuples) that no acknowledgement is owed for (RFC 9000 §1.2)."""

MAX_ACK_RANGES: Final = 64
"""Ranges that one ACK frame is written with: so their count stays one byte."""

MAX_FRAMES: Final = 1024
"""Frames of a packet, PADDING not counted: senders put in half as many, and what a packet costs to read is bounded."""

MAX_STREAM_COUNT: Final = 1 << 60
"""Streams of one kind at most, since an id is a varint with two bits taken (RFC 9000 §4.6)."""

RUN_FRAME: Final = Struct(">BIQ")
"""The frame header of a run: 0x0c or 0x0d, id as 4-byte varint, offset as 8-byte varint; data to the end."""

_ZEROS: Final = bytes(4096)
_FIN, _LEN, _OFF = 0x01, 0x02, 0x04
_FIRST_EXTENSION: Final = 0x40
_ADDRESS_SIZE: Final = 24

_VARINTS: Final = {
    PING: 0,
    CONFIRM: 0,
    RESET_STREAM: 3,
    STOP_SENDING: 2,
    MAX_DATA: 1,
    MAX_STREAM_DATA: 2,
    MAX_STREAMS_BIDI: 1,
    MAX_STREAMS_UNI: 1,
    DATA_BLOCKED: 1,
    STREAM_DATA_BLOCKED: 2,
    STREAMS_BLOCKED_BIDI: 1,
    STREAMS_BLOCKED_UNI: 1,
}
"""Frames that are nothing but varints, and how many."""

_STREAM_COUNTS: Final = frozenset({MAX_STREAMS_BIDI, MAX_STREAMS_UNI, STREAMS_BLOCKED_BIDI, STREAMS_BLOCKED_UNI})

_NAMES: Final = {
    PADDING: "PADDING",
    PING: "PING",
    ACK: "ACK",
    RESET_STREAM: "RESET_STREAM",
    STOP_SENDING: "STOP_SENDING",
    STREAM: "STREAM",
    MAX_DATA: "MAX_DATA",
    MAX_STREAM_DATA: "MAX_STREAM_DATA",
    MAX_STREAMS_BIDI: "MAX_STREAMS_BIDI",
    MAX_STREAMS_UNI: "MAX_STREAMS_UNI",
    DATA_BLOCKED: "DATA_BLOCKED",
    STREAM_DATA_BLOCKED: "STREAM_DATA_BLOCKED",
    STREAMS_BLOCKED_BIDI: "STREAMS_BLOCKED_BIDI",
    STREAMS_BLOCKED_UNI: "STREAMS_BLOCKED_UNI",
    PATH_CHALLENGE: "PATH_CHALLENGE",
    PATH_RESPONSE: "PATH_RESPONSE",
    CLOSE: "CLOSE",
    CONFIRM: "CONFIRM",
    DATAGRAM: "DATAGRAM",
    OBSERVED_ADDRESS: "OBSERVED_ADDRESS",
    ACK_FREQUENCY: "ACK_FREQUENCY",
}


def frame_name(kind: int) -> str:
    """The name of a frame type as `parse` gives it, for messages to people."""
    return _NAMES.get(kind, f"{kind:#x}")


# --- reading ------------------------------------------------------------------------------------


def parse(payload: Buffer) -> list[Frame]:
    """Every frame of a packet, in order, as the tuples that the top of this file lists.

    Args:
        payload: the opened payload, bytes or a memoryview of format "B".

    Raises:
        WireError: FRAME_ENCODING_ERROR for what is cut short, unknown below 0x40 or impossible,
            PROTOCOL_VIOLATION for no frame at all (RFC 9000 §12.4), more than `MAX_FRAMES`, or a type not encoded
            shortest.
    """
    end = len(payload)
    if not end:
        raise WireError(TransportCode.PROTOCOL_VIOLATION, "a packet without frames")
    frames: list[Frame] = []
    append = frames.append
    read = varint.read
    position = 0
    try:
        while position < end:
            if len(frames) == MAX_FRAMES:
                raise WireError(TransportCode.PROTOCOL_VIOLATION, f"a packet with more than {MAX_FRAMES:,} frames")
            kind = payload[position]
            position += 1
            if kind & 0xF8 == STREAM:
                stream_id = payload[position]
                if stream_id < 0x40:
                    position += 1
                else:
                    stream_id, position = read(payload, position)
                offset = 0
                if kind & _OFF:
                    offset = payload[position]
                    if offset < 0x40:
                        position += 1
                    else:
                        offset, position = read(payload, position)
                stop = end
                if kind & _LEN:
                    length = payload[position]
                    if length < 0x40:
                        position += 1
                    else:
                        length, position = read(payload, position)
                    stop = position + length
                    if stop > end:
                        raise FrameEncodingError("STREAM data is cut short")
                if offset + stop - position > varint.MAX:
                    raise FrameEncodingError("STREAM data beyond 2**62 - 1")
                append((STREAM, stream_id, offset, payload[position:stop], kind & _FIN == _FIN))
                position = stop
            elif ACK <= kind <= ACK_ECN:
                frame, position = _read_ack(payload, position, kind)
                append(frame)
            elif kind == PADDING:
                # Padding mostly fills the rest of its packet: ever longer pieces are compared, never one twice.
                step = 1
                while position < end and payload[position] == PADDING:
                    step = min(step, end - position)
                    if payload[position : position + step] == _ZEROS[:step]:
                        position += step
                        step = min(8 * step, len(_ZEROS))
                    else:
                        step = 1
            elif kind == DATAGRAM:
                append((DATAGRAM, payload[position:]))
                position = end
            elif kind == DATAGRAM + 1:
                data, position = _read_block(payload, position, end)
                append((DATAGRAM, data))
            elif kind in _VARINTS:
                fields = [kind]
                for _ in range(_VARINTS[kind]):
                    value, position = read(payload, position)
                    fields.append(value)
                if kind in _STREAM_COUNTS and fields[1] > MAX_STREAM_COUNT:
                    raise FrameEncodingError(f"{frame_name(kind)} beyond 2**60")
                append(tuple(fields))
            else:
                frame, position = _read_rare(payload, position, end, kind)
                append(frame)
    except varint.TRUNCATED:
        raise FrameEncodingError("a frame is cut short") from None
    return frames


def _read_ack(payload: Buffer, position: int, kind: int) -> tuple[Frame, int]:
    """RFC 9000 §19.3: largest, delay, count, first range, then gaps and ranges downwards."""
    read = varint.read
    largest, position = read(payload, position)
    delay = payload[position]
    if delay < 0x40:
        position += 1
    else:
        delay, position = read(payload, position)
    more = payload[position]
    if more < 0x40:
        position += 1
    else:
        more, position = read(payload, position)
    span, position = read(payload, position)
    low = largest - span
    if low < 0:
        raise FrameEncodingError("ACK of a negative packet number")
    ranges = [(low, largest)]
    if more:
        append = ranges.append
        for _ in range(more):
            gap = payload[position]
            if gap < 0x40:
                position += 1
            else:
                gap, position = read(payload, position)
            span = payload[position]
            if span < 0x40:
                position += 1
            else:
                span, position = read(payload, position)
            high = low - gap - 2
            low = high - span
            if low < 0:
                raise FrameEncodingError("ACK of a negative packet number")
            append((low, high))
    if kind == ACK:
        return (ACK, largest, delay, ranges, None), position
    ect0, position = read(payload, position)
    if payload[position] == payload[position + 1] == 0:  # mostly nothing is marked
        return (ACK, largest, delay, ranges, (ect0, 0, 0)), position + 2
    ect1, position = read(payload, position)
    ce, position = read(payload, position)
    return (ACK, largest, delay, ranges, (ect0, ect1, ce)), position


def _read_block(payload: Buffer, position: int, end: int) -> tuple[Buffer, int]:
    """A varint length and as many bytes."""
    length, position = varint.read(payload, position)
    stop = position + length
    if stop > end:
        raise FrameEncodingError("a frame is cut short")
    return payload[position:stop], stop


def _read_rare(payload: Buffer, position: int, end: int, kind: int) -> tuple[Frame, int]:
    """Path validation, closing and extensions; `position` is after the first byte of the type."""
    if PATH_CHALLENGE <= kind <= PATH_RESPONSE:
        stop = position + 8
        if stop > end:
            raise FrameEncodingError(f"{frame_name(kind)} is cut short")
        return (kind, bytes(payload[position:stop])), stop
    if CLOSE <= kind <= CLOSE_APPLICATION:
        code, position = varint.read(payload, position)
        culprit = None
        if kind == CLOSE:
            culprit, position = varint.read(payload, position)
        reason, position = _read_block(payload, position, end)
        # The reason should be UTF-8 (RFC 9000 §19.19); a bad one must not hide the close.
        return (
            CLOSE,
            code,
            culprit,
            bytes(reason).decode("utf-8", "replace"),
            kind == CLOSE_APPLICATION,
        ), position
    if kind < _FIRST_EXTENSION:
        raise FrameEncodingError(f"unknown frame type {kind:#x}")
    start = position - 1
    kind, position = varint.read(payload, start)
    if position - start != varint.size(kind):
        raise WireError(TransportCode.PROTOCOL_VIOLATION, "a frame type is not encoded shortest")
    data, position = _read_block(payload, position, end)
    if kind == OBSERVED_ADDRESS:
        if len(data) != _ADDRESS_SIZE:
            raise FrameEncodingError(f"OBSERVED_ADDRESS has {len(data)} bytes instead of {_ADDRESS_SIZE}")
        return (OBSERVED_ADDRESS, bytes(data)), position
    if kind == ACK_FREQUENCY:
        fields = [kind]
        at = 0
        for _ in range(4):
            value, at = varint.read(data, at)
            fields.append(value)
        if at != len(data):
            raise FrameEncodingError("ACK_FREQUENCY is longer than its fields")
        return tuple(fields), position
    return (kind, data), position


# --- writing ------------------------------------------------------------------------------------
#
# All raise ValueError for a value that no varint can carry.


def encode_padding(size: int) -> bytes:
    """`size` bytes of PADDING frames."""
    return bytes(size)


def encode_ping() -> bytes:
    """PING: nothing but ack-eliciting."""
    return b"\x01"


def encode_ack(
    ranges: Sequence[tuple[int, int]],
    delay: int,
    ecn: tuple[int, int, int] | None = None,
    room: int | None = None,
) -> bytes:
    """ACK (RFC 9000 §19.3).

    Args:
        ranges: (lowest, highest), inclusive, descending, disjoint and not adjacent; at least one. Only
            the first `MAX_ACK_RANGES` are written.
        delay: since the largest arrived, in units of 2**exponent µs.
        ecn: packets received with ECT(0), ECT(1) and CE, or None.
        room: bytes that the frame may have at most; ranges at the low end are left out to fit. b"" when not
            even the first one fits.
    """
    encode = varint.encode
    low, largest = ranges[0]
    if len(ranges) == 1 and room is None:  # nothing was lost lately: most ACKs
        if ecn is None:
            return b"\x02" + encode(largest) + encode(delay) + b"\0" + encode(largest - low)
        ect0, ect1, ce = ecn
        rest = encode(ect1) + encode(ce) if ect1 or ce else b"\0\0"  # mostly nothing is marked
        return b"".join((b"\x03", encode(largest), encode(delay), b"\0", encode(largest - low), encode(ect0), rest))
    head = (b"\x03" if ecn else b"\x02") + encode(largest) + encode(delay)
    tail = b"".join(map(encode, ecn)) if ecn else b""
    parts = [encode(largest - low)]
    # One byte holds the count of further ranges, as MAX_ACK_RANGES <= 64.
    size = len(head) + 1 + len(parts[0]) + len(tail)
    if room is not None and size > room:
        return b""
    for next_low, next_high in ranges[1:MAX_ACK_RANGES]:
        part = encode(low - next_high - 2) + encode(next_high - next_low)
        size += len(part)
        if room is not None and size > room:
            break
        parts.append(part)
        low = next_low
    return b"".join((head, encode(len(parts) - 1), *parts, tail))


def encode_ack_frequency(number: int, packets: int, delay: int, reordering: int) -> bytes:
    """ACK_FREQUENCY (draft-ietf-quic-ack-frequency), with a length as every type from 0x40 on.

    Args:
        number: counts these frames; the highest one counts.
        packets: ack-eliciting packets that need not be acknowledged at once.
        delay: µs that an acknowledgement may be held back.
        reordering: packets by which one must be out of order to be acknowledged at once; 0: none ever is.
    """
    fields = b"".join(map(varint.encode, (number, packets, delay, reordering)))
    return b"\x40\xaf" + varint.encode(len(fields)) + fields


def encode_reset_stream(stream_id: int, code: int, final_size: int) -> bytes:
    """RESET_STREAM: this side abandons what it was sending."""
    return b"\x04" + varint.encode(stream_id) + varint.encode(code) + varint.encode(final_size)


def encode_stop_sending(stream_id: int, code: int) -> bytes:
    """STOP_SENDING: this side wants no more of the stream."""
    return b"\x05" + varint.encode(stream_id) + varint.encode(code)


def encode_stream(stream_id: int, offset: int, data: Buffer, fin: bool = False, fill: bool = False) -> bytes:
    """STREAM, shortest form.

    Args:
        stream_id: which stream.
        offset: of the first byte of `data` in it.
        data: may be empty.
        fin: whether the stream ends after `data`.
        fill: leave the length out; the frame must then be the last of its packet.
    """
    encode = varint.encode
    kind = encode(STREAM | (_OFF if offset else 0) | (0 if fill else _LEN) | (_FIN if fin else 0))  # one byte
    where = kind + encode(stream_id) + encode(offset) if offset else kind + encode(stream_id)
    return b"".join((where, data)) if fill else b"".join((where, encode(len(data)), data))


def encode_run_stream(stream_id: int, offset: int, data: Buffer, fin: bool = False) -> bytes:
    """STREAM in the fixed form of a run (`RUN_FRAME`), which must be the only frame of its packet."""
    if not (0 <= stream_id < 1 << 30 and 0 <= offset <= varint.MAX):
        raise ValueError(f"stream {stream_id} at offset {offset} does not fit the header of a run")
    return RUN_FRAME.pack(STREAM | _OFF | fin, stream_id | 2 << 30, offset | 3 << 62) + data


def encode_max_data(limit: int) -> bytes:
    """MAX_DATA: bytes of all streams together that the peer may send."""
    return b"\x10" + varint.encode(limit)


def encode_max_stream_data(stream_id: int, limit: int) -> bytes:
    """MAX_STREAM_DATA: the offset up to which the peer may send on one stream."""
    return b"\x11" + varint.encode(stream_id) + varint.encode(limit)


def encode_max_streams(limit: int, unidirectional: bool = False) -> bytes:
    """MAX_STREAMS: how many streams of a kind the peer may open in all."""
    return (b"\x13" if unidirectional else b"\x12") + varint.encode(limit)


def encode_data_blocked(limit: int) -> bytes:
    """DATA_BLOCKED: this side has more to send than MAX_DATA allows."""
    return b"\x14" + varint.encode(limit)


def encode_stream_data_blocked(stream_id: int, limit: int) -> bytes:
    """STREAM_DATA_BLOCKED: the same for one stream."""
    return b"\x15" + varint.encode(stream_id) + varint.encode(limit)


def encode_streams_blocked(limit: int, unidirectional: bool = False) -> bytes:
    """STREAMS_BLOCKED: this side would open more streams."""
    return (b"\x17" if unidirectional else b"\x16") + varint.encode(limit)


def encode_path_challenge(data: bytes) -> bytes:
    """PATH_CHALLENGE with 8 unpredictable bytes."""
    return b"\x1a" + _eight(data)


def encode_path_response(data: bytes) -> bytes:
    """PATH_RESPONSE: the 8 bytes of a challenge."""
    return b"\x1b" + _eight(data)


def _eight(data: bytes) -> bytes:
    if len(data) != 8:
        raise ValueError(f"path validation takes 8 bytes, not {len(data)}")
    return data


def encode_close(code: int, reason: str = "", frame_type: int | None = None, by_application: bool = False) -> bytes:
    """CLOSE (RFC 9000 §19.19). `frame_type`: what triggered it, only from the transport; None writes 0.

    The caller bounds `reason` so that the frame fits its packet.
    """
    text = reason.encode("utf-8", "replace")
    culprit = b"" if by_application else varint.encode(frame_type or 0)
    kind = b"\x1d" if by_application else b"\x1c"
    return b"".join((kind, varint.encode(code), culprit, varint.encode(len(text)), text))


def encode_confirm() -> bytes:
    """CONFIRM: the responder has seen proof of the initiator's keys and address."""
    return b"\x1e"


def encode_datagram(data: Buffer, fill: bool = False) -> bytes:
    """DATAGRAM (RFC 9221). `fill`: without length, as the last frame of its packet."""
    return b"\x30" + data if fill else b"".join((b"\x31", varint.encode(len(data)), data))


def encode_observed_address(address: bytes) -> bytes:
    """OBSERVED_ADDRESS: from where this side sees the other (the 24 bytes of `core.address`)."""
    if len(address) != _ADDRESS_SIZE:
        raise ValueError(f"an address has {_ADDRESS_SIZE} bytes, not {len(address)}")
    return b"\x40\x40\x18" + address
