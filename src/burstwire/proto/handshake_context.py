"""What both sides of a `HandshakeDesk` share: identity, limits, sources of numbers, the way out, the counters."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from burstwire.core.address import unpack_address
from burstwire.errors import AddressError

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.crypto.noise import StaticKey
    from burstwire.identity import PublicKey

__all__ = ["MAX_OUTGOING", "HandshakeContext", "remember", "show_address"]

MAX_OUTGOING: Final = 1024
"""Datagrams that wait to be sent, about 1.2 MB; what comes beyond is dropped like on any full link."""

COUNTERS: Final = (
    "attempts_established",
    "attempts_failed",
    "attempts_started",
    "confirmed",
    "cookies_invalid",
    "cookies_received",
    "cookies_sent",
    "half_open_evicted",
    "half_open_expired",
    "initiates_bad_mac1",
    "initiates_crossed",
    "initiates_invalid",
    "initiates_limited",
    "initiates_other_suite",
    "initiates_postponed",
    "initiates_received",
    "initiates_replayed",
    "initiates_sent",
    "initiates_superseded",
    "malformed",
    "outgoing_dropped",
    "refused",
    "responds_invalid",
    "responds_postponed",
    "responds_repeated",
    "responds_sent",
    "responds_unmatched",
    "responds_withheld",
    "versions_ignored",
    "versions_received",
    "versions_sent",
)
"""The names in `HandshakeDesk.stats`, all counted from the start."""

_K = TypeVar("_K")


@dataclass(slots=True)
class HandshakeContext:
    """Shared by the initiator's and the responder's half; see `HandshakeDesk` for the meaning of the fields.

    `static` is the private key in loaded form, with what it has in common with peers met lately.
    """

    public: PublicKey
    static: StaticKey
    config: Config
    random: Callable[[int], bytes]
    new_cid: Callable[[], int]
    receive_buffer: int
    reset_token: Callable[[int], bytes]
    versions: tuple[int, ...]
    outgoing: deque[tuple[bytes, bytes]] = field(default_factory=deque)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    @property
    def congested(self) -> bool:
        """Whether `emit` would drop."""
        return len(self.outgoing) >= MAX_OUTGOING

    def count(self, name: str, n: int = 1) -> None:
        """Count an event."""
        self.counts[name] += n

    def emit(self, path: bytes, datagram: bytes) -> None:
        """Queue a datagram, or drop and count it."""
        if self.congested:
            self.count("outgoing_dropped")
        else:
            self.outgoing.append((path, datagram))


def remember(table: OrderedDict[_K, None], key: _K, limit: int) -> None:
    """Add to a set that forgets its oldest member beyond `limit`."""
    table[key] = None
    if len(table) > limit:
        table.popitem(last=False)


def show_address(address: bytes) -> str:
    """A packed address as `host:port` or `[host]:port`."""
    try:
        host, port = unpack_address(address)
    except AddressError:
        return f"an address that is none ({address.hex()})"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
