"""Which tests run where: none goes unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("ci", [True, False])
def test_what_needs_namespaces_fails_without_them_in_ci_and_is_skipped_elsewhere(ci: bool) -> None:
    environment = {**os.environ, "PATH": "/nowhere"}
    environment.pop("CI", None)
    if ci:
        environment["CI"] = "true"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/core/test_udp_refusals.py"]
    run = subprocess.run(
        [*command, "-k", "link_local"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ("1 error" if ci else "1 skipped") in run.stdout, run.stdout + run.stderr
    assert "needs root, unshare and ip" in run.stdout
    assert (run.returncode != 0) == ci
