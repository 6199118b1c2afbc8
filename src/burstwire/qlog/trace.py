"""What happens to one connection, as qlog events (draft-ietf-quic-qlog-quic-events-04).

A connection tells its `Tracer` of runs, spans and losses; here each packet of them becomes an event, because that is
what tools read. Everything else is found by comparing the connection with what was written of it last, once a step.
So a connection that is not traced knows nothing of events.

No keys, no secrets and nothing of what applications say is written: of a stream its id, offsets and lengths, of
datagrams their lengths. Addresses, connection IDs and the reason of a close are.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from burstwire.core.address import ADDRESS_SIZE, ANY_LOCAL, unpack_address
from burstwire.errors import IdleTimeout, LocallyClosed, PeerClosed, RemoteProtocolError
from burstwire.proto.acks import DELAY_EXPONENT
from burstwire.proto.congestion.base import initial_window, minimum_window
from burstwire.proto.mtu import Phase
from burstwire.proto.negotiation import offer
from burstwire.proto.recovery import PACKET_THRESHOLD, PERSISTENT_THRESHOLD
from burstwire.proto.rtt import GRANULARITY, INITIAL_RTT, TIME_THRESHOLD
from burstwire.qlog.frames import MILLISECOND_DIGITS, frames_of, transport_error
from burstwire.wire import frames as f
from burstwire.wire.header import DATA_OVERHEAD, HEADER_SIZE, TAG, VERSION

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection
    from burstwire.proto.intake import Span
    from burstwire.proto.recovery import Lost
    from burstwire.qlog.writer import SequenceWriter
    from burstwire.wire.parameters import TransportParameters

__all__ = ["QLOG_VERSION", "Trace", "states"]

QLOG_VERSION = "0.3"
"""What qvis reads, and the last version whose events have the categories that it looks for."""

FLUSH_AFTER = 1.0
"""Seconds after which events are written even if they are few."""

ECN_NAMES = ("Not-ECT", "ECT(1)", "ECT(0)", "CE")
"""By codepoint (RFC 3168 §5); the field is of later drafts, and of the event, which may have any."""

STATES = ("", "", "closing", "draining", "closed")
"""By `proto.connection.State`; the first two depend on whether the handshake is confirmed."""


class Trace:
    """One trace of one connection: a `Tracer`, and what `Connection.trace` gives to applications.

    It ends with the connection, with `stop`, or when the block of a ``with`` statement is left.

    Args:
        connection: what is traced, from now on.
        writer: where to.
        path: its name.
        now: the time, in seconds of the connection's clock.
        epoch: what has to be added to that for the time since 1970, in seconds.
        local: the address of this side's socket, if it is known.
        on_end: called once, when the trace has ended.

    Attributes:
        path: the file.
    """

    __slots__ = ("_connection", "_generations", "_last", "_metrics", "_moves", "_mtu", "_on_end", "_origin", "_pto",
                 "_shown", "_state", "_writer", "_written_at", "now", "path")  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        writer: SequenceWriter,
        path: str,
        now: float,
        epoch: float,
        local: tuple[str, int] | None = None,
        on_end: Callable[[Trace], None] | None = None,
    ) -> None:
        self.path = path
        self.now = now
        self._connection: Connection | None = connection
        self._writer = writer
        self._on_end = on_end
        self._origin = self._last = self._written_at = now
        self._metrics: dict[str, Any] = {}
        self._mtu: tuple[int, bool] | None = None
        self._state: str | None = None
        self._shown: str | None = None
        self._moves = connection.paths.moves
        self._pto = connection.recovery.pto_expired
        self._generations = (connection.keys.sealing, connection.keys.opening)
        if isinstance(connection.tracer, Trace):
            connection.tracer._stop("another trace took over")
        connection.tracer = self
        self._begin(connection, epoch, local)

    def __repr__(self) -> str:
        return f"<burstwire.qlog.Trace {self.path}, {'on' if self.active else 'ended'}, {self.size:,} bytes>"

    # what applications ask

    @property
    def active(self) -> bool:
        """Whether anything is still written."""
        return self._connection is not None

    @property
    def size(self) -> int:
        """Bytes of the trace so far, whether they have reached the file or not."""
        return self._writer.size

    @property
    def failure(self) -> OSError | None:
        """What went wrong with the file and ended the trace; None if nothing did."""
        return self._writer.failure

    def stop(self) -> None:
        """End the trace; the file is complete then. Twice is once."""
        self._stop("tracing was stopped")

    def flush(self) -> None:
        """Write what has not reached the file yet."""
        self._writer.flush()
        self._written_at = self._last
        if self._writer.failure is not None:
            self._end()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # what the connection tells

    def run_sent(self, first: int, size: int, count: int, stream_id: int, offset: int, chunk: int, ecn: int) -> None:
        """See `Tracer`."""
        for number in range(first, first + count):
            frame = {"frame_type": "stream", "stream_id": stream_id, "offset": offset, "length": chunk}
            self._packet("transport:packet_sent", number, size, [frame], ecn)
            offset += chunk

    def packet_sent(self, number: int, size: int, payload: bytes, ecn: int, is_probe: bool) -> None:
        """See `Tracer`."""
        more = {"is_mtu_probe_packet": True} if is_probe else {}
        self._packet("transport:packet_sent", number, size, frames_of(payload, DELAY_EXPONENT), ecn, **more)

    def received(self, views: tuple[memoryview, ...], span: Span, mask: int, now: float) -> None:
        """See `Tracer`."""
        connection = self._connection
        if connection is None:
            return
        self.now = now
        exponent = connection.peer_parameters.ack_delay_exponent
        for first, _, slot, start, size, last, count, _, ecn, _ in span:
            for i in range(count):
                if mask >> i & 1:
                    length = last if i == count - 1 else size
                    at = start + i * size
                    payload = views[slot][at + HEADER_SIZE : at + length - TAG]
                    self._packet("transport:packet_received", first + i, length, frames_of(payload, exponent), ecn)
            mask >>= count

    def dropped(self, span: Span, mask: int, why: str, now: float) -> None:
        """See `Tracer`."""
        self.now = now
        for first, _, _, _, size, last, count, *_ in span:
            for i in range(count):
                if mask >> i & 1:
                    self._event(
                        "transport:packet_dropped",
                        {
                            "header": {"packet_type": "1RTT", "packet_number": first + i},
                            "raw": {"length": last if i == count - 1 else size},
                            "trigger": why,
                        },
                    )
            mask >>= count

    def lost(self, lost: Lost, now: float) -> None:
        """See `Tracer`."""
        connection = self._connection
        if connection is None:
            return
        self.now = now
        recovery = connection.recovery
        threshold = getattr(recovery, "packet_threshold", PACKET_THRESHOLD)
        for record, mask in lost:
            for i in range(record.count):
                if mask >> i & 1:
                    overtaken = record.order + i + threshold <= recovery.log.largest_order
                    data: dict[str, Any] = {
                        "header": {"packet_type": "1RTT", "packet_number": record.first + i},
                        "trigger": "reordering_threshold" if overtaken else "time_threshold",
                    }
                    if record.is_probe:
                        data["is_mtu_probe_packet"] = True
                    self._event("recovery:packet_lost", data)

    def updated(self, now: float) -> None:
        """See `Tracer`."""
        connection = self._connection
        if connection is None:
            return
        self.now = now
        self._compare(connection)
        if now - self._written_at >= FLUSH_AFTER:
            self.flush()

    def ended(self) -> None:
        """See `Tracer`."""
        connection = self._connection
        if connection is not None:
            self._compare(connection)
            self._new_state("closed")
            self._end()

    def discard(self) -> None:
        """End the trace, and write nothing of what has not been written: the connection never came to be."""
        self._writer.close(discard=True)
        self._end()

    # inside: what is written

    def _begin(self, connection: Connection, epoch: float, local: tuple[str, int] | None) -> None:
        """The header of the file, and what is known from the start."""
        client = connection.is_initiator
        ids = (connection.local_cid, connection.remote_cid)
        initiator, responder = ids if client else ids[::-1]
        self._put(
            {
                "qlog_version": QLOG_VERSION,
                "qlog_format": "JSON-SEQ",
                "title": "burstwire",
                "trace": {
                    "vantage_point": {"name": "burstwire", "type": "client" if client else "server"},
                    "common_fields": {
                        "group_id": f"{initiator:08x}{responder:08x}",  # the same in the traces of both sides
                        "protocol_type": ["burstwire"],
                        "time_format": "relative",
                        "reference_time": round((self._origin + epoch) * 1000, 3),
                    },
                },
            }
        )
        self._event("connectivity:connection_started", _started(connection, local))
        self._event("transport:version_information", {"chosen_version": f"{VERSION:08x}"})
        if connection.config.application_protocol:
            self._event("transport:alpn_information", {"chosen_alpn": connection.config.application_protocol})
        ours = offer(connection.config, (VERSION,), token=b"", receive_buffer=0, observed=b"", attempt=b"")
        cipher = {"tls_cipher": connection.aead_name, "aead_tag_length": TAG}
        self._event("transport:parameters_set", _parameters("local", ours) | cipher)
        self._event("transport:parameters_set", _parameters("remote", connection.peer_parameters))
        mtu = connection.mtu
        self._event(
            "recovery:parameters_set",
            {
                "reordering_threshold": PACKET_THRESHOLD,
                "time_threshold": TIME_THRESHOLD,
                "timer_granularity": round(GRANULARITY * 1000),
                "initial_rtt": _milliseconds(INITIAL_RTT),
                "max_datagram_size": mtu,
                "initial_congestion_window": initial_window(mtu),
                "minimum_congestion_window": minimum_window(mtu),
                "persistent_congestion_threshold": PERSISTENT_THRESHOLD,
                "congestion_control": connection.config.congestion,
            },
        )
        self._compare(connection)

    def _packet(
        self, name: str, number: int, size: int, frames: list[dict[str, Any]], ecn: int, **more: object
    ) -> None:
        data = {
            "header": {"packet_type": "1RTT", "packet_number": number},
            "raw": {"length": size, "payload_length": size - DATA_OVERHEAD},
            "frames": frames,
            **more,
        }
        if ecn:
            self._event(name, data, ecn=ECN_NAMES[ecn])
        else:
            self._event(name, data)

    def _event(self, name: str, data: dict[str, Any], **more: str) -> None:
        if self.now > self._last:  # qlog wants times in order; a step's may lie before the moment of `Connection.trace`
            self._last = self.now
        self._put({"time": _milliseconds(self._last - self._origin), "name": name, "data": data, **more})

    def _put(self, record: dict[str, Any]) -> None:
        if self._connection is None or self._writer.write(record):
            return
        if self._writer.failure is not None:
            self._end()
        else:
            self._stop("the trace has reached the size that Config.qlog_limit allows")

    def _stop(self, why: str) -> None:
        if self._connection is not None:
            time = _milliseconds(self._last - self._origin)
            self._writer.write({"time": time, "name": "generic:info", "data": {"message": why}}, last=True)
            self._end()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._writer.close()
        if connection.tracer is self:
            connection.tracer = None
        if self._on_end is not None:
            self._on_end(self)

    # inside: what has changed

    def _compare(self, connection: Connection) -> None:
        recovery = connection.recovery
        if recovery.pto_expired != self._pto:
            self._pto = recovery.pto_expired
            self._event("recovery:loss_timer_updated", {"timer_type": "pto", "event_type": "expired"})
        self._compare_metrics(connection)
        shown = congestion_state(connection)
        if shown != self._shown:
            change = {"new": shown} if self._shown is None else {"old": self._shown, "new": shown}
            self._shown = shown
            self._event("recovery:congestion_state_updated", change)
        mtu = (connection.pmtu.size, connection.pmtu.phase is Phase.COMPLETE)
        if mtu != self._mtu:
            old, self._mtu = self._mtu, mtu
            sizes = {"new": mtu[0]} if old is None else {"old": old[0], "new": mtu[0]}
            self._event("connectivity:mtu_updated", {**sizes, "done": mtu[1]})
        self._compare_keys(connection)
        if connection.paths.moves != self._moves:
            self._moves = connection.paths.moves
            host, port = unpack_address(connection.path[:ADDRESS_SIZE])
            self._event("connectivity:path_updated", {"dst_ip": host, "dst_port": port})
        state = states(connection)
        if state != self._state:
            self._new_state(state)

    def _compare_metrics(self, connection: Connection) -> None:
        recovery = connection.recovery
        rtt = recovery.rtt
        controller = recovery.controller
        metrics: dict[str, Any] = {}
        if rtt.first_sample is not None:
            metrics["min_rtt"] = _milliseconds(rtt.minimum)
            metrics["smoothed_rtt"] = _milliseconds(rtt.smoothed)
            metrics["latest_rtt"] = _milliseconds(rtt.latest)
            metrics["rtt_variance"] = _milliseconds(rtt.variance)
        metrics["pto_count"] = recovery.pto_count
        metrics["congestion_window"] = controller.window
        metrics["bytes_in_flight"] = recovery.log.in_flight
        threshold = controller.stats().get("ssthresh", -1)
        if 0 < threshold < inf:
            metrics["ssthresh"] = int(threshold)
        if connection.config.pacing:
            rate = controller.pacing_rate(rtt)
            if rate < inf:
                metrics["pacing_rate"] = int(rate * 8)
        before = self._metrics
        changed = {name: value for name, value in metrics.items() if before.get(name) != value}
        if changed:
            self._metrics = metrics
            self._event("recovery:metrics_updated", changed)

    def _compare_keys(self, connection: Connection) -> None:
        generations = (connection.keys.sealing, connection.keys.opening)
        if generations == self._generations:
            return
        before, self._generations = self._generations, generations
        for local, (old, new) in zip((True, False), zip(before, generations, strict=True), strict=True):
            if new != old:
                of_client = local == connection.is_initiator
                self._event(
                    "security:key_updated",
                    {
                        "key_type": "client_1rtt_secret" if of_client else "server_1rtt_secret",
                        "new": "",  # the draft asks for it; nobody gets it
                        "generation": new,
                        "trigger": "local_update" if local else "remote_update",
                    },
                )

    def _new_state(self, state: str) -> None:
        old, self._state = self._state, state
        if state == old:
            return
        if not self._over(old) and self._over(state) and self._connection is not None:
            self._event("connectivity:connection_closed", _closed(self._connection))
        change = {"new": state} if old is None else {"old": old, "new": state}
        self._event("connectivity:connection_state_updated", change)

    @staticmethod
    def _over(state: str | None) -> bool:
        return state in STATES[2:]


def states(connection: Connection) -> str:
    """The state of a connection in qlog's words."""
    if connection.state >= 2:
        return STATES[connection.state]
    return "handshake_confirmed" if connection.confirmed else "handshake_complete"


