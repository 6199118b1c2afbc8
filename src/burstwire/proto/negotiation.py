"""What the two sides of a handshake agree on: parameters, version, packet protection, application protocol.

Pure functions over `TransportParameters`. The initiator offers (`offer`), the responder judges the offer
(`judge`) and answers (`answer`) or declines (`refusal`), the initiator checks the answer (`check_answer`).
Everything here is read from inside Noise payloads, so it is authenticated; only the version of the first
INITIATE is chosen before that, which is why both lists of versions are compared again (`best_version`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Final

from burstwire.config import Config
from burstwire.errors import HandshakeError, HandshakeRefused, VersionMismatch
from burstwire.wire.parameters import AEAD_IDS, TransportParameters

__all__ = [
    "MAX_REASON",
    "Refusal",
    "Refused",
    "answer",
    "best_version",
    "check_answer",
    "judge",
    "listed",
    "offer",
    "refusal",
    "refusal_error",
]

MAX_REASON: Final = 256
"""Bytes of a refusal's reason that are sent or shown: a sentence, and never a lever to grow RESPOND."""

MAX_DATAGRAM_FRAME: Final = 65535
"""RFC 9221 §3 recommends this value to say that any DATAGRAM frame that fits a packet is welcome."""

_AEAD_NAMES: Final = {number: name for name, number in AEAD_IDS.items()}
_CHOSEN: Final = {name: (number,) for name, number in AEAD_IDS.items()}


class Refusal(IntEnum):
    """Why a responder declines; the code travels with words of its own in RESPOND."""

    VERSION = 1
    """The versions listed do not agree with the one offered: somebody in between interfered."""
    PROTOCOL = 2
    """The application protocols differ."""
    AEAD = 3
    """No packet protection in common."""
    AUTHORIZATION = 4
    """The responder's application does not accept this key."""
    CAPACITY = 5
    """The responder has as many connections as it takes."""
    PARAMETERS = 6
    """The initiator's parameters cannot be read."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A verdict of no: what `HandshakeRefused` will carry on the other side."""

    code: int
    reason: str


def best_version(ours: Iterable[int], theirs: Iterable[int], without: Iterable[int] = ()) -> int | None:
    """The highest version that both know and that is not in `without`, or None."""
    return max(set(ours) & set(theirs) - set(without), default=None)


def _made(
    config: Config,
    versions: tuple[int, ...],
    token: bytes,
    receive_buffer: int,
    *,
    aeads: tuple[int, ...],
    observed: bytes,
    attempt: bytes | None,
    cids: tuple[int, int] | None = None,
) -> TransportParameters:
    """What both sides say alike, and the rest. The idle timeout is rounded up: a tiny one must not read as "none"."""
    return TransportParameters(
        max_idle_timeout=ceil(config.idle_timeout * 1000),
        stateless_reset_token=token,
        max_udp_payload_size=config.max_datagram_size or 65527,
        initial_max_data=config.first_connection_window,
        initial_max_stream_data_bidi_local=config.first_stream_window,
        initial_max_stream_data_bidi_remote=config.first_stream_window,
        initial_max_streams_bidi=config.max_streams,
        max_ack_delay=ceil(config.max_ack_delay * 1000),
        max_datagram_frame_size=MAX_DATAGRAM_FRAME,
        versions=versions,
        application_protocol=config.application_protocol,
        max_message_size=config.max_message_size,
        receive_buffer=receive_buffer,
        aeads=aeads,
        observed_address=observed,
        attempt=attempt,
        cids=cids,
    )


# --- the initiator offers -----------------------------------------------------------------------


def offer(
    config: Config,
    versions: tuple[int, ...],
    token: bytes,
    receive_buffer: int,
    observed: bytes,
    attempt: bytes,
) -> TransportParameters:
    """The payload of message 1.

    Args:
        config: what this endpoint may do.
        versions: protocol versions known.
        token: the stateless reset token of the new connection (16 bytes).
        receive_buffer: bytes of socket buffer that the kernel granted.
        observed: the responder's address as it is dialled (24 bytes).
        attempt: names this attempt, for simultaneous open (8 bytes).
    """
    aeads = tuple(AEAD_IDS[name] for name in config.aeads)
    return _made(config, versions, token, receive_buffer, aeads=aeads, observed=observed, attempt=attempt)


# --- the responder judges and answers -----------------------------------------------------------


