"""Tasks of all kinds on one connection, cancelled at random: what arrives at the peer is what the calls promised.

Every message and every stream says who sent it and which one it is, and its bytes follow from that: from what came
alone the peer sees whether anything was lost, doubled, mixed or cut. Both sides do everything. Calls are ended by
`Task.cancel`, also twice in a row, by `asyncio.wait_for`, by `asyncio.timeout` and by their own `timeout`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import shake_128
from random import Random

import pytest
from cancel_ground import still_works
from linked import linked
from support.loops import HANG, LOOPS, run_under, settled, turns

from burstwire import Config, Connection, DeadlineExceeded, Stream, StreamReset, StreamStopped

CONFIG = Config(
    send_buffer=32768, stream_window=32768, connection_window=65536, max_streams=4, max_datagrams=16, close_timeout=30.0
)
"""Small, so that tasks of every kind wait most of the time."""

SENDERS, RECEIVERS, WRITERS, READERS, LISTENERS = 3, 2, 3, 3, 2
"""Tasks of each kind on each side; listeners wait for datagrams."""

CANCELLATIONS = 500
"""Tasks cancelled from outside; about two seconds."""
FULL = 10_000

LONGEST = 5000
"""Bytes of one message or write."""

END = b"end"


def content(who: str, size: int) -> bytes:
    """What somebody sends."""
    return shake_128(who.encode()).digest(size)


def message(who: str, number: int, size: int) -> bytes:
    return f"{who} {number} ".encode() + content(f"{who} {number}", size)


def opened(data: bytes) -> tuple[str, int]:
    """Who sent a message and which one it is; fails if it is not whole."""
    who, number, body = data.split(b" ", 2)
    assert body == content(f"{who.decode()} {number.decode()}", len(body)), "a message was damaged"
    return who.decode(), int(number)


@dataclass
class Written:
    """A stream as its writer knows it: so many bytes were accepted for certain, and perhaps so many."""

    certain: int = 0
    perhaps: int = 0
    reset: bool = False


@dataclass
class Read:
    """A stream as its reader knows it."""

    stream: Stream
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


@dataclass
class Side:
    """One end of the connection, and what was seen there.

    Attributes:
        next: the number of each sender's next message.
        accepted: the messages of each sender that were sent, by what the call said.
        perhaps: batches of which a cancelled `send_many` sent the first few.
        received: the peer's messages, by sender, in the order in which they came.
        datagrams: the peer's datagrams.
        written: streams of this side by their id.
        read: streams of the peer by their id.
        begun: those of them that have not ended.
    """

    name: str
    connection: Connection
    next: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    accepted: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    perhaps: dict[str, list[range]] = field(default_factory=lambda: defaultdict(list))
    received: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    datagrams: list[int] = field(default_factory=list)
    written: dict[int, Written] = field(default_factory=dict)
    read: dict[int, Read] = field(default_factory=dict)
    begun: list[Read] = field(default_factory=list)

    def pool(self, stream: int) -> bytes:
        """What this side writes into a stream of its own."""
        return content(f"{self.name} stream {stream}", 4 * LONGEST)


class Storm:
    """What the tasks of both sides do, over and over. Everything random comes from one generator."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.limits = 0

    async def limited(self, call: Callable[[float | None], Awaitable[None]]) -> None:
        """A call, in one of the ways to wait no longer than so long; what it brought it notes itself, at once."""
        seconds = self.random.choice((0.0, 0.0002, 0.002, 0.02))
        try:
            match self.random.randrange(6):
                case 0:
                    await asyncio.wait_for(call(None), seconds)
                    if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                        raise asyncio.CancelledError  # before Python 3.12, wait_for forgets it if the call is done
                case 1:
                    async with asyncio.timeout(seconds):
                        await call(None)
                case 2:
                    await call(seconds)
                case _:
                    await call(None)
        except (TimeoutError, DeadlineExceeded):
            self.limits += 1

    async def send(self, side: Side, who: str) -> None:
        """A message, or some at once, or a datagram."""
        kind = self.random.randrange(5)
        count = 5 if kind == 0 else 1
        first = side.next[who]
        side.next[who] += count
        numbers = range(first, first + count)
        data = [message(who, number, self.random.randrange(LONGEST)) for number in numbers]

        async def one(limit: float | None) -> None:
            await side.connection.send(data[0], timeout=limit)
            side.accepted[who] += numbers

        async def many(limit: float | None) -> None:
            side.perhaps[who].append(numbers)
            await side.connection.send_many(data, timeout=limit)
            side.perhaps[who].remove(numbers)
            side.accepted[who] += numbers

        if kind == 1:
            side.connection.send_datagram(message(who, first, 100))
            await asyncio.sleep(0)
        else:
            await self.limited(many if count > 1 else one)

    async def receive(self, side: Side, who: str) -> None:
        """A message, or what is there."""

        def note(data: bytes) -> None:
            sender, number = opened(data)
            side.received[sender].append(number)

        async def one(limit: float | None) -> None:
            note(await side.connection.recv(timeout=limit))

        async def many(limit: float | None) -> None:
            for data in await side.connection.recv_many(3, timeout=limit):
                note(data)

        await self.limited(self.random.choice((one, many)))

    async def listen(self, side: Side, who: str) -> None:
        """A datagram."""

        async def one(limit: float | None) -> None:
            sender, number = opened(await side.connection.recv_datagram(timeout=limit))
            side.datagrams.append(hash((sender, number)))

        await self.limited(one)

    async def write(self, side: Side, who: str) -> None:
        """A stream from the beginning to the end; cancelled, it is given up, or ended with what was accepted."""
        streams: list[Stream] = []

        async def opening(limit: float | None) -> None:
            streams.append(await side.connection.open_stream(timeout=limit))

        try:
            await self.limited(opening)
            for stream in streams:
                stream.stop()
                await self.fill(stream, side.written.setdefault(stream.id, Written()), side.pool(stream.id))
        finally:
            for stream in streams:
                written = side.written.setdefault(stream.id, Written())
                if written.certain < written.perhaps and self.random.random() < 0.5:
                    written.reset = True
                    stream.reset(9)
                else:
                    await stream.finish()  # nobody else writes, so this never waits

    async def fill(self, stream: Stream, written: Written, pool: bytes) -> None:
        for _ in range(self.random.randrange(4)):
            piece = pool[written.certain : written.certain + 1 + self.random.randrange(LONGEST)]
            written.perhaps = written.certain + len(piece)
            await stream.write(piece)
            written.certain = written.perhaps

    async def read(self, side: Side, who: str) -> None:
        """A piece of a stream that was begun, or a new stream."""
        side.begun = begun = [read for read in side.begun if not read.ended]
        if begun and self.random.random() < 0.8:
            await self.limited(self.reading(self.random.choice(begun)))
        else:
            await self.limited(self.accepting(side))

    def accepting(self, side: Side) -> Callable[[float | None], Awaitable[None]]:
        async def one(limit: float | None) -> None:
            stream = await anext(side.connection.incoming_streams())
            side.read[stream.id] = read = Read(stream)
            side.begun.append(read)

        return one

    def reading(self, read: Read) -> Callable[[float | None], Awaitable[None]]:
        buffer = bytearray(1 + self.random.randrange(2 * LONGEST))

        async def one(limit: float | None) -> None:
            try:
                if len(buffer) % 2:
                    chunk = await read.stream.read(len(buffer), timeout=limit)
                else:
                    chunk = buffer[: await read.stream.readinto(buffer, timeout=limit)]
            except StreamReset:
                read.reset = True
                chunk = b""
            read.data += chunk
            if not chunk:
                read.ended = True
                with suppress(StreamStopped):
                    await read.stream.finish()

        return one


