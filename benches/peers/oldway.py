"""`benches.oldway`, one packet at a time, as a peer in processes of its own."""

from __future__ import annotations

from benches.oldway import OldWayPeer
from benches.peers.process import main

if __name__ == "__main__":
    main(OldWayPeer)
