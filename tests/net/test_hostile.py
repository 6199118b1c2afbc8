"""A slice of `benches/hostile.py`: whatever strangers send, the endpoint lives and counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_hostile_datagrams_harm_neither_the_endpoint_nor_the_connection_beside_them() -> None:
    """Random ones of every size, well-formed headers, recorded traffic that was altered; a third each."""
    done = subprocess.run(
        [sys.executable, "-m", "benches.hostile", "--count", "60000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILS" not in done.stdout
    assert done.stdout.count("holds: ") >= 7
