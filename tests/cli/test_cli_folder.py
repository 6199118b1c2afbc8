"""What the receiver's directory shows, and what it never does."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from burstwire.cli import folder as folder_module
from burstwire.cli.folder import Folder, NameTaken, PartialHeld, transfer_identity
from burstwire.cli.headers import Offer

OFFER = Offer("file.bin", 5, 1_600_000_000_000_000_000, 0o4755)
IDENTITY = "0123456789abcdef"
PART = f".file.bin.{IDENTITY}.part"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(str(tmp_path))
    yield opened
    opened.close()


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_a_file_has_its_name_only_once_it_is_published(folder: Folder, tmp_path: Path) -> None:
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hello"))
    assert names(tmp_path) == {PART}
    partial.publish(OFFER)
    partial.close()
    assert names(tmp_path) == {"file.bin"}
    assert (tmp_path / "file.bin").read_bytes() == b"hello"


def test_time_and_permissions_are_the_senders_as_far_as_umask_and_safety_go(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = Folder(str(tmp_path))
        partial = folder.open_partial("file.bin", IDENTITY)
        partial.publish(OFFER)
        partial.close()
        folder.close()
    finally:
        os.umask(before)
    found = (tmp_path / "file.bin").stat()
    assert stat.S_IMODE(found.st_mode) == 0o750
    assert found.st_mtime_ns == OFFER.mtime_ns


@pytest.mark.parametrize("mtime", [-(1 << 63) + 1, (1 << 63) - 1])
def test_a_time_that_the_file_system_cannot_hold_does_not_lose_the_file(
    folder: Folder, tmp_path: Path, mtime: int
) -> None:
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.publish(Offer("file.bin", 0, mtime, 0o644))
    partial.close()
    assert names(tmp_path) == {"file.bin"}


def test_an_unfinished_file_waits_with_its_bytes_and_for_its_owner_only(folder: Folder, tmp_path: Path) -> None:
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hel"))
    partial.close()
    assert stat.S_IMODE((tmp_path / PART).stat().st_mode) == 0o600
    assert list(folder.leftovers()) == [(PART, 3)]
    again = folder.open_partial("file.bin", IDENTITY)
    assert again.size == 3
    again.append(memoryview(b"lo"))
    again.publish(OFFER)
    again.close()
    assert (tmp_path / "file.bin").read_bytes() == b"hello"


def test_an_attempt_that_brought_nothing_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    folder.open_partial("file.bin", IDENTITY).close()
    assert names(tmp_path) == set()


def test_a_partial_file_that_is_worthless_goes(folder: Folder, tmp_path: Path) -> None:
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hel"))
    partial.close(keep=False)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_name_that_is_taken_is_replaced_only_on_request(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file.bin").write_bytes(b"old")
    folder = Folder(str(tmp_path), overwrite=overwrite)
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hello"))
    if overwrite:
        partial.publish(OFFER)
    else:
        with pytest.raises(NameTaken):
            partial.publish(OFFER)
    partial.close()
    assert (tmp_path / "file.bin").read_bytes() == (b"hello" if overwrite else b"old")
    folder.close()


def test_not_even_overwriting_replaces_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file.bin").mkdir()
    folder = Folder(str(tmp_path), overwrite=True)
    partial = folder.open_partial("file.bin", IDENTITY)
    with pytest.raises(NameTaken):
        partial.publish(OFFER)
    partial.close()
    folder.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_publishing_never_follows_a_link_of_the_files_name(tmp_path: Path, overwrite: bool) -> None:
    outside = tmp_path / "outside"
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    outside.write_bytes(b"precious")
    (inbox / "file.bin").symlink_to(outside)
    folder = Folder(str(inbox), overwrite=overwrite)
    partial = folder.open_partial("file.bin", IDENTITY)
    if overwrite:
        partial.publish(OFFER)
        assert not (inbox / "file.bin").is_symlink()
    else:
        with pytest.raises(NameTaken):
            partial.publish(OFFER)
    partial.close()
    assert outside.read_bytes() == b"precious"
    folder.close()


def test_a_partial_file_is_never_a_symbolic_link(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / PART).symlink_to(outside)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked
        folder.open_partial("file.bin", IDENTITY)
    assert caught.value.errno == errno.ELOOP
    assert outside.read_bytes() == b"precious"


def test_a_partial_file_is_never_another_file_by_a_hard_link(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    os.link(outside, tmp_path / PART)
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hello"))
    partial.close()
    assert outside.read_bytes() == b"precious"


def test_a_fifo_in_place_of_a_partial_file_is_refused_without_waiting(folder: Folder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / PART)
    with pytest.raises(OSError, match="regular"):
        folder.open_partial("file.bin", IDENTITY)


def test_two_receivers_never_write_the_same_partial_file(folder: Folder, tmp_path: Path) -> None:
    other = Folder(str(tmp_path))
    partial = folder.open_partial("file.bin", IDENTITY)
    with pytest.raises(PartialHeld):
        other.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"x"))
    partial.close()
    again = other.open_partial("file.bin", IDENTITY)
    assert again.size == 1
    again.close()
    other.close()


def test_without_hard_links_the_name_is_still_claimed_before_it_is_used(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(folder_module.os, "link", no_links)
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hello"))
    partial.publish(OFFER)
    partial.close()
    assert names(tmp_path) == {"file.bin"}
    again = folder.open_partial("file.bin", IDENTITY)
    with pytest.raises(NameTaken):
        again.publish(OFFER)
    again.close(keep=False)
    assert (tmp_path / "file.bin").read_bytes() == b"hello"


def test_a_failed_write_does_not_count_and_does_not_stay(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = folder.open_partial("file.bin", IDENTITY)
    partial.append(memoryview(b"hel"))

    def half_then_full(fd: int, data: memoryview, offset: int) -> None:
        os.pwrite(fd, b"l", offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "write_all", half_then_full)
    with pytest.raises(OSError, match="No space"):
        partial.append(memoryview(b"lo"))
    partial.close()
    assert (tmp_path / PART).read_bytes() == b"hel"


def test_the_identity_of_a_transfer_depends_on_sender_name_size_and_time() -> None:
    offers = [
        OFFER,
        Offer("file.bin", 6, OFFER.mtime_ns, OFFER.mode),
        Offer("file.bin", 5, OFFER.mtime_ns + 1, OFFER.mode),
        Offer("file2.bin", 5, OFFER.mtime_ns, OFFER.mode),
    ]
    identities = {transfer_identity(sender, offer) for sender in (b"a" * 32, b"b" * 32) for offer in offers}
    assert len(identities) == 8
    assert transfer_identity(b"a" * 32, OFFER) == transfer_identity(b"a" * 32, Offer("file.bin", 5, OFFER.mtime_ns, 0))


def test_a_directory_that_is_missing_or_no_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Folder(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Folder(str(tmp_path / "file"))


def test_a_directory_that_may_not_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # who may write anywhere
        monkeypatch.setattr(folder_module.os, "access", lambda *_, **__: False)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            Folder(str(tmp_path))
    finally:
        tmp_path.chmod(0o700)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    folder = Folder(str(tmp_path))
    (tmp_path / PART).symlink_to("nowhere")
    with pytest.raises(OSError, match=r"."):
        folder.open_partial("file.bin", IDENTITY)
    partial = folder.open_partial("file.bin", "f" * 16)
    with pytest.raises(PartialHeld):
        folder.open_partial("file.bin", "f" * 16)
    partial.close()
    with folder.existing("nothing") as nothing, folder.existing("..") as above:
        assert nothing is None
        assert above is None
    folder.close()
    assert len(os.listdir("/proc/self/fd")) == before
