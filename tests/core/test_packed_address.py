"""Packed addresses: equal exactly when the addresses are."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.core import ADDRESS_SIZE, pack_address, unpack_address
from burstwire.errors import AddressError, TransportError

PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), PORTS)
def test_ipv4_survives(ip: ipaddress.IPv4Address, port: int) -> None:
    packed = pack_address(str(ip), port)
    assert len(packed) == ADDRESS_SIZE
    assert packed == b"\x04\x00" + port.to_bytes(2) + bytes(4) + ip.packed + bytes(12)
    assert unpack_address(packed) == (str(ip), port)


@given(st.ip_addresses(v=6), PORTS)
def test_ipv6_survives(ip: ipaddress.IPv6Address, port: int) -> None:
    host, back = unpack_address(pack_address(str(ip), port))
    assert back == port
    assert ipaddress.ip_address(host) == (ip.ipv4_mapped or ip)


def test_a_mapped_address_is_the_ipv4_address_that_it_is() -> None:
    assert pack_address("::ffff:192.0.2.7", 5) == pack_address("192.0.2.7", 5)


def test_only_link_local_addresses_keep_their_zone() -> None:
    assert unpack_address(pack_address("fe80::1%lo", 9)) == ("fe80::1%lo", 9)
    assert pack_address("fe80::1%lo", 9) == pack_address("fe80::1%1", 9)
    assert pack_address("2001:db8::1%lo", 9) == pack_address("2001:db8::1", 9)
    assert unpack_address(pack_address("fe80::1%4000000000", 9)) == ("fe80::1%4000000000", 9)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4%lo",
        "::g",
        "fe80::1%no-such-interface",
        "fe80::1%4294967296",
        "1.2.3.4\0",
    ],
)
def test_a_host_that_is_no_number_is_named_in_the_error(host: str) -> None:
    with pytest.raises(AddressError) as caught:
        pack_address(host, 1)
    assert repr(host) in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, TransportError)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(AddressError, match="port"):
        pack_address("127.0.0.1", port)


@pytest.mark.parametrize("packed", [b"", bytes(23), bytes(24), b"\x05" + bytes(23), bytes(25)])
def test_what_is_no_packed_address_is_refused(packed: bytes) -> None:
    with pytest.raises(AddressError):
        unpack_address(packed)
