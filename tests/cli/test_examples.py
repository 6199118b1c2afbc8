"""The examples work as they are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_first_example_says_hello() -> None:
    assert run("hello.py").startswith("b'hello' from bw1")


def test_the_first_example_is_short() -> None:
    lines = [line for line in (EXAMPLES / "hello.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 15


def test_the_main_job_runs_and_verifies_its_file() -> None:
    shown = run("run.py", "--mib", "8")
    assert "intact: SHA-256" in shown
    assert "MB/s" in shown
