"""docs/protocol.md says what the code does: its worked example, its tables of numbers, its constants.

The example is made three times: by hand from the rules of the document (`by_hand`, standard library and
cryptography only), by an independent Noise implementation, and by two real endpoints; all must give the
bytes that stand in the document. After a deliberate change of the protocol, run this file as a script: it
prints the blocks of the example to be pasted into the document.
"""

from __future__ import annotations

import hmac
import importlib
import re
from hashlib import blake2s, sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

from burstwire.config import Config
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.crypto.keys import derive
from burstwire.crypto.noise import HandshakeState
from burstwire.identity import KeyPair
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.negotiation import Refusal
from burstwire.wire import frames, header, parameters, varint
from burstwire.wire.errors import TransportCode
from burstwire.wire.packets import Cookie, Initiate, Reset, Respond, Versions

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol.md"

# --- the inputs of the example -------------------------------------------------------------------

NOW = 1000.0
INITIATOR_ADDRESS = bytes.fromhex("0400 9c40 00000000 c0000201") + bytes(12)  # 192.0.2.1:40000
RESPONDER_ADDRESS = bytes.fromhex("0400 1151 00000000 c6336402") + bytes(12)  # 198.51.100.2:4433
INITIATOR = SimpleNamespace(static=bytes(range(0x00, 0x20)), ephemeral=bytes(range(0x40, 0x60)), cid=0x1A2B3C4D)
RESPONDER = SimpleNamespace(static=bytes(range(0x20, 0x40)), ephemeral=bytes(range(0x60, 0x80)), cid=0x5E6F7081)
ATTEMPT = bytes(range(0xA0, 0xA8))
SALT = bytes(range(0xB0, 0xC0))
COOKIE = bytes(range(0xC0, 0xD0))
RECEIVE_BUFFER = 425_984
CONFIG = Config(
    aeads=("aes-128-gcm", "chacha20-poly1305"),
    application_protocol="echo/1",
    idle_timeout=30.0,
    keep_alive=10.0,
    max_ack_delay=0.025,
    connection_window=1 << 20,
    stream_window=1 << 18,
    max_streams=8,
    max_message_size=1 << 20,
)


