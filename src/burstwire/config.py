"""Every limit and choice of an endpoint, in one immutable object."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from burstwire.errors import ConfigError
from burstwire.identity import PublicKey

__all__ = [
    "AEADS",
    "CONGESTION_CONTROLLERS",
    "FIXED_RATE",
    "MAX_DATAGRAM_SIZE",
    "MIN_DATAGRAM_SIZE",
    "Config",
    "check_congestion",
]

MIN_DATAGRAM_SIZE = 1200
"""Bytes of UDP payload that every path must carry (RFC 9000 §14)."""

MAX_DATAGRAM_SIZE = 65507
"""Bytes of UDP payload that IPv4 can carry at most."""

AEADS = ("aes-128-gcm", "aes-256-gcm", "chacha20-poly1305")
"""The packet protections that this version knows, in the order of preference."""

CONGESTION_CONTROLLERS = ("cubic", "bbr", "ledbat", "fixed")
"""The names that `Config.congestion` takes."""

FIXED_RATE = 1.25e6
"""Bytes per second of the controller "fixed" unless `Config.fixed_rate` says otherwise: 10 Mbit/s, which most homes can
send."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Config:
    """Limits and choices of one endpoint; every field has a default that suits a node on the open Internet.

    Sizes are bytes, times are seconds, rates are per second. A value out of range raises `ConfigError` at once.

    Attributes:
        max_datagram_size: UDP payload in bytes; pins the MTU of every path. None: 1,200 at first,
            then what the path is found to carry (RFC 8899).
        congestion: the congestion controller, one of `CONGESTION_CONTROLLERS`; a single connection may have another.
        fixed_rate: bytes per second that each connection with the controller "fixed" sends; less while it does harm.
        total_bandwidth: bytes per second that all connections together send, shared evenly among those that want more
            than they get; None or 0 for no limit. Packets without IP and UDP headers count, those of nothing but
            acknowledgements do not.
        aead_backend: who seals and opens packets; None chooses the fastest present.
        aeads: packet protections offered (initiator) or accepted (responder), best first.
        application_protocol: as ALPN (RFC 7301): both sides must name the same one.
        authorize: asked with the peer's public key and `(host, port)` before a connection is accepted;
            None accepts anybody. It must return at once.
        allow: the public keys that may connect, or None for all; `authorize` is asked about these only.
        preshared_key: 32 bytes known to all members of a closed network (Noise IKpsk2), or None.
        handshake_timeout: how long `connect` tries when it is given no `timeout`, and how long a half-open
            connection is kept.
        idle_timeout: a connection is given up after this time without a packet from the peer; the smaller
            value of both sides counts. 0 switches it off.
        keep_alive: a quiet connection sends a PING after this time, so that NAT bindings live. 0 switches it off.
        close_timeout: how long `close()` goes on delivering what was accepted.
        stall_timeout: how long a peer that is alive may let nothing be sent (it does not read, or ends no stream)
            before `write`, `send` and `open_stream` give up with `PeerStalled`; noticed up to a quarter later. Long
            enough for readers that pause; 0 switches it off.
        max_ack_delay: the longest that an acknowledgement is held back (RFC 9000 §13.2.1). It is part of the peer's
            probe timeout, so a short one repairs losses sooner; an answer mostly takes the acknowledgement along.
        max_message_size: the largest message that this side takes.
        send_buffer: bytes accepted and not yet acknowledged, for each stream; `write` and `send` wait beyond.
        stream_window: bytes that a peer may send ahead of the reader on one stream, at most: windows begin smaller and
            grow while they are what holds the peer back.
        connection_window: the same for all streams of a connection together. A quarter of it is kept for streams whose
            windows have not grown, so that a few unread ones do not stop the others.
        stream_window_initial: what every stream begins with (at most `stream_window`).
        connection_window_initial: what a connection begins with (at most `connection_window`).
        max_streams: streams that the peer may have open at the same time.
        max_datagrams: unreliable datagrams queued in each direction; the oldest is dropped beyond.
        datagram_buffer: their bytes, in each direction; the oldest is dropped beyond, but for the newest one.
        max_connections: connections of the endpoint; further handshakes are refused.
        max_connections_per_peer: of these, the connections with one public key; further handshakes of it are refused.
        max_sent_records: runs of packets in flight (a train, or a packet of small things) that a connection remembers;
            nothing more is sent until some are acknowledged or lost.
        max_half_open: handshakes answered and not yet confirmed by the initiator; the oldest is dropped beyond.
        max_known_initiates: first packets of handshakes that are remembered, so that a copy costs next to nothing;
            about 300 bytes each.
        accept_backlog: confirmed connections that wait for `incoming()`; further ones are refused.
        key_update_packets: packets that this side sends under one key before it takes the next one, from 1 to 2^22.
            It is looked at before each flight, and waits until the peer has acknowledged one of them and 3 PTO more, so
            that the peer can still open late packets under the key before.
        key_update_bytes: the same by bytes; 64 GiB are 2^32 blocks of AES. 0 for no limit.
        key_update_interval: the same by seconds. What was recorded before, memory that is stolen later does not open;
            but a connection that sends nothing keeps its key. 0 for no limit.
        costly_share: the part of the node's time that peers get together whose packets cost far more than their bytes,
            while others move bulk data beside them; beside small traffic only, they get the rest. Their packets are
            dropped beyond (`packets_limited`). A peer that is alone has no limit. 1 switches it off.
        handshake_share: the part of the node's time that handshakes of peers who dial it get together while others move
            bulk data. Beyond, INITIATEs are dropped (`initiates_postponed`), first those of whoever does not repeat
            them as an initiator does, and who dials comes in with his second or third. 1 switches it off.
        cookie_threshold: handshakes a second from which on a peer must first prove its address (COOKIE). Each that is
            answered takes about 0.3 ms, so strangers get at most a third of one processor by default, and honest
            peers come as fast as one of them can dial.
        receive_slots: 64 KiB slots that are preallocated to receive.
        send_slots: 64 KiB slots that are preallocated to send.
        trains_per_wakeup: trains received, and trains sent, in one step of the event loop.
        socket_receive_buffer: SO_RCVBUF asked of the kernel.
        socket_send_buffer: SO_SNDBUF asked of the kernel.
        socket_backend: "auto", "mmsg" (Linux) or "portable".
        gso: use UDP generic segmentation offload where the kernel has it.
        gro: use UDP generic receive offload where the kernel has it.
        max_gso_refusals: IP addresses remembered for which the kernel refused GSO, so that what goes there leaves
            datagram by datagram for a while; the one refused longest ago is forgotten beyond.
        pacing: spread packets over the round trip (RFC 9002 §7.7).
        qlog_dir: a folder in which every connection leaves a trace (qlog), a file each. None: what the environment
            variable QLOGDIR says; "" switches it off whatever that says. It is made if it is not there.
        qlog_limit: bytes of a trace's file at most; tracing ends there.
        ecn: mark packets ECT(0) where the path and the peer are found to handle it (RFC 9000 §13.4).
    """

    max_datagram_size: int | None = None
    congestion: str = "cubic"
    fixed_rate: float = FIXED_RATE
    total_bandwidth: float | None = None
    aead_backend: str | None = None
    aeads: tuple[str, ...] = AEADS
    application_protocol: str = ""
    authorize: Callable[[PublicKey, tuple[str, int]], bool] | None = None
    allow: Collection[PublicKey] | None = None
    preshared_key: bytes | None = None
    handshake_timeout: float = 10.0
    idle_timeout: float = 60.0
    keep_alive: float = 25.0
    close_timeout: float = 3.0
    stall_timeout: float = 600.0
    max_ack_delay: float = 0.005
    max_message_size: int = 16 * MIB
    send_buffer: int = 4 * MIB
    stream_window: int = 4 * MIB
    connection_window: int = 8 * MIB
    stream_window_initial: int = 256 * KIB
    connection_window_initial: int = 1 * MIB
    max_streams: int = 128
    max_datagrams: int = 256
    datagram_buffer: int = 1 * MIB
    max_connections: int = 100_000
    max_connections_per_peer: int = 1024
    max_sent_records: int = 8192
    max_half_open: int = 1024
    max_known_initiates: int = 8192
    accept_backlog: int = 1024
    key_update_packets: int = 1 << 22
    key_update_bytes: int = 64 * GIB
    key_update_interval: float = 600.0
    costly_share: float = 0.2
    handshake_share: float = 0.25
    cookie_threshold: int = 1000
    receive_slots: int = 16
    send_slots: int = 16
    trains_per_wakeup: int = 12
    socket_receive_buffer: int = 4 * MIB
    socket_send_buffer: int = 4 * MIB
    socket_backend: str = "auto"
    gso: bool = True
    gro: bool = True
    max_gso_refusals: int = 1024
    pacing: bool = True
    qlog_dir: str | None = None
    qlog_limit: int = 128 * MIB
    ecn: bool = True

    def __post_init__(self) -> None:
        if self.max_datagram_size is not None:
            self._check("max_datagram_size", MIN_DATAGRAM_SIZE, MAX_DATAGRAM_SIZE)
        for name, low, high in _RANGES:
            self._check(name, low, high)
        if self.total_bandwidth:
            self._check("total_bandwidth", 1000, 1e15)
        check_congestion(self.congestion)
        if self.socket_backend not in ("auto", "mmsg", "portable"):
            raise ConfigError(f"socket_backend is {self.socket_backend!r}; choose one of auto, mmsg, portable")
        unknown = [name for name in self.aeads if name not in AEADS]
        if unknown or not self.aeads:
            raise ConfigError(f"aeads is {self.aeads!r}; name one or more of {', '.join(AEADS)}")
        if len(self.application_protocol.encode()) > 255:
            raise ConfigError("application_protocol is longer than 255 bytes (RFC 7301 §3.1)")
        if self.allow is not None:
            self._freeze_allowed(self.allow)
        if self.preshared_key is not None and len(self.preshared_key) != 32:
            raise ConfigError(f"preshared_key has {len(self.preshared_key)} bytes; it must have 32")
        if self.qlog_dir is not None and not isinstance(self.qlog_dir, str):
            raise ConfigError(f"qlog_dir is {self.qlog_dir!r}; it must be the name of a folder, as a str")
        if self.idle_timeout and self.keep_alive >= self.idle_timeout:
            raise ConfigError(
                f"keep_alive ({self.keep_alive:g} s) must be shorter than idle_timeout ({self.idle_timeout:g} s), or 0"
            )

    def _freeze_allowed(self, allow: Collection[PublicKey]) -> None:
        """A set of its own: looked up for every handshake, and not changed from outside."""
        try:
            wrong = next((key for key in allow if not isinstance(key, PublicKey)), None)
        except TypeError:
            raise ConfigError(f"allow is {allow!r}; it must be a collection of public keys, or None") from None
        if wrong is not None:
            raise ConfigError(f"allow has a {type(wrong).__name__} in it; every member must be a PublicKey")
        object.__setattr__(self, "allow", frozenset(allow))

    def _check(self, name: str, low: float, high: float) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{name} is {value!r}; it must be from {low:,} to {high:,}")

    @property
    def first_stream_window(self) -> int:
        """Bytes of a new stream's window."""
        return min(self.stream_window_initial, self.stream_window)

    @property
    def first_connection_window(self) -> int:
        """Bytes of a new connection's window."""
        return min(self.connection_window_initial, self.connection_window)

    def replace(self, **changes: Any) -> Config:
        """A copy with some fields changed; raises `ConfigError` for an unknown name or a bad value."""
        unknown = changes.keys() - {field.name for field in fields(self)}
        if unknown:
            raise ConfigError(f"no such setting: {', '.join(sorted(unknown))}")
        return replace(self, **changes)


