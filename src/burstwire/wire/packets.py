"""The packets around a handshake, and RESET: layout only, no cryptography.

Each is a frozen dataclass with `encode()` and a classmethod `parse(data)`. `parse` takes the whole
datagram (bytes or memoryview), returns fields as `bytes` that do not refer to it, and raises
`WireError(PROTOCOL_VIOLATION, …)` for anything that cannot be one; the caller drops such a datagram.

Invariant over all protocol versions, so that an unknown one can be answered: byte 0, version, src_cid,
the place of the ephemeral key, the last 32 bytes of an INITIATE are mac1 and mac2, and at least 1,200 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.header import COOKIE, INITIATE, MIN_INITIATE_SIZE, RESET, RESPOND, VERSIONS

__all__ = [
    "MAC",
    "Cookie",
    "Initiate",
    "Reset",
    "Respond",
    "Versions",
    "initiate_header",
    "read_initiate_header",
]

Buffer = bytes | memoryview

_INITIATE: Final = Struct(">BIIB")
_RESPOND: Final = Struct(">BII")
_PREFIX: Final = Struct(">BI")

MAC: Final = 16
"""Bytes of mac1, and of mac2."""

EPHEMERAL: Final = 32
SALT: Final = 16
SEALED_COOKIE: Final = 32
TOKEN: Final = 16
ECHO: Final = 16
"""Bytes of the INITIATE's ephemeral key that VERSIONS repeats: nobody off the path guesses 128 bits."""

MIN_MESSAGE_2: Final = EPHEMERAL + 16
"""Noise IK message 2 is an ephemeral key and a sealed payload, so at least one tag."""


def _refuse(name: str, why: str) -> WireError:
    return WireError(TransportCode.PROTOCOL_VIOLATION, f"{name}: {why}")


def _check_type(data: Buffer, kind: int, name: str) -> None:
    if not len(data) or data[0] != kind:
        raise _refuse(name, "another packet type")


def initiate_header(version: int, src_cid: int, suite: int) -> bytes:
    """The first 10 bytes of an INITIATE, which the Noise prologue binds."""
    return _INITIATE.pack(INITIATE, version, src_cid, suite)


def read_initiate_header(datagram: bytes) -> tuple[int, int, int]:
    """Version, connection ID and suite of an INITIATE that has at least `MIN_INITIATE_SIZE` bytes."""
    _, version, src_cid, suite = _INITIATE.unpack_from(datagram)
    return version, src_cid, suite


@dataclass(frozen=True, slots=True)
class Initiate:
    """The first packet of a handshake, from the initiator.

    Attributes:
        version: the protocol version offered.
        src_cid: the connection ID under which the initiator wants to be addressed.
        suite: 0 Noise IK, 1 Noise IKpsk2.
        message: Noise message 1; its first 32 bytes are the ephemeral key.
        mac1: over everything before it (16 bytes).
        mac2: over everything before it, keyed by a cookie; zeros without one (16 bytes).
    """

    version: int
    src_cid: int
    suite: int
    message: bytes
    mac1: bytes = bytes(MAC)
    mac2: bytes = bytes(MAC)

    HEADER_SIZE: ClassVar[int] = 10
    OVERHEAD: ClassVar[int] = 10 + 2 * MAC
    """Bytes of an INITIATE that are not the Noise message."""

    @property
    def header(self) -> bytes:
        """The 10 bytes before the Noise message."""
        return initiate_header(self.version, self.src_cid, self.suite)

    @property
    def ephemeral(self) -> bytes:
        """The initiator's ephemeral public key (32 bytes)."""
        return self.message[:EPHEMERAL]

    @property
    def mac1_input(self) -> bytes:
        """What mac1 is computed over."""
        return self.header + self.message

    @property
    def mac2_input(self) -> bytes:
        """What mac2 is computed over."""
        return self.header + self.message + self.mac1

    def encode(self) -> bytes:
        """The datagram; at least 1,200 bytes if the payload in `message` was padded as it must be."""
        return self.header + self.message + self.mac1 + self.mac2

    @classmethod
    def parse(cls, data: Buffer) -> Initiate:
        """Read one of any version; raises WireError."""
        _check_type(data, INITIATE, "INITIATE")
        if len(data) < MIN_INITIATE_SIZE:
            raise _refuse("INITIATE", f"{len(data)} bytes; at least {MIN_INITIATE_SIZE}")
        _, version, src_cid, suite = _INITIATE.unpack_from(data)
        return cls(
            version,
            src_cid,
            suite,
            bytes(data[cls.HEADER_SIZE : -2 * MAC]),
            bytes(data[-2 * MAC : -MAC]),
            bytes(data[-MAC:]),
        )


