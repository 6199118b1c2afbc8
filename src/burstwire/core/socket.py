"""A non-blocking UDP socket that sends and receives trains: the Python face of csrc/socket.c, send.c and
recv.c.

One C call a wake-up each way. What was refused, dropped or fallen back from is counted in `stats()`; C
reports facts, and what follows from them (lower the MTU, wait, try GSO again) is for the caller to decide.

Kill switches in the environment: BURSTWIRE_GSO=0, BURSTWIRE_GRO=0, BURSTWIRE_SOCKET_BACKEND=portable.
"""

from __future__ import annotations

import os
import platform
import re
from typing import Any

from burstwire.core._burstwire import ffi, lib
from burstwire.core._errno import describe, os_error
from burstwire.core.address import pack_address, unpack_address
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable, TrainTable
from burstwire.errors import AddressError, ConfigError

__all__ = ["BACKENDS", "UdpSocket", "spoils_equal_segments", "switched_off"]

BACKENDS = ("auto", "mmsg", "portable")
"""`auto` takes mmsg (sendmmsg, recvmmsg, GSO, GRO; Linux) where it works, else portable (one datagram a
system call).
"""

_BACKEND_NUMBER = {"auto": 0, "portable": 1, "mmsg": 2}
_BACKEND_NAME = {1: "portable", 2: "mmsg"}
_BLOCKED = {0: "", 1: "again", 2: "nobufs"}


def switched_off(name: str) -> bool:
    """Whether the environment variable `name` is one of 0, no, off, false."""
    return os.environ.get(name, "").strip().lower() in ("0", "no", "off", "false")


SPOILING = ((7, 0, 0), (7, 1, 4))
"""Linux releases, both included, that with some devices write wrong lengths and checksums into the datagrams of a GSO
send whose segments are all of one size (torvalds/linux b10b446, repaired by 78effd8 and 5f17ae0). The sender cannot
notice; peers see heavy loss. A distribution may have the defect in another release, or have repaired it in one of
these: `BURSTWIRE_GSO=0` and `UdpSocket(short_tails=)` are for those."""


