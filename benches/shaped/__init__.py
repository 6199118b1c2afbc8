"""Links with a rate, a delay, a queue and losses between network namespaces of this machine, for tests and benchmarks.

Everything here is anonymous: a namespace lives as long as a process holds it open, a device as long as the process that
carries its packets, and that one as long as the pipe to it. So nothing is left behind, not even by a process that was
killed. It takes root, `ip` and a C compiler, and `nft` for NAT.
"""

from benches.shaped.flows import Dialler, Flow, Listener
from benches.shaped.link import Counters, Link, Shape, missing
from benches.shaped.namespace import Namespace, ShapedError
from benches.shaped.nat import Home, behind_nat

__all__ = [
    "Counters",
    "Dialler",
    "Flow",
    "Home",
    "Link",
    "Listener",
    "Namespace",
    "Shape",
    "ShapedError",
    "behind_nat",
    "missing",
]
