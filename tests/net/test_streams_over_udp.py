"""Streams between two endpoints on the loopback interface."""

from __future__ import annotations

import asyncio
import hashlib
import random
from array import array

import pytest
from linked import linked
from support.loops import Run, settled, turns

from burstwire import Config, PeerClosed, Stream, StreamFinished, StreamReset, StreamStopped


async def write_for_ever(stream: Stream) -> None:
    while True:
        await stream.write(bytes(1000))
        await asyncio.sleep(0)


async def read_all(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


def test_a_stream_carries_megabytes_byte_for_byte_both_ways(run: Run, config: Config) -> None:
    data = random.Random(7).randbytes(8_000_001)

    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()

            async def send(stream: Stream, piece: int) -> None:
                for start in range(0, len(data), piece):
                    await stream.write(memoryview(data)[start : start + piece])
                await stream.finish()

            async def digest(stream: Stream) -> str:
                found = hashlib.sha256()
                buffer = bytearray(100_003)
                view = memoryview(buffer)
                while count := await stream.readinto(buffer):
                    found.update(view[:count])
                return found.hexdigest()

            results = await asyncio.gather(send(here, 300_000), send(there, 7_777), digest(here), digest(there))
            expected = hashlib.sha256(data).hexdigest()
            assert results[2:] == [expected, expected]
            assert here.at_end
            assert there.at_end

    run(main)


def test_half_close_ends_one_direction_and_the_other_goes_on(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            await here.write(b"question")
            await here.finish()
            await here.finish()
            assert [chunk async for chunk in there] == [b"question"]
            assert await there.read(1) == b""
            with pytest.raises(StreamFinished):
                await here.write(b"more")
            for number in range(3):
                await there.write(b"answer %d" % number)
                assert await here.read(100) == b"answer %d" % number
            await there.finish()
            assert await here.read(1) == b""
            assert await here.readinto(bytearray(1)) == 0

    run(main)


def test_any_buffer_is_written_as_its_bytes(run: Run, config: Config) -> None:
    numbers = array("I", range(50_000))

    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            await here.write(numbers)
            await here.write(b"")
            await here.write(memoryview(b"abcdef")[::2])
            await here.finish()
            assert b"".join([chunk async for chunk in there]) == numbers.tobytes() + b"ace"
            with pytest.raises(TypeError, match="str"):
                await there.write("text")  # type: ignore[arg-type]
            target = array("H", [0, 0, 0])
            await there.write(b"\x01\x00\x02\x00")
            assert await here.readinto(target) == 4
            assert target.tobytes()[:4] == b"\x01\x00\x02\x00"
            with pytest.raises(TypeError, match="read-only"):
                await here.readinto(b"abc")  # type: ignore[arg-type]
            assert await here.readinto(bytearray()) == 0
            assert await here.read(0) == b""
            with pytest.raises(ValueError, match="negative"):
                await here.read(-1)

    run(main)


def test_writes_of_several_tasks_do_not_mix(run: Run, config: Config) -> None:
    small = config.replace(send_buffer=16384, stream_window=16384, connection_window=16384)

    async def main() -> None:
        async with linked(small) as link:
            here, there = await link.stream()
            writers = [asyncio.create_task(here.write(bytes([number]) * 100_000)) for number in range(4)]
            finishing = asyncio.create_task(_after(writers, here.finish()))
            received = b"".join([chunk async for chunk in there])
            await finishing
            assert received == b"".join(bytes([number]) * 100_000 for number in range(4))

    run(main)


async def _after(tasks: list[asyncio.Task[None]], last: object) -> None:
    await asyncio.gather(*tasks)
    await last  # type: ignore[misc]


def test_finish_waits_for_the_writes_before_it(run: Run, config: Config) -> None:
    small = config.replace(send_buffer=16384, stream_window=16384, connection_window=16384)

    async def main() -> None:
        async with linked(small) as link:
            here, there = await link.stream()
            writing = asyncio.create_task(here.write(bytes(100_000)))
            finishing = asyncio.create_task(here.finish())
            await settled(lambda: bool(here._writers))
            assert not writing.done()
            assert not finishing.done()
            assert sum([len(chunk) async for chunk in there]) == 100_000
            await writing
            await finishing

    run(main)


def test_reset_and_stop_reach_the_other_side_with_their_codes(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            reading = asyncio.create_task(there.read(10))
            await turns()
            here.reset(41)
            with pytest.raises(StreamReset) as reset:
                await reading
            assert reset.value.code == 41
            with pytest.raises(StreamFinished):
                await here.write(b"x")

            here.stop(42)
            assert await here.read(10) == b""
            with pytest.raises(StreamStopped) as stopped:
                await write_for_ever(there)
            assert stopped.value.code == 42
            await link.here.send(b"the connection goes on")
            assert await link.there.recv() == b"the connection goes on"

    run(main)


def test_resetting_wakes_the_writer_that_waits(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, _ = await link.stream()
            writing = asyncio.create_task(here.write(bytes(64 << 20)))
            await settled(lambda: bool(here._writers))
            here.reset(1)
            with pytest.raises(StreamFinished):
                await writing
            reading = asyncio.create_task(here.read(1))
            await turns()
            here.stop(1)
            assert await reading == b""

    run(main)


def test_a_stopped_stream_wakes_the_peers_writer_that_waits(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            writing = asyncio.create_task(here.write(bytes(64 << 20)))
            await settled(lambda: bool(here._writers))
            there.stop(5)
            with pytest.raises(StreamStopped):
                await writing

    run(main)


def test_leaving_a_stream_finishes_it_and_leaving_it_by_an_error_resets_it(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            incoming = link.there.incoming_streams()
            async with await link.here.open_stream() as here:
                await here.write(b"whole")
            there = await anext(incoming)
            assert [chunk async for chunk in there] == [b"whole"]
            with pytest.raises(StreamStopped):
                await write_for_ever(there)

            async def fail() -> None:
                async with await link.here.open_stream() as here:
                    await here.write(b"frag")
                    raise KeyError("ment")

            with pytest.raises(KeyError):
                await fail()
            there = await anext(incoming)
            with pytest.raises(StreamReset):
                await read_all(there)

    run(main)


def test_streams_beyond_the_peers_limit_wait_for_one_to_end(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(max_streams=2)) as link:
            incoming = link.there.incoming_streams()
            first, second = await link.here.open_stream(), await link.here.open_stream()
            opening = [asyncio.create_task(link.here.open_stream()) for _ in range(2)]
            await turns(20)
            assert not any(task.done() for task in opening)
            for stream in (first, second):
                await stream.write(b"x")
                await stream.finish()
                async with await anext(incoming) as there:
                    assert await there.read(9) == b"x"
                    assert await there.read(9) == b""
                assert await stream.read(1) == b""
            third, fourth = await asyncio.gather(*opening)
            assert len({first.id, second.id, third.id, fourth.id}) == 4
            for stream in (third, fourth):
                await stream.write(b"y")
                assert await (await anext(incoming)).read(1) == b"y"

    run(main)


def test_each_incoming_stream_goes_to_one_acceptor(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            accepted: list[tuple[int, int]] = []

            async def acceptor(number: int) -> None:
                async for stream in link.there.incoming_streams():
                    accepted.append((number, stream.id))

            tasks = [asyncio.create_task(acceptor(number)) for number in range(2)]
            await turns()
            streams = [await link.here.open_stream() for _ in range(6)]
            for stream in streams:
                await stream.write(b"x")
            await settled(lambda: len(accepted) == 6)
            assert [stream_id for _, stream_id in accepted] == [stream.id for stream in streams]
            assert {number for number, _ in accepted} == {0, 1}
            await link.here.close()
            await asyncio.gather(*tasks)

    run(main)


def test_what_arrived_on_a_stream_is_read_before_the_connections_end_raises(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            waiting = await link.here.open_stream()
            await waiting.write(b"?")
            silent = await anext(link.there.incoming_streams())
            assert await silent.read(1) == b"?"
            reading = asyncio.create_task(silent.read(1))
            await here.write(b"last")
            await link.here.close(3, "gone")
            await link.there.wait_closed()
            assert await there.read(100) == b"last"
            with pytest.raises(PeerClosed):
                await there.read(100)
            with pytest.raises(PeerClosed) as caught:
                await reading
            assert caught.value.code == 3
            with pytest.raises(PeerClosed):
                await there.write(b"x")
            with pytest.raises(PeerClosed):
                await anext(link.there.incoming_streams())

    run(main)
