"""A pair of connected streams in memory, with the rules of burstwire's: bounded, half-closing, reset and stop."""

from __future__ import annotations

import asyncio

from burstwire.errors import ConnectionLost, PeerClosed, StreamFinished, StreamReset, StreamStopped


class _Pipe:
    """One direction."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = bytearray()
        self.carried = 0
        self.finished = False
        self.reset: int | None = None
        self.stopped: int | None = None
        self.lost: ConnectionLost | None = None
        self.changed = asyncio.Condition()

    async def wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class MemoryStream:
    """One end. `carried` counts the bytes that the other end was given."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self._wakes: set[asyncio.Task[None]] = set()

    @property
    def carried(self) -> int:
        return self.outgoing.carried

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        pipe = self.outgoing
        rest = bytes(data)
        while rest:
            async with pipe.changed:
                await pipe.changed.wait_for(lambda: pipe.lost or pipe.stopped is not None or len(pipe.data) < pipe.room)
                if pipe.lost:
                    raise pipe.lost
                if pipe.stopped is not None:
                    raise StreamStopped(pipe.stopped)
                if pipe.finished or pipe.reset is not None:
                    raise StreamFinished("finished")
                taken = min(len(rest), pipe.room - len(pipe.data))
                pipe.data += rest[:taken]
                rest = rest[taken:]
                pipe.changed.notify_all()

    async def readinto(self, buffer: memoryview) -> int:
        pipe = self.incoming
        async with pipe.changed:
            await pipe.changed.wait_for(lambda: pipe.data or pipe.finished or pipe.reset is not None or pipe.lost)
            if pipe.reset is not None:
                raise StreamReset(pipe.reset)
            if pipe.data:
                count = min(len(buffer), len(pipe.data))
                buffer[:count] = pipe.data[:count]
                del pipe.data[:count]
                pipe.carried += count
                pipe.changed.notify_all()
                return count
            if pipe.finished:
                return 0
            assert pipe.lost is not None
            raise pipe.lost

    async def finish(self) -> None:
        self.outgoing.finished = True
        await self.outgoing.wake()

    def reset(self, code: int) -> None:
        self.outgoing.reset = code
        self._later(self.outgoing)

    def stop(self, code: int) -> None:
        self.incoming.stopped = code
        self._later(self.incoming)

    def cut(self) -> None:
        """The connection is gone, for both ends."""
        for pipe in (self.incoming, self.outgoing):
            pipe.lost = PeerClosed(0, "cut")
            self._later(pipe)

    def _later(self, pipe: _Pipe) -> None:
        task = asyncio.ensure_future(pipe.wake())
        self._wakes.add(task)
        task.add_done_callback(self._wakes.discard)


def stream_pair(room: int = 1 << 16) -> tuple[MemoryStream, MemoryStream]:
    """Two ends that may each have `room` bytes under way."""
    one, two = _Pipe(room), _Pipe(room)
    return MemoryStream(one, two), MemoryStream(two, one)
