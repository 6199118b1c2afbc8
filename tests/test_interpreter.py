"""A free-threaded CPython is refused with a clear message, when burstwire is installed and when it is imported."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

from burstwire import _build

PRETEND = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; "


@pytest.mark.parametrize("name", ["burstwire", "burstwire.core", "burstwire.crypto.aead", "burstwire.cli"])
def test_an_import_on_a_free_threaded_interpreter_says_that_it_is_not_supported(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"{PRETEND}import {name}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: burstwire does not support free-threaded CPython")
    assert "ordinary build" in last


def test_an_installation_on_a_free_threaded_interpreter_ends_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sysconfig.get_config_vars(), "Py_GIL_DISABLED", 1)
    with pytest.raises(SystemExit, match="does not support free-threaded CPython"):
        _build.builder()
