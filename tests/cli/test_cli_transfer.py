"""One file's conversation, both ends, over a stream in memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_stream import MemoryStream, stream_pair

from burstwire.cli import exchange as exchange_module
from burstwire.cli import folder as folder_module
from burstwire.cli import receiver as receiver_module
from burstwire.cli.exchange import Exchange, PeerEnded, Refused, Stalled
from burstwire.cli.exits import Failure
from burstwire.cli.filework import BUFFER
from burstwire.cli.folder import Folder
from burstwire.cli.headers import (
    LENGTH,
    Accept,
    Busy,
    Check,
    Done,
    End,
    HeaderError,
    Offer,
    Prefix,
    ResetCode,
    encode,
)
from burstwire.cli.progress import SilentProgress
from burstwire.cli.receiver import Inbox, Received, Rejection
from burstwire.cli.sender import Changed, Sent, open_source, send_file
from burstwire.errors import PeerClosed, StreamReset

SENDER = b"s" * 32
SIZES = [0, 1, 1000, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 12345]


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(30):
            return await work()

    return asyncio.run(limited())


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


@pytest.fixture
def folder(box: Path) -> Iterator[Folder]:
    opened = Folder(str(box))
    yield opened
    opened.close()


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


async def transfer(
    path: Path, inbox: Inbox, *, name: str | None = None, deadline: float = 5, sender: bytes = SENDER
) -> tuple[Sent | Exception, Received | Exception, int]:
    """Both ends; the bytes that the sender's stream carried."""
    near, far = stream_pair()
    with open_source(str(path), name) as source:
        sent, received = await asyncio.gather(
            send_file(Exchange(near, deadline), source, SilentProgress()),
            inbox.receive(Exchange(far, deadline), sender),
            return_exceptions=True,
        )
    assert not isinstance(sent, asyncio.CancelledError)
    return sent, received, near.carried  # type: ignore[return-value]


def leftovers(box: Path) -> list[Path]:
    return [entry for entry in box.iterdir() if entry.name.startswith(".")]


async def interrupted(path: Path, inbox: Inbox, after: int) -> None:
    """Send `after` bytes of the file, then lose the connection."""
    near, far = stream_pair(1 << 14)
    receiving = asyncio.ensure_future(inbox.receive(Exchange(far, 5), SENDER))
    stat = path.stat()
    exchange = Exchange(near, 5)
    await exchange.put(Offer(path.name, stat.st_size, stat.st_mtime_ns, 0o644))
    await exchange.get(Accept)
    await exchange.write(memoryview(path.read_bytes()[:after]))
    while near.carried < after:
        await asyncio.sleep(0.001)
    near.cut()
    with pytest.raises(PeerClosed):
        await receiving


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


def test_a_second_attempt_of_the_same_sender_ends_the_first(folder: Folder, box: Path, source_path: Path) -> None:
    """The sender was killed and started again; its old connection looks alive to the receiver for a while."""
    data = content(100_000)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder, limit=1)
        near, far = stream_pair()
        first = asyncio.ensure_future(inbox.receive(Exchange(far, 20), SENDER))
        stat = source_path.stat()
        exchange = Exchange(near, 5)
        await exchange.put(Offer("file.bin", stat.st_size, stat.st_mtime_ns, 0o644))
        await exchange.get(Accept)
        await exchange.write(memoryview(data[:30_000]))
        while near.carried < 30_000:
            await asyncio.sleep(0.001)
        result = await transfer(source_path, inbox)
        assert first.cancelled()
        assert near.incoming.reset == ResetCode.SUPERSEDED
        return result

    sent, _, _ = run(scenario)
    assert isinstance(sent, Sent)
    assert sent.resumed_from == 30_000
    assert (box / "file.bin").read_bytes() == data


def test_a_sender_that_leaves_while_the_file_is_stored_does_not_undo_it(
    folder: Folder, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "BUSY_INTERVAL", 0.02)
    flushing, gone = threading.Event(), threading.Event()

    def slow_fsync(fd: int) -> None:
        flushing.set()
        gone.wait(10)

    monkeypatch.setattr(folder_module.os, "fsync", slow_fsync)

    async def scenario() -> Any:
        near, far = stream_pair()
        receiving = asyncio.ensure_future(Inbox(folder).receive(Exchange(far, 5), SENDER))
        exchange = Exchange(near, 5)
        await exchange.put(Offer("file.bin", 5, 0, 0o644))
        await exchange.get(Accept)
        await exchange.write(memoryview(b"hello"))
        await exchange.put(End(hashlib.sha256(b"hello").hexdigest()))
        await asyncio.to_thread(flushing.wait, 10)
        near.cut()
        await asyncio.sleep(0.1)
        gone.set()
        return await receiving

    assert isinstance(run(scenario), Received)
    assert (box / "file.bin").read_bytes() == b"hello"


def test_two_senders_of_one_name_do_not_touch_each_other(folder: Folder, box: Path, tmp_path: Path) -> None:
    paths = []
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        paths.append(tmp_path / str(index) / "file.bin")
        paths[-1].write_bytes(content(3 * BUFFER, index))

    async def scenario() -> Any:
        inbox = Inbox(folder)
        return await asyncio.gather(
            transfer(paths[0], inbox, sender=b"0" * 32), transfer(paths[1], inbox, sender=b"1" * 32)
        )

    outcomes = run(scenario)
    done = [index for index, (sent, _, _) in enumerate(outcomes) if isinstance(sent, Sent)]
    assert len(done) == 1
    assert (box / "file.bin").read_bytes() == content(3 * BUFFER, done[0])


