"""Addresses as people write them, and names looked up without blocking the loop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from burstwire.core.address import pack_address
from burstwire.errors import AddressError

if TYPE_CHECKING:
    from burstwire.core import UdpSocket

__all__ = ["Address", "lookup", "numeric", "parse_address", "reachable_from", "resolve", "show"]

Address = str | tuple[str, int]
"""``"host:port"``, ``"[v6]:port"``, ``":port"`` (every interface, both families), or ``(host, port)``."""

LOOKUP_LIMIT = 4
"""Addresses of one name that are tried: enough for two of each family, and nobody waits for a long list to fail."""


def parse_address(address: Address) -> tuple[str, int]:
    """`address` as ``(host, port)``; raises `AddressError` (a malformed one) or TypeError."""
    if isinstance(address, str):
        host, colon, digits = address.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise AddressError(f"{address!r}: write an IPv6 address as [address]:port")
        if not colon or not (digits.isascii() and digits.isdigit()):
            raise AddressError(f"{address!r} is not host:port")
        port = int(digits)
    elif isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        host, port = address[0], address[1]  # longer ones are what IPv6 sockets call their addresses
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"the port is {port!r}; it must be an int")
    else:
        raise TypeError(f"an address is 'host:port' or (host, port), not {address!r}")
    if not 0 <= port <= 65535:
        raise AddressError(f"{address!r}: the port must be from 0 to 65535")
    return host, port


def show(host: str, port: int) -> str:
    """An address as text, for messages."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def lookup(host: str, port: int) -> list[tuple[Any, ...]]:
    """What the system's resolver says, without blocking the loop; see `socket.getaddrinfo`."""
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM))


def numeric(host: str, port: int) -> bytes | None:
    """The address if `host` is one in figures, None if it is a name; raises AddressError for a bad IPv6 address."""
    try:
        return pack_address(host, port)
    except AddressError:
        if ":" in host:  # no name has one
            raise
        return None


async def resolve(host: str, port: int) -> list[bytes]:
    """The addresses of `host` in packed form, at most `LOOKUP_LIMIT`, in the order that the system prefers.

    A numeric host is not looked up. Raises `AddressError` naming the host.
    """
    known = numeric(host, port)
    if known is not None:
        return [known]
    try:
        found = await lookup(host, port)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"cannot look up {host!r}: {error}") from error
    packed: list[bytes] = []
    for family, _kind, _protocol, _name, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            name = str(address[0])
            if len(address) == 4 and address[3] and "%" not in name:
                name = f"{name}%{address[3]}"
            packed.append(pack_address(name, port))
    return list(dict.fromkeys(packed))[:LOOKUP_LIMIT]


def reachable_from(udp: UdpSocket, addresses: list[bytes]) -> list[bytes]:
    """Those of `addresses` that are of a family which the socket speaks."""
    families = {4, 6} if udp.dual else {udp.family}
    return [address for address in addresses if address[0] in families]
