"""Target: handshake packets to two desks that talk to each other: changed copies of genuine ones, made up ones with a
true mac1, and those of somebody who holds the keys and writes any parameters into them. Their honest handshake
completes nevertheless, they agree on secrets, and nothing is left over."""

from __future__ import annotations

from handshake_link import ANY, Link, Node, address, agree
from reader import Reader
from world import KEYS, check_desk

from burstwire.config import Config
from burstwire.crypto import cookie
from burstwire.crypto.noise import HandshakeState, StaticKey
from burstwire.wire import parameters
from burstwire.wire.header import INITIATE
from burstwire.wire.packets import Initiate, Respond, initiate_header

__all__ = ["desk", "desk_seeds"]

A, B, C = (address(n) for n in range(1, 4))
CONFIGS = (Config(max_half_open=8), Config(max_half_open=8, cookie_threshold=0), Config(preshared_key=b"k" * 32))
STATIC = StaticKey(KEYS[3].private_key)
RANDOM_KEY = b"\x40" * 32
MOST_CONNECTS = 4
"""Honest attempts beside the last one: all of them have their place among the half-open ones."""


def _initiate(node: Node, payload: bytes, cid: int, version: int, config: Config) -> bytes:
    """An INITIATE to `node` from somebody who does everything right but for the payload."""
    psk = config.preshared_key
    header = initiate_header(version, cid, 0 if psk is None else 1)
    noise = HandshakeState(True, STATIC, bytes(node.public), b"burstwire %d" % version + header, RANDOM_KEY, psk=psk)
    message = noise.write_message(payload)
    missing = 1200 - len(header) - len(message) - 32
    if missing > 0:
        noise = HandshakeState(
            True, STATIC, bytes(node.public), b"burstwire %d" % version + header, RANDOM_KEY, psk=psk
        )
        padding = b"\x80\x00\x40\x09" + (missing | 0x4000).to_bytes(2) + bytes(missing)
        message = noise.write_message(payload + padding)
    packet = Initiate(version, cid, 0 if psk is None else 1, message)
    return Initiate(
        version, cid, packet.suite, message, cookie.mac(cookie.mac1_key(bytes(node.public)), packet.mac1_input)
    ).encode()


def _respond(node: Node, datagram: bytes, payload: bytes, config: Config) -> bytes | None:
    """What `node`, if it were hostile, could answer to an INITIATE."""
    packet = Initiate.parse(datagram)
    psk = config.preshared_key
    prologue = b"burstwire %d" % packet.version + packet.header
    noise = HandshakeState(False, StaticKey(node.key.private_key), None, prologue, RANDOM_KEY, psk=psk)
    noise.read_message(packet.message)
    return Respond(packet.src_cid, 5, noise.write_message(payload)).encode()


def _edited(reader: Reader, datagram: bytes, node: Node) -> bytes:
    data = bytearray(datagram)
    for _ in range(reader.number() % 4):
        what, at = reader.number() & 3, reader.number(2) % (len(data) + 1)
        if what == 0:
            del data[at:]
        elif what == 1:
            data[at:at] = reader.block(64)
        else:
            piece = reader.block(64)
            data[at : at + len(piece)] = piece
    if data[:1] == bytes([INITIATE]) and len(data) >= 1200:
        data[-32:-16] = cookie.mac(cookie.mac1_key(bytes(node.public)), bytes(data[:-32]))
    return bytes(data)


def desk(data: bytes) -> None:
    """The first byte chooses a configuration, the following ones what happens."""
    reader = Reader(data)
    shape = reader.number()
    config = CONFIGS[shape % 3]
    a, b = Node(A, 1, config, key=KEYS[0]), Node(B, 2, config, key=KEYS[1])
    link = Link(a, b)
    hostile = shape & 0x40  # then B itself answers what it likes, and nothing is promised to A
    connects = 0
    for _ in range(24):
        if not reader:
            break
        op = reader.number()
        node = (a, b)[op >> 7]
        source = (A, B, C)[reader.number() % 3]
        genuine = [d for _, _, _, d in link.sent if d[0] != 0x10]
        if op & 7 == 0:
            node.desk.receive(reader.block(), source + ANY, link.now)
        elif op & 7 == 1 and genuine:
            chosen = genuine[(op >> 3 & 7) % len(genuine)]
            node.desk.receive(_edited(reader, chosen, node), source + ANY, link.now)
        elif op & 7 == 2:
            payload = reader.block(1000)
            number = reader.number()
            packet = _initiate(node, payload, number & 0x7F, 1 if number & 0x80 else 1 + (number & 3), config)
            node.desk.receive(packet, C + ANY, link.now)
        elif op & 7 == 3 and hostile:
            initiates = link.datagrams(INITIATE, a)
            payload = reader.block(1000)
            if initiates:
                answer = _respond(b, initiates[-1], payload, config)
                if answer is not None:
                    a.desk.receive(answer, B + ANY, link.now)
        elif op & 7 == 4:
            link.run((0.005, 0.05, 0.3, 2.0)[op >> 3 & 3])
        elif op & 7 == 5 and connects < MOST_CONNECTS:
            connects += 1
            link.connect(a, b, timeout=3.0)
        elif op & 7 == 6 and connects < MOST_CONNECTS:
            connects += 1
            link.connect(b, a, timeout=3.0)
        link.collect()
        for one in (a, b):
            check_desk(one.desk, config)
    if not hostile:
        number = link.connect(a, b)
        link.run(12.0)
        ours = [up for up in a.up if up.attempt == number]
        assert len(ours) == 1, f"the honest attempt failed: {a.failed}"
        assert any(agree(ours[0], other) for other in b.up), "the honest attempt led to somebody else"
        for one in a.up:
            assert one.peer_key in (b.public, KEYS[3].public)
            assert one.attempt is None or one.peer_key == b.public, "an attempt led to somebody else"
    link.run(60)
    for node in (a, b):
        stats = node.desk.stats()
        assert stats["half_open"] == stats["attempts"] == 0, "something is left over"
        assert node.desk.next_timeout() is None


def desk_seeds() -> list[bytes]:
    """Handshakes with edits, with any parameters, and with a hostile responder."""
    payload = parameters.encode(parameters.TransportParameters(versions=(1,), aeads=(0,), attempt=bytes(8)))
    block = len(payload).to_bytes(2) + payload
    cids = parameters.encode(parameters.TransportParameters(versions=(1,), aeads=(0,), cids=(0, 5)))
    refusal = parameters.encode(parameters.TransportParameters(versions=(1,), refusal=(3, "no")))
    edit = b"\x01\x02\x00\x0a\x00\x04abcd"
    seeds = []
    for shape in range(3):
        first = bytes([shape])
        seeds += [
            first + b"\x05\x00\x81\x00" + edit + b"\x0c\x00\x01\x01" + edit,
            first + b"\x05\x00\x06\x00\x0c\x00\x1c\x00",
            first + b"\x82\x02" + block + b"\x80\x82\x02" + block + b"\x07\x02\x02" + block + b"\x85",
            first + b"\x80\x02\x00\x05\x03\x00\x00\x00\x01",
            bytes([shape | 0x40]) + b"\x05\x00\x03\x00" + len(cids).to_bytes(2) + cids + b"\x0c\x00",
            bytes([shape | 0x40]) + b"\x05\x00\x03\x00" + len(refusal).to_bytes(2) + refusal + b"\x0c\x00",
        ]
    return seeds
