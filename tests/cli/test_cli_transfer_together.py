"""Transfers beside each other, after each other, cut off, and with peers that break the rules."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conversation import SENDER, content, leftovers, run, transfer
from memory_stream import MemoryStream, stream_pair

from burstwire.cli import exchange as exchange_module
from burstwire.cli import folder as folder_module
from burstwire.cli.exchange import Exchange, PeerEnded
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
from burstwire.cli.receiver import Inbox, Received
from burstwire.cli.sender import Sent, open_source, send_file
from burstwire.errors import StreamReset


async def hostile_sender(inbox: Inbox, talk: Callable[[MemoryStream], Awaitable[None]]) -> BaseException:
    near, far = stream_pair()
    receiving = asyncio.ensure_future(inbox.receive(Exchange(far, 1), SENDER))
    await talk(near)
    (outcome,) = await asyncio.gather(receiving, return_exceptions=True)
    assert isinstance(outcome, BaseException)
    return outcome


OFFER = Offer("file.bin", 10, 0, 0o644)


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
