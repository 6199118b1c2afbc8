"""A shaped link: builds benches/shaped/link.c, runs it between two namespaces, and tells it what to do.

`tc` cannot do this everywhere: delay and loss need the kernel module netem, which many kernels lack.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from benches.shaped.namespace import Namespace, ShapedError

__all__ = ["Counters", "Link", "Shape", "build", "missing"]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("link.c")

PATIENCE = 10.0
"""Seconds that the link's process has for an answer."""

DEVICE_QUEUE = 10_000
"""Packets that a device holds until the link takes them: never what limits, the link's own queue is."""

Counters = dict[str, Any]
"""Of one direction; see `report` in link.c. Those of "udp", "tcp" and "other" are dictionaries of their own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one direction of a link does to IP packets.

    Attributes:
        rate: bits per second; 0: no limit.
        delay: seconds, one way.
        queue: bytes that wait for the rate at most, what comes then is dropped; 0: no limit.
        loss: the probability that a packet is lost.
        size: bytes of the largest IP packet that passes; larger ones vanish silently. 0: no limit.
        down: nothing passes, and nobody is told.
        jitter: seconds that a packet takes at most to get to the queue, uniformly distributed; none overtakes another.
    """

    rate: float = 0
    delay: float = 0
    queue: int = 0
    loss: float = 0
    size: int = 0
    down: bool = False
    jitter: float = 0

    def orders(self) -> dict[str, int]:
        """The same in the units of link.c."""
        return {
            "rate": round(self.rate / 8),
            "delay": round(self.delay * 1e9),
            "queue": self.queue,
            "loss": round(self.loss * 2**32),
            "size": self.size or 1 << 32,
            "down": int(self.down),
            "jitter": round(self.jitter * 1e9),
        }


def missing(*tools: str) -> str:
    """What keeps this machine from having shaped links, or ""; `tools` are commands needed beside."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [tool for tool in ("ip", os.environ.get("CC", "cc"), *tools) if shutil.which(tool) is None]
    if lacking:
        return f"needs {', '.join(lacking)} (Debian: apt install iproute2 gcc nftables)"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    try:
        with Namespace():
            return ""
    except (ShapedError, OSError) as error:
        return f"needs network namespaces ({error})"


def build() -> Path:
    """The link's program, compiled if need be; raises `ShapedError` with what the compiler said."""
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O2", "-Wall", "-Wextra"]
    digest = sha256(" ".join(command).encode() + SOURCE.read_bytes()).hexdigest()[:16]
    binary = ROOT / "build" / "bench" / f"link-{digest}"
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    partial = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run([*command, str(SOURCE), "-o", str(partial)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShapedError(f"the link does not compile:\n{done.stderr}")
    os.replace(partial, binary)
    return binary


class Link:
    """A link between two hosts, as long as it is open.

    Args:
        first, second: the hosts.
        forth: what happens to packets from the first to the second. back: the other way; None: the same.
        seed: for the losses.
        device: the name of the interface at either end.
        mtu: of both interfaces, in bytes.
        network: the first three numbers of the IPv4 addresses.

    Attributes:
        addresses: (of the first, of the second), IPv4. addresses6: IPv6.
    """

    def __init__(
        self,
        first: Namespace,
        second: Namespace,
        forth: Shape,
        back: Shape | None = None,
        *,
        seed: int = 1,
        device: str = "wire",
        mtu: int = 1500,
        network: str = "10.98.0",
    ) -> None:
        self.forth = Shape()
        self.back = Shape()
        self._shaped = False
        self.addresses = (f"{network}.1", f"{network}.2")
        self.addresses6 = ("fd98::1", "fd98::2")
        hosts = (first, second)
        descriptors = [host.descriptor for host in hosts]
        command = [str(build()), str(seed), str(descriptors[0]), device, str(descriptors[1]), device]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors, text=True, bufsize=1
        )
        try:
            self._answer()
            for host, own, other in zip(hosts, (0, 1), (1, 0), strict=True):
                host.run("ip", "link", "set", device, "mtu", str(mtu), "txqueuelen", str(DEVICE_QUEUE), "up")
                for addresses, length in ((self.addresses, "32"), (self.addresses6, "128")):
                    peer = ("peer", f"{addresses[other]}/{length}", "dev", device)
                    host.run("ip", "address", "add", addresses[own], *peer, *(("nodad",) if length == "128" else ()))
            self.shape(forth, back)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the link away, with its interfaces."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def shape(self, forth: Shape, back: Shape | None = None) -> None:
        """Be like this for packets that come from now on."""
        for direction, old, new in ((0, self.forth, forth), (1, self.back, back or forth)):
            before = old.orders()
            for key, value in new.orders().items():
                if value != before[key] or not self._shaped:
                    self._order(f"set {direction} {key} {value}")
        self.forth, self.back, self._shaped = forth, back or forth, True

    def change(self, **changes: Any) -> None:
        """The same in both directions, but for some fields of `Shape`."""
        self.shape(replace(self.forth, **changes), replace(self.back, **changes))

    def counters(self) -> tuple[Counters, Counters]:
        """What happened since the link was made: (forth, back)."""
        forth, back = self._order("report")["directions"]
        return forth, back

    def _order(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
        except BrokenPipeError:
            raise ShapedError(f"the link has ended with code {self._process.wait()}") from None
        answer = self._answer()
        if answer.get("set") is False:
            raise ShapedError(f"the link does not understand {line!r}")
        return answer

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], PATIENCE)
        line = stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            raise ShapedError(f"the link does not answer; it ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
