"""The bytes on the wire: varints, packet headers, handshake packets, frames and transport parameters.

Pure layout: nothing here knows keys, sockets, clocks or connections. Whatever a peer sends, reading it
either succeeds or raises `WireError` with an RFC 9000 §20.1 code.
"""

__all__: list[str] = []
