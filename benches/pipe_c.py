"""Compiles benches/pipe.c with the C core and becomes it; the command line is that of `benches.pipe`.

    python -m benches.pipe_c --datagram 1200 --aead libcrypto serve

The binary lies under build/bench/ and is built anew when a source changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from burstwire.crypto import aead_ipsecmb, aead_libcrypto
from burstwire.crypto.aead import backends

__all__ = ["available", "build", "library"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*sorted((ROOT / "csrc").glob("*.c")), ROOT / "benches" / "pipe.c"]
HEADERS = sorted((ROOT / "csrc").glob("*.h"))


def _compiler() -> str:
    return os.environ.get("CC", "cc")


def library(aead: str) -> str:
    """The file of a back end's library, the one that burstwire uses; "" for one that is not in C."""
    if aead not in backends():
        return ""
    if aead == "libcrypto":
        return os.environ.get(aead_libcrypto.ENVIRONMENT) or aead_libcrypto.SONAME
    if aead == "ipsec-mb":
        return aead_ipsecmb.candidates()[0]
    return ""


def available(aead: str) -> str:
    """Why there is no C pipe with this back end, or ""."""
    if shutil.which(_compiler()) is None:
        return f"no C compiler ({_compiler()})"
    return "" if library(aead) else f"{aead} is not called from C"


def build() -> Path:
    """The binary, compiled if need be; raises `RuntimeError` with what the compiler said."""
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-I", str(ROOT / "csrc")]
    libraries = ["-ldl"] if sys.platform.startswith("linux") else []
    digest = sha256(" ".join([_compiler(), *options]).encode())
    for path in SOURCES + HEADERS:
        digest.update(path.read_bytes())
    binary = ROOT / "build" / "bench" / f"pipe-{digest.hexdigest()[:16]}"
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    partial = binary.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [_compiler(), *options, *map(str, SOURCES), "-o", str(partial), *libraries],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the C pipe does not compile:\n{done.stderr}")
    os.replace(partial, binary)
    return binary


def main() -> None:
    """Build, and go on as the binary."""
    parser = argparse.ArgumentParser(prog="python -m benches.pipe_c", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--datagram", type=int, default=1200)
    parser.add_argument("--aead", default="libcrypto")
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("serve")
    run = what.add_parser("run")
    run.add_argument("task", choices=("bulk",))
    run.add_argument("--info", type=json.loads, required=True)
    run.add_argument("--count", type=int, required=True)
    run.add_argument("--hash-all", action="store_true", help="compare every byte, not only both ends of each run")
    options = parser.parse_args()
    binary = str(build())
    arguments = [binary, str(options.datagram), options.aead, library(options.aead), options.what]
    if options.what == "run":
        info = options.info
        arguments += [str(info["control"]), str(info["port"]), str(options.count), str(int(options.hash_all))]
    os.execv(binary, arguments)


if __name__ == "__main__":
    main()
