"""Target: handshake messages, changed or made up. `HandshakeError` is the only exception; nobody is taken for another;
and after whatever was refused the true message is still read, and both sides agree."""

from __future__ import annotations

from random import Random

from reader import Reader
from world import KEYS

from burstwire.crypto.noise import HandshakeState, StaticKey
from burstwire.errors import HandshakeError

__all__ = ["noise", "noise_seeds"]

INITIATOR, RESPONDER = (StaticKey(key.private_key) for key in KEYS[:2])
EPHEMERALS = [Random(n).randbytes(32) for n in (7, 8)]
PSK = b"k" * 32


def _pair(psk: bytes | None) -> tuple[HandshakeState, HandshakeState]:
    first = HandshakeState(True, INITIATOR, RESPONDER.public, b"prologue", EPHEMERALS[0], psk=psk)
    second = HandshakeState(False, RESPONDER, None, b"prologue", EPHEMERALS[1], psk=psk)
    return first, second


def _edited(reader: Reader, genuine: bytes) -> bytes:
    """The genuine message with edits of the input's choice, or none of it."""
    message = bytearray(genuine)
    for _ in range(reader.number() % 4):
        what, at = reader.number() & 3, reader.number(2) % (len(message) + 1)
        if what == 0:
            del message[at:]
        elif what == 1:
            message[at:at] = reader.block(200)
        else:
            piece = reader.block(64)
            message[at : at + len(piece)] = piece
    return bytes(message)


def noise(data: bytes) -> None:
    """The first byte chooses suite and role; edits, or a whole message, follow."""
    reader = Reader(data)
    shape = reader.number()
    first, second = _pair(PSK if shape & 1 else None)
    message1 = first.write_message(b"offered" * (shape >> 4))
    states = [(second, message1)]
    if shape & 2:
        assert second.read_message(message1) == b"offered" * (shape >> 4)
        states = [(first, second.write_message(b"answered"))]
    for state, genuine in states:
        digest = state.handshake_hash
        for _ in range(4):
            forged = reader.block() if shape & 4 else _edited(reader, genuine)
            if forged == genuine:
                continue
            for read in (state.peek, state.read_message):
                try:
                    read(forged)
                except HandshakeError:
                    assert state.handshake_hash == digest, "a refused message changed the state"
                else:
                    raise AssertionError("a message that the peer did not write was read")
            if not reader:
                break
        state.read_message(genuine)
    if shape & 2:
        assert first.split() == second.split()
        assert first.handshake_hash == second.handshake_hash


def noise_seeds() -> list[bytes]:
    """Each suite and role, edited here and there; made up messages."""
    edits = [b"\x01\x00\x00\x30", b"\x01\x02\x00\x00\x00\x20" + bytes(32), b"\x01\x01\x00\x10\x00\x04abcd", b"\x00"]
    stranger = HandshakeState(True, StaticKey(KEYS[3].private_key), RESPONDER.public, b"another prologue")
    whole = len(message := stranger.write_message(b"x")).to_bytes(2) + message
    return [bytes([shape]) + edit for shape in range(4) for edit in edits] + [b"\x04" + whole, b"\x06" + whole]
