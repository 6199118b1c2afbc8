"""Who a node is: an X25519 key pair. The public key is the identity that peers know it by.

Text form, of either key::

    prefix || base32 (RFC 4648, lower case, unpadded) of key 32 || CRC-32 of (prefix || key), little-endian u32

with the prefix "bw1" for a public and "bwsecret1" for a private key. As the CRC covers a window of any 32 bits,
every single mistyped character and every swap of neighbours is refused, not only most of them. It protects
against slips, not against forgery: a key that was swapped for another is another identity.
"""

from __future__ import annotations

import base64
import errno
import hmac
import os
import stat
import tempfile
from pathlib import Path
from typing import Final, NoReturn
from zlib import crc32

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from burstwire.errors import KeyFormatError

__all__ = ["KeyPair", "PublicKey"]

KEY_SIZE: Final = 32

_PUBLIC_PREFIX: Final = "bw1"
_SECRET_PREFIX: Final = "bwsecret1"  # noqa: S105  a prefix
_BODY_LENGTH: Final = 58
"""Characters of base32 for 36 bytes; the last has two bits to spare, which must be zero."""

_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")

_PRIME: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)
"""Points of order 1, 2, 4 and 8 of Curve25519 and its twist: every exchange with one of them gives zeros."""


class PublicKey:
    """A peer's identity: 32 bytes, hashable, compared in constant time, and safe to show.

    `str(key)` and `PublicKey.parse(text)` are the text form, `bytes(key)` and `PublicKey(raw)` the raw one.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        """Raises KeyFormatError when `raw` is not 32 bytes, or a point that no key pair has."""
        raw = bytes(raw)
        if len(raw) != KEY_SIZE:
            raise KeyFormatError(f"a public key has {KEY_SIZE} bytes, not {len(raw)}")
        # X25519 ignores the top bit and reduces the rest (RFC 7748 §5).
        if int.from_bytes(raw, "little") % (1 << 255) % _PRIME in _LOW_ORDER:
            raise KeyFormatError("this is a low-order point, which is nobody's public key")
        self._raw = raw

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read the text form; case and white space do not matter.

        Raises:
            KeyFormatError: it is not one; the message says what is wrong with it.
        """
        return cls(_from_text(text, _PUBLIC_PREFIX, "public key"))

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return _to_text(_PUBLIC_PREFIX, self._raw)

    def __repr__(self) -> str:
        return f"PublicKey.parse('{self}')"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicKey):
            return NotImplemented
        return hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self._raw)

    def __reduce__(self) -> tuple[type[PublicKey], tuple[bytes]]:
        return PublicKey, (self._raw,)


class KeyPair:
    """A node's own identity: a private key that never leaves it, and the public key that peers know.

    Attributes:
        public: the public key.
    """

    __slots__ = ("_private", "public")

    def __init__(self, private: bytes) -> None:
        """From the 32 raw bytes of an X25519 private key; raises KeyFormatError for another size."""
        private = bytes(private)
        if len(private) != KEY_SIZE:
            raise KeyFormatError(f"a private key has {KEY_SIZE} bytes, not {len(private)}")
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = PublicKey(self._private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> KeyPair:
        """A new key pair from the operating system's randomness."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    def private_bytes(self) -> bytes:
        """The private key (32 bytes): whoever has it is this node."""
        return self._private.private_bytes_raw()

    @property
    def private_key(self) -> X25519PrivateKey:
        """The private key, loaded once for all handshakes."""
        return self._private

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the key to a file that only its owner can read (mode 0600); at no time is it there in part.

        Raises:
            FileExistsError: `path` exists and `overwrite` is not set.
            OSError: it cannot be written.
        """
        target = Path(path)
        secret = _to_text(_SECRET_PREFIX, self.private_bytes())
        text = f"# burstwire private key, keep it secret; the public key is {self.public}\n{secret}\n"
        # mkstemp makes the file with mode 0600, and in the same directory a rename cannot cross file systems.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        reserved = False
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.replace(temporary, target)
            elif not _link(temporary, target):
                _reserve(target)
                reserved = True
                os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            if reserved:
                os.unlink(target)
            raise
        _sync_directory(target.parent)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyPair:
        """Read a key that `save` wrote.

        Raises:
            KeyFormatError: the file holds no key, or others than its owner may read it.
            OSError: it cannot be read.
        """
        with open(path, encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise KeyFormatError(
                    f"{os.fspath(path)} is open to other users (mode {stat.S_IMODE(mode):04o}); "
                    f"run: chmod 600 {os.fspath(path)}"
                )
            text = file.read(_LARGEST_FILE + 1)
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if len(lines) != 1 or len(text) > _LARGEST_FILE:
            raise KeyFormatError(f"{os.fspath(path)} does not hold one private key")
        try:
            return cls(_from_text(lines[0], _SECRET_PREFIX, "private key"))
        except KeyFormatError as error:
            raise KeyFormatError(f"{os.fspath(path)}: {error}") from None

    def __repr__(self) -> str:
        return f"<KeyPair public {self.public}, private …>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyPair):
            return NotImplemented
        return self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __copy__(self) -> KeyPair:
        return self

    def __deepcopy__(self, memo: object) -> KeyPair:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyPair is not pickled, so that the private key goes nowhere by accident; use save and load")


_LARGEST_FILE: Final = 4096
"""Characters of a key file at most: two lines and what people may note beside them."""


def _link(temporary: str, target: Path) -> bool:
    """Give a finished file its name, whole from the first moment; False where the file system has no hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(f"{target} exists; overwrite=True replaces the key in it for good") from None
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    os.unlink(temporary)
    return True


def _reserve(target: Path) -> None:
    """Take the name: of all who try, one succeeds. The empty file is replaced at once, never written to."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise FileExistsError(f"{target} exists; overwrite=True replaces the key in it for good") from None


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power failure, where directories can be synchronised."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _to_text(prefix: str, raw: bytes) -> str:
    checksum = crc32(prefix.encode() + raw).to_bytes(4, "little")
    return prefix + base64.b32encode(raw + checksum).decode().rstrip("=").lower()


def _from_text(text: str, prefix: str, what: str) -> bytes:
    """The 32 bytes of a text form; raises KeyFormatError, which never repeats what may be a secret."""
    compact = "".join(text.split()).lower()
    if prefix == _PUBLIC_PREFIX and compact.startswith(_SECRET_PREFIX):
        raise KeyFormatError("this is a private key; keep it secret, and give its public key instead")
    if prefix == _SECRET_PREFIX and compact.startswith(_PUBLIC_PREFIX):
        raise KeyFormatError("this is a public key, not a private one")
    if not compact.startswith(prefix):
        raise KeyFormatError(f'a {what} starts with "{prefix}"')
    body = compact[len(prefix) :]
    if strange := sorted(set(body) - _ALPHABET):
        raise KeyFormatError(f"a {what} has no {', '.join(map(repr, strange))}: letters a to z and digits 2 to 7 only")
    if len(body) != _BODY_LENGTH:
        raise KeyFormatError(
            f"a {what} has {len(prefix) + _BODY_LENGTH} characters; this has {len(prefix) + len(body)}"
        )
    raw = base64.b32decode(body.upper() + "======")[:KEY_SIZE]
    # Compared as text, so that the two bits to spare count too.
    if _to_text(prefix, raw) != compact:
        raise KeyFormatError(f"the checksum of the {what} is wrong: a character is mistyped or out of place")
    return raw
