"""Addresses as the C core and the protocol see them: 24 opaque bytes, equal exactly when the addresses are.

Layout: family u8 (4 or 6), 0, port u16, scope u32 (both big-endian; scope only for link-local IPv6), IP 16
(IPv4 in the first 4, rest 0). An IPv4-mapped IPv6 address is packed as the IPv4 address that it is.
"""

from __future__ import annotations

import socket
import struct

from burstwire.errors import AddressError

__all__ = ["ADDRESS_SIZE", "ANY_LOCAL", "PATH_SIZE", "is_mapped", "pack_address", "unpack_address"]

ADDRESS_SIZE = 24
PATH_SIZE = 48
"""A path is the remote address followed by the local one (port 0; all zero: the kernel chooses)."""

ANY_LOCAL = bytes(ADDRESS_SIZE)
"""The local half of a path that leaves the choice to the kernel."""

_LAYOUT = struct.Struct(">BxHI16s")
_MAPPED = bytes(10) + b"\xff\xff"


def is_mapped(ip: bytes) -> bool:
    """Whether 16 bytes of IPv6 are an IPv4-mapped address (RFC 4291 §2.5.5.2)."""
    return ip.startswith(_MAPPED)


def pack_address(host: str, port: int) -> bytes:
    """24 bytes for a numeric host (`192.0.2.1`, `2001:db8::1`, `fe80::1%eth0`) and a port.

    Raises `AddressError` when the host is a name, the zone is unknown or the port is out of range.
    """
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise AddressError(f"the port of {host!r} is {port!r}; it must be from 0 to 65,535")
    bare, _, zone = host.partition("%")
    try:
        if ":" not in bare:
            if zone:
                raise OSError("IPv4 has no zones")
            return _LAYOUT.pack(4, port, 0, socket.inet_pton(socket.AF_INET, bare))
        ip = socket.inet_pton(socket.AF_INET6, bare)
    except (OSError, ValueError) as error:
        raise AddressError(f"{host!r} is not a numeric IPv4 or IPv6 address: {error}") from None
    if is_mapped(ip):
        return _LAYOUT.pack(4, port, 0, ip[12:])
    link_local = ip[0] == 0xFE and ip[1] & 0xC0 == 0x80
    return _LAYOUT.pack(6, port, _scope(host, zone) if link_local and zone else 0, ip)


def _scope(host: str, zone: str) -> int:
    try:
        number = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError:
        raise AddressError(f"{host!r} names the interface {zone!r}, which does not exist") from None
    if number >= 1 << 32:
        raise AddressError(f"{host!r} names the interface {zone!r}, which does not exist")
    return number


def unpack_address(address: bytes | memoryview) -> tuple[str, int]:
    """`(host, port)` of 24 bytes; a link-local host carries its interface as `%name`, or `%number` if that
    has no name.

    Raises `AddressError` for anything that `pack_address` does not make.
    """
    if len(address) != ADDRESS_SIZE:
        raise AddressError(f"a packed address has {ADDRESS_SIZE} bytes, not {len(address)}")
    family, port, scope, ip = _LAYOUT.unpack(address)
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, ip[:4]), port
    if family != 6:
        raise AddressError(f"a packed address starts with 4 or 6, not {family}")
    host = socket.inet_ntop(socket.AF_INET6, ip)
    if not scope:
        return host, port
    try:
        return f"{host}%{socket.if_indextoname(scope)}", port
    except (OSError, OverflowError):
        return f"{host}%{scope}", port
