"""Messages: length-prefixed on stream 0, in order and reliable.

On the wire a message is its length as a varint, then its bytes. Whole messages stay in the stream's ring until
the application takes them, so that what is unread holds the sender back. One exception keeps a message that is
larger than the window from waiting for itself: the message in assembly at the end is moved out of the ring as
its bytes come, and what was moved is credited at once; it is bounded by `Config.max_message_size`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from burstwire.errors import MessageTooLarge
from burstwire.proto.datagrams import NOTHING
from burstwire.wire import varint
from burstwire.wire.errors import TransportCode, WireError

if TYPE_CHECKING:
    from burstwire.proto.streams import Stream

__all__ = ["MessageReader", "MessageWriter"]

Buffer = bytes | bytearray | memoryview

MAX_READY = 64
"""Messages that may wait outside of the ring: as many as one wake-up should bring, or a small multiple of them."""

MAX_PARTS = 4096
"""Messages that are taken one by one before they are joined: more gain nothing, and tiny ones take more as objects."""

JOIN_BELOW = 64 * 1024
"""Messages shorter than this are joined and copied into the ring in one go; longer ones are copied one by one."""


class MessageWriter:
    """Puts messages on stream 0.

    Args:
        stream: stream 0.
        limit: the peer's `max_message_size`.
    """

    __slots__ = ("_half", "_parts", "collected", "limit")

    def __init__(self, stream: Stream, limit: int) -> None:
        self._half = stream.sending
        self.limit = limit
        self._parts: list[bytes] = []
        """Messages, and their prefixes, that were taken one by one and not yet written to the ring."""
        self.collected = 0
        """Their bytes."""

    @property
    def room(self) -> bool:
        """Whether a message may be accepted now; it is then taken whole, whatever its size."""
        half = self._half
        return half.written + self.collected - half.base < half.budget

    def add(self, message: bytes) -> bool:
        """Accepts a small message, if there is room and the peer takes it: with others, it is written by `collect`."""
        half = self._half
        size = len(message)
        if half.written + self.collected - half.base >= half.budget or size > self.limit:
            return False
        prefix = varint.encode(size)
        parts = self._parts
        parts += (prefix, message)
        self.collected += size + len(prefix)
        if len(parts) >= 2 * MAX_PARTS:
            self.collect()
        return True

    def collect(self) -> None:
        """Writes what was taken one by one to the ring, in one go."""
        if self.collected:
            half = self._half
            half.blocked = False
            self.collected = 0
            half.accept(b"".join(self._parts))
            self._parts.clear()

    def check(self, message: Buffer) -> int:
        """The message's size in bytes; raises `MessageTooLarge`."""
        size = message.nbytes if isinstance(message, memoryview) else len(message)
        if size > self.limit:
            raise MessageTooLarge(size, self.limit)
        return size

    def put(self, messages: Sequence[Buffer]) -> int:
        """Accepts messages from the front while there is room; returns how many (they were checked before)."""
        self.collect()
        half = self._half
        room = half.budget - (half.written - half.base)
        taken = 0
        joined: list[Buffer] = []
        size = 0
        encode = varint.encode
        for message in messages:
            if size >= room:
                break
            length = message.nbytes if isinstance(message, memoryview) else len(message)
            prefix = encode(length)
            if length >= JOIN_BELOW:
                joined.append(prefix)
                half.accept(b"".join(joined))
                joined.clear()
                half.accept(memoryview(message).cast("B"))
            else:
                joined.append(prefix)
                joined.append(message)
            size += length + len(prefix)
            taken += 1
        if joined:
            half.accept(b"".join(joined))
        if taken < len(messages):
            half.blocked = half.wants_room = True
        else:
            half.blocked = False
        return taken


