"""Another peer with a busy Python thread in each of its processes: `python -m benches.peers.busy oldway serve`.

The thread computes and never waits, so the event loop has to get the GIL back after every call that gives it up.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from benches.oldway import OldWayPeer
from benches.peers.ours import OurPeer
from benches.peers.process import main

PEERS: dict[str, type[Any]] = {"ours": OurPeer, "oldway": OldWayPeer}


def compute() -> None:
    """What an application might do all the time."""
    value = 1
    while True:
        value = value * 69069 % 4294967291


if __name__ == "__main__":
    peer = PEERS[sys.argv.pop(1)]
    threading.Thread(target=compute, daemon=True).start()
    main(peer)
