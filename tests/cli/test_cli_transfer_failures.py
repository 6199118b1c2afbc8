"""Files that change, disks that fail, peers that stall: each end says so, and what is good is kept."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from conversation import SENDER, content, leftovers, run, transfer
from memory_stream import MemoryStream, stream_pair

from burstwire.cli import exchange as exchange_module
from burstwire.cli import folder as folder_module
from burstwire.cli import receiver as receiver_module
from burstwire.cli.exchange import Exchange, Refused, Stalled
from burstwire.cli.exits import Failure
from burstwire.cli.filework import BUFFER
from burstwire.cli.folder import Folder
from burstwire.cli.headers import (
    Accept,
    Done,
    End,
    Offer,
    ResetCode,
    encode,
)
from burstwire.cli.progress import SilentProgress
from burstwire.cli.receiver import Inbox, Received, Rejection
from burstwire.cli.sender import Changed, Sent, open_source, send_file
from burstwire.errors import StreamReset


def test_what_arrives_with_a_wrong_hash_is_never_shown_and_never_resumed(
    folder: Folder, box: Path, source_path: Path
) -> None:
    async def scenario() -> None:
        near, far = stream_pair()
        receiving = asyncio.ensure_future(Inbox(folder).receive(Exchange(far, 5), SENDER))
        exchange = Exchange(near, 5)
        await exchange.put(Offer("file.bin", 5, 0, 0o644))
        await exchange.get(Accept)
        await exchange.write(memoryview(b"hello"))
        await exchange.put(End("0" * 64))
        with pytest.raises(Refused) as refused:
            await exchange.get(Done)
        assert refused.value.code == "mismatch"
        with pytest.raises(Rejection):
            await receiving

    run(scenario)
    assert list(box.iterdir()) == []


def test_a_file_that_grows_or_changes_while_it_is_sent_is_given_up_at_both_ends(
    folder: Folder, box: Path, source_path: Path
) -> None:
    source_path.write_bytes(content(3 * BUFFER))

    class Meddler(SilentProgress):
        def advance(self, count: int) -> None:
            with source_path.open("ab") as file:
                file.write(b"more")

    async def scenario() -> None:
        near, far = stream_pair()
        with open_source(str(source_path)) as source:
            sent, received = await asyncio.gather(
                send_file(Exchange(near, 5), source, Meddler()),
                Inbox(folder).receive(Exchange(far, 5), SENDER),
                return_exceptions=True,
            )
        assert isinstance(sent, Changed)
        assert isinstance(received, StreamReset)

    run(scenario)
    assert list(box.iterdir()) == []


def test_a_file_that_shrinks_while_it_is_sent_is_given_up(folder: Folder, box: Path, source_path: Path) -> None:
    source_path.write_bytes(content(5 * BUFFER))

    class Meddler(SilentProgress):
        def advance(self, count: int) -> None:
            os.truncate(source_path, BUFFER)

    async def scenario() -> None:
        near, far = stream_pair()
        with open_source(str(source_path)) as source:
            sent, _ = await asyncio.gather(
                send_file(Exchange(near, 5), source, Meddler()),
                Inbox(folder).receive(Exchange(far, 5), SENDER),
                return_exceptions=True,
            )
        assert isinstance(sent, Changed)

    run(scenario)
    assert list(box.iterdir()) == []


def test_a_full_disk_is_told_to_the_sender_and_what_arrived_is_kept(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(5 * BUFFER)
    source_path.write_bytes(data)
    write_all = folder_module.write_all

    def small_disk(fd: int, view: memoryview, offset: int) -> None:
        if offset + len(view) > 2 * BUFFER:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(fd, view, offset)

    monkeypatch.setattr(folder_module, "write_all", small_disk)
    sent, received, _ = run(lambda: transfer(source_path, Inbox(folder)))
    assert isinstance(sent, Refused)
    assert sent.code == "space"
    assert "no space left" in str(received)
    assert [entry.stat().st_size for entry in leftovers(box)] == [2 * BUFFER]
    monkeypatch.undo()
    sent, _, _ = run(lambda: transfer(source_path, Inbox(folder)))
    assert sent.resumed_from == 2 * BUFFER
    assert (box / "file.bin").read_bytes() == data


@pytest.mark.parametrize("size", [2 * BUFFER, 8 * BUFFER, 8 * BUFFER + 1])
def test_a_disk_that_fails_while_flushing_fails_the_transfer(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The kernel reports such an error once: whoever gets it must not lose it."""
    source_path.write_bytes(content(size))
    monkeypatch.setattr(receiver_module, "FLUSH_EVERY", BUFFER)
    failures = [OSError(errno.EIO, "Input/output error")]

    def broken_disk(fd: int) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(folder_module, "flush_file", broken_disk)
    sent, _, _ = run(lambda: transfer(source_path, Inbox(folder)))
    assert isinstance(sent, Refused)
    assert sent.code == "storage"
    assert not (box / "file.bin").exists()


