"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import ssl
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe"]

DISTRIBUTIONS = ("burstwire", "cryptography", "cffi", "uvloop", "aioquic", "qh3", "pyzmq")


def describe() -> dict[str, str]:
    """Processor, kernel, socket limits and versions, each as words."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL of ssl": ssl.OPENSSL_VERSION,
        "OpenSSL of cryptography": _cryptography_openssl(),
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


def _cryptography_openssl() -> str:
    from cryptography.hazmat.backends.openssl import backend

    return str(backend.openssl_version_text())
