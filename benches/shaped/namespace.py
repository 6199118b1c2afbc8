"""Network namespaces without a name: one lives as long as its descriptor is open, so none is ever left behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

__all__ = ["Namespace", "ShapedError"]

CLONE_NEWNET = 0x40000000
OURS = "/proc/thread-self/ns/net"


class ShapedError(Exception):
    """A namespace or a link could not be made; the message says what was refused."""


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise ShapedError(f"{name}: {os.strerror(error)}")


class Namespace:
    """A host of its own: interfaces, addresses, routes, sockets. It has a loopback interface that is up, nothing else.

    Attributes:
        descriptor: an open file descriptor of it.
    """

    def __init__(self) -> None:
        home = os.open(OURS, os.O_RDONLY)
        try:
            _call("unshare", CLONE_NEWNET)
            try:
                self.descriptor = os.open(OURS, os.O_RDONLY)
            finally:
                _call("setns", home, CLONE_NEWNET)
        finally:
            os.close(home)
        # What nobody asked for must not be among the packets that are counted: no router solicitations, no MLD reports.
        self.setting("ipv6/conf/default/router_solicitations", "0")
        self.setting("ipv6/conf/default/addr_gen_mode", "1")
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets made and processes started by this thread meanwhile belong to this host."""
        home = os.open(OURS, os.O_RDONLY)
        try:
            _call("setns", self.descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", home, CLONE_NEWNET)
        finally:
            os.close(home)

    def run(self, *command: str, text: str | None = None) -> str:
        """What a command prints that runs here, with `text` as its input; raises `ShapedError` when it fails."""
        with self.inside():
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ShapedError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def setting(self, name: str, value: str) -> None:
        """Change /proc/sys/net/`name` here."""
        with self.inside(), open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)

    def counter(self, name: str) -> int:
        """A counter of this host's IPv4 layer (the names of /proc/net/snmp, group Ip), e.g. `FragCreates`."""
        with self.inside(), open("/proc/thread-self/net/snmp") as snmp:
            names, values = [line.split()[1:] for line in snmp if line.startswith("Ip:")]
        return int(dict(zip(names, values, strict=True))[name])

    def counter6(self, name: str) -> int:
        """The same of IPv6 (/proc/net/snmp6), e.g. `Ip6FragCreates`."""
        with self.inside(), open("/proc/thread-self/net/snmp6") as snmp:
            return int(dict(line.split() for line in snmp)[name])
