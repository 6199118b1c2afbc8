"""The main job, end to end: a real file, from one process to another, encrypted, over UDP on this machine.

`make run` runs it. It makes two identities and a file of random bytes in a temporary directory, starts
`burstwire receive` and `burstwire send` as two processes, compares the hashes by itself, prints the rate, and leaves
nothing behind. The exit code is 0 only if the file arrived intact.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BURSTWIRE = (sys.executable, "-m", "burstwire")
BLOCK = 1 << 20
DEADLINE = 300.0
"""Seconds after which the processes are stopped, so that nothing can hang."""


def make_file(path: Path, size: int) -> str:
    """Random bytes, so that nothing could compress or guess them; returns their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            block = os.urandom(min(BLOCK, size - start))
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())  # so that the disk does not write it while the transfer is measured
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_identity(path: Path) -> str:
    """A new key pair at `path`; returns the public key."""
    return subprocess.run((*BURSTWIRE, "keygen", path), check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def transfer(folder: Path, file: Path, inbox: Path) -> dict[str, object]:
    """Receiver and sender as two processes; returns what the receiver reports about the file."""
    allowed = make_identity(folder / "sender")
    make_identity(folder / "receiver")
    receive = (*BURSTWIRE, "--identity", folder / "receiver", "receive", inbox, "--listen", "127.0.0.1:0")
    receiver = subprocess.Popen((*receive, "--allow", allowed, "--once", "--json"), text=True, stdout=subprocess.PIPE)
    watchdog = threading.Timer(DEADLINE, receiver.kill)
    watchdog.start()
    try:
        assert receiver.stdout is not None
        listening = json.loads(receiver.stdout.readline() or "{}")
        if not listening:
            raise SystemExit("the receiver did not start")
        print(f"$ {listening['command'].replace('FILE', file.name, 1)}", flush=True)
        to = ("--to", listening["reachable"], "--key", listening["key"])
        sender = subprocess.run((*BURSTWIRE, "--identity", folder / "sender", "send", file, *to), timeout=DEADLINE)
        if sender.returncode:
            raise SystemExit(f"the sender failed with exit code {sender.returncode}")
        report = json.loads(receiver.stdout.readline() or "{}")
        if receiver.wait(DEADLINE) or not report:
            raise SystemExit(f"the receiver failed with exit code {receiver.returncode}")
        return report
    finally:
        watchdog.cancel()
        receiver.kill()
        receiver.wait()
        receiver.stdout.close()


def main() -> None:
    """Make, send, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=256, help="size of the file in MiB (default: 256)")
    size = parser.parse_args().mib << 20
    with tempfile.TemporaryDirectory(prefix="burstwire-run-") as name:
        folder = Path(name)
        (folder / "inbox").mkdir()
        file = folder / "random.bin"
        print(f"making a file of {size:,} random bytes", flush=True)
        expected = make_file(file, size)
        report = transfer(folder, file, folder / "inbox")
        arrived = sorted(path.name for path in (folder / "inbox").iterdir())
        if arrived != [file.name]:
            raise SystemExit(f"the inbox holds {arrived}, not just {file.name}")
        actual = hash_file(folder / "inbox" / file.name)
    if actual != expected:
        raise SystemExit(f"the file arrived damaged: SHA-256 {actual} instead of {expected}")
    seconds = float(str(report["seconds"]))
    print(f"intact: SHA-256 {actual}")
    print(f"{size / 1e6:,.0f} MB in {seconds:.2f} s: {size / 1e6 / seconds:,.0f} MB/s, disk to disk")


if __name__ == "__main__":
    main()
