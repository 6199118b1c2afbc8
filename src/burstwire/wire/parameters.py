"""Transport parameters: the payload of both handshake messages (RFC 9000 §18 semantics).

A list of (varint id, varint length, value). Parameters with their default are left out, unknown ids are
skipped, a repeated id is TRANSPORT_PARAMETER_ERROR. Ids below 0x4000 are those of RFC 9000 and RFC 9221.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any, Final, NamedTuple

from burstwire.wire import varint
from burstwire.wire.errors import TransportCode, WireError

__all__ = ["AEAD_IDS", "TransportParameters", "decode", "encode"]

AEAD_IDS: Final = {"aes-128-gcm": 0, "aes-256-gcm": 1, "chacha20-poly1305": 2}
"""The numbers of the packet protections in the `aeads` parameter."""

_PADDING_ID: Final = 0x4009


class TransportParameters(NamedTuple):
    """What one side tells the other in the handshake. Sizes are bytes, times milliseconds.

    Attributes:
        max_idle_timeout: 0 means none.
        stateless_reset_token: 16 bytes that end this connection in a RESET, or None.
        max_udp_payload_size: the largest UDP payload that this side receives, from 1,200.
        initial_max_data: initial credit for all streams together.
        initial_max_stream_data_bidi_local: initial credit on streams that the sender of this opens.
        initial_max_stream_data_bidi_remote: initial credit on streams that its receiver opens.
        initial_max_streams_bidi: streams that the receiver of this may open (stream 0 not counted).
        ack_delay_exponent: the unit of ACK delays is 2**exponent µs; at most 20.
        max_ack_delay: the longest that acknowledgements are held back; below 2**14.
        max_datagram_frame_size: the largest DATAGRAM frame that this side takes; 0 means none at all.
        versions: protocol versions known.
        aeads: packet protections by number (`AEAD_IDS`): offered best first in message 1, the chosen one
            in message 2.
        application_protocol: as ALPN, at most 255 bytes of UTF-8.
        observed_address: the other side's address as seen from here (24 bytes), or None.
        max_message_size: the largest message that this side takes.
        receive_buffer: bytes of socket buffer that the kernel granted; 0 means unknown.
        attempt: 8 bytes that name this attempt (simultaneous open), or None.
        refusal: (code, reason) in a message 2 that declines, else None.
        cids: (dst_cid, src_cid) of the RESPOND that carries this, else None.
    """

    max_idle_timeout: int = 0
    stateless_reset_token: bytes | None = None
    max_udp_payload_size: int = 65527
    initial_max_data: int = 0
    initial_max_stream_data_bidi_local: int = 0
    initial_max_stream_data_bidi_remote: int = 0
    initial_max_streams_bidi: int = 0
    ack_delay_exponent: int = 3
    max_ack_delay: int = 25
    max_datagram_frame_size: int = 0
    versions: tuple[int, ...] = ()
    aeads: tuple[int, ...] = ()
    application_protocol: str = ""
    observed_address: bytes | None = None
    max_message_size: int = 16 << 20
    receive_buffer: int = 0
    attempt: bytes | None = None
    refusal: tuple[int, str] | None = None
    cids: tuple[int, int] | None = None


_INTEGERS: Final = {
    0x01: ("max_idle_timeout", 0, varint.MAX),
    0x03: ("max_udp_payload_size", 1200, varint.MAX),
    0x04: ("initial_max_data", 0, varint.MAX),
    0x05: ("initial_max_stream_data_bidi_local", 0, varint.MAX),
    0x06: ("initial_max_stream_data_bidi_remote", 0, varint.MAX),
    0x08: ("initial_max_streams_bidi", 0, 1 << 60),
    0x0A: ("ack_delay_exponent", 0, 20),
    0x0B: ("max_ack_delay", 0, (1 << 14) - 1),
    0x20: ("max_datagram_frame_size", 0, varint.MAX),
    0x4004: ("max_message_size", 0, varint.MAX),
    0x4005: ("receive_buffer", 0, varint.MAX),
}
"""Parameters whose value is one varint: field, least and greatest value (RFC 9000 §18.2)."""

_FIXED: Final = {
    0x02: ("stateless_reset_token", 16),
    0x4003: ("observed_address", 24),
    0x4006: ("attempt", 8),
}
"""Parameters whose value is so many bytes."""

_VERSIONS_ID, _AEADS_ID, _PROTOCOL_ID, _REFUSAL_ID, _CIDS_ID = 0x4000, 0x4001, 0x4002, 0x4007, 0x4008

_MEANT: Final = frozenset({*_INTEGERS, _VERSIONS_ID, _AEADS_ID, _PROTOCOL_ID, _REFUSAL_ID})
"""Parameters of various sizes."""

_CIDS: Final = Struct(">II")

_DEFAULTS: Final = TransportParameters()

_MEMO: Final = 512
"""Values that are remembered of those read and written: an endpoint says the same to every peer and, where its peers
run with the same settings, hears the same from them. Then the objects are shared between connections, too."""

_SHORT: Final = 16
"""Bytes of a value that is remembered at most: a stranger may fill the memory, but not with much."""

_integers: Final = attrgetter(*(name for name, _, _ in _INTEGERS.values()))
_lists: Final = attrgetter("versions", "aeads", "application_protocol")


def encode(parameters: TransportParameters, at_least: int = 0) -> bytes:
    """The parameters as bytes; raises ValueError for a value that `decode` would refuse.

    Args:
        parameters: what to write.
        at_least: pad with the padding parameter to this many bytes. When less than a whole parameter is
            missing (up to 5 bytes), the result is that little longer than asked.
    """
    out = bytearray(_encode_integers(_integers(parameters)))
    for identifier, (name, size) in _FIXED.items():
        value = getattr(parameters, name)
        if value is not None:
            if len(value) != size:
                raise ValueError(f"{name} has {len(value)} bytes; it must have {size}")
            out += _parameter(identifier, value)
    out += _encode_lists(*_lists(parameters))
    if parameters.refusal is not None:
        code, reason = parameters.refusal
        out += _parameter(_REFUSAL_ID, varint.encode(code) + reason.encode("utf-8", "replace"))
    if parameters.cids is not None:
        out += _parameter(_CIDS_ID, _CIDS.pack(*parameters.cids))
    missing = at_least - len(out)
    if missing > 0:
        prefix = varint.encode(_PADDING_ID)
        # The length is always a 2-byte varint, so that its own size does not depend on it.
        room = max(missing - len(prefix) - 2, 0)
        if room >= 1 << 14:
            raise ValueError(f"{room} bytes of padding are more than a handshake packet holds")
        out += prefix + (0x4000 | room).to_bytes(2) + bytes(room)
    return bytes(out)


def _parameter(identifier: int, value: bytes) -> bytes:
    return varint.encode(identifier) + varint.encode(len(value)) + value


@lru_cache(_MEMO)
def _encode_integers(numbers: tuple[int, ...]) -> bytes:
    out = b""
    for (identifier, (name, low, high)), number, default in zip(
        _INTEGERS.items(), numbers, _integers(_DEFAULTS), strict=True
    ):
        if not low <= number <= high:
            raise ValueError(f"{name} is {number}; it must be from {low} to {high}")
        if number != default:
            out += _parameter(identifier, varint.encode(number))
    return out


@lru_cache(_MEMO)
def _encode_lists(versions: tuple[int, ...], aeads: tuple[int, ...], protocol: str) -> bytes:
    out = b""
    if versions:
        out += _parameter(_VERSIONS_ID, b"".join(version.to_bytes(4) for version in versions))
    if aeads:
        out += _parameter(_AEADS_ID, bytes(aeads))
    if protocol:
        name = protocol.encode()
        if len(name) > 255:
            raise ValueError("application_protocol is longer than 255 bytes")
        out += _parameter(_PROTOCOL_ID, name)
    return out


def decode(payload: bytes | memoryview) -> TransportParameters:
    """Read parameters; raises WireError(TRANSPORT_PARAMETER_ERROR) for anything malformed."""
    data = bytes(payload)
    try:
        position, seen, fields = _begin(data)
        _read_on(data, position, seen, fields)
    except varint.TRUNCATED:
        raise _refuse("a parameter is cut short") from None
    except UnicodeDecodeError:
        raise _refuse("application_protocol is not UTF-8") from None
    return TransportParameters(**fields)


_Beginning = tuple[bytes, frozenset[int], dict[str, Any]]
"""How a payload began, with all integers before anything else, and what they said: identifiers and fields."""

_latest: list[_Beginning] = [(b"", frozenset(), {})]
"""Of the payload that was read last, as the only element. Most others begin with the same bytes: what differs from
connection to connection comes behind."""


def _begin(data: bytes) -> tuple[int, set[int], dict[str, Any]]:
    """Reads the integers that `data` begins with, or remembers them; returns where to go on, identifiers, fields."""
    raw, known, values = _latest[0]
    if raw and data.startswith(raw):
        return len(raw), set(known), values.copy()
    seen: set[int] = set()
    fields: dict[str, Any] = {}
    position = _read_on(data, 0, seen, fields, integers_only=True)
    _latest[0] = data[:position], frozenset(seen), fields.copy()
    return position, seen, fields


def _read_on(data: bytes, position: int, seen: set[int], fields: dict[str, Any], *, integers_only: bool = False) -> int:
    """Reads parameters from `position` on into `seen` and `fields`; returns where it ended: at the end of `data`, or
    before the first that is not an integer."""
    end = len(data)
    read = varint.read
    while position < end:
        identifier, start = read(data, position)
        if integers_only and identifier not in _INTEGERS:
            break
        length, start = read(data, start)
        stop = start + length
        if stop > end:
            raise _refuse("a parameter is cut short")
        if identifier in seen:
            raise _refuse(f"parameter {identifier:#x} is there twice")
        seen.add(identifier)
        if identifier in _FIXED:
            name, size = _FIXED[identifier]
            if length != size:
                raise _refuse(f"{name} has {length} bytes instead of {size}")
            fields[name] = data[start:stop]
        elif identifier in _MEANT:
            value = data[start:stop]
            name, fields[name] = _recall(identifier, value) if length <= _SHORT else _read(identifier, value)
        elif identifier == _CIDS_ID:
            if length != 8:
                raise _refuse("cids is not two u32")
            fields["cids"] = _CIDS.unpack_from(data, start)
        position = stop
    return position


def _read(identifier: int, value: bytes) -> tuple[str, Any]:
    """Field and value of one of `_MEANT`."""
    if identifier in _INTEGERS:
        name, low, high = _INTEGERS[identifier]
        number, stop = varint.read(value, 0)
        if stop != len(value) or not low <= number <= high:
            raise _refuse(f"{name} is not an integer from {low} to {high}")
        return name, number
    if identifier == _VERSIONS_ID:
        if len(value) % 4:
            raise _refuse("versions is not a list of u32")
        return "versions", tuple(int.from_bytes(value[i : i + 4]) for i in range(0, len(value), 4))
    if identifier == _AEADS_ID:
        return "aeads", tuple(value)
    if identifier == _PROTOCOL_ID:
        if len(value) > 255:
            raise _refuse("application_protocol is longer than 255 bytes")
        return "application_protocol", value.decode()
    assert identifier == _REFUSAL_ID
    code, start = varint.read(value, 0)
    # A refusal whose words are mangled is still a refusal.
    return "refusal", (code, value[start:].decode("utf-8", "replace"))


_recall: Final = lru_cache(_MEMO)(_read)


def _refuse(reason: str) -> WireError:
    return WireError(TransportCode.TRANSPORT_PARAMETER_ERROR, reason)
