"""The layer below the protocol: slots, sockets, and tables of runs and trains; for node code that wants raw
speed.

    ring = BufferRing()
    with UdpSocket(("127.0.0.1", 0)) as udp:
        trains = TrainTable(ring)
        slot = ring.lease()                       # write datagrams side by side to ring.views[slot]
        trains.append(slot, 0, 12_000, 1_200, 0, pack_address("127.0.0.1", 9) + ANY_LOCAL)
        udp.send(trains)                          # one system call, however many datagrams
        ring.release(slot)
"""

from __future__ import annotations

import platform
import sys

from burstwire.core._burstwire import lib
from burstwire.core.address import ADDRESS_SIZE, ANY_LOCAL, PATH_SIZE, pack_address, unpack_address
from burstwire.core.counter import COUNTER_LIMIT, CounterPool
from burstwire.core.ring import BufferRing, PacketViews, StreamRing
from burstwire.core.run import FillTable, GatherTable, ProtectTable, RunRecord, RunTable, TrainTable
from burstwire.core.socket import UdpSocket, spoils_equal_segments, switched_off

__all__ = [
    "ADDRESS_SIZE",
    "ANY_LOCAL",
    "COUNTER_LIMIT",
    "PATH_SIZE",
    "BufferRing",
    "CounterPool",
    "FillTable",
    "GatherTable",
    "PacketViews",
    "ProtectTable",
    "RunRecord",
    "RunTable",
    "StreamRing",
    "TrainTable",
    "UdpSocket",
    "capabilities",
    "pack_address",
    "unpack_address",
]


def capabilities(socket: UdpSocket | None = None) -> dict[str, object]:
    """What this machine can do, found by asking its kernel; with a socket, also what is in force on it and
    what it fell back from.

    mmsg, gso, gro, pktinfo, ecn, kernel_drops, ipv6, dual_stack, wipe_on_fork: bool. gso_spoils_equal: bool, whether
    this release is known for it (then GSO is used less). platform, python: str.
    switched_off: the kill switches that are set. With a socket: backend, gso_in_force, gro_in_force,
    fallbacks (counts).
    """
    can = lib.bw_probe()
    found: dict[str, object] = {
        "mmsg": bool(can & lib.BW_CAN_MMSG),
        "gso": bool(can & lib.BW_CAN_GSO),
        "gro": bool(can & lib.BW_CAN_GRO),
        "pktinfo": bool(can & lib.BW_CAN_PKTINFO),
        "ecn": bool(can & lib.BW_CAN_ECN),
        "kernel_drops": bool(can & lib.BW_CAN_DROPS),
        "ipv6": bool(can & lib.BW_CAN_IPV6),
        "dual_stack": bool(can & lib.BW_CAN_DUAL),
        "wipe_on_fork": bool(can & lib.BW_CAN_WIPE_ON_FORK),
        "gso_spoils_equal": spoils_equal_segments(platform.release()),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{sys.implementation.name} {platform.python_version()}",
        "switched_off": [name for name in ("BURSTWIRE_GSO", "BURSTWIRE_GRO") if switched_off(name)],
    }
    if socket is not None:
        stats = socket.stats()
        found["backend"] = socket.backend
        found["gso_in_force"] = socket.gso
        found["gro_in_force"] = socket.gro
        found["fallbacks"] = {name: stats[name] for name in stats if name.endswith("_fallbacks")}
    return found