def congestion_state(connection: Connection) -> str:
    """What the congestion controller says that it does; where it says nothing, what its threshold tells."""
    controller = connection.recovery.controller
    state = getattr(controller, "state", None)
    if isinstance(state, Enum):
        return state.name.lower()
    if state is not None:
        return str(state)
    threshold = controller.stats().get("ssthresh", -1)
    return "congestion_avoidance" if 0 < threshold <= controller.window else "slow_start"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, MILLISECOND_DIGITS)


def _started(connection: Connection, local: tuple[str, int] | None) -> dict[str, Any]:
    host, port = unpack_address(connection.path[:ADDRESS_SIZE])
    mine = connection.path[ADDRESS_SIZE:]
    if mine and mine != ANY_LOCAL:
        source = unpack_address(mine)[0]
    else:  # the draft wants one: the address that stands for any
        source = local[0] if local is not None else "::" if ":" in host else "0.0.0.0"  # noqa: S104  as is
    result: dict[str, Any] = {
        "ip_version": "v6" if ":" in host else "v4",
        "src_ip": source,
        "dst_ip": host,
        "protocol": "burstwire",
        "dst_port": port,
        "src_cid": f"{connection.local_cid:08x}",
        "dst_cid": f"{connection.remote_cid:08x}",
    }
    if local is not None:
        result["src_port"] = local[1]
    return result


