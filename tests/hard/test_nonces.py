"""No key meets a number twice: every seal of many threads and processes, written down where libcrypto is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from burstwire.crypto import aead_libcrypto

HERE = Path(__file__).parent
HEADER, ROW = 64, 64

pytestmark = pytest.mark.skipif(not aead_libcrypto.present(), reason="needs the system's libcrypto to stand before")


class Log:
    """What nonce_log.c wrote."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        count, capacity = (int.from_bytes(data[at : at + 8], sys.byteorder) for at in (0, 8))
        assert count <= capacity, f"the log has room for {capacity:,} seals of {count:,}"
        rows = [data[at : at + ROW] for at in range(HEADER, HEADER + count * ROW, ROW)]
        self.count = count
        self.repeated = sum(n - 1 for n in Counter(row[:44] for row in rows).values())
        self.keys = len({row[:32] for row in rows})
        self.threads = len({row[44:48] for row in rows})
        self.failed = sum(row[48] for row in rows)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "missing: a C compiler"
    target = tmp_path_factory.mktemp("nonces") / "nonce_log.so"
    flags = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, str(HERE / "nonce_log.c"), "-o", str(target), "-ldl"], check=True)
    return target


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Callable[..., tuple[Log, int]]:
    """Runs nonce_worker.py: the log, and how many packets the connections say they have sealed."""

    def run(seed: int, amount: int, threads: int, children: str, *options: str, room: int = 200_000) -> tuple[Log, int]:
        path = tmp_path / "log"
        with open(path, "wb") as file:
            file.write(bytes(8) + room.to_bytes(8, sys.byteorder))
            file.truncate(HEADER + room * ROW)
        environment = {
            **os.environ,
            "BURSTWIRE_LIBCRYPTO": str(library),
            "BURSTWIRE_AEAD_BACKEND": "libcrypto",
            "NONCE_LOG": str(path),
        }
        worker = subprocess.run(
            [sys.executable, str(HERE / "nonce_worker.py"), str(seed), str(amount), str(threads), children, *options],
            env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert worker.returncode == 0, worker.stderr
        return Log(path), int(worker.stdout)

    return run


@pytest.mark.repeat
def test_no_key_and_number_are_sealed_with_twice_by_threads_forks_and_fresh_processes_with_failing_seals(
    run: Callable[..., tuple[Log, int]], seed: int, full: bool, outcome: Callable[[str, str, str], None]
) -> None:
    amount, room = (20_000_000, 2_000_000) if full else (300_000, 100_000)
    log, sealed = run(seed, amount, 3, "ffss" if full else "fs", room=room)
    assert log.repeated == 0
    assert log.count >= sealed > amount // 1000
    assert log.threads >= 5
    assert log.failed >= 4
    assert log.keys > 20
    outcome(
        "demands",
        "8: no number twice under a key, in threads and across forks",
        f"{log.count:,} seals by {log.threads} threads of {5 if full else 3} processes under {log.keys:,} keys, "
        f"{log.failed} of them failed: {log.repeated} repeats",
    )


def test_a_counter_that_goes_back_is_noticed(run: Callable[..., tuple[Log, int]], seed: int) -> None:
    log, _ = run(seed, 100_000, 1, "", "broken")
    assert log.repeated > 0
