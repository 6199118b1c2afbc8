"""What a process used between two moments: processor time, system calls, memory."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["SyscallCounter", "memory", "usage"]


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
