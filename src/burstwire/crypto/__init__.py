"""Noise handshake, key schedule, packet protection, cookies and reset tokens.

No sockets, clocks or event loop here, and no randomness except what is passed in; the one exception is a
Noise ephemeral key, which `HandshakeState` generates itself unless it is given one or a source.
"""

__all__: list[str] = []