def judge(offered: TransportParameters, config: Config, version: int, versions: tuple[int, ...]) -> str | Refused:
    """The packet protection to use with this initiator, or why there is no connection with it.

    The initiator's order of preference decides among the AEADs that both sides allow.

    Args:
        offered: the payload of message 1.
        config: what this endpoint may do.
        version: the version of the INITIATE.
        versions: the versions that this side speaks.
    """
    if version not in offered.versions or best_version(versions, offered.versions) != version:
        return Refused(
            Refusal.VERSION,
            f"version {version:#x} was offered, the sealed list says {listed(offered.versions)}",
        )
    if offered.attempt is None:
        return Refused(Refusal.PARAMETERS, "the attempt id is missing")
    if offered.application_protocol != config.application_protocol:
        return Refused(
            Refusal.PROTOCOL,
            f"application protocol {offered.application_protocol!r} was offered, "
            f"{config.application_protocol!r} is spoken here",
        )
    for number in offered.aeads:
        name = _AEAD_NAMES.get(number)
        if name in config.aeads:
            assert name is not None
            return name
    return Refused(Refusal.AEAD, f"no packet protection in common; here: {', '.join(config.aeads)}")


def answer(
    config: Config,
    versions: tuple[int, ...],
    token: bytes,
    receive_buffer: int,
    observed: bytes,
    aead: str,
    cids: tuple[int, int],
    instead_of: bytes | None,
) -> TransportParameters:
    """The payload of a message 2 that accepts.

    Args:
        config: what this endpoint may do.
        versions: protocol versions known.
        token: the stateless reset token of the new connection (16 bytes).
        receive_buffer: bytes of socket buffer that the kernel granted.
        observed: where the INITIATE came from (24 bytes).
        aead: what `judge` chose.
        cids: destination and source connection ID of the RESPOND.
        instead_of: the id of this side's own attempt that gives way (simultaneous open), or None.
    """
    return _made(
        config,
        versions,
        token,
        receive_buffer,
        aeads=_CHOSEN[aead],
        observed=observed,
        attempt=instead_of,
        cids=cids,
    )


def refusal(refused: Refused, versions: tuple[int, ...], cids: tuple[int, int]) -> TransportParameters:
    """The payload of a message 2 that declines; the reason is cut to `MAX_REASON` bytes."""
    reason = refused.reason.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
    return TransportParameters(versions=versions, refusal=(refused.code, reason), cids=cids)


# --- the initiator checks -----------------------------------------------------------------------


def check_answer(offered: TransportParameters, answered: TransportParameters, version: int, peer: object) -> str:
    """The packet protection that the responder chose.

    Args:
        offered: the payload of our message 1.
        answered: the payload of its message 2.
        version: the version of our INITIATE.
        peer: what is the peer in words as a `str`, for messages.

    Raises:
        HandshakeRefused: it declined.
        VersionMismatch: it speaks a better common version than the one that the (unauthenticated)
            VERSIONS packet left us with, so that packet was forged.
        HandshakeError: its answer makes no sense.
    """
    if answered.refusal is not None:
        code, reason = answered.refusal
        raise refusal_error(code, reason, peer)
    if best_version(offered.versions, answered.versions) != version:
        raise VersionMismatch(
            answered.versions,
            f"{peer} says that it speaks {listed(answered.versions)}, but the handshake ended up with version "
            f"{version:#x}: somebody on the way interfered with it",
        )
    if answered.application_protocol != offered.application_protocol:
        raise HandshakeError(
            f"{peer} answered with application protocol {answered.application_protocol!r} "
            f"instead of {offered.application_protocol!r}"
        )
    if len(answered.aeads) != 1 or answered.aeads[0] not in offered.aeads:
        raise HandshakeError(f"{peer} chose a packet protection that was not offered ({list(answered.aeads)})")
    return _AEAD_NAMES[answered.aeads[0]]


def refusal_error(code: int, reason: str, peer: object) -> HandshakeRefused:
    """The error for a refusal that arrived; unprintable characters of the peer's words are escaped."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in reason[:MAX_REASON])
    try:
        name = Refusal(code).name.lower()
    except ValueError:
        name = "unknown"
    return HandshakeRefused(
        code, shown, f"{peer} refused the connection: {shown or 'no reason given'} (code {code}, {name})"
    )


def listed(versions: tuple[int, ...]) -> str:
    """Versions in words, for messages."""
    return ", ".join(f"{version:#x}" for version in versions[:16]) or "no version"
