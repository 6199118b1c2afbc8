"""The transports that are compared, each as a module that runs its two sides as two processes.

`python -m benches.peers.MODULE serve` answers until its input ends; `python -m benches.peers.MODULE run TASK` does
one task against it and prints the result as one line of JSON. What the tasks are is in `tasks.py`, what a transport
has to offer for them in `link.py`; `CATALOGUE` says which there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from burstwire.crypto.aead import backends

__all__ = ["BULK", "CATALOGUE", "EVERYTHING", "PeerChoice", "choose", "ours"]

EVERYTHING = frozenset({"bulk", "echo", "messages", "many", "handshakes"})
BULK = frozenset({"bulk"})


@dataclass(frozen=True)
class PeerChoice:
    """One row of a comparison.

    Attributes:
        name: what tables call it.
        module: the module of this package that implements it; with a dot, a module from the root of the tree.
        options: command line options, for both sides.
        needs: the distribution that must be installed, or "" when burstwire's own dependencies do.
        tasks: what it can do.
    """

    name: str
    module: str
    options: tuple[str, ...] = ()
    needs: str = ""
    tasks: frozenset[str] = EVERYTHING

    @property
    def path(self) -> str:
        """The module, as `python -m` wants it."""
        return self.module if "." in self.module else f"{__name__}.{self.module}"


def ours(
    name: str, *, datagram: int = 0, aead: str = "", loop: str = "asyncio", more: tuple[str, ...] = ()
) -> PeerChoice:
    """burstwire with these settings; `datagram` 0: discovered, `aead` "": its own choice."""
    options = (*(("--datagram", str(datagram)) if datagram else ()), *(("--aead", aead) if aead else ()))
    uvloop = loop == "uvloop"
    return PeerChoice(name, "ours", (*options, *(("--loop", "uvloop") if uvloop else ()), *more), "uvloop" * uvloop)


def _variants() -> list[PeerChoice]:
    """What a user gets without any setting, and each back end on each loop; packets of 1,200 bytes for bulk, where
    their size matters and the loop does not."""
    rows = [ours("burstwire"), ours("burstwire uvloop", loop="uvloop")]
    for aead in backends():
        rows.append(ours(f"burstwire {aead}", aead=aead))
        rows.append(ours(f"burstwire {aead} uvloop", aead=aead, loop="uvloop"))
        rows.append(replace(ours(f"burstwire 1200 {aead}", aead=aead, datagram=1200), tasks=BULK))
    return rows


CATALOGUE: dict[str, PeerChoice] = {
    choice.name: choice
    for choice in (
        *_variants(),
        PeerChoice("asyncio TLS", "tls", ()),
        PeerChoice("uvloop TLS", "tls", ("--loop", "uvloop"), "uvloop"),
        PeerChoice("aioquic", "quic", (), "aioquic"),
        PeerChoice("qh3 uvloop", "quic", ("--library", "qh3", "--loop", "uvloop"), "qh3"),
        PeerChoice("ZeroMQ CURVE", "curve", (), "pyzmq"),
        PeerChoice(
            "DatagramProtocol uvloop", "handwritten", ("--loop", "uvloop"), "uvloop", tasks=EVERYTHING - {"many"}
        ),
        PeerChoice("one packet at a time", "oldway", (), "msgpack", tasks=frozenset({"bulk", "echo", "messages"})),
    )
}
"""Everything that can be compared, by the name that tables use."""


def choose(names: list[str]) -> list[PeerChoice]:
    """The rows called `names`; raises `KeyError` with all names when one is unknown."""
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        raise KeyError(f"{', '.join(unknown)}: there are {', '.join(CATALOGUE)}")
    return [CATALOGUE[name] for name in names]