def test_many_files_at_the_same_time_wait_for_their_turn(folder: Folder, box: Path, tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"f{index}").write_bytes(content(200_000, index))

    async def scenario() -> Any:
        inbox = Inbox(folder, limit=2)
        return await asyncio.gather(*(transfer(tmp_path / f"f{index}", inbox) for index in range(12)))

    assert all(isinstance(sent, Sent) for sent, _, _ in run(scenario))
    for index in range(12):
        assert (box / f"f{index}").read_bytes() == content(200_000, index)


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_cancelling_either_end_keeps_what_arrived_and_frees_the_turn(
    folder: Folder, box: Path, source_path: Path, end: str
) -> None:
    data = content(4 * BUFFER)
    source_path.write_bytes(data)

    async def scenario() -> Any:
        inbox = Inbox(folder, limit=1)
        near, far = stream_pair()
        receiving = asyncio.ensure_future(inbox.receive(Exchange(far, 5), SENDER))
        with open_source(str(source_path)) as source:
            sending = asyncio.ensure_future(send_file(Exchange(near, 5), source, SilentProgress()))
            while near.carried < BUFFER + 1000:
                await asyncio.sleep(0.001)
            if end == "sender":
                sending.cancel()
            else:
                receiving.cancel()
                far.cut()  # a receiver is cancelled only when its endpoint closes
            _, received = await asyncio.gather(sending, receiving, return_exceptions=True)
        if end == "sender":
            assert isinstance(received, StreamReset)
            assert received.code == ResetCode.CANCELLED
        (part,) = leftovers(box)
        assert part.stat().st_size >= BUFFER
        assert part.read_bytes() == data[: part.stat().st_size]
        return await transfer(source_path, inbox)

    sent, _, _ = run(scenario)
    assert isinstance(sent, Sent)
    assert sent.resumed_from >= BUFFER
    assert (box / "file.bin").read_bytes() == data


async def hostile_sender(inbox: Inbox, talk: Callable[[MemoryStream], Awaitable[None]]) -> BaseException:
    near, far = stream_pair()
    receiving = asyncio.ensure_future(inbox.receive(Exchange(far, 1), SENDER))
    await talk(near)
    (outcome,) = await asyncio.gather(receiving, return_exceptions=True)
    assert isinstance(outcome, BaseException)
    return outcome


OFFER = Offer("file.bin", 10, 0, 0o644)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (b"", PeerEnded),
        (LENGTH.pack(0), HeaderError),
        (LENGTH.pack(1 << 31) + b"x", HeaderError),
        (LENGTH.pack(100) + b"{}", PeerEnded),
        (LENGTH.pack(2) + b"{}", HeaderError),
        (encode(Accept(0)), HeaderError),
        (encode(End("0" * 64)), HeaderError),
        (encode(Busy()) * 3, PeerEnded),
        (encode(OFFER), PeerEnded),
        (encode(OFFER) + b"12345", PeerEnded),
        (encode(OFFER) + b"1234567890", PeerEnded),
        (encode(OFFER) + b"1234567890" + encode(OFFER), HeaderError),
        (encode(OFFER) + b"1234567890 more than was offered", HeaderError),
    ],
)
def test_a_sender_that_breaks_the_protocol_costs_only_its_own_transfer(
    folder: Folder, box: Path, source_path: Path, words: bytes, kind: type[Exception]
) -> None:
    source_path.write_bytes(b"a good one")

    async def talk(stream: MemoryStream) -> None:
        await stream.write(words)
        await stream.finish()

    async def scenario() -> Any:
        inbox = Inbox(folder, limit=1)
        assert isinstance(await hostile_sender(inbox, talk), kind)
        assert not (box / "file.bin").exists()
        return await transfer(source_path, inbox, sender=b"good".ljust(32))

    sent, _, _ = run(scenario)
    assert isinstance(sent, Sent)


@pytest.mark.parametrize(
    "words",
    [
        encode(Accept(5)),
        encode(Check(0)),
        encode(Check(11)),
        encode(Check(10)) + encode(Accept(3)),
        encode(Check(3)) + encode(Done(True)),
        encode(Done(True)),
        encode(OFFER),
        encode(Prefix("0" * 64)),
        LENGTH.pack(1 << 20),
    ],
)
def test_a_receiver_that_breaks_the_protocol_is_caught(source_path: Path, words: bytes) -> None:
    source_path.write_bytes(b"1234567890")

    async def scenario() -> None:
        near, far = stream_pair()
        await far.write(words)
        with open_source(str(source_path)) as source, pytest.raises(HeaderError):
            await send_file(Exchange(near, 1), source, SilentProgress())
        assert near.outgoing.reset == ResetCode.BROKEN

    run(scenario)


def test_only_regular_readable_files_are_opened_for_sending(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "fifo", Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(Failure) as failure, open_source(str(path)):
            pass
        assert failure.value.code == 4
        assert "\n" not in failure.value.line


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
