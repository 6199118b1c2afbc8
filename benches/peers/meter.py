"""What a process used between two moments: processor time, system calls, memory."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Steady", "SyscallCounter", "memory", "usage"]


def usage() -> dict[str, float]:
    """Processor seconds and context switches of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_user": used.ru_utime,
        "cpu_system": used.ru_stime,
        "switches_wanted": used.ru_nvcsw,
        "switches_forced": used.ru_nivcsw,
    }


def memory() -> dict[str, int]:
    """Resident bytes of this process, now and at most; Linux only, else empty."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return {}
    values = dict(line.split(":", 1) for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM")))
    names = {"VmRSS": "rss", "VmHWM": "rss_peak"}
    return {names[name]: int(value.split()[0]) * 1024 for name, value in values.items()}


class Steady:
    """What memory a process holds when `warm` bytes of a transfer went by, and when all of it did."""

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._position = 0
        self._samples: list[tuple[int, int]] = []

    def _sample(self) -> None:
        gc.collect()
        self._samples.append((sys.getallocatedblocks(), memory().get("rss", 0)))

    def _note(self, size: int) -> None:
        before = self._position
        self._position += size
        if before < self._warm <= self._position:
            self._sample()

    def sink(self, sink: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
        """The same sink, watched."""

        def watched(chunk: Any, size: int) -> None:
            sink(chunk, size)
            self._note(size)

        return watched

    def source(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The same blocks, watched."""
        for block in blocks:
            yield block
            self._note(len(block))

    def result(self) -> dict[str, int]:
        """By how much the allocated blocks and the resident bytes grew; empty when nothing was to be watched."""
        if not self._warm:
            return {}
        assert self._samples, f"the transfer has less than {self._warm:,} bytes"
        self._sample()
        (first, rss_first), (last, rss_last) = self._samples
        return {"blocks_grown": last - first, "rss_grown": rss_last - rss_first}


class SyscallCounter:
    """Counts every system call of this process with `perf stat`, which slows it less than ptrace would.

    `stop` gives None where perf is missing or not permitted.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output: Path | None = None

    def start(self) -> None:
        """Begin; returns when perf is attached."""
        perf = shutil.which("perf")
        if perf is None:
            return
        handle, name = tempfile.mkstemp(prefix="bench-perf-")
        os.close(handle)
        self._output = Path(name)
        command = [perf, "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", name, "-p", str(os.getpid())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.5)  # perf says nowhere that it is attached; what it misses is seen as a count that is too low

    def stop(self) -> int | None:
        """System calls since `start`."""
        if self._process is None or self._output is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        self._process.wait()
        text = self._output.read_text()
        self._output.unlink()
        for line in text.splitlines():
            parts = line.split(",")
            if "raw_syscalls" in line and parts[0].isdigit():
                return int(parts[0])
        return None