async def storm(random: Random, sides: tuple[Side, Side], cancellations: int) -> int:
    """Tasks on both sides, of which so many are cancelled; how many calls were ended otherwise."""
    weather = Storm(random)
    kinds = ((weather.send, SENDERS), (weather.receive, RECEIVERS), (weather.listen, LISTENERS),
             (weather.write, WRITERS), (weather.read, READERS))  # fmt: skip

    async def working(step: Callable[[Side, str], Awaitable[None]], side: Side, who: str) -> None:
        while True:
            await step(side, who)
            assert not asyncio.current_task().cancelling(), "a call forgot that it was cancelled"  # type: ignore[union-attr]
            await asyncio.sleep(0)

    work = [(step, side, f"{side.name}{i}") for side in sides for step, count in kinds for i in range(count)]
    tasks = [asyncio.create_task(working(*one)) for one in work]
    for _ in range(cancellations):
        if random.random() < 0.3:
            await asyncio.sleep(0.001)
        await turns(random.randrange(4))
        chosen = random.randrange(len(tasks))
        task = tasks[chosen]
        task.cancel()
        if random.random() < 0.2:
            await turns(random.randrange(3))
            task.cancel()  # while it cleans up, or when it is over
        await ended(task)
        tasks[chosen] = asyncio.create_task(working(*work[chosen]))
    for task in tasks:
        task.cancel()
    for task in tasks:
        await ended(task)
    return weather.limits


