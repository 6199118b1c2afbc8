"""The Noise handshakes IK and IKpsk2 (Noise specification, revision 34).

`Noise_IK_25519_ChaChaPoly_SHA256`::

    <- s                      the initiator knows the responder's static key
    ...
    -> e, es, s, ss           message 1: 96 bytes and the payload
    <- e, ee, se [, psk]      message 2: 48 bytes and the payload

`Noise_IKpsk2_25519_ChaChaPoly_SHA256` is the same with a pre-shared key mixed in at the end of message 2.

Invariants: a call that raises leaves the state as it was, so that a forged message spoils nothing;
every payload that is handed out was authenticated; an all-zero Diffie-Hellman result, which a low-order
public key brings about, is refused.

A `StaticKey` remembers the `ss` results of peers. Two static keys always give the same one, so computing it anew in
every handshake protects nothing (WireGuard keeps it for the life of a peer, too). Whoever can read it in this
process's memory reads the private key beside it, from which it follows; alone it opens nothing, since `es`, `ee` and
`se` go into the same keys. It is kept only once a message proved that the peer can compute it.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from burstwire.crypto import kdf
from burstwire.crypto.secret import Material, Secret, overwrite
from burstwire.errors import ConfigError, HandshakeError

__all__ = ["KEY_SIZE", "MAX_MESSAGE", "MESSAGE_1_OVERHEAD", "MESSAGE_2_OVERHEAD", "HandshakeState", "StaticKey"]

KEY_SIZE: Final = 32
"""Bytes of every key and of every Diffie-Hellman result."""

MAX_MESSAGE: Final = 65535
"""Bytes of a Noise message at most (§3)."""

MESSAGE_1_OVERHEAD: Final = 32 + 48 + 16
"""Message 1 is this much longer than its payload: ephemeral key, sealed static key, tag."""

MESSAGE_2_OVERHEAD: Final = 32 + 16
"""Message 2 is this much longer than its payload: ephemeral key, tag."""

MAX_SHARED: Final = 1024
"""Peers whose `ss` is remembered, some 300 KB: those that come back soon are few, and one more costs 30 µs."""

_NAME: Final = b"Noise_IK_25519_ChaChaPoly_SHA256"
_NAME_PSK: Final = b"Noise_IKpsk2_25519_ChaChaPoly_SHA256"
_TAG: Final = 16


class _Symmetric:
    """SymmetricState and CipherState of the specification (§5.1, §5.2)."""

    __slots__ = ("chaining", "digest", "key", "nonce")

    def __init__(self, name: bytes) -> None:
        self.digest = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name).digest()
        self.chaining = memoryview(self.digest)
        self.key = memoryview(b"")
        self.nonce = 0

    def copy(self) -> _Symmetric:
        twin = _Symmetric.__new__(_Symmetric)
        twin.digest, twin.chaining, twin.key, twin.nonce = self.digest, self.chaining, self.key, self.nonce
        return twin

    def mix_hash(self, data: bytes | memoryview) -> None:
        self.digest = sha256(self.digest + data).digest()

    def mix_key(self, material: Material) -> None:
        blocks = memoryview(_hkdf(self.chaining, material, 2))
        self.chaining, self.key = blocks[:32], blocks[32:]
        self.nonce = 0

    def mix_key_and_hash(self, material: Material) -> None:
        blocks = memoryview(_hkdf(self.chaining, material, 3))
        self.chaining, self.key = blocks[:32], blocks[64:]
        self.mix_hash(blocks[32:64])
        self.nonce = 0

    def seal(self, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.key).encrypt(self._next_nonce(), plain, self.digest)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        try:
            plain = ChaCha20Poly1305(self.key).decrypt(self._next_nonce(), sealed, self.digest)
        except InvalidTag:
            raise HandshakeError("a handshake message does not authenticate") from None
        self.mix_hash(sealed)
        return plain

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self.nonce.to_bytes(8, "little")
        self.nonce += 1
        return nonce


def _hkdf(chaining: memoryview, material: Material, count: int) -> Secret:
    """HKDF of §4.3: RFC 5869 with empty info and `count` blocks, one behind the other. All in one call, which is
    cheaper than HMACs; what is used of it are views, which are cheaper than secrets of their own."""
    salt = bytes(chaining)
    blocks = kdf.derive(salt, material, b"", count * 32)
    overwrite(salt)
    return blocks


_public_key = X25519PublicKey.from_public_bytes


def _exchange(private: X25519PrivateKey, public: X25519PublicKey) -> Secret:
    try:
        return Secret.taken(private.exchange(public))
    except ValueError:
        # What cryptography raises for an all-zero result.
        raise HandshakeError("a public key in the handshake is of low order") from None


def _check_size(name: str, key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise ConfigError(f"{name} has {len(key)} bytes; it must have {KEY_SIZE}")


class StaticKey:
    """This side's static key, as many handshakes share it.

    Attributes:
        private: loaded once: from raw bytes each use would cost a multiplication.
        public: its public half (32 bytes).
    """

    __slots__ = ("_shared", "private", "public")

    def __init__(self, private: bytes | X25519PrivateKey) -> None:
        self.private = X25519PrivateKey.from_private_bytes(private) if isinstance(private, bytes) else private
        self.public = self.private.public_key().public_bytes_raw()
        self._shared: OrderedDict[bytes, Secret] = OrderedDict()  # the peer used longest ago first

    def __repr__(self) -> str:
        return f"<StaticKey {len(self._shared)} peers, key …>"

    def shared(self, peer: bytes) -> Secret:
        """The `ss` result with a peer's static public key, remembered or computed; raises HandshakeError."""
        known = self._shared.get(peer)
        return known if known is not None else _exchange(self.private, _public_key(peer))

    def remember(self, peer: bytes, shared: Secret) -> None:
        """Keep what `shared` gave, now that the peer has shown that it can compute it, too."""
        self._shared[peer] = shared
        self._shared.move_to_end(peer)
        if len(self._shared) > MAX_SHARED:
            self._shared.popitem(last=False)


