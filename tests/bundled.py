"""Prove that a wheel brings its own libIPSec_MB: `python tests/bundled.py dist`.

The wheel is installed to a fresh virtual environment, and a process there seals and opens with the back end
ipsec-mb. Every libIPSec_MB that this process has mapped must lie in that environment: the system's, if there is one,
was neither needed nor looked at.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

USE = """
from pathlib import Path
from burstwire.core import BufferRing
from burstwire.crypto.aead import make_aead
ring = BufferRing(1)
slot = ring.lease()
aead = make_aead("aes-128-gcm", bytes(16), "ipsec-mb")
aead.seal_run(ring, slot, 0, 1200, 50, 1200)
assert aead.open_run(ring, slot, 0, 1200, 50, 1200, (1 << 50) - 1) == (1 << 50) - 1
assert not any(ring.views[slot][13:1184])
maps = Path("/proc/self/maps").read_text().splitlines()
print(*{line.split(maxsplit=5)[5] for line in maps if "libIPSec_MB" in line}, sep="\\n")
"""


def main(folder: str) -> int:
    wheels = list(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        print(f"there must be exactly one wheel in {folder}, not {len(wheels)}")
        return 1
    with tempfile.TemporaryDirectory() as work:
        venv = Path(work).resolve() / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        inside = venv / "bin" / "python"
        subprocess.run([inside, "-m", "pip", "install", "--quiet", wheels[0].resolve()], check=True)
        used = subprocess.run([inside, "-I", "-c", USE], cwd=work, capture_output=True, text=True, check=False)
        loaded = [Path(line) for line in used.stdout.splitlines()]
        if used.returncode != 0 or not loaded or not all(path.is_relative_to(venv) for path in loaded):
            print(f"{wheels[0].name} does not use a library of its own: {used.stdout or 'none'}{used.stderr}")
            return 1
        print(f"{wheels[0].name} uses {', '.join(str(path.relative_to(venv)) for path in loaded)} and no other")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
