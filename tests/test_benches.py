"""Every benchmark of `benches/level*.py` does its work once, on small amounts, and checks it.

Nothing is measured here. What a benchmark asserts (bytes, hashes, counts) is the test: a broken path must not look
fast.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = sorted(path.name for path in (ROOT / "benches").glob("level*.py"))

NEEDED = ("pytest_benchmark", "msgpack", "msgspec", "cbor2", "uvloop")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed (the extra 'bench' brings them)"),
]


@pytest.mark.parametrize("level", LEVELS)
def test_every_benchmark_of_a_level_does_what_it_measures(level: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"benches/{level}", "-q", "--benchmark-disable", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]


def test_the_packet_path_arrives_as_it_was_sent() -> None:
    code = (
        "from benches import packet_path\n"
        "from benches.report import Report\n"
        "report = Report()\n"
        "packet_path.table(report, 3)\n"
        "print(sorted(report.raw['packet_path']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'one packet at a time'" in done.stdout
