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

__all__ = ["available", "build"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*sorted((ROOT / "csrc").glob("*.c")), ROOT / "benches" / "pipe.c"]
HEADERS = sorted((ROOT / "csrc").glob("*.h"))
IPSEC_MB = "bw_ipsecmb_cipher"
"""The function of the C core that makes a cipher of Intel's multi-buffer library, where it was compiled in."""


def _flags() -> tuple[list[str], list[str]]:
    """Definitions, and libraries."""
    text = "".join(path.read_text(encoding="utf-8") for path in HEADERS)
    defines = ["-DBW_CIPHERS"] if "bw_cipher_free" in text else []
    libraries = ["-ldl"] if sys.platform.startswith("linux") else []
    if IPSEC_MB in text and _compiles("#include <intel-ipsec-mb.h>\n"):
        defines.append(f"-DBW_PIPE_IPSEC_MB={IPSEC_MB}")
        libraries.append("-lIPSec_MB")
    return defines, libraries


def _compiler() -> str:
    return os.environ.get("CC", "cc")


def _compiles(text: str) -> bool:
    command = [_compiler(), "-E", "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode == 0


def available(aead: str) -> str:
    """Why there is no C pipe with this back end, or ""."""
    if shutil.which(_compiler()) is None:
        return f"no C compiler ({_compiler()})"
    if aead == "libcrypto" or (aead == "ipsec-mb" and any("IPSEC" in flag for flag in _flags()[0])):
        return ""
    return f"{aead} is not a back end in C"


def build() -> Path:
    """The binary, compiled if need be; raises `RuntimeError` with what the compiler said."""
    defines, libraries = _flags()
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-I", str(ROOT / "csrc"), *defines]
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
    arguments = [binary, str(options.datagram), options.aead, options.what]
    if options.what == "run":
        info = options.info
        arguments += [str(info["control"]), str(info["port"]), str(options.count), str(int(options.hash_all))]
    os.execv(binary, arguments)


if __name__ == "__main__":
    main()
