"""The cffi build script: reads the one C header, compiles csrc/ into `burstwire.core._burstwire`.

Used by setup.py, from the root of the source tree; nothing at run time imports it.
"""

from __future__ import annotations

import os
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
    """
    sanitize = os.environ.get("BURSTWIRE_SANITIZE") == "1"
    options: dict[str, Any] = {
        "sources": sorted(str(path) for path in Path("csrc").glob("*.c")),
        "depends": sorted(str(path) for path in Path("csrc").glob("*.h")),
        "include_dirs": ["csrc"],
        "extra_compile_args": ["-std=c11", *WARNINGS, *HARDENING, *(SANITIZERS if sanitize else ["-O2"])],
        "extra_link_args": SANITIZERS[:1] if sanitize else [],
        # dlopen was in a library of its own before glibc 2.34.
        "libraries": ["dl"] if sys.platform.startswith("linux") else [],
        # The free-threaded build has no limited API (yet).
        "py_limited_api": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    }
    options["extra_compile_args"] += os.environ.get("BURSTWIRE_CFLAGS", "").split()
    ffi = FFI()
    ffi.cdef(declarations(HEADER.read_text(encoding="utf-8")))
    ffi.set_source("burstwire.core._burstwire", '#include "burstwire.h"', **options)
    return ffi
