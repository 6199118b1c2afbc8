"""Everything that burstwire raises on purpose.

The tree (indentation is inheritance)::

    TransportError
    ├── ConfigError                 a setting or an argument is out of range (also a ValueError)
    ├── KeyFormatError              a key's text or file is not one (also a ValueError)
    ├── AddressError                an address cannot be used or bound (also an OSError)
    ├── EndpointClosed              the endpoint was closed, or belongs to the parent of a fork
    ├── HandshakeError              no connection came to be
    │   ├── HandshakeTimeout        the peer did not answer in time (also a TimeoutError)
    │   ├── HandshakeRefused        the peer answered: no (code, reason)
    │   └── VersionMismatch         no protocol version in common
    ├── ConnectionLost              a connection that was up has ended
    │   ├── PeerClosed              the peer closed it (code, reason)
    │   ├── LocallyClosed           this side closed it
    │   ├── IdleTimeout             nothing was heard for the idle timeout (also a TimeoutError)
    │   ├── LocalProtocolError      this side was used against the rules; nothing was changed
    │   └── RemoteProtocolError     the peer broke the protocol (code, reason)
    ├── PeerStalled                 the peer let nothing be sent for too long (also a TimeoutError)
    ├── DeadlineExceeded            the `timeout` of one call was over (also a TimeoutError)
    ├── StreamError
    │   ├── StreamReset             the peer abandoned what it was sending (code)
    │   ├── StreamStopped           the peer wants no more of what we send (code)
    │   └── StreamFinished          written to after `finish()`
    ├── MessageTooLarge             a message or datagram exceeds what the peer takes (also a ValueError)
    └── CryptoError                 a tag did not verify, a counter or key ran out
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AddressError",
    "ConfigError",
    "ConnectionLost",
    "CryptoError",
    "DeadlineExceeded",
    "EndpointClosed",
    "HandshakeError",
    "HandshakeRefused",
    "HandshakeTimeout",
    "IdleTimeout",
    "KeyFormatError",
    "LocalProtocolError",
    "LocallyClosed",
    "MessageTooLarge",
    "PeerClosed",
    "PeerStalled",
    "RemoteProtocolError",
    "StreamError",
    "StreamFinished",
    "StreamReset",
    "StreamStopped",
    "TransportError",
    "VersionMismatch",
]


class TransportError(Exception):
    """Base of every error that burstwire raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with the finished message, which is not what most of these are made of.
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[TransportError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TransportError:
    """An error out of its pickle."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigError(TransportError, ValueError):
    """A setting or an argument is out of range; the message names it and the range."""


class KeyFormatError(TransportError, ValueError):
    """The text or the file does not hold a key; the message says what is wrong with it."""


class AddressError(TransportError, OSError):
    """An address cannot be resolved, bound or sent to; the message names the address and the cause."""


class EndpointClosed(TransportError):
    """The endpoint was closed, or was made by the process that this one was forked from."""


class HandshakeError(TransportError):
    """No connection came to be."""


class HandshakeTimeout(HandshakeError, TimeoutError):
    """The peer did not answer within the time given."""


class HandshakeRefused(HandshakeError):
    """The peer authenticated itself and declined.

    Attributes:
        code: the refusal code that the peer sent.
        reason: its words, possibly empty.
    """

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(message or f"the peer refused the connection: {reason or 'no reason given'} (code {code})")
        self.code = code
        self.reason = reason


class VersionMismatch(HandshakeError):
    """The peer speaks none of the protocol versions that this side speaks.

    Attributes:
        peer_versions: what the peer speaks, as far as it said so.
    """

    def __init__(self, peer_versions: tuple[int, ...], message: str = "") -> None:
        listed = ", ".join(f"{version:#x}" for version in peer_versions) or "none that we know"
        super().__init__(message or f"no protocol version in common; the peer speaks {listed}")
        self.peer_versions = peer_versions


class ConnectionLost(TransportError):
    """A connection that was up has ended; the subclass says how."""


class PeerClosed(ConnectionLost):
    """The peer closed the connection.

    Attributes:
        code: the application's or the transport's code, 0 for "no error".
        reason: the peer's words, possibly empty.
        by_application: whether the peer's application closed it (else its transport did).
    """

    def __init__(self, code: int = 0, reason: str = "", by_application: bool = True) -> None:
        super().__init__(f"the peer closed the connection (code {code}{': ' + reason if reason else ''})")
        self.code = code
        self.reason = reason
        self.by_application = by_application


class LocallyClosed(ConnectionLost):
    """This side closed the connection, so nothing more can be done with it."""

    def __init__(self, message: str = "the connection was closed by this side") -> None:
        super().__init__(message)


class IdleTimeout(ConnectionLost, TimeoutError):
    """Nothing was heard from the peer for the negotiated idle timeout."""


class LocalProtocolError(ConnectionLost):
    """This side was used against the rules of the protocol; the call changed nothing."""


class RemoteProtocolError(ConnectionLost):
    """The peer broke the protocol and the connection was closed because of it.

    Attributes:
        code: the RFC 9000 §20.1 transport error code that was sent to the peer.
        reason: what it did.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the peer broke the protocol: {reason} (code {code:#x})")
        self.code = code
        self.reason = reason


class PeerStalled(TransportError, TimeoutError):
    """For `Config.stall_timeout` the peer, though alive, let nothing be sent: it does not read, or ends no stream.

    The message names the peer and what it has not done. The stream and the connection go on; whoever gives up resets
    the one or closes the other.
    """


class DeadlineExceeded(TransportError, TimeoutError):
    """The `timeout` given to a call was over; the message says what was waited for. What was waited on goes on."""


class StreamError(TransportError):
    """One stream ended other than by its end; the connection goes on."""


class StreamReset(StreamError):
    """The peer abandoned the sending part of the stream; what was unread is gone.

    Attributes:
        code: the peer application's code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer reset the stream (code {code})")
        self.code = code


class StreamStopped(StreamError):
    """The peer asked to be sent nothing more on this stream.

    Attributes:
        code: the peer application's code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer stopped reading the stream (code {code})")
        self.code = code


class StreamFinished(StreamError):
    """The stream was written to after its `finish()` or `reset()`."""


class MessageTooLarge(TransportError, ValueError):
    """A message or datagram is larger than the peer accepts; nothing was sent.

    Attributes:
        size: bytes offered.
        limit: bytes that would have been accepted.
    """

    def __init__(self, size: int, limit: int, what: str = "message") -> None:
        super().__init__(f"the {what} has {size:,} bytes; the peer takes at most {limit:,}")
        self.size = size
        self.limit = limit


class CryptoError(TransportError):
    """A tag did not verify, or a key or counter cannot be used any more."""
