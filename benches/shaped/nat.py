"""A home behind a router that does NAT: the kernel's own, with nftables and connection tracking.

    client --veth-- router ==shaped link== server

The router rewrites the client's address and UDP ports to its own, as home routers do. `Home.rebind` makes it forget
every binding and take another port from then on: to the server, the client has moved; the client sees nothing.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benches.shaped.link import Link, Shape
from benches.shaped.namespace import Namespace

__all__ = ["Home", "behind_nat"]

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_DELETE = 2
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2

RULES = """
table ip home
delete table ip home
table ip home {{
  chain out {{
    type nat hook postrouting priority 100
    oifname "wire" meta l4proto udp masquerade to :{port}
  }}
  chain in {{
    type filter hook input priority 0
    iifname "wire" meta l4proto udp drop
  }}
}}
"""
"""One transaction of nft: there is no moment without a rule. What comes from outside to a port without a binding is
dropped, as by real routers: taken in, it would make an entry that later forces another port on the client."""


@dataclass
class Home:
    """What is behind a NAT, and what is before it.

    Attributes:
        client: the host at home. router: the NAT. server: the host outside.
        link: between router and server; forth leads to the server.
        server_address: where the client finds the server.
        port: the router's UDP port for a binding made now.
    """

    client: Namespace
    router: Namespace
    server: Namespace
    link: Link
    server_address: str
    port: int = 0

    def rebind(self) -> None:
        """Forget every binding; the client's next packet gets a new one, with another port of the router."""
        self._bind_to(self.port + 1)
        self.forget()

    def forget(self) -> None:
        """Empty the router's table of connections, by the kernel's own interface (ctnetlink)."""
        kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
        header = struct.pack("=IHHII", 20, kind, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        with self.router.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
            kind, error = struct.unpack_from("=4xH10xi", netlink.recv(4096))
        if kind != NLMSG_ERROR or error:
            raise OSError(-error, "the table of connections cannot be emptied")

    def _bind_to(self, port: int) -> None:
        self.router.run("nft", "-f", "-", text=RULES.format(port=port))
        self.port = port


@contextmanager
def behind_nat(forth: Shape, back: Shape | None = None, *, seed: int = 1) -> Iterator[Home]:
    """A home with its router and a server outside."""
    with ExitStack() as stack:
        client, router, server = (stack.enter_context(Namespace()) for _ in range(3))
        link = stack.enter_context(Link(router, server, forth, back, seed=seed))
        inside = f"/proc/{os.getpid()}/fd/{client.descriptor}"
        router.run("ip", "link", "add", "home", "type", "veth", "peer", "name", "wire", "netns", inside)
        router.run("ip", "address", "add", "192.168.98.1/24", "dev", "home")
        router.run("ip", "link", "set", "home", "up")
        client.run("ip", "address", "add", "192.168.98.2/24", "dev", "wire")
        client.run("ip", "link", "set", "wire", "up")
        client.run("ip", "route", "add", "default", "via", "192.168.98.1")
        router.setting("ipv4/ip_forward", "1")
        home = Home(client, router, server, link, link.addresses[1])
        home._bind_to(40_000)
        yield home
