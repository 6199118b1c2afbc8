"""What sender and receiver of a file say to each other: the application protocol "burstwire-file/1".

One bidirectional stream carries one file; the sender opens it. Everything but the file's bytes is a header:
the length of the rest as u32, big-endian, then that many bytes of JSON, one object with a "type". ::

    sender                                   receiver
    offer {name, size, mtime_ns, mode}
                                             accept {offset: 0}         nothing of it is here
                                          or check {size}               the first `size` bytes may be here
                                          or refuse {code, reason}
    prefix {sha256}  (answers check)
                                             accept {offset}            all of them were right, or none
                                          or done {identical: true}     the whole file was here already
                                          or refuse
    bytes of the file from `offset` on
    end {sha256}     (of the whole file)
    FIN
                                             done {identical: false}    it is whole, checked and in place
                                          or refuse {code, reason}
                                             FIN

Either side may say busy {} wherever it owes a header, so that long hashing is not taken for silence; the receiver
does so also while the last bytes of a file arrive. A receiver that gives up in the middle of the bytes says refuse
and stops the stream (STOP_SENDING); a sender that gives up resets it, with `ResetCode.CHANGED` when what it sent so
far is worthless. Unknown fields are ignored, an unknown type is an error. Ping is a message, not a stream: see `PING`.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

__all__ = [
    "APPLICATION_PROTOCOL",
    "LENGTH",
    "MAX_HEADER",
    "MAX_PING",
    "PING",
    "PONG",
    "Accept",
    "Busy",
    "Check",
    "Done",
    "End",
    "Header",
    "HeaderError",
    "Offer",
    "Prefix",
    "Refuse",
    "ResetCode",
    "decode",
    "encode",
]

APPLICATION_PROTOCOL = "burstwire-file/1"

LENGTH = struct.Struct(">I")

MAX_HEADER = 4096
"""Bytes of JSON. The longest header is an offer: 255 bytes of name, six bytes each when escaped."""

PING = b"\x01"
PONG = b"\x02"
"""First byte of a message: PING and data are answered by PONG and the same data; the rest is ignored."""

MAX_PING = 1024
"""Bytes of a ping message that are answered."""

_MAX_INT = (1 << 63) - 1
_MAX_MODE = 0o7777
_MAX_REASON = 300


class HeaderError(ValueError):
    """The peer sent what is no header of this protocol."""


class ResetCode(IntEnum):
    """Why a stream ended early."""

    CANCELLED = 1
    """Interrupted; what arrived is good and may be resumed."""
    CHANGED = 2
    """The file changed while it was read; what arrived is of no use."""
    REFUSED = 3
    """The receiver wants no more; the reason is in its last header."""
    BROKEN = 4
    """The peer did not keep to this protocol, or stalled."""
    SUPERSEDED = 5
    """The same sender offered the same file again; only the newest attempt goes on."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A file: its name, size in bytes, modification time in ns since 1970 and permission bits."""

    name: str
    size: int
    mtime_ns: int
    mode: int


@dataclass(frozen=True, slots=True)
class Check:
    """The receiver may have the first `size` bytes already; the sender proves what they should be."""

    size: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """SHA-256 of the bytes asked for, as 64 hexadecimal digits."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Send the bytes from `offset` on: 0, or the size that was checked."""

    offset: int


@dataclass(frozen=True, slots=True)
class End:
    """SHA-256 of the whole file, whatever part of it travelled."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Done:
    """The file is in place; `identical`: it was before, and no byte travelled."""

    identical: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """No, or no longer; `code` is a word for programs, `reason` a line for people."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Still working; the header that is due follows."""


Header = Offer | Check | Prefix | Accept | End | Done | Refuse | Busy

_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Offer, Check, Prefix, Accept, End, Done, Refuse, Busy)
}

_HEX = re.compile(r"[0-9a-f]{64}")


def encode(header: Header) -> bytes:
    """The header as it goes onto the stream, length included."""
    fields = {"type": type(header).__name__.lower(), **asdict(header)}
    body = json.dumps(fields, separators=(",", ":")).encode()
    if len(body) > MAX_HEADER:
        raise HeaderError(f"a header of {len(body)} bytes; at most {MAX_HEADER} are allowed")
    return LENGTH.pack(len(body)) + body


def decode(body: bytes | bytearray | memoryview) -> Header:
    """The header from its JSON, without the length; raises `HeaderError` for anything else."""
    try:
        fields = json.loads(bytes(body).decode())
    except (ValueError, RecursionError) as error:
        raise HeaderError("a header is not JSON") from error
    if not isinstance(fields, dict):
        raise HeaderError("a header is not a JSON object")
    kind_name = fields.get("type")
    kind = _KINDS.get(kind_name) if isinstance(kind_name, str) else None
    if kind is None:
        raise HeaderError("a header of an unknown type")
    values = {}
    for name in kind.__dataclass_fields__:
        values[name] = _checked(kind, name, fields.get(name))
    header: Header = kind(**values)
    return header


def _checked(kind: type[Any], name: str, value: object) -> object:
    """One field's value if it has the right type and range."""
    match name:
        case "size" | "offset":
            good = type(value) is int and 0 <= value <= _MAX_INT
        case "mtime_ns":
            good = type(value) is int and -_MAX_INT <= value <= _MAX_INT
        case "mode":
            good = type(value) is int and 0 <= value <= _MAX_MODE
        case "sha256":
            good = isinstance(value, str) and _HEX.fullmatch(value) is not None
        case "identical":
            good = isinstance(value, bool)
        case "name" | "code" | "reason":
            good = isinstance(value, str) and (name == "name" or len(value) <= _MAX_REASON)
        case _:  # pragma: no cover - a field without a rule is a mistake of ours
            raise AssertionError(f"no rule for {kind.__name__}.{name}")
    if not good:
        raise HeaderError(f"the field {name!r} of a header is missing or out of range")
    return value