def spoils_equal_segments(release: str) -> bool:
    """Whether the kernel that calls itself `release` (``6.8.0-59-generic``, ``7.1-rc3``) spoils GSO sends of equal
    segments.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if found is None:
        return False
    version = tuple(int(part or 0) for part in found.groups())
    return SPOILING[0] <= version <= SPOILING[1]


class UdpSocket:
    """A bound UDP socket, for one thread at a time.

    `""` and `"::"` bind to every address of both families on one socket (`""` falls back to IPv4 where there
    is no IPv6); `"0.0.0.0"` to every IPv4 address. Packets to and from IPv4 are of family 4 on a dual socket
    too.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        backend: str = "auto",
        gso: bool = True,
        gro: bool = True,
        receive_buffer: int = 4 << 20,
        send_buffer: int = 4 << 20,
        short_tails: bool | None = None,
    ) -> None:
        """short_tails: leave only trains with a shorter last datagram to the kernel to segment; None: if this kernel
        spoils others (`spoils_equal_segments`).

        Raises `AddressError` (with `errno`) naming the address and the cause, `ConfigError` for an unknown
        backend.
        """
        self._socket: Any = ffi.NULL
        override = os.environ.get("BURSTWIRE_SOCKET_BACKEND", "").strip()
        backend = override or backend
        if backend not in BACKENDS:
            raise ConfigError(f"the socket backend is {backend!r}; choose one of {', '.join(BACKENDS)}")
        gso = gso and not switched_off("BURSTWIRE_GSO")
        gro = gro and not switched_off("BURSTWIRE_GRO")
        if short_tails is None:
            short_tails = spoils_equal_segments(platform.release())
        can = lib.bw_probe()
        if backend == "mmsg" and not can & lib.BW_CAN_MMSG:
            raise ConfigError("the socket backend 'mmsg' needs sendmmsg and recvmmsg, which this system does not have")
        host, port = address
        if host == "":
            host = "::" if can & lib.BW_CAN_DUAL else "0.0.0.0"  # noqa: S104  "" means any
        packed = pack_address(host, port)
        flags = (
            (lib.BW_OPEN_DUAL if host == "::" else 0)
            | (lib.BW_OPEN_GSO if gso else 0)
            | (lib.BW_OPEN_GRO if gro else 0)
            | (lib.BW_OPEN_SHORT_TAILS if short_tails else 0)
        )
        error = ffi.new("int32_t *")
        opened = lib.bw_socket_open(packed, flags, _BACKEND_NUMBER[backend], receive_buffer, send_buffer, error)
        if opened == ffi.NULL:
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise AddressError(-error[0], f"cannot bind {shown}: {describe(error[0])}")
        self._socket = opened
        self._info = lib.bw_socket_look(opened)
        self.local_address: tuple[str, int] = unpack_address(bytes(self._info.local))
        self.receive_buffer: int = self._info.receive_buffer
        self.send_buffer: int = self._info.send_buffer
        self.backend: str = _BACKEND_NAME[self._info.backend]
        self.family: int = self._info.family
        self.dual: bool = bool(self._info.dual)
        self.short_tails: bool = short_tails

    def fileno(self) -> int:
        """The descriptor, to be watched for readability; -1 once closed."""
        return int(self._info.fd)

    @property
    def gso(self) -> bool:
        """Whether trains are left to the kernel to segment. May be set; raises `ConfigError` where the kernel cannot.

        A refusal does not change it, for it is about one destination: the train that was refused, and those behind it
        to the same address, leave datagram by datagram in that call, and carry a flag (`TrainTable.records`). Whom to
        spare it in later calls is for the caller to remember (`proto.offload`).
        """
        return bool(self._info.gso)

    @gso.setter
    def gso(self, on: bool) -> None:
        if lib.bw_socket_set_gso(self._socket, on) < 0:
            raise ConfigError(f"this socket ({self.backend}) has no GSO")

    @property
    def gro(self) -> bool:
        """Whether the kernel may deliver several datagrams as one train."""
        return bool(self._info.gro)

    @property
    def blocked(self) -> str:
        """Why the last `send` stopped early.

        "again": wait until the socket is writable; "nobufs": a queue below is full and will not say when it
        has room, so wait a while; "": it did not.
        """
        return _BLOCKED[self._info.blocked]

    def recv(self, ring: BufferRing, table: RunTable, max_slots: int = 8) -> int:
        """Fill `table` with what is there, in at most `max_slots` slots, which it then holds. Returns the
        number of runs.

        0 means that nothing was there, or no slot was free. Raises `OSError` for what will not pass by
        itself; errors that ICMP brought are counted and skipped. Raises `ValueError` when the table still
        holds slots of the last call.
        """
        count = lib.bw_recv(self._socket, ring.handle, table.handle, max_slots)
        if count < 0:
            if table.handle.held_count:
                raise ValueError("the table still holds the slots of the last batch: release them first")
            raise os_error(count, "cannot receive")
        return count

    def send(self, table: TrainTable, first: int = 0) -> int:
        """Send the trains from row `first` on. Returns how many of them are finished.

        Finished: taken by the kernel, or given up with an error (`table.results(row)`). When it stops early,
        `blocked` says why, and the same call with `first` moved on continues exactly where it stopped, in the
        middle of a train if need be. Raises `OSError` when the socket or the ring is closed.
        """
        done = lib.bw_send(self._socket, table.ring.handle, table.rows, first, table.count)
        if done < 0:
            raise os_error(done, "cannot send")
        return done

    def stats(self) -> dict[str, int]:
        """Counts since the socket was made; the names are those of `bw_socket_stats` in csrc/burstwire.h."""
        stats = self._info.stats
        return {name: int(getattr(stats, name)) for name, _ in ffi.typeof(stats).fields}

    def close(self) -> None:
        """Close the descriptor. Closing twice is fine; sending and receiving raise `OSError` from then on."""
        lib.bw_socket_close(self._socket)

    def __del__(self) -> None:
        # Not by ffi.gc: in a cycle that would free the socket before the finalizers of other objects, which may still
        # use it; after this they find a closed one. A view of the books outlives it as a copy.
        opened = getattr(self, "_socket", None)
        if opened is not None and opened != ffi.NULL:
            info = ffi.new("bw_socket_info *", self._info[0])
            info.fd = -1
            self._info = info
            self._socket = ffi.NULL
            lib.bw_socket_free(opened)

    def __enter__(self) -> UdpSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        host, port = self.local_address
        state = "closed" if self.fileno() < 0 else f"{self.backend}, gso {self.gso}, gro {self.gro}"
        return f"<UdpSocket {host} port {port}: {state}>"
