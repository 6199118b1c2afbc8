"""The cffi build script: reads the one C header, compiles csrc/ into `burstwire.core._burstwire`.

Used by setup.py, from the root of the source tree; nothing at run time imports it.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

from cffi import FFI

__all__ = ["builder", "declarations"]

HEADER = Path("csrc/burstwire.h")
BEGIN, END = "/* cdef begin */", "/* cdef end */"

WARNINGS = ["-Wall", "-Wextra"]
HARDENING = ["-fstack-protector-strong", "-fvisibility=hidden"]
ELF = sys.platform.startswith("linux")
X86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
# A stack that grows page by page, and indirect jumps to marked places only, where the processor can check that (CET).
ELF_HARDENING = ["-fstack-clash-protection", *(["-fcf-protection=full"] if X86 else [])]
# Needs optimisation, and is at odds with AddressSanitizer; distributions define it at another level.
FORTIFY = ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
# Tables of addresses are filled in at once and then read-only; no stack is executable.
ELF_LINKING = ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack"]
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g",
    "-O1",
]


def declarations(header: str) -> str:
    """What cffi may see of the header: everything between the two marks."""
    return header.split(BEGIN, 1)[1].split(END, 1)[0]


def builder() -> FFI:
    """The extension, described. BURSTWIRE_SANITIZE=1 builds it with ASan and UBSan, BURSTWIRE_CFLAGS adds
    flags.

    Raises:
        SystemExit: this is a free-threaded CPython (see `burstwire/_interpreter.py`, which says the same on import).
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit(
            "burstwire does not support free-threaded CPython: its C extension is built for the stable ABI, which that "
            "build does not have, and its objects rely on the GIL. Install it for the ordinary build of CPython."
        )
    sanitize = os.environ.get("BURSTWIRE_SANITIZE") == "1"
    options: dict[str, Any] = {
        "sources": sorted(str(path) for path in Path("csrc").glob("*.c")),
        "depends": sorted(str(path) for path in Path("csrc").glob("*.h")),
        "include_dirs": ["csrc"],
        "extra_compile_args": [
            "-std=c11",
            *WARNINGS,
            *HARDENING,
            *(ELF_HARDENING if ELF else []),
            *(SANITIZERS if sanitize else ["-O2", *FORTIFY]),
        ],
        "extra_link_args": [*(SANITIZERS[:1] if sanitize else []), *(ELF_LINKING if ELF else [])],
        # dlopen was in a library of its own before glibc 2.34.
        "libraries": ["dl"] if ELF else [],
        "py_limited_api": True,
    }
    options["extra_compile_args"] += os.environ.get("BURSTWIRE_CFLAGS", "").split()
    ffi = FFI()
    ffi.cdef(declarations(HEADER.read_text(encoding="utf-8")))
    ffi.set_source("burstwire.core._burstwire", '#include "burstwire.h"', **options)
    return ffi
