"""The halves of a stream against plain byte strings."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burstwire.errors import StreamFinished, StreamStopped
from burstwire.proto.receiving import RecvHalf
from burstwire.proto.sending import SendHalf
from burstwire.wire.errors import TransportCode, WireError

STREAM = SimpleNamespace(id=4)


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@settings(max_examples=150)
@given(
    st.integers(1, 40_000),
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 9000)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_bytes_placed_in_any_order_are_read_once_and_in_order(size, pieces, rng):
    data = pattern(size)
    half = RecvHalf(STREAM, window=1 << 20)
    pieces = [(low, data[low : low + n]) for low, n in pieces if low < size] + [
        (0, data[: size // 2]),
        (size // 2, data[size // 2 :]),
    ]
    got = b""
    for low, piece in pieces:
        half.check(low + len(piece), fin=False)
        half.place(low, piece)
        if rng.random() < 0.5:
            got += half.read(rng.randrange(1, 5000))
        assert got == data[: len(got)]
    while half.readable:
        got += half.read(3000)
    assert got == data


def test_a_window_of_full_packets_may_lack_every_other_one():
    window = 1 << 20
    half = RecvHalf(STREAM, window)
    for low in range(1200, window - 1200, 2400):
        half.place(low, bytes(1200))
    assert len(half.parts) == len(range(1200, window - 1200, 2400))


def test_single_bytes_with_holes_between_them_end_the_connection_before_they_take_much_memory():
    window = 1 << 20
    half = RecvHalf(STREAM, window)

    def scatter():
        for low in range(1, window, 2):
            half.place(low, b"x")

    with pytest.raises(WireError, match="pieces with holes") as caught:
        scatter()
    assert caught.value.code == TransportCode.PROTOCOL_VIOLATION
    assert len(half.parts) * 80 < window / 8


def test_the_end_is_where_fin_said_and_nothing_may_contradict_it():
    half = RecvHalf(STREAM, window=100)
    half.check(10, fin=True)
    for end, fin in ((11, False), (9, True)):
        with pytest.raises(WireError) as caught:
            half.check(end, fin)
        assert caught.value.code == TransportCode.FINAL_SIZE_ERROR
    half.place(0, b"0123456789")
    assert not half.at_end
    assert half.read(100) == b"0123456789"
    assert half.at_end


def test_a_final_size_below_what_was_received_is_refused():
    half = RecvHalf(STREAM, window=100)
    half.check(50, fin=False)
    with pytest.raises(WireError) as caught:
        half.check(49, fin=True)
    assert caught.value.code == TransportCode.FINAL_SIZE_ERROR


def test_a_byte_beyond_the_window_is_refused():
    half = RecvHalf(STREAM, window=100)
    assert half.check(100, fin=False) == 100
    with pytest.raises(WireError) as caught:
        half.check(101, fin=False)
    assert caught.value.code == TransportCode.FLOW_CONTROL_ERROR


@settings(max_examples=150)
@given(st.integers(1, 30_000), st.integers(0, 1 << 32))
def test_what_is_sent_acknowledged_and_lost_in_any_order_arrives_whole(size, seed):
    """A sender whose packets meet any fate, against a receiver that assembles them."""
    rng = random.Random(seed)
    payload = pattern(size)
    sender = SendHalf(STREAM, budget=size, max_data=size)
    receiver = RecvHalf(STREAM, window=1 << 20)
    sender.accept(payload)
    sender.finish()
    in_flight = []
    for _ in range(2000):
        if sender.all_acked:
            break
        if sender.pending and (not in_flight or rng.random() < 0.5):
            low, high = sender.next_range(1 << 30)
            high = min(high, low + rng.randint(1, 9000))
            fin = sender.fin_pending and high == sender.fin_offset
            in_flight.append((low, high - low, fin, sender.ring.read(low, high - low) if high > low else b""))
            sender.on_sent(low, high - low, fin)
        else:
            low, length, fin, piece = in_flight.pop(rng.randrange(len(in_flight)))
            if rng.random() < 0.25:
                sender.on_lost(low, length, fin)
                if rng.random() < 0.5:
                    continue
                # declared lost, but it arrives, and its acknowledgement comes late
            receiver.check(low + length, fin)
            receiver.place(low, piece)
            sender.on_acked(low, length, fin)
    assert sender.all_acked
    assert sender.room == size
    assert receiver.read(size + 1) == payload
    assert receiver.at_end


def test_nothing_is_accepted_after_the_end_or_when_the_peer_stopped():
    half = SendHalf(STREAM, budget=10, max_data=10)
    half.finish()
    with pytest.raises(StreamFinished):
        half.check_writable()
    half = SendHalf(STREAM, budget=10, max_data=10)
    half.stop_code = 7
    with pytest.raises(StreamStopped) as caught:
        half.check_writable()
    assert caught.value.code == 7


def test_a_reset_stream_sends_nothing_again_and_late_news_of_it_change_nothing():
    half = SendHalf(STREAM, budget=100, max_data=100)
    half.accept(b"x" * 50)
    half.on_sent(0, 50, False)
    assert half.reset(3)
    assert not half.reset(4)
    half.on_lost(0, 50, False)
    half.on_acked(0, 20, False)
    assert not half.pending
    assert half.sent == 50, "the final size is what was sent"


def test_only_what_the_peer_allows_is_sent():
    half = SendHalf(STREAM, budget=1000, max_data=300)
    half.accept(b"x" * 1000)
    assert half.next_range(1000) == (0, 300)
    assert half.next_range(100) == (0, 100)
    half.on_sent(0, 300, False)
    assert half.next_range(1000) == (300, 300)
    assert not half.pending
    half.on_lost(100, 50, False)
    assert half.next_range(0) == (100, 150), "a retransmission needs no credit"
