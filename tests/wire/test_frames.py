"""Frames: every one that is written is read back, and whatever else comes raises WireError, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from burstwire.wire import frames, varint
from burstwire.wire.errors import TransportCode, WireError

numbers = st.one_of(st.integers(0, 70), st.integers(0, 1 << 16), st.integers(0, varint.MAX))
eight = st.binary(min_size=8, max_size=8)
words = st.text(max_size=40).filter(lambda text: text.encode("utf-8", "replace").decode() == text)


@st.composite
def ack_ranges(draw: st.DrawFn, most: int = 70) -> list[tuple[int, int]]:
    """Inclusive, descending, at least one number missing between two."""
    steps = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(2, 300)), min_size=1, max_size=most))
    low = draw(st.integers(0, 1 << 40))
    ranges = []
    for span, gap in steps:
        ranges.append((low, low + span))
        low += span + gap
    return ranges[::-1]


def written(kind: int, *fields: Any) -> bytes:
    return b"".join([bytes([kind]), *map(varint.encode, fields)])


@st.composite
def one_frame(draw: st.DrawFn) -> tuple[bytes, tuple[Any, ...]]:
    """The bytes of a frame that may stand anywhere, and the tuple that it should be read as."""
    a, b, c = draw(numbers), draw(numbers), draw(numbers)
    count = a % (frames.MAX_STREAM_COUNT + 1)
    data = draw(st.binary(max_size=80))
    flag = draw(st.booleans())
    token = draw(eight)
    address = draw(st.binary(min_size=24, max_size=24))
    reason = draw(words)
    ranges = draw(ack_ranges(most=frames.MAX_ACK_RANGES))
    ecn = (a, b, c) if flag else None
    offset = b % (varint.MAX - 100)
    return draw(
        st.sampled_from(
            [
                (frames.encode_ping(), (frames.PING,)),
                (frames.encode_confirm(), (frames.CONFIRM,)),
                (frames.encode_ack(ranges, a, ecn), (frames.ACK, ranges[0][1], a, ranges, ecn)),
                (frames.encode_reset_stream(a, b, c), (frames.RESET_STREAM, a, b, c)),
                (frames.encode_stop_sending(a, b), (frames.STOP_SENDING, a, b)),
                (frames.encode_stream(a, offset, data, flag), (frames.STREAM, a, offset, data, flag)),
                (frames.encode_max_data(a), (frames.MAX_DATA, a)),
                (frames.encode_max_stream_data(a, b), (frames.MAX_STREAM_DATA, a, b)),
                (frames.encode_max_streams(count), (frames.MAX_STREAMS_BIDI, count)),
                (frames.encode_max_streams(count, True), (frames.MAX_STREAMS_UNI, count)),
                (frames.encode_data_blocked(a), (frames.DATA_BLOCKED, a)),
                (frames.encode_stream_data_blocked(a, b), (frames.STREAM_DATA_BLOCKED, a, b)),
                (frames.encode_streams_blocked(count), (frames.STREAMS_BLOCKED_BIDI, count)),
                (frames.encode_streams_blocked(count, True), (frames.STREAMS_BLOCKED_UNI, count)),
                (frames.encode_path_challenge(token), (frames.PATH_CHALLENGE, token)),
                (frames.encode_path_response(token), (frames.PATH_RESPONSE, token)),
                (frames.encode_close(a, reason, b), (frames.CLOSE, a, b, reason, False)),
                (frames.encode_close(a, reason, by_application=True), (frames.CLOSE, a, None, reason, True)),
                (frames.encode_datagram(data), (frames.DATAGRAM, data)),
                (frames.encode_observed_address(address), (frames.OBSERVED_ADDRESS, address)),
            ]
        )
    )


packets = st.lists(st.one_of(one_frame(), st.integers(1, 30).map(lambda n: (bytes(n), None))), min_size=1, max_size=8)


@given(packets, st.booleans())
def test_every_frame_written_is_read_back_in_order(packet: list[tuple[bytes, Any]], as_view: bool) -> None:
    raw = b"".join(encoded for encoded, _ in packet)
    expected = [frame for _, frame in packet if frame is not None]
    assert frames.parse(memoryview(raw) if as_view else raw) == expected


@given(packets, st.data())
def test_a_packet_cut_anywhere_parses_or_raises_wire_error(
    packet: list[tuple[bytes, Any]], data: st.DataObject
) -> None:
    raw = b"".join(encoded for encoded, _ in packet)
    length = data.draw(st.integers(0, len(raw)))
    expect_frames_or_wire_error(raw[:length])


@given(packets, st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_mutated_packet_parses_or_raises_wire_error(
    packet: list[tuple[bytes, Any]], changes: list[tuple[int, int]]
) -> None:
    raw = bytearray(b"".join(encoded for encoded, _ in packet))
    for position, value in changes:
        raw[position % len(raw)] = value
    expect_frames_or_wire_error(bytes(raw))


@given(st.binary(max_size=200))
@example(b"\x02\xff")
@example(b"\x40")
@example(b"\x1c\x00\x00\x04\xff\xfe\xfd\xfc")
def test_random_bytes_parse_or_raise_wire_error(raw: bytes) -> None:
    expect_frames_or_wire_error(raw)


def expect_frames_or_wire_error(raw: bytes) -> None:
    outcome = parsed(raw)
    assert outcome == parsed(memoryview(raw)), "bytes and memoryview must read alike"
    if isinstance(outcome, int):
        assert outcome in (TransportCode.FRAME_ENCODING_ERROR, TransportCode.PROTOCOL_VIOLATION)
        return
    for frame in outcome:
        assert type(frame) is tuple
        assert type(frame[0]) is int
        if frame[0] == frames.ACK:
            assert all(0 <= low <= high for low, high in frame[3])


def parsed(payload: bytes | memoryview) -> Any:
    """The frames, or the code of the WireError."""
    try:
        return frames.parse(payload)
    except WireError as error:
        return error.code


@pytest.mark.parametrize("length", range(40))
def test_each_cut_of_each_kind_of_frame_is_an_error(length: int) -> None:
    whole = [
        frames.encode_ack([(1000, 2000), (10, 500)], 300, (1, 2, 3)),
        frames.encode_reset_stream(70, 70, 70),
        frames.encode_stop_sending(70, 70),
        frames.encode_stream(70, 70, b"0123456789"),
        frames.encode_max_stream_data(70, 70),
        frames.encode_path_challenge(b"12345678"),
        frames.encode_path_response(b"12345678"),
        frames.encode_close(70, "because", 2),
        frames.encode_close(70, "because", by_application=True),
        frames.encode_datagram(b"0123456789"),
        frames.encode_observed_address(bytes(24)),
        varint.encode(0x4321) + b"\x04abcd",
    ]
    for raw in whole:
        if 0 < length < len(raw):
            with pytest.raises(WireError) as caught:
                frames.parse(raw[:length])
            assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


def test_a_packet_without_frames_is_a_protocol_violation() -> None:
    with pytest.raises(WireError) as caught:
        frames.parse(b"")
    assert caught.value.code == TransportCode.PROTOCOL_VIOLATION


def test_padding_leaves_no_frame() -> None:
    assert frames.parse(frames.encode_padding(1000)) == []
    assert frames.parse(b"\0\0" + frames.encode_ping() + b"\0") == [(frames.PING,)]


@pytest.mark.parametrize("kind", [0x06, 0x07, 0x18, 0x19, 0x1F, 0x20, 0x2F, 0x32, 0x3F])
def test_an_unknown_frame_below_0x40_is_a_frame_encoding_error(kind: int) -> None:
    with pytest.raises(WireError) as caught:
        frames.parse(bytes([kind]) + bytes(20))
    assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


@given(st.integers(0x41, varint.MAX), st.binary(max_size=100))
def test_an_unknown_frame_from_0x40_is_skipped_and_elicits_an_acknowledgement(kind: int, data: bytes) -> None:
    raw = varint.encode(kind) + varint.encode(len(data)) + data + frames.encode_ping()
    result = frames.parse(raw)
    assert result == [(kind, data), (frames.PING,)]
    assert kind not in frames.NOT_ELICITING


@pytest.mark.parametrize("raw", ["4001", "80000041 00", "8000000000", "c000000000000040 00"])
def test_a_frame_type_not_encoded_shortest_is_a_protocol_violation(raw: str) -> None:
    with pytest.raises(WireError) as caught:
        frames.parse(bytes.fromhex(raw))
    assert caught.value.code == TransportCode.PROTOCOL_VIOLATION


def test_stream_data_are_slices_of_the_input() -> None:
    raw = bytearray(frames.encode_stream(4, 0, b"abc") + frames.encode_datagram(b"xyz", fill=True))
    (_, _, _, data, _), (_, datagram) = frames.parse(memoryview(raw))
    raw[:] = bytes(raw).upper()
    assert bytes(data) == b"ABC"
    assert bytes(datagram) == b"XYZ"


@given(st.binary(max_size=60), numbers.filter(lambda n: n < 1 << 60), st.booleans())
def test_a_stream_frame_without_length_fills_its_packet(data: bytes, offset: int, fin: bool) -> None:
    raw = frames.encode_ping() + frames.encode_stream(4, offset, data, fin, fill=True)
    assert frames.parse(raw) == [(frames.PING,), (frames.STREAM, 4, offset, data, fin)]


@given(st.integers(0, (1 << 30) - 1), st.integers(0, 1 << 60), st.binary(max_size=60), st.booleans())
def test_the_frame_of_a_run_has_a_header_of_13_bytes(stream: int, offset: int, data: bytes, fin: bool) -> None:
    raw = frames.encode_run_stream(stream, offset, data, fin)
    assert len(raw) == frames.RUN_FRAME.size + len(data) == 13 + len(data)
    assert raw[0] == (0x0D if fin else 0x0C)
    assert frames.parse(raw) == [(frames.STREAM, stream, offset, data, fin)]


@pytest.mark.parametrize(("stream", "offset"), [(1 << 30, 0), (-1, 0), (0, 1 << 62), (0, -1)])
def test_a_run_frame_that_does_not_fit_its_header_is_not_written(stream: int, offset: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        frames.encode_run_stream(stream, offset, b"")


def test_stream_data_may_end_at_the_last_offset_and_not_beyond() -> None:
    assert frames.parse(frames.encode_stream(0, varint.MAX - 3, b"abc"))[0][2] == varint.MAX - 3
    with pytest.raises(WireError) as caught:
        frames.parse(frames.encode_stream(0, varint.MAX - 2, b"abc"))
    assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


@pytest.mark.parametrize("kind", [0x12, 0x13, 0x16, 0x17])
def test_more_than_2_to_the_60_streams_are_a_frame_encoding_error(kind: int) -> None:
    assert frames.parse(written(kind, 1 << 60)) == [(kind, 1 << 60)]
    with pytest.raises(WireError) as caught:
        frames.parse(written(kind, (1 << 60) + 1))
    assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


@pytest.mark.parametrize(
    "fields",
    [
        (5, 0, 0, 6),  # the first range reaches below 0
        (5, 0, 1, 2, 2, 0),  # the gap does
        (5, 0, 1, 1, 1, 2),  # the second range does
        (5, 0, varint.MAX, 0, 0, 0),  # more ranges announced than bytes
    ],
)
def test_an_impossible_ack_is_a_frame_encoding_error(fields: tuple[int, ...]) -> None:
    with pytest.raises(WireError) as caught:
        frames.parse(written(frames.ACK, *fields))
    assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR


def test_an_ack_is_laid_out_as_in_rfc_9000() -> None:
    # Largest 10, delay 0, two ranges: 8..10, then 3..5 (gap of 6 and 7: encoded 1, length 3: encoded 2).
    assert frames.encode_ack([(8, 10), (3, 5)], 0) == bytes([0x02, 10, 0, 1, 2, 1, 2])


@given(ack_ranges(), numbers, st.booleans(), st.integers(0, 250))
def test_an_ack_never_outgrows_its_room_and_keeps_the_highest_ranges(
    ranges: list[tuple[int, int]], delay: int, with_ecn: bool, room: int
) -> None:
    ecn = (1, 70, 1 << 20) if with_ecn else None
    raw = frames.encode_ack(ranges, delay, ecn, room)
    assert len(raw) <= room
    if raw:
        ((_, largest, read_delay, read_ranges, read_ecn),) = frames.parse(raw)
        assert (largest, read_delay, read_ecn) == (ranges[0][1], delay, ecn)
        assert read_ranges == ranges[: len(read_ranges)]
        left_out = ranges[len(read_ranges) : frames.MAX_ACK_RANGES]
        if left_out:
            grown = frames.encode_ack(ranges[: len(read_ranges) + 1], delay, ecn)
            assert len(grown) > room, "another range would have fitted"
    else:
        assert len(frames.encode_ack(ranges[:1], delay, ecn)) > room


@given(ack_ranges(most=frames.MAX_ACK_RANGES), numbers)
def test_an_ack_that_fits_its_room_exactly_is_written_whole(ranges: list[tuple[int, int]], delay: int) -> None:
    whole = frames.encode_ack(ranges, delay)
    assert frames.encode_ack(ranges, delay, room=len(whole)) == whole
    assert len(frames.encode_ack(ranges, delay, room=len(whole) - 1)) < len(whole)


def test_an_ack_is_written_with_64_ranges_at_most_and_read_with_any_number() -> None:
    ranges = [(n * 10, n * 10 + 3) for n in range(1000, 0, -1)]
    ((_, _, _, read_ranges, _),) = frames.parse(frames.encode_ack(ranges, 0))
    assert read_ranges == ranges[:64]
    fields = [10_003, 0, 999, 3] + [value for _ in range(999) for value in (5, 3)]
    ((_, _, _, read_ranges, _),) = frames.parse(written(frames.ACK, *fields))
    assert read_ranges == ranges


def test_a_close_with_a_mangled_reason_still_closes() -> None:
    ((_, code, culprit, reason, by_application),) = frames.parse(b"\x1d\x05\x03a\xffb")
    assert (code, culprit, by_application) == (5, None, True)
    assert reason == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("size", [0, 23, 25])
def test_an_observed_address_of_another_size_is_a_frame_encoding_error(size: int) -> None:
    with pytest.raises(WireError) as caught:
        frames.parse(varint.encode(0x40) + varint.encode(size) + bytes(size))
    assert caught.value.code == TransportCode.FRAME_ENCODING_ERROR
    with pytest.raises(ValueError, match="24"):
        frames.encode_observed_address(bytes(size))


@pytest.mark.parametrize("data", [b"", b"1234567", b"123456789"])
def test_path_validation_takes_8_bytes(data: bytes) -> None:
    for encode in (frames.encode_path_challenge, frames.encode_path_response):
        with pytest.raises(ValueError, match="8 bytes"):
            encode(data)


def test_only_padding_ack_and_close_elicit_no_acknowledgement() -> None:
    assert frozenset({frames.PADDING, frames.ACK, frames.CLOSE}) == frames.NOT_ELICITING


def test_names_are_for_people() -> None:
    assert frames.frame_name(frames.MAX_STREAM_DATA) == "MAX_STREAM_DATA"
    assert frames.frame_name(0x1234) == "0x1234"