class MessageReader:
    """Takes messages off stream 0.

    Args:
        stream: stream 0.
        limit: this side's `max_message_size`; a longer one is a violation by the peer.

    Attributes:
        ready: whole messages outside of the ring, which come before what lies there.
        ready_bytes: bytes of the stream that they are, and those that were taken of them and are not yet credited.
        announced: whether `MessagesReadable` was given and nothing was taken in vain since.
        violation: what the peer did wrong as far as only a call of the application found it, or None.
    """

    __slots__ = (
        "_assembly",
        "_missing",
        "_stream",
        "announced",
        "limit",
        "ready",
        "ready_bytes",
        "uncredited",
        "violation",
    )

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self.limit = limit
        self.ready: deque[bytes] = NOTHING
        self.ready_bytes = 0
        self.uncredited = 0
        """Bytes of the stream that the application has taken one by one since the peer was credited for any."""
        self._assembly: bytearray | None = None
        self._missing = 0
        self.announced = False
        self.violation: WireError | None = None

    # getters

    @property
    def available(self) -> bool:
        """Whether a whole message is there."""
        if self.ready:
            return True
        if self._assembly is not None:
            return not self._missing
        head = self._next_head()
        if head is None:
            return False
        prefix, length = head
        return self._stream.receiving.readable >= prefix + length

    # inputs

    def whole(self, offset: int, data: memoryview | bytes) -> bool:
        """Takes a frame's bytes past the ring if they are whole messages, and the next ones of the stream.

        Most small messages come so. Few of them may: lying in the ring they take no more than their bytes. What is not
        taken, not even in part, goes the usual way.
        """
        half = self._stream.receiving
        end = len(data)
        if not end or offset != half.read_offset or offset != half.ready:
            return False
        if half.parts.total or self._assembly is not None:
            return False
        position = 0
        messages: list[bytes] = []
        while position < end:
            length = data[position]
            prefix = 1
            if length >= 0x40:
                prefix = 1 << (length >> 6)
                if position + prefix > end:
                    return False
                length, _ = varint.read(data, position)
                if prefix != varint.size(length):  # `take` frees the bytes of the shortest one
                    return False
            position += prefix
            stop = position + length
            if stop > end or length > self.limit:
                return False
            messages.append(bytes(data[position:stop]))
            position = stop
        if len(self.ready) + len(messages) > MAX_READY:
            return False
        self._keep(messages)
        self.ready_bytes += end
        half.skip_ahead(end)
        return True

    def arrived(self) -> int:
        """More of the stream became readable.

        Returns:
            bytes that were moved out of the ring for the message in assembly, to be credited to the peer.

        Raises:
            WireError: a length beyond `limit`.
        """
        half = self._stream.receiving
        credited = 0
        if self._assembly is not None and self._missing:
            credited = self._assemble()
        if self._assembly is None:
            head = self._head()
            if head is not None and self._too_large(head):
                credited += self._begin_assembly(*head)
            elif half.ready >= half.max_data:
                # The peer has used up its credit: if that is because of a message that the window cannot hold,
                # what stands before it must leave the ring, too.
                credited += self._make_way()
        return credited

    # mutators

    def fetch(self) -> None:
        """Takes whole small messages out of the ring, ahead of the application, which asks for one at a time."""
        half = self._stream.receiving
        if half.ready - half.read_offset > 1 and self._assembly is None and not self.ready and self.violation is None:
            messages: list[bytes] = []
            self.ready_bytes += self._take_many(messages, MAX_READY)
            self._keep(messages)

    def credit(self) -> int:
        """Bytes of the stream that were taken one by one, to be credited now."""
        # With nothing left outside of the ring all is free, also what prefixes had beyond their shortest form.
        freed = self.uncredited if self.ready else self.ready_bytes
        self.uncredited = 0
        self.ready_bytes -= freed
        return freed

    def take(self, limit: int) -> tuple[list[bytes], int]:
        """Up to `limit` whole messages, and the bytes of the stream that they free."""
        messages: list[bytes] = []
        freed = self.credit()
        half = self._stream.receiving
        while len(messages) < limit:
            if self.ready:
                message = self.ready.popleft()
                size = len(message)
                size += 1 if size < 0x40 else varint.size(size)
                self.ready_bytes -= size
                freed += size
                messages.append(message)
            elif self._assembly is not None:
                if self._missing:
                    break
                messages.append(bytes(self._assembly))
                self._assembly = None
            else:
                head = self._next_head() if half.ready > half.read_offset else None
                if head is None:
                    break
                prefix, length = head
                if half.readable < prefix + length:
                    break
                if prefix + length < half.readable and length < JOIN_BELOW and limit - len(messages) > 1:
                    freed += self._take_many(messages, limit)
                    continue
                half.skip(prefix)
                messages.append(half.read(length))
                freed += prefix + length
        if not self.ready:
            freed += self.credit()
        if half.ready > half.read_offset and messages and self._assembly is None and not self.ready:
            # What is now in front may be what the peer has no credit left for: no arrival would tell.
            head = self._next_head()
            if head is not None and self._too_large(head):
                freed += self._begin_assembly(*head)
        return messages, freed

    def release_if_idle(self) -> None:
        """Gives memory back while nothing waits outside of the ring."""
        if not self.ready:
            self.ready = NOTHING

    # inside

    def _keep(self, messages: Sequence[bytes]) -> None:
        """Puts whole messages behind those outside of the ring."""
        if self.ready is NOTHING:
            self.ready = deque(messages)
        else:
            self.ready.extend(messages)

    def _too_large(self, head: tuple[int, int]) -> bool:
        """Whether the message in front is incomplete and so large that it must not wait in the ring."""
        half = self._stream.receiving
        return half.readable < sum(head) and sum(head) > half.window // 2

    def _next_head(self) -> tuple[int, int] | None:
        """`_head` for the application's calls, which a peer's mistake must not interrupt."""
        if self.violation is None:
            try:
                return self._head()
            except WireError as error:
                self.violation = error
        return None

    def _head(self) -> tuple[int, int] | None:
        """Bytes of the prefix and of the message that begin at the read offset, or None when not all is there."""
        half = self._stream.receiving
        readable = half.readable
        if not readable:
            return None
        start = half.peek(8)
        prefix = 1 << (start[0] >> 6)
        if prefix > readable:
            return None
        length, _ = varint.decode(start, 0)
        if length > self.limit:
            raise WireError(
                TransportCode.PROTOCOL_VIOLATION, f"a message of {length:,} bytes; at most {self.limit:,} were agreed"
            )
        return prefix, length

    def _take_many(self, messages: list[bytes], limit: int) -> int:
        """Parses messages out of one copy of what is readable; faster than one copy for each. Returns bytes taken."""
        half = self._stream.receiving
        data = half.peek(JOIN_BELOW * 4)
        end = len(data)
        position = 0
        decode = varint.decode
        append = messages.append
        wanted = limit - len(messages)
        while wanted and position < end:
            length = data[position]
            start = position + 1
            if length >= 0x40:
                if position + (1 << (length >> 6)) > end:
                    break
                length, start = decode(data, position)
                if length > self.limit:
                    break  # the next `_head` raises
            stop = start + length
            if stop > end:
                break
            append(data[start:stop])
            position = stop
            wanted -= 1
        half.skip(position)
        return position

    def _make_way(self) -> int:
        half = self._stream.receiving
        credited = 0
        # Before a message that has arrived in full nothing is urgent, unless a large one follows it.
        before = self._before_large()
        while True:
            head = self._head()
            if head is None:
                return credited
            prefix, length = head
            if half.readable >= prefix + length:
                if not before or self.ready_bytes > half.window:
                    return credited
                before -= 1
                half.skip(prefix)
                self._keep((half.read(length),))
                shortest = varint.size(length)  # which `take` frees
                self.ready_bytes += shortest + length
                credited += prefix - shortest
                continue
            if prefix + length <= half.window // 2:
                return credited
            return credited + self._begin_assembly(prefix, length)

    def _before_large(self) -> int:
        """How many messages lie in the ring before an incomplete one that is too large for the window; 0 also if they
        are too many to lie elsewhere: then the application must take some first."""
        half = self._stream.receiving
        data = half.peek(half.readable)
        position = 0
        end = len(data)
        for before in range(MAX_READY - len(self.ready) + 1):
            if position == end:
                return 0
            prefix = 1 << (data[position] >> 6)
            if position + prefix > end:
                return 0
            length, start = varint.decode(data, position)
            if start + length > end:
                return before if prefix + length > half.window // 2 else 0
            position = start + length
        return 0

    def _begin_assembly(self, prefix: int, length: int) -> int:
        self._stream.receiving.skip(prefix)
        self._assembly = bytearray()
        self._missing = length
        return prefix + self._assemble()

    def _assemble(self) -> int:
        half = self._stream.receiving
        assembly = self._assembly
        n = min(self._missing, half.readable)
        if assembly is None or not n:
            return 0
        assembly += half.read(n)
        self._missing -= n
        return n
