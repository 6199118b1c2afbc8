"""What reading malformed bytes raises, and the transport error codes (RFC 9000 §20.1)."""

from __future__ import annotations

from enum import IntEnum

from burstwire.errors import TransportError

__all__ = ["FrameEncodingError", "TransportCode", "WireError"]


class TransportCode(IntEnum):
    """Transport error codes with the numbers and meanings of RFC 9000 §20.1."""

    NO_ERROR = 0x00
    INTERNAL_ERROR = 0x01
    CONNECTION_REFUSED = 0x02
    FLOW_CONTROL_ERROR = 0x03
    STREAM_LIMIT_ERROR = 0x04
    STREAM_STATE_ERROR = 0x05
    FINAL_SIZE_ERROR = 0x06
    FRAME_ENCODING_ERROR = 0x07
    TRANSPORT_PARAMETER_ERROR = 0x08
    PROTOCOL_VIOLATION = 0x0A
    APPLICATION_ERROR = 0x0C
    KEY_UPDATE_ERROR = 0x0E
    AEAD_LIMIT_REACHED = 0x0F
    NO_VIABLE_PATH = 0x10


class WireError(TransportError):
    """Bytes from a peer do not follow the protocol.

    Internal to the layers below `proto/`, which turns it into a close or a silent drop.

    Attributes:
        code: the RFC 9000 §20.1 code to close the connection with.
        reason: what is wrong, in words for a log and for the peer.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (code {code:#x})")
        self.code = int(code)
        self.reason = reason


class FrameEncodingError(WireError):
    """A frame or varint is cut short or holds an impossible value (FRAME_ENCODING_ERROR)."""

    def __init__(self, reason: str) -> None:
        super().__init__(TransportCode.FRAME_ENCODING_ERROR, reason)
