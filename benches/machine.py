"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import ssl
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from burstwire.config import Config
from burstwire.core import UdpSocket, capabilities
from burstwire.crypto.aead import fastest, versions

__all__ = ["aead_words", "conditions", "conditions_of", "describe"]

DISTRIBUTIONS = ("burstwire", "cryptography", "cffi", "uvloop", "aioquic", "qh3", "pyzmq", "msgspec", "matplotlib")


def aead_words(backend: str | None) -> str:
    """Which back end seals packets; where it goes by size, both, the one for small packets first."""
    return backend or " and ".join(dict.fromkeys(fastest("aes-128-gcm")))


@cache
def _granted() -> tuple[int, int]:
    """SO_RCVBUF and SO_SNDBUF as the kernel grants them to an endpoint with the default settings."""
    config = Config()
    with UdpSocket(
        ("127.0.0.1", 0), receive_buffer=config.socket_receive_buffer, send_buffer=config.socket_send_buffer
    ) as udp:
        return udp.receive_buffer, udp.send_buffer


def conditions() -> str:
    """The AEAD back end and the granted buffers of an endpoint with the default settings, as a note of a table."""
    receive, send = _granted()
    return conditions_of({"aead": aead_words(None), "receive_buffer": receive, "send_buffer": send})


def conditions_of(about: dict[str, Any]) -> str:
    """The same of a peer, by what it says about itself."""
    buffers = f"SO_RCVBUF {about['receive_buffer']:,}, SO_SNDBUF {about['send_buffer']:,} granted"
    return f"burstwire: AES-128-GCM by {about['aead']}; {buffers}"


def describe() -> dict[str, str]:
    """Processor, kernel, socket limits and versions, each as words."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL of ssl": ssl.OPENSSL_VERSION,
        "AEAD back ends": "; ".join(f"{name}: {text}" for name, text in versions().items()),
        "AEAD chosen": f"{aead_words(None)} (small packets first, where it goes by size)",
        "socket": ", ".join(name for name, value in capabilities().items() if value is True),
        "buffers granted": "SO_RCVBUF {:,}, SO_SNDBUF {:,}".format(*_granted()),
        "load at the start": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }
    for name in ("rmem_max", "wmem_max"):
        path = Path("/proc/sys/net/core") / name
        if path.exists():
            found[f"net.core.{name}"] = path.read_text().strip()
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