class HandshakeState:
    """One side of one handshake.

    The initiator calls `write_message`, `read_message`, `split`; the responder `read_message`,
    `write_message`, `split`. Any other order raises HandshakeError and changes nothing.
    """

    __slots__ = (
        "_ephemeral",
        "_given",
        "_initiator",
        "_pin",
        "_psk",
        "_random",
        "_remote_ephemeral",
        "_remote_static",
        "_shared",
        "_static",
        "_step",
        "_symmetric",
    )

    def __init__(
        self,
        initiator: bool,
        static: bytes | X25519PrivateKey | StaticKey,
        remote_static: bytes | None = None,
        prologue: bytes = b"",
        ephemeral: bytes | None = None,
        *,
        psk: bytes | None = None,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        """Begin.

        Args:
            initiator: which side this is.
            static: this side's private key, 32 raw bytes or loaded; as a `StaticKey` it saves 1 of 5
                multiplications with a peer that was met before.
            remote_static: the other side's public key, 32 raw bytes. The initiator must give it; a responder
                that gives it accepts nobody else.
            prologue: what both sides must agree on beforehand.
            ephemeral: this side's ephemeral private key, 32 raw bytes; never the same one twice. For tests.
            psk: 32 bytes that both sides know; makes it IKpsk2.
            random: where an ephemeral key that is not given comes from; None: the operating system.

        Raises:
            ConfigError: a key has not 32 bytes, or the initiator gives no remote_static.
        """
        if isinstance(static, bytes):
            _check_size("static", static)
        if remote_static is not None:
            _check_size("remote_static", remote_static)
        if ephemeral is not None:
            _check_size("ephemeral", ephemeral)
        if psk is not None:
            _check_size("psk", psk)
        if initiator and remote_static is None:
            raise ConfigError("the initiator of an IK handshake must know the remote_static key")
        self._initiator = initiator
        self._static = static if isinstance(static, StaticKey) else StaticKey(static)
        self._pin = remote_static
        self._remote_static = remote_static if initiator else None
        self._given = ephemeral
        self._psk = psk
        self._random = random
        self._ephemeral: X25519PrivateKey | None = None
        self._remote_ephemeral: X25519PublicKey | None = None
        self._shared = Secret()
        self._step = 0
        self._symmetric = _Symmetric(_NAME if psk is None else _NAME_PSK)
        self._symmetric.mix_hash(prologue)
        self._symmetric.mix_hash(remote_static if initiator and remote_static else self._static.public)

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        return f"<HandshakeState {role}, {self._step} of 2 messages, keys …>"

    def __copy__(self) -> HandshakeState:
        twin = HandshakeState.__new__(HandshakeState)
        for name in HandshakeState.__slots__:
            setattr(twin, name, getattr(self, name))  # parts are replaced, never changed
        return twin

    @property
    def finished(self) -> bool:
        """Whether both messages went through, so that `split` can be called."""
        return self._step == 2

    @property
    def handshake_hash(self) -> bytes:
        """The hash over everything so far (32 bytes); unique to this handshake once it is finished."""
        return self._symmetric.digest

    @property
    def remote_static(self) -> bytes | None:
        """The other side's public key (32 bytes); None while a responder has not read message 1."""
        return self._remote_static

    def write_message(self, payload: bytes = b"") -> bytes:
        """This side's message, with `payload` sealed inside.

        Raises:
            HandshakeError: not this side's turn, too long, or the other side's key is of low order.
        """
        self._expect(0 if self._initiator else 1, "write")
        overhead = MESSAGE_1_OVERHEAD if self._initiator else MESSAGE_2_OVERHEAD
        if len(payload) + overhead > MAX_MESSAGE:
            raise HandshakeError(f"a payload of {len(payload)} bytes; at most {MAX_MESSAGE - overhead}")
        state = self._symmetric.copy()
        ephemeral = self._new_ephemeral()
        public = ephemeral.public_key().public_bytes_raw()
        self._mix_ephemeral(state, public)
        parts = [public]
        if self._initiator:
            assert self._remote_static is not None
            state.mix_key(_exchange(ephemeral, _public_key(self._remote_static)))
            parts.append(state.seal(self._static.public))
            self._shared = self._static.shared(self._remote_static)
            state.mix_key(self._shared)
        else:
            assert self._remote_static is not None
            assert self._remote_ephemeral is not None
            state.mix_key(_exchange(ephemeral, self._remote_ephemeral))
            state.mix_key(_exchange(ephemeral, _public_key(self._remote_static)))
            if self._psk is not None:
                state.mix_key_and_hash(self._psk)
        parts.append(state.seal(payload))
        self._symmetric = state
        self._ephemeral = ephemeral
        self._step += 1
        return b"".join(parts)

    def read_message(self, message: bytes) -> bytes:
        """The payload of the other side's message.

        Raises:
            HandshakeError: not the other side's turn, or the message is malformed, forged, or from another
                key than the one pinned; the state is as before, and the true message can still be read.
        """
        self._expect(1 if self._initiator else 0, "read")
        if len(message) > MAX_MESSAGE:
            raise HandshakeError(f"a handshake message of {len(message)} bytes; at most {MAX_MESSAGE}")
        state, payload, ephemeral, static = self._read_2(message) if self._initiator else self._read_1(message)
        self._symmetric = state
        self._remote_ephemeral = ephemeral
        self._remote_static = static
        self._step += 1
        return payload

    def peek(self, message: bytes) -> tuple[bytes, bytes]:
        """What `read_message` would return, and the sender's static key, without taking the step.

        Raises:
            HandshakeError: as `read_message`.
        """
        self._expect(1 if self._initiator else 0, "read")
        _, payload, _, static = self._read_2(message) if self._initiator else self._read_1(message)
        return payload, static

    def split(self) -> tuple[Secret, Secret]:
        """Two keys of 32 bytes, the same on both sides: initiator to responder, responder to initiator.

        Raises:
            HandshakeError: the handshake is not finished.
        """
        if self._step != 2:
            raise HandshakeError("split before the end of the handshake")
        blocks = memoryview(_hkdf(self._symmetric.chaining, b"", 2))
        return Secret(blocks[:32]), Secret(blocks[32:])

    def _expect(self, step: int, verb: str) -> None:
        if self._step != step:
            raise HandshakeError(f"nothing to {verb} after {self._step} of 2 handshake messages")

    def _new_ephemeral(self) -> X25519PrivateKey:
        if self._given is not None:
            return X25519PrivateKey.from_private_bytes(self._given)
        if self._random is not None and self._random is not os.urandom:
            return X25519PrivateKey.from_private_bytes(self._random(KEY_SIZE))
        return X25519PrivateKey.generate()  # from the same source as os.urandom, and without a detour over bytes

    def _mix_ephemeral(self, state: _Symmetric, public: bytes) -> None:
        state.mix_hash(public)
        if self._psk is not None:
            # §9.2: with a pre-shared key the ephemeral public key also randomises the encryption key.
            state.mix_key(public)

    def _read_1(self, message: bytes) -> tuple[_Symmetric, bytes, X25519PublicKey, bytes]:
        if len(message) < MESSAGE_1_OVERHEAD:
            raise HandshakeError(f"handshake message 1 has {len(message)} bytes; at least {MESSAGE_1_OVERHEAD}")
        state = self._symmetric.copy()
        sealed_end = 2 * KEY_SIZE + _TAG
        public = bytes(message[:KEY_SIZE])
        ephemeral = _public_key(public)
        self._mix_ephemeral(state, public)
        state.mix_key(_exchange(self._static.private, ephemeral))
        static = state.open(bytes(message[KEY_SIZE:sealed_end]))
        if self._pin is not None and not hmac.compare_digest(static, self._pin):
            raise HandshakeError("handshake message 1 is from another key than the one expected")
        shared = self._static.shared(static)
        state.mix_key(shared)
        payload = state.open(bytes(message[sealed_end:]))
        self._static.remember(static, shared)
        return state, payload, ephemeral, static

    def _read_2(self, message: bytes) -> tuple[_Symmetric, bytes, X25519PublicKey, bytes]:
        if len(message) < MESSAGE_2_OVERHEAD:
            raise HandshakeError(f"handshake message 2 has {len(message)} bytes; at least {MESSAGE_2_OVERHEAD}")
        assert self._ephemeral is not None
        assert self._remote_static is not None
        state = self._symmetric.copy()
        public = bytes(message[:KEY_SIZE])
        ephemeral = _public_key(public)
        self._mix_ephemeral(state, public)
        state.mix_key(_exchange(self._ephemeral, ephemeral))
        state.mix_key(_exchange(self._static.private, ephemeral))
        if self._psk is not None:
            state.mix_key_and_hash(self._psk)
        payload = state.open(bytes(message[KEY_SIZE:]))
        self._static.remember(self._remote_static, self._shared)
        return state, payload, ephemeral, self._remote_static
