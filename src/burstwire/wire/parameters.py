"""Transport parameters: the payload of both handshake messages (RFC 9000 §18 semantics).

A list of (varint id, varint length, value). Parameters with their default are left out, unknown ids are
skipped, a repeated id is TRANSPORT_PARAMETER_ERROR. Ids below 0x4000 are those of RFC 9000 and RFC 9221.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from burstwire.wire import varint
from burstwire.wire.errors import TransportCode, WireError

__all__ = ["AEAD_IDS", "TransportParameters", "decode", "encode"]

AEAD_IDS: Final = {"aes-128-gcm": 0, "aes-256-gcm": 1, "chacha20-poly1305": 2}
"""The numbers of the packet protections in the `aeads` parameter."""

_PADDING_ID: Final = 0x4009


@dataclass(frozen=True, slots=True)
class TransportParameters:
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

_DEFAULTS: Final = TransportParameters()


def encode(parameters: TransportParameters, at_least: int = 0) -> bytes:
    """The parameters as bytes; raises ValueError for a value that `decode` would refuse.

    Args:
        parameters: what to write.
        at_least: pad with the padding parameter to this many bytes. When less than a whole parameter is
            missing (up to 5 bytes), the result is that little longer than asked.
    """
    out = bytearray()

    def put(identifier: int, value: bytes) -> None:
        out.extend(varint.encode(identifier) + varint.encode(len(value)) + value)

    for identifier, (name, low, high) in _INTEGERS.items():
        number = getattr(parameters, name)
        if not low <= number <= high:
            raise ValueError(f"{name} is {number}; it must be from {low} to {high}")
        if number != getattr(_DEFAULTS, name):
            put(identifier, varint.encode(number))
    for identifier, (name, size) in _FIXED.items():
        value = getattr(parameters, name)
        if value is not None:
            if len(value) != size:
                raise ValueError(f"{name} has {len(value)} bytes; it must have {size}")
            put(identifier, value)
    if parameters.versions:
        put(_VERSIONS_ID, b"".join(version.to_bytes(4) for version in parameters.versions))
    if parameters.aeads:
        put(_AEADS_ID, bytes(parameters.aeads))
    if parameters.application_protocol:
        name_bytes = parameters.application_protocol.encode()
        if len(name_bytes) > 255:
            raise ValueError("application_protocol is longer than 255 bytes")
        put(_PROTOCOL_ID, name_bytes)
    if parameters.refusal is not None:
        code, reason = parameters.refusal
        put(_REFUSAL_ID, varint.encode(code) + reason.encode("utf-8", "replace"))
    if parameters.cids is not None:
        put(_CIDS_ID, b"".join(cid.to_bytes(4) for cid in parameters.cids))
    missing = at_least - len(out)
    if missing > 0:
        prefix = varint.encode(_PADDING_ID)
        # The length is always a 2-byte varint, so that its own size does not depend on it.
        room = max(missing - len(prefix) - 2, 0)
        if room >= 1 << 14:
            raise ValueError(f"{room} bytes of padding are more than a handshake packet holds")
        out += prefix + (0x4000 | room).to_bytes(2) + bytes(room)
    return bytes(out)


def decode(payload: bytes | memoryview) -> TransportParameters:
    """Read parameters; raises WireError(TRANSPORT_PARAMETER_ERROR) for anything malformed."""
    data = bytes(payload)
    end = len(data)
    seen: set[int] = set()
    fields: dict[str, Any] = {}
    position = 0
    try:
        while position < end:
            identifier, position = varint.read(data, position)
            length, position = varint.read(data, position)
            stop = position + length
            if stop > end:
                raise _refuse("a parameter is cut short")
            if identifier in seen:
                raise _refuse(f"parameter {identifier:#x} is there twice")
            seen.add(identifier)
            _read_value(identifier, data[position:stop], fields)
            position = stop
    except varint.TRUNCATED:
        raise _refuse("a parameter is cut short") from None
    except UnicodeDecodeError:
        raise _refuse("application_protocol is not UTF-8") from None
    return TransportParameters(**fields)


def _read_value(identifier: int, value: bytes, fields: dict[str, Any]) -> None:
    if identifier in _INTEGERS:
        name, low, high = _INTEGERS[identifier]
        number, stop = varint.read(value, 0)
        if stop != len(value) or not low <= number <= high:
            raise _refuse(f"{name} is not an integer from {low} to {high}")
        fields[name] = number
    elif identifier in _FIXED:
        name, size = _FIXED[identifier]
        if len(value) != size:
            raise _refuse(f"{name} has {len(value)} bytes instead of {size}")
        fields[name] = value
    elif identifier == _VERSIONS_ID:
        if len(value) % 4:
            raise _refuse("versions is not a list of u32")
        fields["versions"] = tuple(int.from_bytes(value[i : i + 4]) for i in range(0, len(value), 4))
    elif identifier == _AEADS_ID:
        fields["aeads"] = tuple(value)
    elif identifier == _PROTOCOL_ID:
        if len(value) > 255:
            raise _refuse("application_protocol is longer than 255 bytes")
        fields["application_protocol"] = value.decode()
    elif identifier == _REFUSAL_ID:
        code, start = varint.read(value, 0)
        # A refusal whose words are mangled is still a refusal.
        fields["refusal"] = (code, value[start:].decode("utf-8", "replace"))
    elif identifier == _CIDS_ID:
        if len(value) != 8:
            raise _refuse("cids is not two u32")
        fields["cids"] = (int.from_bytes(value[:4]), int.from_bytes(value[4:]))


def _refuse(reason: str) -> WireError:
    return WireError(TransportCode.TRANSPORT_PARAMETER_ERROR, reason)
