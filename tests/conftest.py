"""What all tests share: where the extension under test comes from, and which tests this machine can run."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("BURSTWIRE_HYPOTHESIS", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hard", action="store_true", help="tests/hard with the amounts that docs/security.md quotes")
    parser.addoption("--seed", type=int, default=1, help="what the fixture `seed` gives (default: 1)")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What random decisions of a test come from: `make test-repeat` gives another one each round."""
    return int(request.config.getoption("--seed"))


def pytest_report_header() -> str:
    from burstwire.core import _burstwire

    return f"burstwire extension: {_burstwire.__file__}"


def pytest_sessionstart() -> None:
    """A run must test what it says: BURSTWIRE_TESTED names the directory that the extension comes from, and with
    BURSTWIRE_SANITIZE=1 it must have been built with the sanitizers."""
    from burstwire.core import _burstwire

    found = Path(_burstwire.__file__).resolve()
    expected = os.environ.get("BURSTWIRE_TESTED")
    if expected and not found.is_relative_to(Path(expected).resolve()):
        raise pytest.UsageError(f"the extension comes from {found}, not from {expected}")
    if os.environ.get("BURSTWIRE_SANITIZE") == "1" and b"__asan_init" not in found.read_bytes():
        raise pytest.UsageError(f"{found} was built without the sanitizers")


@cache
def has_network_namespaces() -> bool:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0


NO_NAMESPACES = "needs root, unshare and ip (iproute2)"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs namespaces and cannot have them is skipped, but not where CI is set: there it fails."""
    if item.get_closest_marker("netns") and not has_network_namespaces():
        if os.environ.get("CI"):
            pytest.fail(NO_NAMESPACES, pytrace=False)
        pytest.skip(NO_NAMESPACES)
