"""What ends a wait, and that it says why; and priorities between real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from linked import Link, deaf, linked
from support.loops import Run, settled

from burstwire import Config, DeadlineExceeded, IdleTimeout, PeerStalled, Stream, StreamFinished

MIB = 1 << 20
SOON = 0.05
SMALL = {"send_buffer": 65536, "stream_window": 65536, "connection_window": 1 << 18}


async def fill(link: Link) -> tuple[Stream, Stream]:
    """A stream that takes nothing more, as nobody reads it."""
    here, there = await link.stream()
    with pytest.raises(DeadlineExceeded):
        await here.write(bytes(MIB), timeout=SOON)
    return here, there


READS: dict[str, Callable[[Link, Stream], Coroutine[Any, Any, object]]] = {
    "recv": lambda link, stream: link.here.recv(timeout=SOON),
    "recv_many": lambda link, stream: link.here.recv_many(timeout=SOON),
    "recv_datagram": lambda link, stream: link.here.recv_datagram(timeout=SOON),
    "read": lambda link, stream: stream.read(1, timeout=SOON),
    "readinto": lambda link, stream: stream.readinto(bytearray(1), timeout=SOON),
    "wait_closed": lambda link, stream: link.here.wait_closed(timeout=SOON),
}


@pytest.mark.parametrize("call", READS)
def test_who_waits_to_receive_waits_no_longer_than_it_said_and_takes_nothing(call: str, run: Run) -> None:
    async def main() -> None:
        async with linked(Config()) as link:
            here, there = await link.stream()
            with pytest.raises(DeadlineExceeded) as caught:
                await READS[call](link, here)
            assert isinstance(caught.value, TimeoutError)
            assert str(link.b.public_key) in str(caught.value)
            assert f"longer than {SOON:g} s" in str(caught.value)
            await link.there.send(b"message")
            link.there.send_datagram(b"datagram")
            await there.write(b"stream")
            assert await link.here.recv(timeout=30) == b"message"
            assert await link.here.recv_datagram(timeout=30) == b"datagram"
            assert await here.read(100, timeout=30) == b"stream"

    run(main)


@pytest.mark.parametrize(("timeout", "error"), [("3", TypeError), (True, TypeError), (float("nan"), ValueError)])
def test_a_timeout_that_is_no_number_of_seconds_is_refused_and_nothing_is_waited_for(
    timeout: Any, error: type[Exception], run: Run
) -> None:
    async def main() -> None:
        async with linked(Config()) as link:
            here, _ = await link.stream()
            for call in (
                link.here.recv(timeout=timeout),
                link.here.wait_closed(timeout=timeout),
                here.read(1, timeout=timeout),
                link.a.connect(link.b.local_address, link.b.public_key, timeout=timeout),
            ):
                with pytest.raises(error, match=r"timeout is .*; it must be a number of seconds"):
                    await call  # a coroutine that nobody awaited would fail the test, too
            await link.there.send(b"message")
            assert await link.here.recv(timeout=30) == b"message"

    run(main)


def test_a_write_that_takes_too_long_says_how_far_it_came_and_why(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL)) as link:
            here, there = await link.stream()
            with pytest.raises(DeadlineExceeded, match="write of 1,048,576 bytes") as caught:
                await here.write(bytes(MIB), timeout=0.3)
            said = re.search(r"\(([\d,]+) accepted\) to stream 4 of the connection with bw1", str(caught.value))
            assert said is not None
            assert "the peer does not read stream 4" in str(caught.value)
            left = int(said[1].replace(",", ""))
            assert left >= SMALL["stream_window"]
            while left > 0:  # exactly so many come
                left -= len(await there.read(MIB, timeout=30))
            assert left == 0
            with pytest.raises(DeadlineExceeded):
                await there.read(1, timeout=SOON)
            await here.write(b"more")  # the stream is as usable as before

    run(main)


def test_other_waits_to_send_end_in_time_too(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL, max_streams=1)) as link:
            here, _ = await fill(link)
            with pytest.raises(DeadlineExceeded, match=r"open_stream to .*the peer allows 1 streams in all"):
                await link.here.open_stream(timeout=SOON)
            with pytest.raises(DeadlineExceeded, match=r"send to .*the messages' stream"):
                await _messages(link, timeout=0.2)
            with pytest.raises(DeadlineExceeded, match=r"send to .*the messages' stream"):
                await link.here.send_many([bytes(50_000)] * 3, timeout=SOON)
            writing = asyncio.create_task(here.write(bytes(MIB)))
            await settled(lambda: bool(here._writers))
            with pytest.raises(DeadlineExceeded, match="finish of stream 4"):
                await here.finish(timeout=SOON)
            here.reset()
            with pytest.raises(StreamFinished):
                await writing

    run(main)


def test_a_peer_that_lives_but_does_not_read_is_given_up_and_named(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL, max_streams=1, stall_timeout=0.2)) as link:
            here, there = await link.stream()
            sending = asyncio.create_task(_messages(link))
            opening = asyncio.create_task(link.here.open_stream())
            writers = [asyncio.create_task(here.write(bytes(MIB))) for _ in range(2)]
            done = await asyncio.gather(sending, opening, *writers, return_exceptions=True)
            assert [type(error) for error in done] == [PeerStalled] * 4
            assert all(str(link.b.public_key) in str(error) for error in done)
            reasons = ("does not read the messages' stream", "allows 1 streams", *2 * ("does not read stream 4",))
            for error, reason in zip(done, reasons, strict=True):
                assert reason in str(error)
            # Everything goes on if the peer does.
            reading = asyncio.create_task(_read_until(there, b"end"))
            await here.write(b"end")
            await here.finish()
            await reading
            assert await link.there.recv()

    run(main)


async def _messages(link: Link, timeout: float | None = None) -> None:
    while True:
        await link.here.send(bytes(50_000), timeout=timeout)


async def _read_until(stream: Stream, end: bytes) -> None:
    last = b""
    while chunk := await stream.read(MIB):
        last = (last + chunk)[-len(end) :]
    assert last == end


def test_a_peer_that_reads_slowly_is_not_given_up(run: Run, config: Config) -> None:
    """Every byte that it takes counts, whether or not that lets the writer go on."""

    async def main() -> None:
        async with linked(config.replace(**SMALL, stall_timeout=0.3)) as link:
            here, there = await link.stream()
            writing = asyncio.create_task(here.write(bytes(32 * MIB)))
            await settled(lambda: bool(here._writers))
            loop = asyncio.get_running_loop()
            until = loop.time() + 1.0
            while loop.time() < until:
                await there.read(20_000)
                await asyncio.sleep(0.02)
                assert not writing.done()
            here.reset()
            await asyncio.wait([writing])
            assert isinstance(writing.exception(), StreamFinished)

    run(main)


def test_without_a_stall_timeout_nothing_is_watched(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL, stall_timeout=0)) as link:
            here, _ = await fill(link)
            assert link.here._watch is None
            here.reset()

    run(main)


def test_a_peer_that_vanished_ends_every_wait_by_the_idle_timeout_even_with_a_longer_one(run: Run) -> None:
    async def main() -> None:
        config = Config(**SMALL, idle_timeout=0.3, keep_alive=0.1)  # type: ignore[arg-type]
        async with linked(config) as link:
            here, _ = await link.stream()
            with deaf(link.b):
                waits = (
                    link.here.recv(timeout=30), link.here.recv_datagram(), here.read(1, timeout=30),
                    here.write(bytes(MIB), timeout=30), anext(link.here.incoming_streams()),
                )  # fmt: skip
                done = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(error) for error in done] == [IdleTimeout] * len(waits)
            assert isinstance(await link.here.wait_closed(), IdleTimeout)

    run(main)


def test_a_closed_connection_leaves_no_watch_behind(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(**SMALL)) as link:
            await fill(link)
            watch = link.here._watch
            assert watch is not None
            assert watch.active
        assert not watch.active

    run(main)


# --- priorities ---------------------------------------------------------------------------------------------------


async def _count(stream: Stream, into: dict[Stream, int]) -> None:
    buffer = bytearray(MIB)
    while n := await stream.readinto(buffer):
        into[stream] = into.get(stream, 0) + n


def test_an_urgent_stream_overtakes_one_that_is_under_way(run: Run, config: Config) -> None:
    large = config.replace(
        send_buffer=64 * MIB, stream_window=64 * MIB, connection_window=256 * MIB,
        stream_window_initial=64 * MIB, connection_window_initial=256 * MIB,
    )  # fmt: skip

    async def main() -> None:
        async with linked(large) as link:
            got: dict[Stream, int] = {}
            slow, slow_end = await link.stream()
            await slow.write(bytes(32 * MIB))
            await slow.finish()
            reading = asyncio.create_task(_count(slow_end, got))
            await settled(lambda: got.get(slow_end, 0) > MIB)
            urgent = await link.here.open_stream(priority=0)
            assert (slow.priority, urgent.priority) == (3, 0)
            await urgent.write(bytes(16 * MIB))
            await urgent.finish()
            begun = got[slow_end]
            urgent_end = await anext(link.there.incoming_streams())
            await _count(urgent_end, got)
            beside = got[slow_end] - begun
            print(f"beside 16 MiB of an urgent stream, another carries {beside / MIB:.1f} MiB")
            assert beside < 8 * MIB, "as equals they would carry the same"
            await reading
            assert (got[urgent_end], got[slow_end]) == (16 * MIB, 32 * MIB)

    run(main)


def test_priorities_are_set_where_they_may_be(run: Run) -> None:
    async def main() -> None:
        async with linked(Config()) as link:
            with pytest.raises(ValueError, match="priority is 8"):
                await link.here.open_stream(priority=8)
            stream = await link.here.open_stream(priority=7)
            stream.priority = 1
            with pytest.raises(ValueError, match="priority is -1"):
                stream.priority = -1
            assert stream.priority == 1
            assert link.here.message_priority == 3
            link.here.message_priority = 0
            assert link.here.message_priority == 0
            await stream.write(b"x")
            assert (await anext(link.there.incoming_streams())).priority == 3, "each side orders what it sends itself"

    run(main)
