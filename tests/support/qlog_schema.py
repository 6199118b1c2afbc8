"""The part of qlog's schema that burstwire writes, by the words of the drafts, and a check of a file against it.

draft-ietf-quic-qlog-main-schema-04 (the file, common fields, generic events) and draft-ietf-quic-qlog-quic-events-04
(all other events, frames). Objects of the drafts are closed unless they say otherwise, so a field that is not listed
here is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EVENTS", "FRAMES", "Trace", "acknowledged", "elicits", "read_trace"]

Check = Callable[[Any], bool]


def uint(bits: int) -> Check:
    return lambda value: type(value) is int and 0 <= value < 1 << bits


UINT8, UINT16, UINT32, UINT64 = uint(8), uint(16), uint(32), uint(64)


def number(value: Any) -> bool:
    """float32, float64: JSON writes a whole one as it likes."""
    return type(value) in (int, float)


def text(value: Any) -> bool:
    return isinstance(value, str)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def hexstring(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("([0-9a-f]{2})*", value) is not None


def word(*words: str) -> Check:
    return lambda value: value in words


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def some(check: Check) -> Check:
    """[+ check]"""
    return lambda value: isinstance(value, list) and bool(value) and all(map(check, value))


def many(check: Check) -> Check:
    """[* check]"""
    return lambda value: isinstance(value, list) and all(map(check, value))


@dataclass(frozen=True)
class Object:
    """A map with these fields; the name of an optional one begins with "?". `open`: others may be there, too."""

    fields: dict[str, Check]
    open: bool = False

    def __call__(self, value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        left = dict(value)
        for name, check in self.fields.items():
            bare = name.removeprefix("?")
            if bare in left:
                if not check(left.pop(bare)):
                    return False
            elif name == bare:
                return False
        return self.open or not left


OWNER = word("local", "remote")
PACKET_TYPE = word("initial", "handshake", "0RTT", "1RTT", "retry", "version_negotiation", "stateless_reset", "unknown")
HEADER = Object({"packet_type": PACKET_TYPE, "?packet_number": UINT64, "?flags": UINT8, "?dcid": hexstring})
RAW = Object({"?length": UINT64, "?payload_length": UINT64, "?data": hexstring})
TRANSPORT_ERROR = word(
    "no_error", "internal_error", "connection_refused", "flow_control_error", "stream_limit_error",
    "stream_state_error", "final_size_error", "frame_encoding_error", "transport_parameter_error",
    "connection_id_limit_error", "protocol_violation", "invalid_token", "application_error", "crypto_buffer_exceeded",
    "key_update_error", "aead_limit_reached", "no_viable_path",
)  # fmt: skip
STREAM_TYPE = word("unidirectional", "bidirectional")


def ack_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 2) and all(map(UINT64, value)) and value == sorted(value)


def _frame(name: str, fields: dict[str, Check]) -> Object:
    return Object({"frame_type": word(name), **fields})


FRAMES = {
    "ping": {},
    "ack": {
        "?ack_delay": number,
        "?acked_ranges": some(ack_range),
        "?ect1": UINT64,
        "?ect0": UINT64,
        "?ce": UINT64,
    },
    "reset_stream": {"stream_id": UINT64, "error_code": UINT32, "final_size": UINT64},
    "stop_sending": {"stream_id": UINT64, "error_code": UINT32},
    "stream": {"stream_id": UINT64, "offset": UINT64, "length": UINT64, "?fin": lambda value: value is True},
    "max_data": {"maximum": UINT64},
    "max_stream_data": {"stream_id": UINT64, "maximum": UINT64},
    "max_streams": {"stream_type": STREAM_TYPE, "maximum": UINT64},
    "data_blocked": {"limit": UINT64},
    "stream_data_blocked": {"stream_id": UINT64, "limit": UINT64},
    "streams_blocked": {"stream_type": STREAM_TYPE, "limit": UINT64},
    "path_challenge": {"?data": hexstring},
    "path_response": {"?data": hexstring},
    "connection_close": {
        "?error_space": word("transport", "application"),
        "?error_code": either(TRANSPORT_ERROR, UINT32),
        "?error_code_value": UINT64,
        "?reason": text,
        "?trigger_frame_type": either(UINT64, text),
    },
    "handshake_done": {},
    "unknown": {"frame_type_value": UINT64, "?raw": RAW},
    "datagram": {"?length": UINT64, "?raw": RAW},  # of draft-ietf-quic-qlog-quic-events-06
    "ack_frequency": {  # the words of draft-ietf-quic-ack-frequency-09; no draft of qlog has it
        "sequence_number": UINT64,
        "ack_eliciting_threshold": UINT64,
        "request_max_ack_delay": number,
        "reordering_threshold": UINT64,
    },
}
_FRAMES = {name: _frame(name, fields) for name, fields in FRAMES.items()}


def frame(value: Any) -> bool:
    return isinstance(value, dict) and value.get("frame_type") in _FRAMES and _FRAMES[value["frame_type"]](value)


STATE = word(
    "attempted", "peer_validated", "handshake_started", "early_write", "handshake_complete", "handshake_confirmed",
    "closing", "draining", "closed",
)  # fmt: skip
PARAMETERS = {
    "?owner": OWNER,
    "?tls_cipher": text,
    "?aead_tag_length": UINT8,
    "?max_idle_timeout": UINT64,
    "?max_udp_payload_size": UINT32,
    "?ack_delay_exponent": UINT16,
    "?max_ack_delay": UINT16,
    "?initial_max_data": UINT64,
    "?initial_max_stream_data_bidi_local": UINT64,
    "?initial_max_stream_data_bidi_remote": UINT64,
    "?initial_max_streams_bidi": UINT64,
}
METRICS = {
    "?min_rtt": number,
    "?smoothed_rtt": number,
    "?latest_rtt": number,
    "?rtt_variance": number,
    "?pto_count": UINT16,
    "?congestion_window": UINT64,
    "?bytes_in_flight": UINT64,
    "?ssthresh": UINT64,
    "?packets_in_flight": UINT64,
    "?pacing_rate": UINT64,
}
LOST = {
    "?header": HEADER,
    "?frames": many(frame),
    "?is_mtu_probe_packet": boolean,
    "?trigger": word("reordering_threshold", "time_threshold", "pto_expired"),
}

EVENTS: dict[str, Check] = {
    "connectivity:connection_started": Object(
        {
            "?ip_version": word("v4", "v6"),
            "src_ip": text,
            "dst_ip": text,
            "?protocol": text,
            "?src_port": UINT16,
            "?dst_port": UINT16,
            "?src_cid": hexstring,
            "?dst_cid": hexstring,
        }
    ),
    "connectivity:connection_closed": Object(
        {
            "?owner": OWNER,
            "?connection_code": either(TRANSPORT_ERROR, UINT32),
            "?application_code": UINT32,
            "?internal_code": UINT32,
            "?reason": text,
            "?trigger": word(
                "clean",
                "handshake_timeout",
                "idle_timeout",
                "error",
                "stateless_reset",
                "version_mismatch",
                "application",
            ),
        }
    ),
    "connectivity:connection_state_updated": Object({"?old": STATE, "new": STATE}),
    "connectivity:mtu_updated": Object({"?old": UINT16, "new": UINT16, "?done": boolean}),
    # Of no draft: -04 has only a placeholder for "MIGRATION-related events e.g., path_updated".
    "connectivity:path_updated": Object({"dst_ip": text, "dst_port": UINT16}),
    "transport:version_information": Object(
        {"?server_versions": some(hexstring), "?client_versions": some(hexstring), "?chosen_version": hexstring}
    ),
    "transport:alpn_information": Object({"?chosen_alpn": text}),
    "transport:parameters_set": Object(PARAMETERS, open=True),  # "any number of unspecified fields"
    "transport:packet_sent": Object(
        {"header": HEADER, "?frames": many(frame), "?raw": RAW, "?is_mtu_probe_packet": boolean}
    ),
    "transport:packet_received": Object({"header": HEADER, "?frames": many(frame), "?raw": RAW}),
    "transport:packet_dropped": Object(
        {
            "?header": HEADER,
            "?raw": RAW,
            "?trigger": word(
                "internal_error",
                "rejected",
                "unsupported",
                "invalid",
                "connection_unknown",
                "decryption_failure",
                "general",
            ),
        }
    ),
    "security:key_updated": Object(
        {
            "key_type": word("server_1rtt_secret", "client_1rtt_secret"),
            "?old": hexstring,
            "new": hexstring,
            "?generation": UINT32,
            "?trigger": word("tls", "remote_update", "local_update"),
        }
    ),
    "recovery:parameters_set": Object(
        {
            "?reordering_threshold": UINT16,
            "?time_threshold": number,
            "timer_granularity": UINT16,
            "?initial_rtt": number,
            "?max_datagram_size": UINT32,
            "?initial_congestion_window": UINT64,
            "?minimum_congestion_window": UINT64,
            "?persistent_congestion_threshold": UINT16,
        },
        open=True,
    ),
    "recovery:metrics_updated": Object(METRICS, open=True),
    "recovery:congestion_state_updated": Object(
        {"?old": text, "new": text, "?trigger": word("persistent_congestion", "ECN")}
    ),
    "recovery:loss_timer_updated": Object(
        {
            "?timer_type": word("ack", "pto"),
            "event_type": word("set", "expired", "cancelled"),
            "?delta": number,
        }
    ),
    "recovery:packet_lost": Object(LOST),
    "generic:info": Object({"message": text}),
}
"""By name; the category goes with the type."""

FILE = Object(
    {
        "qlog_format": word("JSON-SEQ"),
        "qlog_version": word("0.3"),
        "?title": text,
        "?description": text,
        "trace": Object(
            {
                "?title": text,
                "vantage_point": Object({"?name": text, "type": word("client", "server")}),
                "common_fields": Object(
                    {
                        "time_format": word("relative"),
                        "reference_time": number,
                        "?protocol_type": some(text),
                        "?group_id": text,
                    }
                ),
            }
        ),
    }
)


@dataclass
class Trace:
    """A file that keeps to the schema.

    Attributes:
        header: its first record. events: the others.
    """

    header: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def role(self) -> str:
        return str(self.header["trace"]["vantage_point"]["type"])

    def named(self, name: str) -> list[dict[str, Any]]:
        """The data of all events of a name."""
        return [event["data"] for event in self.events if event["name"] == name]

    def numbers(self, name: str) -> list[int]:
        """The packet numbers of all events of a name."""
        return [data["header"]["packet_number"] for data in self.named(name)]

    def metrics(self) -> dict[str, Any]:
        """The latest value of each."""
        result: dict[str, Any] = {}
        for data in self.named("recovery:metrics_updated"):
            result.update(data)
        return result


def read_trace(path: Path) -> Trace:
    """The records of a file, every one of which must be whole and valid."""
    raw = path.read_bytes()
    assert raw[:1] == b"\x1e"
    records = raw[1:].split(b"\x1e")
    for record in records:
        assert record.endswith(b"\n"), record  # RFC 7464 §2.4: else it may be cut off
    header, *events = [json.loads(record) for record in records]
    # The versions must be near the top, for tools that look before they read (main schema §3).
    assert b'"qlog_version":"0.3","qlog_format":"JSON-SEQ"' in raw[:256]
    assert FILE(header), header
    last = 0.0
    for event in events:
        assert event.keys() <= {"time", "name", "data", "ecn"}, event
        assert number(event["time"]) and event["time"] >= last, event  # noqa: PT018
        last = event["time"]
        assert event["name"] in EVENTS, event
        assert EVENTS[event["name"]](event["data"]), event
    return Trace(header, events)


def elicits(packet: dict[str, Any]) -> bool:
    """Whether the peer must acknowledge a packet (RFC 9002 §2)."""
    return any(frame["frame_type"] not in ("ack", "padding", "connection_close") for frame in packet["frames"])


def acknowledged(trace: Trace) -> set[int]:
    """All packet numbers that ACK frames named that came."""
    found: set[int] = set()
    for packet in trace.named("transport:packet_received"):
        for frame in packet["frames"]:
            if frame["frame_type"] == "ack":
                for pair in frame["acked_ranges"]:
                    found.update(range(pair[0], pair[-1] + 1))
    return found
