"""HOST:PORT on the command line, and the host that a peer elsewhere can use."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket

__all__ = ["format_address", "is_wildcard", "parse_address", "reachable_host"]

_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Documentation addresses (RFC 5737, RFC 3849): connecting a UDP socket picks a route and sends nothing."""


def parse_address(text: str, *, listening: bool = False) -> tuple[str, int]:
    """ "host:port", "[v6]:port", and when `listening` also ":port" (every address) and port 0 (any free one).

    Raises ValueError with the words for the user.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} lacks a port; write HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        bare, _, _ = host.partition("%")
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError(f"{text!r} is ambiguous; write an IPv6 address in brackets: [ADDRESS]:PORT")
    if not host and not listening:
        raise ValueError(f"{text!r} lacks a host; write HOST:PORT")
    if any(character.isspace() or not character.isprintable() for character in host):
        raise ValueError(f"{host!r} is not a host name")
    lowest = 0 if listening else 1
    port = int(port_text) if re.fullmatch("[0-9]{1,5}", port_text) else -1
    if not lowest <= port <= 65535:
        raise ValueError(f"{port_text!r} is not a port; it must be from {lowest} to 65535")
    return host, port


def format_address(address: tuple[str, int]) -> str:
    """The inverse of `parse_address`."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """Whether listening on `host` means every address of the machine."""
    return host in ("", "0.0.0.0", "::")  # noqa: S104  compared


def reachable_host(host: str) -> str:
    """The address to give to a peer: `host` itself, or for a wildcard the one that the default route uses."""
    if not is_wildcard(host):
        return host
    for family, target in _PROBES:
        if host == "0.0.0.0" and family != socket.AF_INET:  # noqa: S104  asked for
            continue
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1" if host != "::" else "::1"
