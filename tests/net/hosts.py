"""Two hosts: network namespaces that a veth pair joins, with an MTU of 1,500 bytes.

Both endpoints run in this process, each with a socket made inside its namespace; what they send crosses two real
network stacks and a link.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Host", "two_hosts"]

CLONE_NEWNET = 0x40000000


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Host:
    """One namespace.

    Attributes:
        namespace: its name.
        address: its IPv4 address on the link.
        address6: its IPv6 address there.
    """

    namespace: str
    address: str
    address6: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made by this thread meanwhile belong to this host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)

    def link(self, *words: str) -> None:
        """`ip link set` on this host's end of the link."""
        _ip("-n", self.namespace, "link", "set", "wire", *words)

    def addresses(self, *words: str) -> None:
        """`ip address` on this host's end of the link."""
        _ip("-n", self.namespace, "address", *words, "dev", "wire")

    def counter(self, name: str) -> int:
        """A counter of this host's IP layer (the names of /proc/net/snmp, group Ip)."""
        with self.inside(), open("/proc/thread-self/net/snmp") as snmp:
            names, values = [line.split()[1:] for line in snmp if line.startswith("Ip:")]
        return int(dict(zip(names, values, strict=True))[name])


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two joined hosts; they are gone afterwards."""
    a, b = (
        Host(f"bw{os.getpid()}{name}", f"10.99.0.{number}", f"fd99::{number}") for name, number in (("a", 1), ("b", 2))
    )
    made = []
    try:
        for host in (a, b):
            _ip("netns", "add", host.namespace)
            made.append(host)
        _ip("-n", a.namespace, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b.namespace)
        for host in (a, b):
            host.link("mtu", "1500", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            host.addresses("add", f"{host.address}/24")
            host.addresses("add", f"{host.address6}/64", "nodad")
        yield a, b
    finally:
        for host in made:
            _ip("netns", "delete", host.namespace)