def test_a_file_larger_than_the_free_space_is_refused_before_it_travels(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_path.write_bytes(content(100_000))
    monkeypatch.setattr(folder, "free_bytes", lambda: 99_999)
    sent, _, carried = run(lambda: transfer(source_path, Inbox(folder)))
    assert isinstance(sent, Refused)
    assert sent.code == "space"
    assert carried < 1000
    assert list(box.iterdir()) == []


def test_a_silent_sender_is_given_up_and_its_bytes_are_kept(folder: Folder, box: Path) -> None:
    async def scenario() -> None:
        near, far = stream_pair()
        receiving = asyncio.ensure_future(Inbox(folder).receive(Exchange(far, 0.05), SENDER))
        exchange = Exchange(near, 5)
        await exchange.put(Offer("file.bin", 1000, 0, 0o644))
        await exchange.get(Accept)
        await exchange.write(memoryview(b"x" * 10))
        with pytest.raises(Stalled):
            await receiving
        assert near.outgoing.stopped == ResetCode.BROKEN

    run(scenario)
    assert [entry.stat().st_size for entry in leftovers(box)] == [10]


def test_a_silent_receiver_is_given_up(source_path: Path) -> None:
    source_path.write_bytes(b"x")

    async def scenario() -> None:
        near, _ = stream_pair()
        with open_source(str(source_path)) as source, pytest.raises(Stalled):
            await send_file(Exchange(near, 0.05), source, SilentProgress())

    run(scenario)


def test_a_receiver_that_reads_no_more_is_given_up(source_path: Path) -> None:
    source_path.write_bytes(content(BUFFER))

    async def scenario() -> None:
        near, far = stream_pair()
        await far.write(encode(Accept(0)))
        with open_source(str(source_path)) as source, pytest.raises(Stalled):
            await send_file(Exchange(near, 0.05), source, SilentProgress())

    run(scenario)


def test_long_work_of_the_receiver_is_not_taken_for_silence(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "BUSY_INTERVAL", 0.02)
    data = content(1000)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder, limit=1)
        await inbox._turns.acquire()
        running = asyncio.ensure_future(transfer(source_path, inbox, deadline=0.2))
        await asyncio.sleep(0.6)
        inbox._turns.release()
        return await running

    sent, _, _ = run(scenario)
    assert isinstance(sent, Sent)


def test_a_sender_that_has_handed_everything_over_waits_for_a_slow_path(
    folder: Folder, box: Path, source_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "BUSY_INTERVAL", 0.02)
    source_path.write_bytes(content(1_000_000))

    class Slow(MemoryStream):
        async def readinto(self, buffer: memoryview) -> int:
            await asyncio.sleep(0.02)
            return await super().readinto(buffer[:20_000])

    async def scenario() -> Any:
        near, far = stream_pair(1 << 20)
        slow = Slow(far.incoming, far.outgoing)
        with open_source(str(source_path)) as source:
            return await asyncio.gather(
                send_file(Exchange(near, 0.25), source, SilentProgress()),
                Inbox(folder).receive(Exchange(slow, 5), SENDER),
                return_exceptions=True,
            )

    sent, received = run(scenario)
    assert isinstance(sent, Sent)
    assert isinstance(received, Received)
    assert received.seconds > 0.9


def test_only_regular_readable_files_are_opened_for_sending(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "fifo", Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(Failure) as failure, open_source(str(path)):
            pass
        assert failure.value.code == 4
        assert "\n" not in failure.value.line
