"""A file that can arrive does: whole, resumed, recognised; and nothing of the receiver's is lost for it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conversation import content, interrupted, leftovers, run, transfer

from burstwire.cli import receiver as receiver_module
from burstwire.cli.exchange import Refused
from burstwire.cli.filework import BUFFER
from burstwire.cli.folder import Folder
from burstwire.cli.receiver import Inbox, Received, Rejection
from burstwire.cli.sender import Sent, open_source

SIZES = [0, 1, 1000, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 12345]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_whole_under_its_name(folder: Folder, box: Path, source_path: Path, size: int) -> None:
    data = content(size)
    source_path.write_bytes(data)
    sent, received, _ = run(lambda: transfer(source_path, Inbox(folder)))
    digest = hashlib.sha256(data).hexdigest()
    assert isinstance(sent, Sent)
    assert isinstance(received, Received)
    assert (sent.sent, sent.resumed_from, sent.sha256) == (size, 0, digest)
    assert (received.size, received.resumed_from, received.sha256) == (size, 0, digest)
    assert (box / "file.bin").read_bytes() == data
    assert [entry.name for entry in box.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("after", [1, 5000, BUFFER, BUFFER + 5000, 2 * BUFFER + 12345])
def test_an_interrupted_transfer_resumes_and_moves_only_the_rest(
    folder: Folder, box: Path, source_path: Path, after: int
) -> None:
    data = content(2 * BUFFER + 12346)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder)
        await interrupted(source_path, inbox, after)
        assert not (box / "file.bin").exists()
        assert [entry.stat().st_size for entry in leftovers(box)] == [after]
        return await transfer(source_path, inbox)

    sent, received, carried = run(scenario)
    assert isinstance(sent, Sent)
    assert (sent.sent, sent.resumed_from) == (len(data) - after, after)
    assert received.resumed_from == after
    assert carried < len(data) - after + 1000
    assert (box / "file.bin").read_bytes() == data
    assert leftovers(box) == []


def test_a_partial_file_that_does_not_match_is_started_afresh(folder: Folder, box: Path, source_path: Path) -> None:
    data = content(100_000)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder)
        await interrupted(source_path, inbox, 50_000)
        (part,) = leftovers(box)
        part.write_bytes(b"\0" * 50_000)
        return await transfer(source_path, inbox)

    sent, received, _ = run(scenario)
    assert (sent.resumed_from, received.resumed_from) == (0, 0)
    assert (box / "file.bin").read_bytes() == data


def test_a_partial_file_longer_than_the_file_is_started_afresh(folder: Folder, box: Path, source_path: Path) -> None:
    data = content(100_000)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder)
        await interrupted(source_path, inbox, 50_000)
        (part,) = leftovers(box)
        part.write_bytes(data + b"more")
        return await transfer(source_path, inbox)

    sent, _, _ = run(scenario)
    assert sent.resumed_from == 0
    assert (box / "file.bin").read_bytes() == data


def test_a_file_changed_since_it_was_interrupted_is_not_mixed_with_its_old_self(
    folder: Folder, box: Path, source_path: Path
) -> None:
    source_path.write_bytes(content(100_000, 1))
    os.utime(source_path, ns=(0, 1))

    async def scenario() -> Any:
        inbox = Inbox(folder)
        await interrupted(source_path, inbox, 50_000)
        source_path.write_bytes(content(100_000, 2))
        os.utime(source_path, ns=(0, 1))  # as if nothing had happened
        return await transfer(source_path, inbox)

    sent, _, _ = run(scenario)
    assert sent.resumed_from == 0
    assert (box / "file.bin").read_bytes() == content(100_000, 2)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_there_already_is_recognised_and_not_sent(
    folder: Folder, box: Path, source_path: Path, size: int
) -> None:
    data = content(size)
    source_path.write_bytes(data)
    (box / "file.bin").write_bytes(data)
    sent, received, carried = run(lambda: transfer(source_path, Inbox(folder)))
    assert (sent.identical, sent.sent) == (True, 0)
    assert received.identical
    assert carried < 1000


@pytest.mark.parametrize("other", [b"", b"x" * 1000, b"other length"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_file_of_the_name_is_kept_unless_overwriting_is_on(
    box: Path, source_path: Path, other: bytes, overwrite: bool
) -> None:
    data = content(1000)
    source_path.write_bytes(data)
    (box / "file.bin").write_bytes(other)
    folder = Folder(str(box), overwrite=overwrite)
    sent, received, _ = run(lambda: transfer(source_path, Inbox(folder)))
    folder.close()
    assert leftovers(box) == []
    if overwrite:
        assert isinstance(sent, Sent)
        assert (box / "file.bin").read_bytes() == data
    else:
        assert isinstance(sent, Refused)
        assert sent.code == "exists"
        assert isinstance(received, Rejection)
        assert (box / "file.bin").read_bytes() == other


def test_a_name_taken_while_the_file_was_under_way_is_not_replaced(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_path.write_bytes(content(1000))
    store = receiver_module._store

    async def slow_store(*args: Any) -> None:
        await store(*args)
        (box / "file.bin").write_bytes(b"somebody else's")

    monkeypatch.setattr(receiver_module, "_store", slow_store)
    sent, _, _ = run(lambda: transfer(source_path, Inbox(folder)))
    assert isinstance(sent, Refused)
    assert sent.code == "exists"
    assert (box / "file.bin").read_bytes() == b"somebody else's"


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a\0b", "..", "", ".file.bin.0123456789abcdef.part", "a\nb"])
def test_a_name_attack_is_refused_and_touches_nothing(
    folder: Folder, box: Path, tmp_path: Path, source_path: Path, name: str
) -> None:
    source_path.write_bytes(b"evil")
    before = sorted(tmp_path.iterdir())
    sent, _, _ = run(lambda: transfer(source_path, Inbox(folder), name=name))
    assert isinstance(sent, Refused)
    assert sent.code == "name"
    assert list(box.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == before


def test_offers_carry_what_the_file_system_says(source_path: Path) -> None:
    source_path.write_bytes(b"12345")
    source_path.chmod(0o640)
    os.utime(source_path, ns=(1, 123_456_789_000))
    with open_source(str(source_path)) as source:
        assert (source.name, source.size, source.mtime_ns, source.mode) == (
            "file.bin",
            5,
            123_456_789_000,
            0o640,
        )
        assert source.unchanged()
        assert not replace(source, size=6).unchanged()
