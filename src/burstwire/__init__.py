"""Encrypted, reliable UDP transport: messages, streams and datagrams between peers who know each other by public key.

::

    import burstwire as bw

    key = bw.KeyPair.generate()
    async with await bw.bind("0.0.0.0:0", key) as endpoint:
        async with await endpoint.connect("peer.example:4433", peer_key, timeout=5.0) as conn:
            await conn.send(b"hello")
            answer = await conn.recv()

Everything that a node needs is here; `burstwire.core` is the layer below, for code that wants raw trains of packets,
and `burstwire.sim` is a network in memory, for tests.
"""

from __future__ import annotations

from burstwire import _interpreter, core, crypto  # noqa: F401  the first one refuses what would not work
from burstwire.aio import Channel, ChannelClosed, Connection, Endpoint, Stream, bind
from burstwire.config import Config
from burstwire.errors import (
    AddressError,
    ConfigError,
    ConnectionLost,
    CryptoError,
    DeadlineExceeded,
    EndpointClosed,
    HandshakeError,
    HandshakeRefused,
    HandshakeTimeout,
    IdleTimeout,
    KeyFormatError,
    LocallyClosed,
    LocalProtocolError,
    MessageTooLarge,
    PeerClosed,
    PeerStalled,
    RemoteProtocolError,
    StreamError,
    StreamFinished,
    StreamReset,
    StreamStopped,
    TransportError,
    VersionMismatch,
)
from burstwire.identity import KeyPair, PublicKey

__all__ = [
    "AddressError",
    "Channel",
    "ChannelClosed",
    "Config",
    "ConfigError",
    "Connection",
    "ConnectionLost",
    "CryptoError",
    "DeadlineExceeded",
    "Endpoint",
    "EndpointClosed",
    "HandshakeError",
    "HandshakeRefused",
    "HandshakeTimeout",
    "IdleTimeout",
    "KeyFormatError",
    "KeyPair",
    "LocalProtocolError",
    "LocallyClosed",
    "MessageTooLarge",
    "PeerClosed",
    "PeerStalled",
    "PublicKey",
    "RemoteProtocolError",
    "Stream",
    "StreamError",
    "StreamFinished",
    "StreamReset",
    "StreamStopped",
    "TransportError",
    "VersionMismatch",
    "bind",
    "core",
    "crypto",
]
