"""Test the wheel on every CPython from 3.11 on that this machine has: `python tests/pythons.py dist`.

Looks on the PATH and among pyenv's versions. Each interpreter gets a fresh virtual environment with the wheel, and
runs all tests against it, in a copy of the tracked files, so that nothing of a build in the source tree is seen.
Exits with 1 when one fails, when there is no wheel that suits them all (abi3), or when fewer than three different
versions were found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = 3
ASK = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:2], platform.python_version())"


def interpreters() -> dict[str, Path]:
    """Version to executable, one for each CPython 3.x from 3.11 on."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    for folder in (Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob("*"):
        if re.match(r"3\.(1[1-9]|[2-9]\d)", folder.name):
            candidates.append(str(folder / "bin" / "python3"))
    found: dict[str, Path] = {}
    for candidate in filter(None, candidates):
        answer = subprocess.run([candidate, "-I", "-c", ASK], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            continue  # a shim of pyenv without a version behind it
        kind, major, minor, version = answer.stdout.split()
        if kind == "CPython" and (int(major), int(minor)) >= (3, 11):
            found.setdefault(f"{major}.{minor}", Path(candidate))
            print(f"found CPython {version} at {candidate}")
    return found


def run(python: Path, wheel: Path, work: Path) -> bool:
    """Whether the tests pass there."""
    subprocess.run([python, "-m", "venv", work / "venv"], check=True)
    inside = work / "venv" / "bin" / "python"
    install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[test]"]
    subprocess.run(install, check=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if not (ROOT / name).is_file():
            continue
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    environment = {**os.environ, "BURSTWIRE_TESTED": str(work / "venv")}
    tests = subprocess.run([inside, "-m", "pytest", "-q", "tests"], cwd=work, env=environment, check=False)
    return tests.returncode == 0


def main(folder: str) -> int:
    wheels = list(Path(folder).glob("*-cp311-abi3-*.whl"))
    if len(wheels) != 1:
        print(f"there must be exactly one abi3 wheel in {folder}, not {len(wheels)}")
        return 1
    results = {}
    found = interpreters()
    for version, python in sorted(found.items(), key=lambda entry: int(entry[0].split(".")[1])):
        print(f"--- CPython {version} ({python})", flush=True)
        with tempfile.TemporaryDirectory() as work:
            results[version] = run(python, wheels[0].resolve(), Path(work))
    print("  ".join(f"{version}: {'passed' if ok else 'FAILED'}" for version, ok in results.items()))
    if len(results) < WANTED:
        print(f"only {len(results)} versions of CPython from 3.11 on were found; {WANTED} are wanted")
        return 1
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
