"""Frames in qlog's words (draft-ietf-quic-qlog-quic-events-04 §8.13), without what they carry for applications.

CONFIRM has the number and the meaning of HANDSHAKE_DONE and its name here. DATAGRAM has none in that draft; it gets the
one that later drafts give it. ACK_FREQUENCY has none in any; it and its fields are called as in its own draft
(draft-ietf-quic-ack-frequency-09 §4). PADDING leaves nothing.
"""

from __future__ import annotations

from typing import Any

from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode, WireError

__all__ = ["MILLISECOND_DIGITS", "frames_of", "transport_error"]

MILLISECOND_DIGITS = 6
"""Decimals of times in milliseconds: nanoseconds, which is finer than any clock here."""

Data = dict[str, Any]


def frames_of(payload: bytes | memoryview, ack_delay_exponent: int) -> list[Data]:
    """The frames of a packet. What cannot be read is one unknown frame of type 0: the packet ends the connection."""
    try:
        return [_frame(frame, ack_delay_exponent) for frame in f.parse(payload)]
    except WireError:
        return [{"frame_type": "unknown", "frame_type_value": 0}]


def transport_error(code: int) -> str | int:
    """The name of a transport error, or the number of one without."""
    try:
        return TransportCode(code).name.lower()
    except ValueError:
        return code


def _frame(frame: f.Frame, ack_delay_exponent: int) -> Data:
    kind = frame[0]
    if kind == f.STREAM:
        _, stream_id, offset, data, fin = frame
        result: Data = {"frame_type": "stream", "stream_id": stream_id, "offset": offset, "length": len(data)}
        if fin:
            result["fin"] = True
        return result
    if kind == f.ACK:
        return _ack(frame, ack_delay_exponent)
    if kind == f.CLOSE:
        _, code, culprit, reason, by_application = frame
        result = {
            "frame_type": "connection_close",
            "error_space": "application" if by_application else "transport",
            "error_code": code if by_application else transport_error(code),
            "error_code_value": code,
            "reason": reason,
        }
        if culprit:
            result["trigger_frame_type"] = culprit
        return result
    if kind in _PLAIN:
        name, fields, fixed = _PLAIN[kind]
        return {"frame_type": name, **fixed, **dict(zip(fields, frame[1:], strict=False))}
    if kind == f.ACK_FREQUENCY:
        _, number, packets, delay, reordering = frame
        return {
            "frame_type": "ack_frequency",
            "sequence_number": number,
            "ack_eliciting_threshold": packets,
            "request_max_ack_delay": round(delay / 1000, MILLISECOND_DIGITS),
            "reordering_threshold": reordering,
        }
    if kind == f.DATAGRAM:
        return {"frame_type": "datagram", "length": len(frame[1])}
    return {"frame_type": "unknown", "frame_type_value": kind}


def _ack(frame: f.Frame, ack_delay_exponent: int) -> Data:
    _, _, delay, ranges, ecn = frame
    result: Data = {
        "frame_type": "ack",
        "ack_delay": round((delay << ack_delay_exponent) / 1000, MILLISECOND_DIGITS),
        "acked_ranges": [[low] if low == high else [low, high] for low, high in ranges],
    }
    if ecn is not None:
        result["ect0"], result["ect1"], result["ce"] = ecn
    return result


_BIDI = {"stream_type": "bidirectional"}
_UNI = {"stream_type": "unidirectional"}

_PLAIN: dict[int, tuple[str, tuple[str, ...], dict[str, str]]] = {
    f.PING: ("ping", (), {}),
    f.RESET_STREAM: ("reset_stream", ("stream_id", "error_code", "final_size"), {}),
    f.STOP_SENDING: ("stop_sending", ("stream_id", "error_code"), {}),
    f.MAX_DATA: ("max_data", ("maximum",), {}),
    f.MAX_STREAM_DATA: ("max_stream_data", ("stream_id", "maximum"), {}),
    f.MAX_STREAMS_BIDI: ("max_streams", ("maximum",), _BIDI),
    f.MAX_STREAMS_UNI: ("max_streams", ("maximum",), _UNI),
    f.DATA_BLOCKED: ("data_blocked", ("limit",), {}),
    f.STREAM_DATA_BLOCKED: ("stream_data_blocked", ("stream_id", "limit"), {}),
    f.STREAMS_BLOCKED_BIDI: ("streams_blocked", ("limit",), _BIDI),
    f.STREAMS_BLOCKED_UNI: ("streams_blocked", ("limit",), _UNI),
    # What proves an address stays out: whoever reads a trace must not be able to answer for the peer.
    f.PATH_CHALLENGE: ("path_challenge", (), {}),
    f.PATH_RESPONSE: ("path_response", (), {}),
    f.CONFIRM: ("handshake_done", (), {}),
}
"""Frames that are numbers only: qlog's name, the fields in the order of the frame's, and what is always the same."""
