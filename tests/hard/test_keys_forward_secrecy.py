"""Forward secrecy: secrets that are stolen later open nothing that was recorded before.

The thief here needs none of our code but the key schedule's formulas: he has every datagram, and tries what he has.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from burstwire import Config
from burstwire.crypto.keys import derive
from burstwire.crypto.noise import HandshakeState
from burstwire.errors import HandshakeError
from burstwire.sim import Link, Simulation
from burstwire.wire.header import DATA, INITIATE, RESPOND
from burstwire.wire.packets import Initiate, Respond

CONFIG = Config(aeads=("aes-128-gcm",), key_update_packets=20, key_update_interval=0.0)
AHEAD = 64
"""Generations that the thief derives from what he stole."""


def ratcheted(secret: bytes) -> list[AESGCM]:
    """The packet keys of this generation's secret and those after it."""
    found = []
    for _ in range(AHEAD):
        key = hmac.digest(secret, b"burstwire 1 key\x00\x01", hashlib.sha256)[:16]
        found.append(AESGCM(key))
        secret = hmac.digest(secret, b"burstwire 1 update\x01", hashlib.sha256)
    return found


def opened(packets: Iterable[bytes], keys: list[AESGCM]) -> int:
    """How many of these DATA packets any of the keys opens."""
    count = 0
    for packet in packets:
        for key in keys:
            try:
                key.decrypt(packet[1:13], packet[13:], packet[:13])
                count += 1
                break
            except InvalidTag:
                continue
    return count


@pytest.fixture
def recorded(seed: int) -> Iterable[tuple[Simulation, object, object, list[bytes]]]:
    """A simulation with two peers that have talked through some key updates, and everything that was sent."""
    datagrams: list[bytes] = []
    with Simulation(seed, Link(delay=0.01, rate=2.5e6)) as sim:
        sim.network.tap = lambda now, source, destination, sent: datagrams.extend(map(bytes, sent))
        hosts = [sim.host(f"10.0.0.{n}", config=CONFIG) for n in (1, 2)]
        left, right = sim.connect(*hosts)
        while min(peer.connection.stats()["key_updates"] for peer in (left, right)) < 4:
            flows = [peer.open().send(50_000) for peer in (left, right)]
            sim.run(lambda flows=flows: all(flow.stream and flow.stream.sending.all_acked for flow in flows))
        sim.pass_time(1.0)
        yield sim, left, right, datagrams


def test_secrets_of_the_current_generation_do_not_open_recorded_packets_of_earlier_ones(
    recorded: tuple, outcome: Callable[[str, str, str], None]
) -> None:
    _, left, right, datagrams = recorded
    tried = refused = controls = 0
    for peer in (left, right):
        connection = peer.connection
        stolen = bytes(connection.keys._seal._secret)
        now = connection.keys.sealing
        assert now >= 4
        mine = [d for d in datagrams if d[0] == DATA and int.from_bytes(d[1:5]) == connection.remote_cid]
        generation = [int.from_bytes(d[5:13]) >> 22 for d in mine]
        old = [d for d, g in zip(mine, generation, strict=True) if g < now]
        current = [d for d, g in zip(mine, generation, strict=True) if g == now]
        keys = ratcheted(stolen)
        assert len(old) > 60
        assert opened(old, keys) == 0
        assert opened(current, keys) == len(current) > 0
        tried += len(old)
        controls += len(current)
        refused += len(old) * len(keys)
    outcome(
        "attacks",
        "secrets stolen after key updates, against recorded packets",
        f"0 of {tried} older packets opened ({refused:,} tries); all {controls} of the current generation opened",
    )


def test_static_keys_that_are_stolen_later_do_not_open_a_recorded_conversation(
    recorded: tuple, outcome: Callable[[str, str, str], None]
) -> None:
    _, left, right, datagrams = recorded
    initiate = Initiate.parse(next(d for d in datagrams if d[0] == INITIATE))
    respond = Respond.parse(next(d for d in datagrams if d[0] == RESPOND))
    data = [d for d in datagrams if d[0] == DATA]
    initiator, responder = (peer.host.endpoint.key.private_bytes() for peer in (left, right))
    prologue = b"burstwire %d" % initiate.version + initiate.header
    # As the responder: message 1 opens (the keys are the right ones), but the ephemeral key of message 2 is gone.
    state = HandshakeState(False, responder, prologue=prologue)
    assert state.read_message(initiate.message)
    state.write_message(b"")
    guesses = list(derive(state.split(), False, state.handshake_hash))
    # As the initiator: both static keys and every message, but not the ephemeral key of message 1.
    state = HandshakeState(True, initiator, bytes(right.host.endpoint.key.public), prologue)
    state.write_message(b"")
    with pytest.raises(HandshakeError):
        state.read_message(respond.message)
    keys = [key for secret in guesses for key in ratcheted(bytes(secret))]
    assert len(data) > 200
    assert opened(data, keys) == 0
    outcome(
        "attacks",
        "both static keys stolen later, against a recorded conversation",
        f"message 1 opens, as documented; RESPOND does not, and of {len(data)} DATA packets 0",
    )
