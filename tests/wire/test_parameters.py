"""Transport parameters: read back as written, and TRANSPORT_PARAMETER_ERROR for whatever is malformed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.wire import parameters, varint
from burstwire.wire.errors import TransportCode, WireError
from burstwire.wire.parameters import TransportParameters

numbers = st.integers(0, varint.MAX)
u32 = st.integers(0, (1 << 32) - 1)
words = st.text(max_size=40).filter(lambda text: text.encode("utf-8", "replace").decode() == text)

all_parameters = st.builds(
    TransportParameters,
    max_idle_timeout=numbers,
    stateless_reset_token=st.none() | st.binary(min_size=16, max_size=16),
    max_udp_payload_size=st.integers(1200, varint.MAX),
    initial_max_data=numbers,
    initial_max_stream_data_bidi_local=numbers,
    initial_max_stream_data_bidi_remote=numbers,
    initial_max_streams_bidi=st.integers(0, 1 << 60),
    ack_delay_exponent=st.integers(0, 20),
    max_ack_delay=st.integers(0, (1 << 14) - 1),
    max_datagram_frame_size=numbers,
    versions=st.lists(u32, max_size=5).map(tuple),
    aeads=st.lists(st.integers(0, 255), max_size=5).map(tuple),
    application_protocol=words,
    observed_address=st.none() | st.binary(min_size=24, max_size=24),
    max_message_size=numbers,
    receive_buffer=numbers,
    attempt=st.none() | st.binary(min_size=8, max_size=8),
    refusal=st.none() | st.tuples(numbers, words),
    cids=st.none() | st.tuples(u32, u32),
)


def item(identifier: int, value: bytes) -> bytes:
    return varint.encode(identifier) + varint.encode(len(value)) + value


def refused(raw: bytes) -> bool:
    with pytest.raises(WireError) as caught:
        parameters.decode(raw)
    return caught.value.code == TransportCode.TRANSPORT_PARAMETER_ERROR


@given(all_parameters, st.booleans())
def test_parameters_written_are_read_back(value: TransportParameters, as_view: bool) -> None:
    raw = parameters.encode(value)
    assert parameters.decode(memoryview(raw) if as_view else raw) == value


@given(all_parameters, st.integers(0, 3000))
def test_padding_reaches_the_size_asked_and_changes_nothing(value: TransportParameters, at_least: int) -> None:
    plain, padded = parameters.encode(value), parameters.encode(value, at_least)
    assert parameters.decode(padded) == value
    assert len(padded) >= at_least
    if len(plain) >= at_least:
        assert padded == plain
    elif len(plain) + 6 <= at_least:
        assert len(padded) == at_least
    else:
        assert len(padded) <= at_least + 5


def test_nothing_but_defaults_is_nothing_on_the_wire() -> None:
    assert parameters.encode(TransportParameters()) == b""
    assert parameters.decode(b"") == TransportParameters()


@given(all_parameters, st.data())
def test_cut_or_mutated_parameters_are_read_or_refused(value: TransportParameters, data: st.DataObject) -> None:
    raw = bytearray(parameters.encode(value) + b"\x01\x01\x00")
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    expect_parameters_or_refusal(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@given(all_parameters, all_parameters, st.integers(0, 300), st.integers(0, 300))
def test_what_was_read_before_has_no_part_in_what_is_read(
    one: TransportParameters, two: TransportParameters, cut: int, at: int
) -> None:
    """Payloads that begin alike are not read twice as far as they do."""
    first, second = parameters.encode(one), parameters.encode(two)
    for mixed in (first[:cut] + second, first[:cut] + second[at:], first + first[:cut], first[: len(first) - cut]):
        parameters.decode(b"")
        parameters.decode(item(0x5000, b""))
        alone = outcome(mixed)
        parameters.decode(first)
        assert outcome(mixed) == alone
        assert outcome(first) == one


def outcome(raw: bytes) -> TransportParameters | str:
    try:
        return parameters.decode(raw)
    except WireError as error:
        return error.reason


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_refused(raw: bytes) -> None:
    expect_parameters_or_refusal(raw)


def expect_parameters_or_refusal(raw: bytes) -> None:
    code: int = TransportCode.TRANSPORT_PARAMETER_ERROR
    try:
        value = parameters.decode(raw)
    except WireError as error:
        code = error.code
    else:
        assert parameters.decode(parameters.encode(value)) == value
    assert code == TransportCode.TRANSPORT_PARAMETER_ERROR


@given(st.integers(0, varint.MAX), st.binary(max_size=30))
def test_a_repeated_parameter_is_refused_even_an_unknown_one(identifier: int, value: bytes) -> None:
    known = [0x01, 0x02, 0x4000, 0x4008, identifier]
    for each in known:
        assert refused(item(each, value) + item(each, value))


@given(st.integers(0x5000, varint.MAX), st.binary(max_size=30))
def test_an_unknown_parameter_is_skipped(identifier: int, value: bytes) -> None:
    assert parameters.decode(item(identifier, value) + item(0x04, b"\x05")) == TransportParameters(initial_max_data=5)


@pytest.mark.parametrize(
    ("identifier", "value"),
    [
        (0x03, varint.encode(1199)),
        (0x0A, varint.encode(21)),
        (0x0B, varint.encode(1 << 14)),
        (0x08, varint.encode((1 << 60) + 1)),
        (0x04, b""),
        (0x04, b"\x01\x01"),
        (0x04, b"\x40"),
        (0x02, bytes(15)),
        (0x4000, bytes(5)),
        (0x4002, b"\xff"),
        (0x4002, b"a" * 256),
        (0x4003, bytes(23)),
        (0x4006, bytes(9)),
        (0x4007, b""),
        (0x4008, bytes(7)),
    ],
)
def test_a_value_out_of_range_is_refused(identifier: int, value: bytes) -> None:
    assert refused(item(identifier, value))


def test_a_refusal_with_mangled_words_is_still_a_refusal() -> None:
    assert parameters.decode(item(0x4007, b"\x07no\xff")).refusal == (7, "no\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_udp_payload_size", 1199),
        ("ack_delay_exponent", 21),
        ("initial_max_data", -1),
        ("stateless_reset_token", bytes(17)),
        ("observed_address", bytes(6)),
        ("attempt", bytes(7)),
        ("application_protocol", "é" * 128),
    ],
)
def test_what_would_be_refused_is_not_written(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        parameters.encode(TransportParameters()._replace(**{field: value}))


def test_numbers_are_those_of_the_documents() -> None:
    assert parameters.encode(TransportParameters(max_idle_timeout=30000)) == bytes.fromhex("010480007530")
    assert parameters.encode(TransportParameters(versions=(1,))) == bytes.fromhex("80004000 04 00000001")
    assert parameters.encode(TransportParameters(cids=(1, 2))) == bytes.fromhex("80004008 08 0000000100000002")