async def ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        raise task.exception() or AssertionError("it ended by itself")


async def drained(random: Random, side: Side, other: Side) -> None:
    """Takes what is still on its way to a side: all at once, for what is unread holds up everything else."""
    weather = Storm(random)

    async def messages() -> None:
        while (data := await side.connection.recv()) != END:
            who, number = opened(data)
            side.received[who].append(number)

    async def rest(read: Read) -> None:
        while not read.ended:
            await weather.reading(read)(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(side.connection.send(END))
        group.create_task(messages())
        for read in side.read.values():
            group.create_task(rest(read))
        while len(side.read) + side.connection.stats()["streams_refused"] < len(other.written):
            await weather.accepting(side)(None)
            group.create_task(rest([*side.read.values()][-1]))


def compare(sender: Side, receiver: Side) -> None:
    """What came against what was sent."""
    assert receiver.received.keys() <= sender.next.keys()
    for who in sender.next:
        numbers = receiver.received[who]
        assert numbers == sorted(set(numbers)), f"messages of {who} came twice, or in another order"
        accepted, came = set(sender.accepted[who]), set(numbers)
        assert accepted <= came, f"messages of {who} that were accepted are lost: {accepted - came}"
        for batch in sender.perhaps[who]:
            sent = [number in came for number in batch]
            assert sent == sorted(sent, reverse=True), "a cancelled send_many left one out"
        perhaps = {number for batch in sender.perhaps[who] for number in batch}
        assert came <= accepted | perhaps, f"a cancelled send of {who} was sent: {came - accepted - perhaps}"
    assert len(receiver.datagrams) == len(set(receiver.datagrams)), "a datagram came twice"
    for stream, written in sender.written.items():
        read = receiver.read.get(stream)
        if read is None:
            assert not written.perhaps, "a stream that carried something was refused"
            continue
        assert sender.pool(stream).startswith(read.data), "a stream carries something else than was written"
        assert len(read.data) <= written.perhaps
        assert read.reset == written.reset, "a reset that nobody saw, or a fragment that looks whole"
        assert read.reset or len(read.data) >= written.certain, "accepted bytes of a stream are lost"


@pytest.mark.repeat
@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_cancelled_at_random_lose_double_and_damage_nothing(
    loop: str, seed: int, full: bool, outcome: Callable[[str, str, str], None]
) -> None:
    cancellations = (FULL if full else CANCELLATIONS) // len(LOOPS)

    async def main() -> tuple[int, int, int]:
        random = Random(seed)
        async with linked(CONFIG) as link:
            sides = Side("a", link.here), Side("b", link.there)
            limits = await storm(random, sides, cancellations)
            await asyncio.gather(drained(random, *sides), drained(random, *reversed(sides)))
            compare(*sides)
            compare(*reversed(sides))
            await still_works(link.here, link.there)
            for connection in (link.here, link.there):
                assert not connection._waiting, "a line has waiters, and no task waits"
                await settled(lambda connection=connection: len(connection._core.streams.open) == 1)
            messages = sum(len(numbers) for side in sides for numbers in side.received.values())
            return limits, messages, sum(len(side.read) for side in sides)

    limits, messages, streams = run_under(loop, main, hang=(10 if full else 1) * HANG)
    outcome(
        "faults",
        f"Tasks cancelled at random ({loop})",
        f"{cancellations:,} tasks cancelled and {limits:,} calls out of time, beside {messages:,} messages and "
        f"{streams:,} streams: none lost, doubled or damaged",
    )
