"""What the compiler and the linker were asked for is there in the extension that was built."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from burstwire.core import _burstwire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an ELF file is looked at")


def readelf(*options: str) -> str:
    program = shutil.which("readelf")
    assert program is not None, "missing: readelf (Debian: apt install binutils; it comes with gcc)"
    run = subprocess.run([program, "-W", *options, _burstwire.__file__], capture_output=True, text=True, check=True)
    return run.stdout


def test_addresses_are_resolved_at_once_and_then_read_only() -> None:
    assert "GNU_RELRO" in readelf("-l")
    dynamic = readelf("-d")
    assert "BIND_NOW" in dynamic
    assert "Flags: NOW" in dynamic
    assert "TEXTREL" not in dynamic


def test_no_memory_is_writable_and_executable() -> None:
    segments = [line.split() for line in readelf("-l").splitlines() if line.split()[:1] in (["LOAD"], ["GNU_STACK"])]
    assert len(segments) > 2
    for segment in segments:
        flags = "".join(part for part in segment[6:] if set(part) <= set("RWE"))
        assert not {"W", "E"} <= set(flags), segment


def test_the_stack_is_guarded_and_calls_with_known_sizes_are_checked() -> None:
    symbols = readelf("--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert "_chk@" in symbols.replace("__stack_chk_fail", "")


def test_nothing_but_the_module_itself_is_exported() -> None:
    names = [line.split() for line in readelf("--dyn-syms").splitlines() if " GLOBAL " in line and " UND " not in line]
    assert {name[-1] for name in names} <= {"PyInit__burstwire", "_cffi_pypyinit__burstwire"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="CET is of x86")
def test_indirect_jumps_go_to_marked_places() -> None:
    # Whether the whole file is marked depends on the C library's start files, too; that functions are, on us.
    endbr64 = b"\xf3\x0f\x1e\xfa"
    assert Path(_burstwire.__file__).read_bytes().count(endbr64) > 50