def _parameters(owner: str, parameters: TransportParameters) -> dict[str, Any]:
    """What one side said in the handshake; fields that the draft does not specify are its own permission."""
    return {
        "owner": owner,
        "max_idle_timeout": parameters.max_idle_timeout,
        "max_udp_payload_size": parameters.max_udp_payload_size,
        "ack_delay_exponent": parameters.ack_delay_exponent,
        "max_ack_delay": parameters.max_ack_delay,
        "initial_max_data": parameters.initial_max_data,
        "initial_max_stream_data_bidi_local": parameters.initial_max_stream_data_bidi_local,
        "initial_max_stream_data_bidi_remote": parameters.initial_max_stream_data_bidi_remote,
        "initial_max_streams_bidi": parameters.initial_max_streams_bidi,
        "max_datagram_frame_size": parameters.max_datagram_frame_size,
        "max_message_size": parameters.max_message_size,
    }


def _closed(connection: Connection) -> dict[str, Any]:
    """How a connection ended."""
    error = connection.error
    if isinstance(error, IdleTimeout):
        return {"owner": "local", "reason": str(error), "trigger": "idle_timeout"}
    if isinstance(error, RemoteProtocolError):
        code = transport_error(error.code)
        return {"owner": "local", "connection_code": code, "reason": error.reason, "trigger": "error"}
    if isinstance(error, PeerClosed):
        if connection.state == 4:  # without draining, so by RESET: see State
            return {"owner": "remote", "reason": error.reason, "trigger": "stateless_reset"}
        return _closing("remote", error.code, error.reason, error.by_application)
    if isinstance(error, LocallyClosed) and connection.close_frame:
        for frame in f.parse(connection.close_frame):
            if frame[0] == f.CLOSE:
                return _closing("local", frame[1], frame[3], frame[4])
    return {"owner": "local", "reason": str(error or "the endpoint ended"), "trigger": "error"}


def _closing(owner: str, code: int, reason: str, by_application: bool) -> dict[str, Any]:
    if by_application:
        return {
            "owner": owner,
            "application_code": code,
            "reason": reason,
            "trigger": "application" if code else "clean",
        }
    return {
        "owner": owner,
        "connection_code": transport_error(code),
        "reason": reason,
        "trigger": "error" if code else "clean",
    }
