"""Targets: the bytes on the wire. They are read, or `WireError` is raised, and nothing else; what was read is written
so that it reads the same."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from burstwire.wire import frames as f
from burstwire.wire import parameters, varint
from burstwire.wire.errors import WireError
from burstwire.wire.packets import Cookie, Initiate, Reset, Respond, Versions

__all__ = ["frames", "frames_seeds", "packets", "packets_seeds", "transport_parameters", "transport_parameters_seeds"]

PACKETS = (Initiate, Respond, Cookie, Versions, Reset)


def packets(data: bytes) -> None:
    """Any datagram as any handshake packet."""
    for kind in PACKETS:
        try:
            packet = kind.parse(data)
        except WireError:
            continue
        assert packet.encode() == data, f"{kind.__name__} is written in another way than it was read"
        assert kind.parse(memoryview(data)) == packet


def packets_seeds() -> list[bytes]:
    """One of each."""
    r = Random(1).randbytes
    return [
        Initiate(1, 7, 0, r(1158), r(16), r(16)).encode(),
        Respond(7, 8, r(200)).encode(),
        Cookie(7, r(16), r(32)).encode(),
        Versions(7, r(16), (1, 2)).encode(),
        Reset(7, r(16)).encode(),
    ]


def frames(data: bytes) -> None:
    """Any payload as frames."""
    try:
        found = f.parse(data)
    except WireError:
        try:
            f.parse(memoryview(data))
        except WireError:
            return
        raise AssertionError("a memoryview is read in another way than bytes") from None
    assert [_plain(frame) for frame in f.parse(memoryview(data))] == found
    again = b"".join(map(_written, found))
    if again:
        assert f.parse(again) == found, "frames are read in another way than they were written"


def _plain(frame: f.Frame) -> f.Frame:
    return tuple(bytes(field) if isinstance(field, memoryview) else field for field in frame)


def _written(frame: f.Frame) -> bytes:
    kind, *fields = frame
    if kind == f.ACK:
        largest, delay, ranges, ecn = fields
        assert ranges[0][1] == largest
        assert all(low <= high for low, high in ranges)
        assert all(ranges[i + 1][1] < ranges[i][0] - 1 for i in range(len(ranges) - 1))
        if len(ranges) > f.MAX_ACK_RANGES:  # more than this side ever writes
            gaps = [(a[0] - b[1] - 2, b[1] - b[0]) for a, b in pairwise(ranges)]
            head = [2 if ecn is None else 3, largest, delay, len(gaps), ranges[0][1] - ranges[0][0]]
            return b"".join(map(varint.encode, [*head, *(n for gap in gaps for n in gap), *(ecn or ())]))
        return f.encode_ack(ranges, delay, ecn)
    if kind == f.STREAM:
        return f.encode_stream(*fields)
    if kind == f.DATAGRAM:
        return f.encode_datagram(*fields)
    if kind == f.CLOSE:
        code, culprit, reason, by_application = fields
        return f.encode_close(code, reason, culprit, by_application)
    if kind in (f.PATH_CHALLENGE, f.PATH_RESPONSE):
        return bytes([kind]) + fields[0]
    if kind == f.ACK_FREQUENCY:
        return f.encode_ack_frequency(*fields)
    if kind >= 0x40:
        return varint.encode(kind) + varint.encode(len(fields[0])) + fields[0]
    return varint.encode(kind) + b"".join(map(varint.encode, fields))


def frames_seeds() -> list[bytes]:
    """One of each frame, and what a recorded conversation carried."""
    from recorded import payloads

    return [*FRAMES, *payloads()]


FRAMES = [
    f.encode_ping() + f.encode_padding(3),
    f.encode_ack([(5, 9), (0, 2)], 7),
    f.encode_ack([(5, 9)], 7, (1, 2, 3)),
    f.encode_reset_stream(4, 1, 100),
    f.encode_stop_sending(4, 1),
    f.encode_stream(4, 0, b"hello"),
    f.encode_stream(5, 77, b"hello", True, True),
    f.encode_run_stream(4, 1000, b"bulk" * 20, True),
    f.encode_max_data(1 << 20),
    f.encode_max_stream_data(4, 1 << 20),
    f.encode_max_streams(100),
    f.encode_max_streams(100, True),
    f.encode_data_blocked(5),
    f.encode_stream_data_blocked(4, 5),
    f.encode_streams_blocked(5),
    f.encode_streams_blocked(5, True),
    f.encode_path_challenge(b"12345678"),
    f.encode_path_response(b"12345678"),
    f.encode_close(3, "words", 8),
    f.encode_close(3, "words", by_application=True),
    f.encode_confirm(),
    f.encode_datagram(b"one"),
    f.encode_datagram(b"two", True),
    f.encode_observed_address(bytes(24)),
    f.encode_ack_frequency(1, 10, 25_000, 3),
    b"\x40\x99\x03abc",
]


def transport_parameters(data: bytes) -> None:
    """Any bytes as the payload of a handshake message."""
    try:
        found = parameters.decode(data)
    except WireError:
        return
    again = parameters.decode(parameters.encode(found))
    if found.refusal is None:
        assert again == found, "parameters are read in another way than they were written"
    assert parameters.decode(parameters.encode(found, 1200)) == again


def transport_parameters_seeds() -> list[bytes]:
    """Few, many and padded ones."""
    every = parameters.TransportParameters(
        max_idle_timeout=30000,
        stateless_reset_token=bytes(16),
        max_udp_payload_size=1472,
        initial_max_data=1 << 20,
        initial_max_stream_data_bidi_local=1 << 18,
        initial_max_stream_data_bidi_remote=1 << 18,
        initial_max_streams_bidi=100,
        ack_delay_exponent=4,
        max_ack_delay=5,
        max_datagram_frame_size=1200,
        versions=(1, 2),
        aeads=(0, 1, 2),
        application_protocol="node/1",
        observed_address=bytes(24),
        max_message_size=1 << 22,
        receive_buffer=212992,
        attempt=bytes(8),
        cids=(1, 2),
    )
    refusal = parameters.TransportParameters(refusal=(3, "no"), versions=(1,))
    return [parameters.encode(every), parameters.encode(every, 400), parameters.encode(refusal), b""]
