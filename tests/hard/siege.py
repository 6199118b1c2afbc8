"""A node, an honest peer that sends it bulk data, and a hostile one beside them: three processes.

What the honest one gets while the third floods is compared with what it gets while the third is as busy and sends
nothing: on two processors three busy processes have less than one each, whatever they do. Both are measured in turns,
so that what else the machine does hits both alike.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from burstwire import Config, Connection, KeyPair, PublicKey, Stream, TransportError, bind

__all__ = ["Outcome", "Process", "Siege"]

HERE = Path(__file__).parent
MIB = 1 << 20
ANSWER = bytes(32 * 1024)


# --- the processes ----------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


async def node(friend: PublicKey) -> None:
    """Takes what comes: reads the streams of `friend`, reads and answers those of others,
    takes their messages; nobody reads datagrams. A line on stdin asks how it is."""
    config = Config(keep_alive=0, idle_timeout=60, close_timeout=0.1)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    delivered = 0
    buffer = bytearray(MIB)

    def start(work: Any) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def drain(stream: Stream) -> None:
        nonlocal delivered
        with suppress(TransportError):
            while size := await stream.readinto(buffer):
                delivered += size

    async def answer(stream: Stream) -> None:
        with suppress(TransportError):
            await stream.write(ANSWER)
            await stream.finish()
        with suppress(TransportError):
            while await stream.read(1000):
                pass

    async def messages(connection: Connection) -> None:
        with suppress(TransportError):
            while True:
                await connection.recv_many()

    async def serve(connection: Connection) -> None:
        honest = connection.peer_key == friend
        if not honest:
            start(messages(connection))
        with suppress(TransportError):
            async for stream in connection.incoming_streams():
                start(drain(stream) if honest else answer(stream))

    async with await bind("127.0.0.1:0", KeyPair.generate(), config=config) as endpoint:

        def report() -> None:
            line = sys.stdin.readline()
            if not line:
                loop.remove_reader(0)
                ended.set()
                return
            figures = {"time": time.monotonic(), "delivered": delivered, "rss": resident(), **endpoint.stats()}
            print(json.dumps(figures), flush=True)

        ended = asyncio.Event()
        loop.add_reader(0, report)
        print(json.dumps({"port": endpoint.local_address[1], "key": str(endpoint.public_key)}), flush=True)

        async def accept() -> None:
            async for connection in endpoint.incoming():
                start(serve(connection))

        accepting = asyncio.create_task(accept())
        await ended.wait()
        accepting.cancel()
        for task in list(tasks):
            task.cancel()
        await endpoint.close()


async def friend(port: int, key: PublicKey, secret: str) -> None:
    """Sends as fast as it can, until stdin ends."""
    async with await bind(
        "127.0.0.1:0", KeyPair(bytes.fromhex(secret)), config=Config(max_datagram_size=1400)
    ) as endpoint:
        connection = await endpoint.connect(("127.0.0.1", port), key)
        stream = await connection.open_stream()
        piece = bytes(256 * 1024)

        async def write() -> None:
            with suppress(TransportError):
                while True:
                    await stream.write(piece)

        writing = asyncio.create_task(write())
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        writing.cancel()


# --- who watches ------------------------------------------------------------------------------------------------


class Process:
    """A child that answers lines with lines."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """What it says next."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        assert line, f"{self._child.args} ended"
        return line

    def tell(self, line: str) -> None:
        """Tells it something."""
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def ask(self, line: str = "?") -> dict[str, Any]:
        """Tells it something and takes its answer."""
        self.tell(line)
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def end(self) -> None:
        """It ends when it reads nothing more; if not, it is ended."""
        with suppress(BrokenPipeError):
            self._child.stdin.close()  # type: ignore[union-attr]
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()  # type: ignore[union-attr]


@dataclass
class Outcome:
    """What a flood did.

    Attributes:
        kept: what the honest peer had under it, as a share of what it had beside a busy process.
        rate: bytes per second that it had under it.
        growth: bytes of memory that the node had more than before, at most.
        packets: of the flood, per second.
        limited: packets that the node dropped because of what they cost, per second.
        closed: how often the node ended the connection.
        sums: what the flood counted from its start: "packets", "streams", "tries", "connected".
    """

    kept: float
    rate: float
    growth: int
    packets: float
    limited: float
    closed: int
    sums: dict[str, int]

    def __str__(self) -> str:
        ends = f", {self.closed} times closed" if self.closed else ""
        return (
            f"{self.kept:.0%} of the rate kept ({self.rate / 1e6:,.0f} MB/s), {self.growth / MIB:+.1f} MiB; "
            f"{self.packets:,.0f} packets/s came, {self.limited:,.0f} dropped{ends}"
        )


class Siege:
    """The node and its friend; floods come and go."""

    def __init__(self) -> None:
        key = KeyPair.generate()
        self.node = Process("siege.py", "node", str(key.public))
        self.info = json.loads(self.node.line())
        self.friend = Process("siege.py", "friend", str(self.info["port"]), self.info["key"], key.private_bytes().hex())
        self.friend.line()
        self._settled()

    def _settled(self) -> None:
        """The honest transfer has found its pace, and the node the memory that it needs for it."""
        moved = -1.0
        for _ in range(50):
            before = self.node.ask()
            time.sleep(0.1)
            after = self.node.ask()
            if 0 < after["delivered"] - before["delivered"] < 1.2 * moved:
                return
            moved = after["delivered"] - before["delivered"]

    def flood(self, name: str, seconds: float, turns: int, until: tuple[str, int] = ("", 0)) -> Outcome:
        """Measures `turns` times in turn for so many seconds each, with the flood and without.

        With `until`, turns are added until one of its sums is so large.
        """
        hostile = Process(
            "hostile_peer.py", "--port", str(self.info["port"]), "--key", self.info["key"], "--flood", name
        )
        try:
            assert hostile.line() == "ready\n"
            start = highest = self.node.ask()["rss"]
            moved = {"flood": 0.0, "mute": 0.0}
            times = {"flood": 0.0, "mute": 0.0}
            packets = limited = closed = 0
            sums: dict[str, int] = {}
            for turn in count():
                if turn >= 2 * turns and sums.get(until[0], 0) >= until[1]:
                    break
                what = ("mute", "flood")[turn % 2 or turn >= 2 * turns]
                hostile.tell(f"{what} {seconds}")
                time.sleep(0.2 * seconds)  # what the turn before has left
                before = self.node.ask()
                for _ in range(3):
                    time.sleep(0.25 * seconds)
                    after = self.node.ask()
                    highest = max(highest, after["rss"])
                moved[what] += after["delivered"] - before["delivered"]
                times[what] += after["time"] - before["time"]
                answer = json.loads(hostile.line())
                packets += answer["packets"]
                closed += answer["closed"]
                sums = {key: value for key, value in answer.items() if key != "closed"}
                sums["packets"] = packets
                limited += after["packets_limited"] - before["packets_limited"]
        finally:
            hostile.end()
        rates = {what: moved[what] / times[what] for what in moved}
        return Outcome(
            kept=rates["flood"] / rates["mute"],
            rate=rates["flood"],
            growth=highest - start,
            packets=packets / ((turn - turns) * seconds),
            limited=limited / times["flood"],
            closed=closed,
            sums=sums,
        )

    def close(self) -> None:
        """Ends both."""
        self.friend.end()
        self.node.end()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "node":
        asyncio.run(node(PublicKey.parse(rest[0])))
    else:
        asyncio.run(friend(int(rest[0]), PublicKey.parse(rest[1]), rest[2]))
