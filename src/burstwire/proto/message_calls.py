"""The application's calls for messages, and what tells it that there are some or that there is room; sans-IO.

How messages lie on stream 0 is `messages.py`. `MessageCalls` is the part of a `Connection` that stands between the two:
a base of that class, because every small message passes here on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from burstwire.proto.events import Event, MessagesReadable, MessagesWritable
from burstwire.wire import varint

if TYPE_CHECKING:
    from burstwire.errors import TransportError
    from burstwire.proto.connection import Connection
    from burstwire.proto.flow import FlowControl
    from burstwire.proto.inbound import Inbound
    from burstwire.proto.messages import MessageReader, MessageWriter
    from burstwire.proto.sending import SendHalf
    from burstwire.proto.stream_table import StreamTable

__all__ = ["MessageCalls"]

SMALL = 16 * 1024
"""Bytes of a message from which on it is written to the ring at once instead of being kept until packets are made."""

TINY = 32
"""Bytes: one message for as many is what bulk data cost; the messages beyond are counted (`Inbound.tiny_messages`)."""

CREDIT_AT = 64 * 1024
"""Bytes of messages taken one by one for which the peer is credited together."""


class MessageCalls:
    """Messages of a connection."""

    __slots__ = ()

    # what `Connection` adds
    emit: Callable[[Event], None]
    error: TransportError | None
    flow: FlowControl
    inbound: Inbound
    reader: MessageReader
    streams: StreamTable
    writer: MessageWriter

    if TYPE_CHECKING:

        def _check_open(self) -> None: ...
        def wake(self) -> None: ...
        def wants_to_send(self, half: SendHalf) -> None: ...

    # the application's calls

    def message_room(self) -> bool:
        """Whether `send_message` may be called; if not, `MessagesWritable` follows once."""
        if self.error is not None or self.writer.room:
            return True
        half = self.streams.messages.sending
        half.blocked = half.wants_room = True
        return False

    def send_message(self, data: bytes | bytearray | memoryview) -> None:
        """Takes a message whole. Call it when `message_room` says so.

        Raises:
            MessageTooLarge: nothing was taken. TransportError: the connection has ended.
        """
        self._check_open()
        self.writer.check(data)
        self.writer.put((data,))
        self.wants_to_send(self.streams.messages.sending)

    def add_message(self, data: bytes) -> bool:
        """Takes a small message if there is room, at little cost: many are written together when packets are made.

        False: it was not taken, for any reason; `send_messages` knows which.
        """
        writer = self.writer
        if len(data) >= SMALL or self.error is not None:
            return False
        if not writer.collected and writer.room:
            self.wants_to_send(self.streams.messages.sending)
        return writer.add(data)

    def send_messages(self, messages: Sequence[bytes | bytearray | memoryview]) -> int:
        """Takes messages from the front while there is room; returns how many. What raises takes none."""
        self._check_open()
        for message in messages:
            self.writer.check(message)
        taken = self.writer.put(messages)
        if taken:
            self.wants_to_send(self.streams.messages.sending)
        return taken

    def next_message(self) -> bytes | None:
        """The next whole message, or None when there is none."""
        reader = self.reader
        if not reader.ready:
            if not reader.announced:
                return None
            reader.fetch()
            self._count_tiny(len(reader.ready), reader.ready_bytes)
            if not reader.ready:
                messages = self.next_messages(1)
                return messages[0] if messages else None
        message = reader.ready.popleft()
        size = len(message)
        reader.uncredited += size + (1 if size < 0x40 else 2 if size < 0x4000 else varint.size(size))
        if not reader.ready or reader.uncredited >= CREDIT_AT or self.flow.peer_blocked:
            self.credit_messages()
        return message

    def credit_messages(self) -> None:
        """Gives the peer credit for the messages that were taken one by one."""
        credit = self.reader.credit()
        if credit:
            self.flow.consume(self.streams.messages, credit)

    def next_messages(self, limit: int) -> list[bytes]:
        """Up to `limit` whole messages."""
        reader = self.reader
        if not reader.announced:  # exact, and what most calls find that are about to wait
            return []
        messages, freed = reader.take(limit)
        self._count_tiny(len(messages), freed)
        if freed:
            self.flow.consume(self.streams.messages, freed)
        if reader.violation is not None:
            self.wake()
        reader.announced = reader.available if len(messages) == limit else False
        return messages

    def _count_tiny(self, messages: int, size: int) -> None:
        """Messages so small that they cost far more than their bytes are charged to the peer (`toll.Toll`)."""
        tiny = messages - size // TINY
        if tiny > 0:
            self.inbound.tiny_messages += tiny

    # inputs

    def messages_arrived(self) -> None:
        """A whole message is there."""
        if not self.reader.announced:
            self.reader.announced = True
            self.emit(MessagesReadable(cast("Connection", self)))

    def messages_writable(self) -> None:
        """Stream 0 has room again."""
        self.streams.messages.sending.blocked = False
        self.emit(MessagesWritable(cast("Connection", self)))
