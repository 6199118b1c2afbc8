"""Messages off stream 0, by whatever frames they come: whole, in order, and held against the peer's credit."""

from __future__ import annotations

import random

import pytest
from batches import Receiver, Wire
from hypothesis import given
from hypothesis import strategies as st

from burstwire.config import Config
from burstwire.errors import RemoteProtocolError
from burstwire.proto.events import ConnectionEnded, MessagesReadable
from burstwire.proto.messages import MAX_READY
from burstwire.wire import frames as f
from burstwire.wire import varint
from burstwire.wire.errors import TransportCode

WINDOW = 16_384
CONFIG = Config(stream_window=WINDOW, connection_window=2 * WINDOW, max_message_size=3 * WINDOW)


def encoded(message: bytes, prefix: int = 0) -> bytes:
    """A message with its length, as a varint of at least `prefix` bytes."""
    size = max(prefix, varint.size(len(message)))
    top = {1: 0, 2: 1, 4: 2, 8: 3}[size] << (8 * size - 2)
    return (top | len(message)).to_bytes(size) + message


class Talk:
    """What a peer says on stream 0, a frame a packet."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.wire = Wire(config)
        self.receiver: Receiver = self.wire.receiver
        self.offset = 0
        self.packets = 0

    @property
    def connection(self):
        return self.receiver.connection

    def again(self, offset: int, data: bytes) -> None:
        """A frame that begins with bytes that were sent before."""
        self.receiver.wake([[self.wire.packet(self.packets, f.encode_stream(0, offset, data))]])
        self.packets += 1
        self.offset = max(self.offset, offset + len(data))

    def frame(self, data: bytes, fin: bool = False) -> None:
        packet = self.wire.packet(self.packets, f.encode_stream(0, self.offset, data, fin))
        self.receiver.wake([[packet]])
        self.packets += 1
        self.offset += len(data)

    @property
    def told(self) -> bool:
        """Whether the application was told of messages since it was asked last."""
        found = any(isinstance(event, MessagesReadable) for event in self.receiver.events)
        self.receiver.events.clear()
        return found

    @property
    def credit(self) -> int:
        """Up to where the peer may send, by what was read."""
        return self.connection.flow.stream_credit(self.connection.streams.messages)


def test_whole_messages_of_a_frame_are_given_out_in_order_and_empty_ones_count() -> None:
    talk = Talk()
    messages = [b"one", b"", b"x" * 100, b"", b""]
    talk.frame(b"".join(map(encoded, messages)))
    assert talk.told
    assert talk.connection.next_messages(3) == messages[:3]
    talk.frame(encoded(b"more"))
    assert talk.connection.next_messages(10) == [*messages[3:], b"more"]
    assert talk.connection.next_messages(10) == []


def test_a_message_in_two_frames_is_told_of_when_it_is_whole() -> None:
    talk = Talk()
    data = encoded(b"before") + encoded(b"y" * 500)
    talk.frame(data[:200])
    assert talk.told
    assert talk.connection.next_messages(10) == [b"before"]
    talk.frame(data[200:-1])
    assert not talk.told
    talk.frame(data[-1:] + encoded(b"behind"))
    assert talk.told
    assert talk.connection.next_messages(10) == [b"y" * 500, b"behind"]


def test_a_frame_without_a_byte_tells_nobody_of_a_message() -> None:
    talk = Talk()
    talk.frame(b"")
    assert not talk.told
    talk.frame(encoded(b"one"))
    assert talk.told
    assert talk.connection.next_messages(10) == [b"one"]
    talk.frame(b"", fin=True)
    assert not talk.told
    assert talk.connection.listening


@pytest.mark.parametrize("before", [b"", encoded(b"fine")], ids=["alone", "behind another"])
@pytest.mark.parametrize("taken", [True, False])
def test_a_length_beyond_the_limit_closes_the_connection(before: bytes, taken: bool) -> None:
    talk = Talk()
    data = before + varint.encode(CONFIG.max_message_size + 1) + b"z" * 50
    talk.frame(data)
    if taken:
        assert talk.connection.next_messages(10) == ([b"fine"] if before else [])
    talk.frame(encoded(b"on top"))
    talk.receiver.flight(0.01)
    talk.receiver.wake([])
    if before and not taken:  # nobody has looked at it yet
        assert talk.connection.listening
        return
    (ended,) = [event for event in talk.receiver.events if isinstance(event, ConnectionEnded)]
    assert isinstance(ended.error, RemoteProtocolError)
    assert ended.error.code == TransportCode.PROTOCOL_VIOLATION


def test_a_whole_message_beyond_the_limit_closes_the_connection_however_small_the_frame_is() -> None:
    talk = Talk(Config(max_message_size=100))
    talk.frame(encoded(b"x" * 100))
    assert talk.connection.next_messages(10) == [b"x" * 100]
    talk.frame(encoded(b"x" * 101))
    (ended,) = [event for event in talk.receiver.events if isinstance(event, ConnectionEnded)]
    assert ended.error.code == TransportCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("end", [150, 102, 101])
def test_whole_messages_that_come_again_take_nothing_away_of_what_came_behind_them(end: int) -> None:
    talk = Talk()
    messages = [b"a" * 48, b"b" * 50, b"c" * 90]
    data = b"".join(map(encoded, messages))
    talk.again(0, data[:end])
    talk.again(0, data[: 49 + 51])
    talk.again(end, data[end:])
    assert talk.connection.next_messages(10) == messages
    assert talk.credit == WINDOW + len(data)


def test_small_messages_before_one_larger_than_the_window_leave_the_ring_and_all_credit_comes_back() -> None:
    talk = Talk()
    messages = [b"s" * 10, b"", b"t" * 90, b"L" * (2 * WINDOW), b"behind"]
    data = b"".join(encoded(message, 8) for message in messages)
    talk.frame(b"")
    for _ in range(1000):
        end = min(talk.connection.streams.messages.receiving.max_data, talk.connection.flow.local_limit, len(data))
        while talk.offset < end:
            talk.frame(data[talk.offset : min(end, talk.offset + 1000)])
        if talk.offset == len(data):
            break
        talk.receiver.flight(0.01)
    assert talk.offset == len(data), "although nobody took anything"
    assert talk.connection.next_messages(10) == messages
    assert talk.credit == WINDOW + len(data)
    assert talk.connection.flow.consumed == len(data)


def test_messages_that_nobody_takes_are_held_against_the_peer_wherever_they_wait() -> None:
    talk = Talk()
    message = b"m" * 90
    for _ in range(2 * MAX_READY):
        talk.frame(encoded(message))
    assert talk.connection.reader.ready_bytes <= MAX_READY * len(encoded(message))
    assert talk.credit == WINDOW
    assert talk.connection.flow.consumed == 0
    assert talk.connection.next_messages(10) == [message] * 10
    assert talk.credit == WINDOW + 10 * len(encoded(message))
    assert talk.connection.next_messages(1000) == [message] * (2 * MAX_READY - 10)
    assert talk.credit == WINDOW + talk.offset
    assert talk.connection.flow.consumed == talk.offset


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 200), st.integers(0, 3 * WINDOW)),  # bytes of a message
            st.sampled_from([0, 0, 0, 2, 4, 8]),  # of its prefix, at least
        ),
        min_size=1,
        max_size=100,
    ),
    st.integers(0, 1 << 32),
)
def test_messages_cut_into_any_frames_arrive_in_order_and_give_all_credit_back(sizes, seed) -> None:
    rng = random.Random(seed)
    messages = [rng.randbytes(size) for size, _ in sizes]
    ends = []
    data = b""
    for message, (_, prefix) in zip(messages, sizes, strict=True):
        data += encoded(message, prefix)
        ends.append(len(data))
    talk = Talk()
    talk.frame(b"")
    half = talk.connection.streams.messages.receiving
    whole = rng.random()
    greedy = rng.random()
    got: list[bytes] = []
    idle = 0
    while len(got) < len(messages):
        assert talk.connection.listening
        limit = min(half.max_data, talk.connection.flow.local_limit, len(data), talk.offset + 1000)
        if whole > rng.random():  # up to the end of a message
            limit = max((end for end in ends if talk.offset < end <= limit), default=limit)
        else:
            limit = rng.randint(talk.offset, max(limit, talk.offset))
        if limit > talk.offset:
            talk.frame(data[talk.offset : limit])
        idle = idle + 1 if limit <= talk.offset else 0
        if rng.random() < greedy or idle > 20:
            if rng.random() < 0.5:
                got += talk.connection.next_messages(rng.choice((1, 3, 1000)))
            else:
                while (message := talk.connection.next_message()) is not None:
                    got.append(message)
                    if rng.random() < 0.1:
                        break
            assert idle < 1000, "stuck"
        assert got == messages[: len(got)]
        talk.receiver.flight(0.01)  # with the credit
    assert talk.credit == WINDOW + len(data)
    assert talk.connection.flow.consumed == len(data)
