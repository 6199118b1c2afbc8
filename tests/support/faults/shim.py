"""Builds the stand-ins for the C library and runs Python behind them; `Refusals` commands one from inside."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = [
    "ALWAYS",
    "ANY",
    "CALLS",
    "CUT_CONTROL",
    "MARKED",
    "RECEIVE",
    "SEGMENTED",
    "SEND",
    "SOURCED",
    "Refusals",
    "behind",
    "build",
]

HERE = Path(__file__).parent

SEND, RECEIVE = 0, 1
ANY, SEGMENTED, MARKED, SOURCED, CALLS, CUT_CONTROL = range(6)
ALWAYS = -1


class Refusals:
    """What refusing.c does, in the process that was started behind it."""

    def __init__(self) -> None:
        self._shim = ctypes.CDLL(None)

    def refuse(self, call: int, which: int, error: int, skip: int = 0, times: int = 1, to: str = "0.0.0.0") -> None:
        """Messages of a kind fail with `error`, `times` times after `skip` of them passed."""
        address = ctypes.c_uint32(int(ipaddress.IPv4Address(to)))
        self._shim.refuse_to(call, which, error, skip, times, address)

    def riot(self, seed: int, permille: int) -> None:
        """From now on each message fails with this chance, in a way that the seed decides."""
        self._shim.riot(ctypes.c_uint64(seed), ctypes.c_uint(permille))

    def relent(self) -> None:
        """Everything is let through again."""
        self._shim.relent()

    @property
    def refused(self) -> int:
        """Messages refused since the start."""
        return ctypes.c_int.in_dll(self._shim, "refused_calls").value

    def refused_with(self, error: int) -> int:
        """Those of them that met this error."""
        return int(self._shim.refused_with(error))


def build(source: str, folder: Path) -> Path:
    """Compiles a file of this folder to a library that can be preloaded; skips where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    target = folder / (Path(source).stem + ".so")
    warn = ("-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", *warn, "-o", target, HERE / source, "-ldl"], check=True)
    return target


def behind(shim: Path, script: Path, *arguments: str, timeout: float = 60.0) -> str:
    """Runs `python script arguments…` behind the stand-in and gives what it printed; fails as it fails."""
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), *arguments],
        env={**os.environ, "LD_PRELOAD": preload},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert run.returncode == 0, f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout
