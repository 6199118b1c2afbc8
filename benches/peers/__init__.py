"""The transports that are compared, each as a module that runs its two sides as two processes.

`python -m benches.peers.MODULE serve` answers until its input ends; `python -m benches.peers.MODULE run TASK` does
one task against it and prints the result as one line of JSON. What the tasks are is in `tasks.py`, what a transport
has to offer for them in `link.py`; `CATALOGUE` says which there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CATALOGUE", "PeerChoice", "choose"]


@dataclass(frozen=True)
class PeerChoice:
    """One row of a comparison.

    Attributes:
        name: what tables call it.
        module: the module of this package that implements it.
        options: command line options, for both sides.
        needs: the distribution that must be installed, or "" when burstwire's own dependencies do.
        slow: whether bulk gets fewer bytes, so that a run stays bearable; rates are compared, not times.
    """

    name: str
    module: str
    options: tuple[str, ...] = ()
    needs: str = ""
    slow: bool = False
    tasks: frozenset[str] = field(default_factory=lambda: frozenset({"bulk", "echo", "messages", "many", "handshakes"}))


_BATCHED = frozenset({"bulk", "echo", "messages", "handshakes"})

CATALOGUE: dict[str, PeerChoice] = {
    choice.name: choice
    for choice in (
        PeerChoice("burstwire 1200", "ours", ("--datagram", "1200")),
        PeerChoice("burstwire 1452", "ours", ("--datagram", "1452")),
        PeerChoice("burstwire 65507", "ours", ("--datagram", "65507")),
        PeerChoice("burstwire", "ours", ()),
        PeerChoice("burstwire 1200 uvloop", "ours", ("--datagram", "1200", "--loop", "uvloop"), "uvloop"),
        PeerChoice("asyncio TLS", "tls", ()),
        PeerChoice("uvloop TLS", "tls", ("--loop", "uvloop"), "uvloop"),
        PeerChoice("aioquic", "quic", (), "aioquic", slow=True),
        PeerChoice("qh3 uvloop", "quic", ("--library", "qh3", "--loop", "uvloop"), "qh3", slow=True),
        PeerChoice("ZeroMQ CURVE", "curve", (), "pyzmq"),
        PeerChoice("DatagramProtocol", "handwritten", ("--loop", "uvloop"), "uvloop", slow=True, tasks=_BATCHED),
    )
}
"""Everything that can be compared, by the name that tables use."""


def choose(names: list[str]) -> list[PeerChoice]:
    """The rows called `names`; raises `KeyError` with all names when one is unknown."""
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: there are {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in names]