def check_congestion(name: str) -> None:
    """Raises `ConfigError` unless a congestion controller has this name."""
    if name not in CONGESTION_CONTROLLERS:
        raise ConfigError(f"congestion is {name!r}; choose one of {', '.join(CONGESTION_CONTROLLERS)}")


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("fixed_rate", 1000, 1e15),
    ("handshake_timeout", 0.01, 3600),
    ("idle_timeout", 0, 86400),
    ("keep_alive", 0, 86400),
    ("close_timeout", 0, 3600),
    ("stall_timeout", 0, 30 * 86400),
    ("max_ack_delay", 0, 16),
    ("max_message_size", 1, 1 << 30),
    ("send_buffer", 4 * KIB, 1 << 30),
    ("stream_window", 4 * KIB, 1 << 30),
    ("connection_window", 4 * KIB, 1 << 32),
    ("stream_window_initial", 4 * KIB, 1 << 30),
    ("connection_window_initial", 4 * KIB, 1 << 32),
    ("max_streams", 0, 1 << 20),
    ("max_datagrams", 1, 1 << 20),
    ("datagram_buffer", 1, 1 << 30),
    ("max_connections", 1, 1 << 24),
    ("max_connections_per_peer", 1, 1 << 24),
    ("max_sent_records", 16, 1 << 20),
    ("max_half_open", 1, 1 << 20),
    ("max_known_initiates", 1, 1 << 24),
    ("accept_backlog", 1, 1 << 20),
    ("key_update_packets", 1, 1 << 22),
    ("key_update_bytes", 0, 1 << 60),
    ("key_update_interval", 0, 30 * 86400),
    ("costly_share", 0.01, 1),
    ("handshake_share", 0.01, 1),
    ("cookie_threshold", 0, 1 << 30),
    ("receive_slots", 1, 4096),
    ("send_slots", 1, 4096),
    ("trains_per_wakeup", 1, 1024),
    ("socket_receive_buffer", 4 * KIB, 1 << 30),
    ("socket_send_buffer", 4 * KIB, 1 << 30),
    ("max_gso_refusals", 1, 1 << 20),
    ("qlog_limit", 4 * KIB, 1 << 40),
)
"""Numeric fields with the least and the greatest value that makes sense."""
