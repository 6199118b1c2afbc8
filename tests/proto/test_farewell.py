"""Both sides say CLOSE, and then neither waits for the other."""

from __future__ import annotations

from pair import Pair

from burstwire.errors import LocallyClosed, PeerClosed
from burstwire.proto.connection import State


def test_who_closes_drains_as_soon_as_the_peer_has_said_close_too():
    pair = Pair()
    pair.a.connection.send_message(b"last words")
    pair.settle()
    pair.a.connection.close(pair.now, 7, "enough")
    for _ in range(3):
        pair.step()
    assert pair.a.connection.state == pair.b.connection.state == State.DRAINING
    assert isinstance(pair.a.connection.error, LocallyClosed)
    assert isinstance(pair.b.connection.error, PeerClosed)
    assert pair.step() == 0, "and nobody says it again"
    assert pair.b.connection.next_message() == b"last words"
