"""What a thief finds who reads the memory of a process, or takes its secrets, after keys were replaced: nothing old."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from burstwire.crypto.aead import backends

CHILD = Path(__file__).parent / "memory_of_keys.py"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="memory is read by way of /proc")
@pytest.mark.parametrize("backend", backends())
def test_three_ptos_after_an_update_the_memory_of_the_process_holds_no_key_of_before(
    backend: str, full: bool, outcome: Callable[[str, str, str], None]
) -> None:
    generations = 50 if full else 4
    child = subprocess.run(
        [sys.executable, str(CHILD), backend, str(generations)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["generations"] == [generations] * 2
    assert result["after"] == dict.fromkeys(result["after"], 0)
    assert result["searched"]["packet keys"] == result["searched"]["secrets of generations"] == 2 * generations
    # Of the handshake nothing was left from the beginning.
    assert result["before"] == {"chaining key": 0, "split": 0, "first secrets": 2, "packet keys": 2}
    # The same search finds what is in use: a secret and a key for each direction.
    assert result["current"] == 4
    searched = sum(result["searched"].values())
    outcome(
        "attacks",
        f"memory stolen after key updates ({backend})",
        f"{searched} older secrets and keys searched for in all memory of the process: 0 found; of 4 in use: 4",
    )
