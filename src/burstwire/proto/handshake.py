"""One handshake, seen from either end: the cryptographic states between an INITIATE and its RESPOND.

Noise IK (suite 0) or IKpsk2 (suite 1), Noise specification rev 34. The prologue is `burstwire 1` and the
INITIATE's header, so version, connection ID and suite are bound; RESPOND's header is bound by the two
connection IDs inside its sealed payload.

No timers, no tables, no retries: those are `desk.py`. Randomness comes in as arguments. Invariants:

- Nothing read from a packet changes a state unless all of it verified: an `Initiator` opens every RESPOND
  on a copy, and a `Responder` exists only for an INITIATE that opened.
- An INITIATE is sealed once; what is resent differs in mac2 only.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from burstwire.crypto import cookie, keys
from burstwire.crypto.noise import MESSAGE_1_OVERHEAD, HandshakeState, StaticKey
from burstwire.crypto.secret import Material, Secret
from burstwire.errors import CryptoError, HandshakeError
from burstwire.identity import PublicKey
from burstwire.wire.errors import WireError
from burstwire.wire.header import MIN_INITIATE_SIZE
from burstwire.wire.packets import Cookie, Initiate, Respond, Versions, initiate_header
from burstwire.wire.parameters import TransportParameters, decode, encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

__all__ = ["Established", "Initiator", "Opened", "Responder", "suite_for"]

PADDED_PAYLOAD: Final = MIN_INITIATE_SIZE - Initiate.OVERHEAD - MESSAGE_1_OVERHEAD
"""Bytes of payload that make an INITIATE 1,200 bytes long."""


@dataclass(slots=True)
class Established:
    """Everything that a connection needs once both handshake messages were exchanged.

    Attributes:
        is_initiator: whether this side sent the INITIATE.
        local_cid: the connection ID that this side receives under.
        remote_cid: the connection ID to send to.
        path: remote and local address (48 bytes), 24 bytes each as in `core/address.py`.
        send_secret: protects what this side sends.
        receive_secret: protects what the peer sends.
        aead: the packet protection, a name of `config.AEADS`.
        peer_key: the identity that the peer proved (initiator) or that holds the secrets once DATA opens
            (responder).
        local_parameters: what this side promised.
        peer_parameters: what the peer promised.
        attempt: the number that `HandshakeDesk.connect` gave, or None when the peer started it.
        handshake_rtt: seconds between INITIATE and RESPOND, or between RESPOND and DATA; None when
            something was sent twice, so that nobody knows which copy was answered (Karn's algorithm).
        now: when this side saw or sent the RESPOND.
    """

    is_initiator: bool
    local_cid: int
    remote_cid: int
    path: bytes
    send_secret: Material
    receive_secret: Material
    aead: str
    peer_key: PublicKey
    local_parameters: TransportParameters
    peer_parameters: TransportParameters
    attempt: int | None
    handshake_rtt: float | None
    now: float

    def __repr__(self) -> str:
        side = "initiator" if self.is_initiator else "responder"
        return f"<Established {side} {self.local_cid:#010x} → {self.remote_cid:#010x} with {self.peer_key}, secrets …>"


def suite_for(preshared_key: bytes | None) -> int:
    """0 Noise IK, 1 Noise IKpsk2."""
    return 0 if preshared_key is None else 1


def _prologue(version: int, header: bytes) -> bytes:
    return b"burstwire %d" % version + header


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A RESPOND that verified.

    Attributes:
        answered: the responder's parameters, or its refusal.
        send_secret: protects what this side sends.
        receive_secret: protects what the peer sends.
    """

    answered: TransportParameters
    send_secret: Material
    receive_secret: Material


class Initiator:
    """An INITIATE, and the state that reads its RESPOND. Costs a key generation and two X25519, one with a known peer.

    Attributes:
        offered: the parameters in message 1.
        version: the protocol version offered.
        local_cid: the connection ID offered.

    Args:
        static: this side's private key; as a `StaticKey` it remembers what it has in common with a peer.
        peer_key: who must answer.
        offered: the payload of message 1.
        version: the protocol version to offer.
        local_cid: where the answer shall go.
        preshared_key: 32 bytes for suite 1, None for suite 0.
        random: gives so many random bytes, for the ephemeral key.
    """

    __slots__ = ("_ephemeral", "_noise", "_peer_key", "_signed", "local_cid", "offered", "version")

    def __init__(
        self,
        static: StaticKey | X25519PrivateKey,
        peer_key: PublicKey,
        offered: TransportParameters,
        *,
        version: int,
        local_cid: int,
        preshared_key: bytes | None,
        random: Callable[[int], bytes],
    ) -> None:
        self.offered = offered
        self.version = version
        self.local_cid = local_cid
        self._peer_key = bytes(peer_key)
        header = initiate_header(version, local_cid, suite_for(preshared_key))
        self._noise = HandshakeState(
            True, static, self._peer_key, _prologue(version, header), psk=preshared_key, random=random
        )
        message = self._noise.write_message(encode(offered, PADDED_PAYLOAD))
        self._ephemeral = message[:32]
        self._signed = header + message
        self._signed += cookie.mac(cookie.mac1_key(self._peer_key), self._signed)

    def datagram(self, proof: bytes | None) -> bytes:
        """The INITIATE; with a cookie, its mac2 proves this side's address."""
        return self._signed + (cookie.NO_MAC if proof is None else cookie.mac(proof, self._signed))

    def open_cookie(self, packet: Cookie) -> bytes | None:
        """The cookie in an answer to this INITIATE, or None if it is not one."""
        mac1 = self._signed[-len(cookie.NO_MAC) :]
        try:
            return cookie.open_cookie(self._peer_key, packet.salt, mac1, packet.sealed)
        except CryptoError:
            return None

    def believes(self, packet: Versions) -> bool:
        """Whether VERSIONS answers this INITIATE and really does not know its version."""
        return packet.echo == self._ephemeral[:16] and self.version not in packet.versions

    def open(self, packet: Respond, peer: object) -> Opened | None:
        """What a RESPOND says, or None when it is not the peer's or was altered; then nothing has changed.

        Costs two X25519.

        Args:
            packet: the RESPOND.
            peer: what is the peer in words as a `str`, for messages.

        Raises:
            HandshakeError: the peer itself sealed something that makes no sense.
        """
        noise = copy(self._noise)  # its parts are replaced, never changed, so a shallow copy stands alone
        try:
            payload = noise.read_message(packet.message)
        except HandshakeError:
            return None
        try:
            answered = decode(payload)
        except WireError as error:
            raise HandshakeError(f"the answer of {peer} cannot be read: {error.reason}") from error
        if answered.cids != (packet.dst_cid, packet.src_cid):
            return None
        return Opened(answered, *keys.derive(noise.split(), True, noise.handshake_hash))


class Responder:
    """An INITIATE that opened, and the state that answers it. Costs two X25519, one with a known peer.

    Message 1 may be a replay: that the peer is there now, only its first DATA shows.

    Attributes:
        peer_key: the key that sealed message 1.

    Args:
        static: this side's private key, as for `Initiator`.
        packet: the INITIATE; mac1 was checked.
        preshared_key: 32 bytes for suite 1, None for suite 0.
        random: gives so many random bytes, for the ephemeral key.

    Raises:
        HandshakeError: message 1 does not open.
    """

    __slots__ = ("_noise", "_payload", "peer_key")

    def __init__(
        self,
        static: StaticKey | X25519PrivateKey,
        packet: Initiate,
        preshared_key: bytes | None,
        random: Callable[[int], bytes],
    ) -> None:
        prologue = _prologue(packet.version, packet.header)
        self._noise = HandshakeState(False, static, prologue=prologue, psk=preshared_key, random=random)
        self._payload = self._noise.read_message(packet.message)
        assert self._noise.remote_static is not None
        self.peer_key = PublicKey(self._noise.remote_static)

    def read_offer(self) -> TransportParameters:
        """The payload of message 1; raises WireError when it cannot be read."""
        return decode(self._payload)

    def respond(self, dst_cid: int, src_cid: int, answered: TransportParameters) -> bytes:
        """The RESPOND datagram; once only. Costs a key generation and two X25519."""
        return Respond(dst_cid, src_cid, self._noise.write_message(encode(answered))).encode()

    def secrets(self) -> tuple[Secret, Secret]:
        """Send and receive secret; after `respond`."""
        return keys.derive(self._noise.split(), False, self._noise.handshake_hash)
