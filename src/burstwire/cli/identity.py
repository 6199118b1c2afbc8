"""Where this user's key is, and making it on first use."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from burstwire.cli.exits import ExitCode, Failure, describe_os_error
from burstwire.cli.text import printable
from burstwire.errors import KeyFormatError
from burstwire.identity import KeyPair, PublicKey

__all__ = ["create_identity", "default_identity_path", "load_identity", "parse_key"]


def default_identity_path() -> Path:
    """`burstwire/identity` in the user's configuration directory (XDG Base Directory Specification)."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a relative path there is to be ignored.
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    return base / "burstwire" / "identity"


def load_identity(path: Path | None) -> KeyPair:
    """The key at `path`; the default one is made when it is not there yet. Raises `Failure` (exit code 4)."""
    chosen = default_identity_path() if path is None else path
    try:
        return KeyPair.load(chosen)
    except FileNotFoundError:
        if path is None:
            return _make_default(chosen)
        raise Failure(
            ExitCode.LOCAL,
            f"identity {_shown(chosen)}: no such file; make it with: burstwire keygen {_shown(chosen)}",
        ) from None
    except (OSError, KeyFormatError) as error:
        raise Failure(ExitCode.LOCAL, _describe(chosen, error)) from error


def create_identity(path: Path | None, *, force: bool) -> tuple[Path, PublicKey]:
    """A new key at `path`; an existing file is replaced only by `force`. Raises `Failure` (exit code 4)."""
    chosen = default_identity_path() if path is None else path
    try:
        if path is None:
            chosen.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = KeyPair.generate()
        if force:
            key.save(chosen, overwrite=True)
        else:
            _save_new(key, chosen)
    except FileExistsError:
        raise Failure(
            ExitCode.LOCAL, f"identity {_shown(chosen)}: exists already; replace it for ever with --force"
        ) from None
    except (OSError, KeyFormatError) as error:
        raise Failure(ExitCode.LOCAL, _describe(chosen, error)) from error
    return chosen, key.public


def parse_key(text: str) -> PublicKey:
    """A public key from the command line; raises `Failure` (exit code 2)."""
    try:
        return PublicKey.parse(text)
    except KeyFormatError as error:
        raise Failure(
            ExitCode.USAGE, f"{printable(text, 80)!r} is not a public key: {printable(str(error))}"
        ) from error


def _make_default(path: Path) -> KeyPair:
    """Two commands may do this at the same moment: both must end up with the same key."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            _save_new(KeyPair.generate(), path)
        return KeyPair.load(path)
    except (OSError, KeyFormatError) as error:
        raise Failure(ExitCode.LOCAL, _describe(path, error)) from error


def _save_new(key: KeyPair, path: Path) -> None:
    """Save under a name of our own, then link it into place: FileExistsError if anything is there."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        key.save(draft)
        os.link(draft, path, follow_symlinks=False)
    finally:
        draft.unlink(missing_ok=True)


def _shown(path: Path) -> str:
    return printable(str(path))


def _describe(path: Path, error: OSError | KeyFormatError) -> str:
    if isinstance(error, KeyFormatError):  # whose text names the file
        return f"identity {printable(str(error))}"
    return f"identity {_shown(path)}: {describe_os_error(error)}"