@dataclass(frozen=True, slots=True)
class Respond:
    """The responder's answer.

    Attributes:
        dst_cid: the INITIATE's src_cid.
        src_cid: the connection ID under which the responder wants to be addressed.
        message: Noise message 2.
    """

    dst_cid: int
    src_cid: int
    message: bytes

    OVERHEAD: ClassVar[int] = 9
    """Bytes of a RESPOND that are not the Noise message."""

    def encode(self) -> bytes:
        """The datagram."""
        return _RESPOND.pack(RESPOND, self.dst_cid, self.src_cid) + self.message

    @classmethod
    def parse(cls, data: Buffer) -> Respond:
        """Read one; raises WireError."""
        _check_type(data, RESPOND, "RESPOND")
        if len(data) < cls.OVERHEAD + MIN_MESSAGE_2:
            raise _refuse("RESPOND", f"{len(data)} bytes; at least {cls.OVERHEAD + MIN_MESSAGE_2}")
        _, dst_cid, src_cid = _RESPOND.unpack_from(data)
        return cls(dst_cid, src_cid, bytes(data[cls.OVERHEAD :]))


@dataclass(frozen=True, slots=True)
class Cookie:
    """The answer of a responder under load: prove your address first.

    Attributes:
        dst_cid: the INITIATE's src_cid.
        salt: makes the one-time key (16 bytes).
        sealed: the cookie, 16 bytes and a tag of 16.
    """

    dst_cid: int
    salt: bytes
    sealed: bytes

    SIZE: ClassVar[int] = 5 + SALT + SEALED_COOKIE

    def encode(self) -> bytes:
        """The datagram."""
        return _PREFIX.pack(COOKIE, self.dst_cid) + self.salt + self.sealed

    @classmethod
    def parse(cls, data: Buffer) -> Cookie:
        """Read one; raises WireError."""
        _check_type(data, COOKIE, "COOKIE")
        if len(data) != cls.SIZE:
            raise _refuse("COOKIE", f"{len(data)} bytes instead of {cls.SIZE}")
        return cls(_PREFIX.unpack_from(data)[1], bytes(data[5 : 5 + SALT]), bytes(data[5 + SALT :]))


@dataclass(frozen=True, slots=True)
class Versions:
    """The answer to an INITIATE of an unknown version.

    Attributes:
        dst_cid: the INITIATE's src_cid.
        echo: the first 16 bytes of the INITIATE's ephemeral key.
        versions: what the responder speaks, one or more.
    """

    dst_cid: int
    echo: bytes
    versions: tuple[int, ...]

    def encode(self) -> bytes:
        """The datagram."""
        return _PREFIX.pack(VERSIONS, self.dst_cid) + self.echo + b"".join(v.to_bytes(4) for v in self.versions)

    @classmethod
    def parse(cls, data: Buffer) -> Versions:
        """Read one; raises WireError."""
        _check_type(data, VERSIONS, "VERSIONS")
        body = bytes(data[5 + ECHO :])
        if not body or len(body) % 4:
            raise _refuse("VERSIONS", "no whole list of versions")
        versions = tuple(int.from_bytes(body[i : i + 4]) for i in range(0, len(body), 4))
        return cls(_PREFIX.unpack_from(data)[1], bytes(data[5 : 5 + ECHO]), versions)


@dataclass(frozen=True, slots=True)
class Reset:
    """The answer to DATA of an unknown connection ID (RFC 9000 §10.3).

    Attributes:
        cid: the connection ID of the packet that provoked it, so one that the receiver of this sent to.
        token: what the sender gave in the handshake of that connection (16 bytes).
    """

    cid: int
    token: bytes

    SIZE: ClassVar[int] = 5 + TOKEN

    def encode(self) -> bytes:
        """The datagram; always shorter than the shortest DATA packet."""
        return _PREFIX.pack(RESET, self.cid) + self.token

    @classmethod
    def parse(cls, data: Buffer) -> Reset:
        """Read one; raises WireError."""
        _check_type(data, RESET, "RESET")
        if len(data) != cls.SIZE:
            raise _refuse("RESET", f"{len(data)} bytes instead of {cls.SIZE}")
        return cls(_PREFIX.unpack_from(data)[1], bytes(data[5:]))