# --- reading the document ------------------------------------------------------------------------


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """The fenced blocks whose info string is `kind`."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text(), re.M | re.S)


def documented() -> dict[str, bytes]:
    """name → bytes of the example: `name = hex`, continued on indented lines."""
    values: dict[str, bytes] = {}
    for block in blocks("example"):
        for name, digits in re.findall(r"^(\S[^=\n]*?) = *\n?((?:.*\n?)(?:^ .*\n?)*)", block, re.M):
            assert name not in values, f"{name} is there twice"
            values[name] = bytes.fromhex("".join(digits.split()))
    return values


def section(title: str) -> str:
    """A section with its sub-sections, without its heading and fenced blocks."""
    found = re.search(rf"^(#+) (?:[\d.]+ )?{re.escape(title)}$", text(), re.M)
    assert found, f"no section is called {title!r}"
    rest = re.sub(r"^```.*?^```$", "", text()[found.end() :], flags=re.M | re.S)
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def rows(title: str) -> list[list[str]]:
    """The rows of the tables of one section, without the first heading, as cells."""
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in section(title).splitlines()
        if line.startswith("|") and not set(line) <= set("|-: ")
    ][1:]


# --- the example by hand -------------------------------------------------------------------------


def hkdf(salt: bytes, material: bytes, count: int) -> list[bytes]:
    """Noise §4.3."""
    key = hmac.digest(salt, material, "sha256")
    out = [b""]
    for number in range(count):
        out.append(hmac.digest(key, out[-1] + bytes([number + 1]), "sha256"))
    return out[1:]


def expand(key: bytes, info: bytes, size: int = 32) -> bytes:
    """HKDF-Expand of RFC 5869, one block."""
    return hmac.digest(key, info + b"\x01", "sha256")[:size]


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))


def tlv(identifier: int, value: bytes) -> bytes:
    return u(identifier) + u(len(value)) + value


def u(value: int) -> bytes:
    """A varint (RFC 9000 §16)."""
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (prefix << (8 * size - 2) | value).to_bytes(size)
    raise ValueError(value)


def reset_token(private: bytes, cid: int) -> bytes:
    key = expand(hmac.digest(b"", private, "sha256"), b"reset")
    return hmac.digest(key, cid.to_bytes(4), "sha256")[:16]


def hand_parameters(token: bytes) -> bytes:
    """What both sides of the example say alike, up to the versions."""
    return b"".join(
        (
            tlv(0x01, u(30_000)),
            tlv(0x04, u(1 << 20)),
            tlv(0x05, u(1 << 18)),
            tlv(0x06, u(1 << 18)),
            tlv(0x08, u(8)),
            tlv(0x20, u(65_535)),
            tlv(0x4004, u(1 << 20)),
            tlv(0x4005, u(RECEIVE_BUFFER)),
            tlv(0x02, token),
        )
    )


def by_hand() -> dict[str, dict[str, bytes]]:
    """Every value of the example, block by block, from the rules of the document alone."""
    keys: dict[str, bytes] = {}
    for name, side in (("initiator", INITIATOR), ("responder", RESPONDER)):
        keys[f"{name} static private"] = side.static
        keys[f"{name} static public"] = public(side.static)
        keys[f"{name} ephemeral private"] = side.ephemeral
        keys[f"{name} ephemeral public"] = public(side.ephemeral)
        keys[f"{name} cid"] = side.cid.to_bytes(4)
        keys[f"{name} address"] = INITIATOR_ADDRESS if side is INITIATOR else RESPONDER_ADDRESS
        keys[f"{name} reset token"] = reset_token(side.static, side.cid)
    keys["attempt id"] = ATTEMPT
    initiator_public, responder_public = keys["initiator static public"], keys["responder static public"]

    # INITIATE
    one: dict[str, bytes] = {}
    head = b"\x01" + (1).to_bytes(4) + INITIATOR.cid.to_bytes(4) + b"\x00"
    one["initiate header"] = head
    one["prologue"] = b"burstwire 1" + head
    ck = h = b"Noise_IK_25519_ChaChaPoly_SHA256"
    h = sha256(h + one["prologue"]).digest()
    h = sha256(h + responder_public).digest()
    one["h after pre-message"] = h
    h = sha256(h + keys["initiator ephemeral public"]).digest()
    one["DH es"] = dh(INITIATOR.ephemeral, responder_public)
    ck, k = hkdf(ck, one["DH es"], 2)
    one["ck after es"], one["k after es"] = ck, k
    sealed_static = ChaCha20Poly1305(k).encrypt(bytes(12), initiator_public, h)
    one["sealed static key"] = sealed_static
    h = sha256(h + sealed_static).digest()
    one["DH ss"] = dh(INITIATOR.static, responder_public)
    ck, k = hkdf(ck, one["DH ss"], 2)
    one["ck after ss"], one["k after ss"] = ck, k
    offered = (
        hand_parameters(keys["initiator reset token"])
        + tlv(0x4003, RESPONDER_ADDRESS)
        + tlv(0x4006, ATTEMPT)
        + tlv(0x4000, (1).to_bytes(4))
        + tlv(0x4001, b"\x00\x02")
        + tlv(0x4002, b"echo/1")
    )
    one["offered parameters"] = offered
    padding = 1200 - 10 - 32 - 96 - len(offered) - 6
    payload = offered + u(0x4009) + (0x4000 | padding).to_bytes(2) + bytes(padding)
    sealed = ChaCha20Poly1305(k).encrypt(bytes(12), payload, h)
    h = sha256(h + sealed).digest()
    one["h after message 1"] = h
    packet = head + keys["initiator ephemeral public"] + sealed_static + sealed
    one["mac1 key"] = blake2s(b"mac1----" + responder_public).digest()
    one["mac1"] = blake2s(packet, key=one["mac1 key"], digest_size=16).digest()
    one["INITIATE"] = packet + one["mac1"] + bytes(16)

    # RESPOND
    two: dict[str, bytes] = {}
    h = sha256(h + keys["responder ephemeral public"]).digest()
    two["DH ee"] = dh(RESPONDER.ephemeral, keys["initiator ephemeral public"])
    ck, k = hkdf(ck, two["DH ee"], 2)
    two["ck after ee"] = ck
    two["DH se"] = dh(RESPONDER.ephemeral, initiator_public)
    ck, k = hkdf(ck, two["DH se"], 2)
    two["ck after se"], two["k after se"] = ck, k
    answered = (
        hand_parameters(keys["responder reset token"])
        + tlv(0x4003, INITIATOR_ADDRESS)
        + tlv(0x4000, (1).to_bytes(4))
        + tlv(0x4001, b"\x00")
        + tlv(0x4002, b"echo/1")
        + tlv(0x4008, INITIATOR.cid.to_bytes(4) + RESPONDER.cid.to_bytes(4))
    )
    two["answered parameters"] = answered
    sealed = ChaCha20Poly1305(k).encrypt(bytes(12), answered, h)
    h = sha256(h + sealed).digest()
    two["handshake hash"] = h
    two["RESPOND"] = (
        b"\x02" + INITIATOR.cid.to_bytes(4) + RESPONDER.cid.to_bytes(4) + keys["responder ephemeral public"] + sealed
    )

    # key schedule
    three: dict[str, bytes] = {}
    split = hkdf(ck, b"", 2)
    for name, key in zip(("initiator", "responder"), split, strict=True):
        three[f"split {name}"] = key
        prk = hmac.digest(h, key, "sha256")
        three[f"prk {name}"] = prk
        secret = expand(prk, b"burstwire 1 " + name.encode())
        three[f"secret {name} 0"] = secret
        three[f"key {name} 0"] = expand(secret, b"burstwire 1 key\x00", 16)
        secret = expand(secret, b"burstwire 1 update")
        three[f"secret {name} 1"] = secret
        three[f"key {name} 1"] = expand(secret, b"burstwire 1 key\x00", 16)

    # DATA
    four: dict[str, bytes] = {}
    for label, name, cid, counter, plain in (
        ("PING", "initiator", RESPONDER.cid, 0, b"\x01"),
        ("CONFIRM", "responder", INITIATOR.cid, 0, bytes.fromhex("0200000000 1e")),
        ("UPDATE", "initiator", RESPONDER.cid, (1 << 22) + 1, bytes.fromhex("0200000000 01")),
    ):
        nonce = cid.to_bytes(4) + counter.to_bytes(8)
        four[f"{label} plaintext"] = plain
        four[f"{label} nonce"] = nonce
        four[f"{label} aad"] = b"\x10" + nonce
        key = three[f"key {name} {counter >> 22}"]
        four[f"{label} packet"] = b"\x10" + nonce + AESGCM(key).encrypt(nonce, plain, b"\x10" + nonce)

    # the packets beside
    five: dict[str, bytes] = {"salt": SALT, "cookie": COOKIE}
    five["cookie key"] = expand(hmac.digest(SALT, responder_public, "sha256"), b"burstwire 1 cookie")
    sealed = ChaCha20Poly1305(five["cookie key"]).encrypt(bytes(12), COOKIE, one["mac1"])
    five["COOKIE"] = b"\x03" + INITIATOR.cid.to_bytes(4) + SALT + sealed
    five["mac2"] = blake2s(packet + one["mac1"], key=COOKIE, digest_size=16).digest()
    five["VERSIONS"] = b"\x04" + INITIATOR.cid.to_bytes(4) + keys["initiator ephemeral public"][:16] + (1).to_bytes(4)
    five["RESET"] = b"\x05" + RESPONDER.cid.to_bytes(4) + keys["responder reset token"]

    return {"inputs": keys, "INITIATE": one, "RESPOND": two, "keys": three, "DATA": four, "others": five}


def render() -> str:
    out = []
    for group in by_hand().values():
        out.append("```example")
        for name, value in group.items():
            digits = value.hex()
            lines = [digits[i : i + 96] for i in range(0, len(digits), 96)]
            if len(name) + 3 + len(digits) <= 100:
                out.append(f"{name} = {digits}")
            else:
                out.append(f"{name} =")
                out.extend(f"  {line}" for line in lines)
        out.append("```")
        out.append("")
    return "\n".join(out)


@pytest.fixture(scope="module")
def example() -> dict[str, bytes]:
    return documented()


def test_the_example_follows_from_the_rules_of_the_document(example: dict[str, bytes]) -> None:
    expected = {name: value for group in by_hand().values() for name, value in group.items()}
    assert example.keys() == expected.keys()
    for name, value in expected.items():
        assert example[name] == value, name


# --- the example by an independent Noise implementation ------------------------------------------


def noise_peer(initiator: bool) -> Any:
    """noiseprotocol, set up with the keys of one side."""
    me, other = (INITIATOR, RESPONDER) if initiator else (RESPONDER, INITIATOR)
    peer = NoiseConnection.from_name(b"Noise_IK_25519_ChaChaPoly_SHA256")
    if initiator:
        peer.set_as_initiator()
        peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public(other.static))
    else:
        peer.set_as_responder()
    peer.set_keypair_from_private_bytes(Keypair.STATIC, me.static)
    peer.set_keypair_from_private_bytes(Keypair.EPHEMERAL, me.ephemeral)
    peer.set_prologue(documented()["prologue"])
    peer.start_handshake()
    return peer


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")
def test_an_independent_noise_implementation_reads_and_writes_the_same_messages(
    example: dict[str, bytes],
) -> None:
    message_1 = Initiate.parse(example["INITIATE"]).message
    message_2 = Respond.parse(example["RESPOND"]).message
    initiator, responder = noise_peer(True), noise_peer(False)
    payload = bytes(responder.read_message(message_1))
    assert payload.startswith(example["offered parameters"])
    assert bytes(initiator.write_message(payload)) == message_1
    assert bytes(initiator.read_message(message_2)) == example["answered parameters"]
    assert bytes(responder.write_message(example["answered parameters"])) == message_2
    for peer in (initiator, responder):
        assert peer.get_handshake_hash() == example["handshake hash"]
    protocol = initiator.noise_protocol
    assert protocol.cipher_state_encrypt.k == example["split initiator"]
    assert protocol.cipher_state_decrypt.k == example["split responder"]


# --- the example by the code ---------------------------------------------------------------------


def test_the_noise_layer_makes_the_messages_of_the_example(example: dict[str, bytes]) -> None:
    prologue = example["prologue"]
    one = HandshakeState(True, INITIATOR.static, example["responder static public"], prologue, INITIATOR.ephemeral)
    two = HandshakeState(False, RESPONDER.static, None, prologue, RESPONDER.ephemeral)
    message_1 = Initiate.parse(example["INITIATE"]).message
    message_2 = Respond.parse(example["RESPOND"]).message
    payload = two.read_message(message_1)
    assert two.remote_static == example["initiator static public"]
    assert one.write_message(payload) == message_1
    assert two.write_message(example["answered parameters"]) == message_2
    assert one.read_message(message_2) == example["answered parameters"]
    for side, mine, other in ((one, "initiator", "responder"), (two, "responder", "initiator")):
        assert side.handshake_hash == example["handshake hash"]
        assert side.split() == (example["split initiator"], example["split responder"])
        secrets = derive(side.split(), side is one, side.handshake_hash)
        assert secrets == (example[f"secret {mine} 0"], example[f"secret {other} 0"])


def test_the_parameters_of_the_example_are_read_back(example: dict[str, bytes]) -> None:
    offered = parameters.decode(example["offered parameters"])
    answered = parameters.decode(example["answered parameters"])
    for said in (offered, answered):
        assert parameters.encode(said) in (example["offered parameters"], example["answered parameters"])
        assert said.max_idle_timeout == 30_000
        assert said.initial_max_data == said.max_message_size == 1 << 20
        assert said.receive_buffer == RECEIVE_BUFFER
        assert said.application_protocol == "echo/1"
    assert offered.aeads == (0, 2)
    assert answered.aeads == (0,)
    assert offered.observed_address == RESPONDER_ADDRESS
    assert answered.observed_address == INITIATOR_ADDRESS
    assert answered.cids == (INITIATOR.cid, RESPONDER.cid)


def test_the_packets_beside_are_encoded_alike(example: dict[str, bytes]) -> None:
    assert Cookie(INITIATOR.cid, SALT, example["COOKIE"][21:]).encode() == example["COOKIE"]
    assert Versions(INITIATOR.cid, example["initiator ephemeral public"][:16], (1,)).encode() == example["VERSIONS"]
    assert Reset(RESPONDER.cid, example["responder reset token"]).encode() == example["RESET"]
    packet = Initiate.parse(example["INITIATE"])
    assert (packet.version, packet.src_cid, packet.suite) == (1, INITIATOR.cid, 0)
    assert (packet.mac1, packet.mac2) == (example["mac1"], bytes(16))
    assert len(example["INITIATE"]) == header.MIN_INITIATE_SIZE


def test_the_data_of_the_example_open_with_nothing_but_the_header(example: dict[str, bytes]) -> None:
    for label, name, generation, kinds in (
        ("PING", "initiator", 0, [frames.PING]),
        ("CONFIRM", "responder", 0, [frames.ACK, frames.CONFIRM]),
        ("UPDATE", "initiator", 1, [frames.ACK, frames.PING]),
    ):
        packet = example[f"{label} packet"]
        kind, cid, counter = header.HEADER.unpack_from(packet)
        assert kind == header.DATA
        assert cid == (RESPONDER if name == "initiator" else INITIATOR).cid
        assert counter >> 22 == generation
        key = example[f"key {name} {generation}"]
        plain = AESGCM(key).decrypt(packet[1:13], packet[header.HEADER_SIZE :], packet[:13])
        assert plain == example[f"{label} plaintext"]
        assert [frame[0] for frame in frames.parse(plain)] == kinds


class Wire:
    """An endpoint with the keys of one side, its randomness taken from the example."""

    def __init__(self, side: SimpleNamespace, address: bytes) -> None:
        script = {4: side.cid.to_bytes(4), 8: ATTEMPT, 32: side.ephemeral}
        self.address = address
        self.key = KeyPair(side.static)
        self.endpoint = Endpoint(
            self.key, CONFIG, now=NOW, random=lambda n: script.get(n, bytes(n)), receive_buffer=RECEIVE_BUFFER
        )
        self._ring = BufferRing(2)
        self._table = RunTable()

    def sends(self) -> list[bytes]:
        """Every datagram that it sends now."""
        self.endpoint.events()  # the application is told of a connection, and then
        for connection in self.endpoint.connections.values():
            connection.wake()  # what may wait for company goes without
        datagrams = []
        while (table := self.endpoint.transmit(NOW)) is not None:
            for slot, start, length, segment, *_ in table.records():
                train = bytes(self.endpoint.ring.views[slot][start : start + length])
                datagrams += [train[at : at + (segment or length)] for at in range(0, length, segment or length)]
            self.endpoint.sent(NOW)
        return datagrams

    def receives(self, datagram: bytes, source: bytes) -> None:
        slot = self._ring.lease()
        self._ring.views[slot][: len(datagram)] = datagram
        self._table.parse(self._ring, slot, len(datagram), 0, source + self.address, 0)
        self.endpoint.receive(self._ring, self._table, NOW)
        self._table.release(self._ring)


def test_two_endpoints_say_the_bytes_of_the_example(example: dict[str, bytes]) -> None:
    initiator, responder = Wire(INITIATOR, INITIATOR_ADDRESS), Wire(RESPONDER, RESPONDER_ADDRESS)
    initiator.endpoint.connect(RESPONDER_ADDRESS, responder.key.public, NOW)

    def exchange(sender: Wire, receiver: Wire, name: str) -> None:
        (datagram,) = sender.sends()
        assert datagram == example[name], name
        receiver.receives(datagram, sender.address)

    exchange(initiator, responder, "INITIATE")
    exchange(responder, initiator, "RESPOND")
    exchange(initiator, responder, "PING packet")
    exchange(responder, initiator, "CONFIRM packet")
    (connection,) = initiator.endpoint.connections.values()
    connection.update_keys()
    connection.ask((frames.PING,))
    exchange(initiator, responder, "UPDATE packet")

    responder = Wire(RESPONDER, RESPONDER_ADDRESS)  # restarted: it knows nothing any more
    responder.receives(example["PING packet"], INITIATOR_ADDRESS)
    (reset,) = responder.sends()
    assert reset == example["RESET"]


def test_a_cookie_of_the_example_makes_the_code_prove_its_address(example: dict[str, bytes]) -> None:
    initiator = Wire(INITIATOR, INITIATOR_ADDRESS)
    peer = Wire(RESPONDER, RESPONDER_ADDRESS).key.public
    initiator.endpoint.connect(RESPONDER_ADDRESS, peer, NOW)
    initiator.sends()
    initiator.receives(example["COOKIE"], RESPONDER_ADDRESS)
    (again,) = initiator.sends()
    assert again == example["INITIATE"][:-16] + example["mac2"]


# --- tables and constants ------------------------------------------------------------------------


def numbered(title: str, wanted: dict[str, int]) -> None:
    """The tables of a section name exactly these things with these numbers (first column number, second name)."""
    listed: dict[str, int] = {}
    for number, name, *_ in rows(title):
        listed[name] = int(re.split(r"[–,]", number)[0], 0)
    assert listed == wanted


def test_every_packet_type_is_documented() -> None:
    names = ("INITIATE", "RESPOND", "COOKIE", "VERSIONS", "RESET", "DATA")
    found = {name: int(row[0], 16) for row in rows("Packets") for name in names if row[1] == name}
    assert found == {name: getattr(header, name) for name in names}
    sizes = {
        row[1]: int(re.findall(r"[\d,]+", row[2])[0].replace(",", "")) for row in rows("Packets") if row[1] in names
    }
    assert sizes["INITIATE"] == header.MIN_INITIATE_SIZE
    assert sizes["COOKIE"] == Cookie.SIZE
    assert sizes["RESET"] == Reset.SIZE
    assert sizes["DATA"] == header.MIN_DATA_SIZE


def test_every_frame_type_is_documented() -> None:
    not_types = {"MAX_ACK_RANGES", "MAX_FRAMES", "MAX_STREAM_COUNT", "NOT_ELICITING", "RUN_FRAME"}
    wanted = {name: getattr(frames, name) for name in frames.__all__ if name.isupper() and name not in not_types}
    numbered("Frames", wanted)


def test_the_documented_frames_elicit_acknowledgements_as_the_code_has_it() -> None:
    for number, name, _, eliciting in rows("Frames"):
        kind = {"ACK_ECN": frames.ACK, "CLOSE_APPLICATION": frames.CLOSE}.get(
            name, int(re.split(r"[–,]", number)[0], 16)
        )
        assert eliciting == ("no" if kind in frames.NOT_ELICITING else "yes"), name


SAMPLES: dict[str, Any] = {
    "stateless_reset_token": bytes(16),
    "versions": (1,),
    "aeads": (0,),
    "application_protocol": "x",
    "observed_address": bytes(24),
    "attempt": bytes(8),
    "refusal": (1, ""),
    "cids": (1, 2),
}


def test_every_transport_parameter_is_documented_with_its_default() -> None:
    table = {row[1]: (int(row[0], 16), row[3]) for row in rows("Transport parameters") if row[0].startswith("0x")}
    empty = {"versions": "empty", "aeads": "empty", "application_protocol": "empty"}
    names = []
    for name, default in parameters.TransportParameters()._asdict().items():
        value = SAMPLES.get(name, default + 1 if isinstance(default, int) else None)
        if name == "max_udp_payload_size":
            value = 1200
        encoded = parameters.encode(parameters.TransportParameters(**{name: value}))
        expected = empty.get(name, "none" if default is None else str(default))
        assert table[name] == (varint.decode(encoded, 0)[0], expected), name
        names.append(name)
    padding = parameters.encode(parameters.TransportParameters(), 10)
    assert table["padding"][0] == varint.decode(padding, 0)[0]
    assert table.keys() == {*names, "padding"}


def test_every_packet_protection_is_documented() -> None:
    listed = {
        row[1].split()[0].removeprefix("AEAD_").lower().replace("_", "-"): int(row[0])
        for row in rows("Transport parameters")
        if row[0].isdecimal()
    }
    assert listed == parameters.AEAD_IDS


def test_every_error_code_is_documented() -> None:
    numbered("Transport errors", {code.name: code.value for code in TransportCode})


def test_every_refusal_is_documented() -> None:
    numbered("Refusal codes", {code.name: code.value for code in Refusal})


@pytest.mark.parametrize("row", rows("Numbers that an implementation chooses"), ids=lambda row: row[2])
def test_the_numbers_listed_are_those_of_the_code(row: list[str]) -> None:
    module, _, name = f"burstwire.{row[2]}".rpartition(".")
    assert getattr(importlib.import_module(module), name) == pytest.approx(float(row[1]), rel=0)


def test_the_text_form_of_a_key_is_documented() -> None:
    assert re.findall(r"`(bw1\w+)`", text()) == [str(KeyPair(INITIATOR.static).public)]


def test_links_inside_the_document_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text(), re.M)
    }
    links = re.findall(r"\]\(#([^)]+)\)", text())
    assert links
    assert [link for link in links if link not in anchors] == []


if __name__ == "__main__":
    print(render())
