"""Identities: text that catches slips, files that only their owner reads, and private keys that stay put."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
from pathlib import Path
from zlib import crc32

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import assume, given
from hypothesis import strategies as st

from burstwire.errors import KeyFormatError
from burstwire.identity import KeyPair, PublicKey

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
PRIVATE = bytes(range(32))
PAIR = KeyPair(PRIVATE)
PRIME = 2**255 - 19


def secret_of(pair: KeyPair, folder: Path) -> str:
    """The line of the key file that holds the private key."""
    pair.save(folder / "k", overwrite=True)
    return (folder / "k").read_text().splitlines()[1]


def is_low_order(raw: bytes) -> bool:
    try:
        X25519PrivateKey.from_private_bytes(PRIVATE).exchange(X25519PublicKey.from_public_bytes(raw))
    except ValueError:
        return True
    return False


raws = st.binary(min_size=32, max_size=32).filter(lambda raw: not is_low_order(raw))


@given(raws)
def test_a_public_key_survives_its_text_and_its_bytes(raw: bytes) -> None:
    key = PublicKey(raw)
    assert bytes(key) == raw
    assert PublicKey.parse(str(key)) == key == PublicKey(bytes(key))
    assert hash(PublicKey(raw)) == hash(key)
    assert str(key).startswith("bw1")


def test_the_text_form_is_the_documented_one() -> None:
    raw = bytes(PAIR.public)
    checksum = crc32(b"bw1" + raw).to_bytes(4, "little")
    assert str(PAIR.public) == "bw1" + base64.b32encode(raw + checksum).decode().lower().rstrip("=")
    assert len(str(PAIR.public)) == 61


@given(raws, st.sampled_from([" ", "\n", "\t", " \n "]), st.integers(1, 20))
def test_case_and_white_space_do_not_matter(raw: bytes, space: str, every: int) -> None:
    text = str(PublicKey(raw))
    loose = space.join(text[i : i + every] for i in range(0, len(text), every)).upper()
    assert PublicKey.parse(f"\n{loose} ") == PublicKey(raw)


@given(raws, st.integers(0, 60), st.sampled_from(ALPHABET + "0189-"))
def test_every_single_mistyped_character_is_refused(raw: bytes, position: int, character: str) -> None:
    text = str(PublicKey(raw))
    assume(text[position] != character)
    with pytest.raises(KeyFormatError):
        PublicKey.parse(text[:position] + character + text[position + 1 :])


def test_all_single_typos_and_all_swaps_of_two_characters_of_one_key_are_refused() -> None:
    text = str(PAIR.public)
    wrong = {text[:i] + c + text[i + 1 :] for i in range(len(text)) for c in ALPHABET}
    for i in range(len(text)):
        for j in range(i + 1, len(text)):
            wrong.add(text[:i] + text[j] + text[i + 1 : j] + text[i] + text[j + 1 :])
    wrong.discard(text)
    assert len(wrong) > 3000
    for candidate in wrong:
        with pytest.raises(KeyFormatError):
            PublicKey.parse(candidate)


@given(raws, st.data())
def test_swapped_neighbours_are_refused(raw: bytes, data: st.DataObject) -> None:
    text = str(PublicKey(raw))
    i = data.draw(st.integers(0, len(text) - 2))
    assume(text[i] != text[i + 1])
    with pytest.raises(KeyFormatError):
        PublicKey.parse(text[:i] + text[i + 1] + text[i] + text[i + 2 :])


@given(st.text(max_size=80))
def test_any_text_parses_or_raises_key_format_error(text: str) -> None:
    for candidate in (text, "bw1" + text):
        with pytest.raises(KeyFormatError):
            PublicKey.parse(candidate)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-1], "61 characters; this has 60"),
        (lambda text: text + "a", "61 characters; this has 62"),
        (lambda text: text[:-1] + "0", "'0'"),
        (lambda text: "xx" + text, 'starts with "bw1"'),
        (lambda text: text[:10] + ("a" if text[10] != "a" else "b") + text[11:], "mistyped"),
    ],
)
def test_the_error_says_what_is_wrong(change: object, says: str) -> None:
    assert callable(change)
    with pytest.raises(KeyFormatError, match=says):
        PublicKey.parse(change(str(PAIR.public)))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(KeyFormatError, match="32 bytes"):
        PublicKey(b"x" * size)
    with pytest.raises(KeyFormatError, match="32 bytes"):
        KeyPair(b"x" * size)


def test_low_order_points_are_refused_in_every_encoding() -> None:
    orders = [
        0,
        1,
        PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    ]
    encodings = [value + k * PRIME + top for value in orders for k in (0, 1) for top in (0, 1 << 255)]
    fitting = [
        value.to_bytes(32, "little") for value in encodings if value % (1 << 255) < 1 << 255 and value < 1 << 256
    ]
    low = [raw for raw in fitting if is_low_order(raw)]
    assert len(low) >= 12, "the list above must be of low-order points"
    for raw in low:
        with pytest.raises(KeyFormatError, match="low-order"):
            PublicKey(raw)


@given(st.integers(0, (1 << 256) - 1).map(lambda n: n.to_bytes(32, "little")))
def test_every_other_point_is_accepted(raw: bytes) -> None:
    assume(not is_low_order(raw))
    assert bytes(PublicKey(raw)) == raw


def test_public_keys_differ_from_each_other_and_from_everything_else() -> None:
    other = KeyPair.generate().public
    assert other != PAIR.public
    assert PAIR.public != bytes(PAIR.public)
    assert len({other, PAIR.public, PublicKey(bytes(other))}) == 2


def test_a_public_key_can_be_pickled_and_shown() -> None:
    assert pickle.loads(pickle.dumps(PAIR.public)) == PAIR.public
    assert eval(repr(PAIR.public)) == PAIR.public


def test_the_public_key_belongs_to_the_private_one() -> None:
    private = X25519PrivateKey.from_private_bytes(PRIVATE)
    assert bytes(PAIR.public) == private.public_key().public_bytes_raw()
    assert PAIR.private_bytes() == PRIVATE == PAIR.private_key.private_bytes_raw()


def test_generated_pairs_differ() -> None:
    assert len({KeyPair.generate() for _ in range(5)}) == 5


def test_a_private_key_is_neither_shown_nor_pickled(tmp_path: Path) -> None:
    for shown in (repr(PAIR), str(PAIR), f"{PAIR}"):
        assert "…" in shown
        assert PRIVATE.hex() not in shown
        assert secret_of(PAIR, tmp_path)[10:] not in shown
    with pytest.raises(TypeError, match="save and load"):
        pickle.dumps(PAIR)
    assert copy.deepcopy(PAIR) is copy.copy(PAIR) is PAIR


def test_a_saved_key_loads_again_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    before = os.umask(0)
    try:
        PAIR.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyPair.load(path) == PAIR
    assert KeyPair.load(str(path)).private_bytes() == PRIVATE
    assert str(PAIR.public) in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_saving_over_a_key_takes_a_word(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    PAIR.save(path)
    other = KeyPair.generate()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(path)
    assert KeyPair.load(path) == PAIR
    other.save(path, overwrite=True)
    assert KeyPair.load(path) == other
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_a_failed_save_leaves_the_old_key_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "node.key"
    PAIR.save(path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        if step != "link":
            with pytest.raises(OSError, match="No space"):
                KeyPair.generate().save(path, overwrite=True)
        if step != "replace":
            with pytest.raises(OSError, match="No space"):
                KeyPair.generate().save(tmp_path / "new.key")
    assert KeyPair.load(path) == PAIR
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_open_to_others_is_not_loaded_and_the_error_says_what_to_do(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    PAIR.save(path)
    path.chmod(mode)
    with pytest.raises(KeyFormatError, match=f"chmod 600 {path}"):
        KeyPair.load(path)


@pytest.mark.parametrize("case", ["empty", "comment", "twice", "public", "typo", "binary", "huge"])
def test_a_file_without_one_private_key_is_refused_and_its_content_not_repeated(tmp_path: Path, case: str) -> None:
    secret = secret_of(PAIR, tmp_path)
    typo = secret[:-9] + ("a" if secret[-9] != "a" else "b") + secret[-8:]
    content = {
        "empty": b"",
        "comment": b"# nothing\n",
        "twice": f"{secret}\n{secret}\n".encode(),
        "public": str(PAIR.public).encode(),
        "typo": typo.encode(),
        "binary": bytes(range(256)),
        "huge": secret.encode() + b"\n#" * 100_000,
    }[case]
    path = tmp_path / "bad.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFormatError) as caught:
        KeyPair.load(path)
    assert str(path) in str(caught.value)
    assert secret[15:30] not in str(caught.value)


def test_a_file_that_is_not_there_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyPair.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        PAIR.save(tmp_path / "no" / "where")


def test_a_private_key_given_for_a_public_one_is_named_and_not_repeated(tmp_path: Path) -> None:
    secret = secret_of(PAIR, tmp_path)
    with pytest.raises(KeyFormatError, match="keep it secret") as caught:
        PublicKey.parse(secret)
    assert secret[15:30] not in str(caught.value)
