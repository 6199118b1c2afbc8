"""Bulk flows as processes of their own, in namespaces: burstwire's and the kernel's TCP, started and read alike."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from benches.shaped.namespace import Namespace, ShapedError

__all__ = ["Dialler", "Flow", "Listener"]

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 120.0
"""Seconds without a word after which a flow is given up."""


class Flow:
    """A process in a namespace that says lines of JSON."""

    def __init__(self, host: Namespace, *arguments: str) -> None:
        self.name = " ".join(arguments[:3])
        with host.inside():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benches.shaped.worker", *arguments],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            )  # fmt: skip
        try:
            self.about = self.line()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def line(self) -> dict[str, Any]:
        """The next thing that the process says; raises `ShapedError` when it ends or is silent instead."""
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], PATIENCE)
        text = stdout.readline() if ready else ""
        if not text:
            raise ShapedError(f"{self.name}: {'ended' if ready else 'silent for too long'}")
        said: dict[str, Any] = json.loads(text)
        return said

    def go(self, seconds: float = 0.0, count: int = 0) -> None:
        """Send for so long or so much; `line` says when it has arrived. For the end that is the source."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds} {count}\n")


class Listener(Flow):
    """One end of a flow, `kind` "ours" or "tcp", waiting at `address` of its host; a sink unless it is `source`."""

    def __init__(
        self, host: Namespace, kind: str, address: str, controller: str = "cubic", *, source: bool = False
    ) -> None:
        self.kind = kind
        self.address = address
        self.controller = controller
        self.source = source
        super().__init__(host, kind, "listen", "source" if source else "sink", controller, address)


class Dialler(Flow):
    """The other end, connected to `peer`; it sends unless its peer does."""

    def __init__(self, host: Namespace, peer: Listener) -> None:
        where = [peer.address, str(peer.about["port"]), *filter(None, [peer.about.get("key")])]
        super().__init__(host, peer.kind, "dial", "sink" if peer.source else "source", peer.controller, *where)
