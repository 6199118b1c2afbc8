"""Flights: every packet that is put in comes out once, sealed, in trains that one GSO send can carry."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ciphers import FailingCipher

from burstwire.core.ring import StreamRing
from burstwire.crypto.aead import make_aead
from burstwire.errors import CryptoError
from burstwire.proto.outbox import MAX_SEGMENTS, MAX_TRAIN, Outbox
from burstwire.wire.header import HEADER, RUN_OVERHEAD, TAG

KEY = bytes(16)
PATHS = (b"\x04" + bytes(47), b"\x06" + bytes(47))

steps = st.lists(
    st.one_of(
        st.tuples(st.just("packet"), st.integers(0, 1), st.integers(1, 1500)),
        st.tuples(st.just("lone"), st.integers(0, 1), st.integers(1, 60_000)),
        st.tuples(st.just("datagram"), st.integers(0, 1), st.integers(1, 1400)),
        st.tuples(st.just("run"), st.integers(0, 1), st.sampled_from([1200, 1424, 1452, 8900, 65507])),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_what_goes_in_comes_out_in_order_and_in_trains_that_can_be_sent(todo) -> None:
    outbox = Outbox(6, 4)
    aead = make_aead("aes-128-gcm", KEY, "cryptography")
    source = StreamRing(1 << 16)
    source.write(0, memoryview(bytes(range(256)) * 256))
    expected = []
    counter = 0
    for what, which, size in todo:
        path = PATHS[which]
        if what == "run":
            count = min(outbox.run_room(path, size, 0), 5, (1 << 16) // (size - RUN_OVERHEAD))
            if count:
                chunk = size - RUN_OVERHEAD
                outbox.run(path, 0, aead, 7, counter, size, count, 4, source, 0, count * chunk)
                expected += [(path, size, counter + i) for i in range(count)]
                counter += count
        elif outbox.room:
            if what == "datagram":
                outbox.datagram(path, b"\x01" * size)
                expected.append((path, size, None))
            else:
                add = outbox.packet if what == "packet" else outbox.lone_packet
                rest = () if what == "packet" else (None,)
                options = (0,) if what == "packet" else ()
                add(path, *options, aead, 7, counter, b"\x01" * size, *rest)
                expected.append((path, size + HEADER.size + TAG, counter))
                counter += 1
    table = outbox.finish()
    found = []
    for slot, start, length, segment, _, _, _, _, path in table.records():
        assert length <= MAX_TRAIN or length == segment
        assert start + length <= outbox.ring.slot_size
        assert -(-length // segment) <= MAX_SEGMENTS
        for at in range(start, start + length, segment):
            size = min(segment, start + length - at)
            packet = bytes(outbox.ring.views[slot][at : at + size])
            number = None
            if packet[0] == 0x10:
                assert aead.open_run(outbox.ring, slot, at, size, 1, size, 1) == 1
                number = HEADER.unpack_from(packet)[2]
            found.append((path, size, number))
    assert found == expected
    outbox.clear()
    assert outbox.ring.leased == 0
    assert outbox.empty
    outbox.close()


def test_one_connection_leaves_room_for_the_others_when_they_share() -> None:
    outbox = Outbox(16, 8)
    outbox.share(2)
    aead = make_aead("aes-128-gcm", KEY, "cryptography")
    source = StreamRing(1 << 16)
    source.write(0, memoryview(bytes(1 << 16)))
    counter = 0
    while count := outbox.run_room(PATHS[0], 1200, 0):
        outbox.run(PATHS[0], 0, aead, 7, counter, 1200, count, 4, source, 0, count * (1200 - RUN_OVERHEAD))
        counter += count
    assert counter == 2 * (MAX_TRAIN // 1200)
    outbox.share(1)
    assert outbox.run_room(PATHS[1], 1200, 0) > 0
    outbox.clear()


def test_trains_of_several_packets_fit_a_device_with_their_headers_and_lone_packets_may_be_as_long_as_ip_allows() -> (
    None
):
    outbox = Outbox(16, 8)
    assert outbox.run_room(PATHS[0], 1424, 0) == 45  # 46 would be 65,504 bytes, 65,546 on loopback
    assert outbox.run_room(PATHS[0], 65_507, 0) == 1
    assert outbox.flight_room(PATHS[0], 1424, 0) == 8 * 45
    assert outbox.flight_room(PATHS[0], 65_507, 0) == 8


def test_adding_without_asking_for_room_is_an_error_and_not_an_overwrite() -> None:
    outbox = Outbox(1, 1)
    outbox.datagram(PATHS[0], bytes(65_507))
    assert not outbox.room
    with pytest.raises(RuntimeError, match="exhausted"):
        outbox.datagram(PATHS[0], bytes(65_507))


def test_a_flight_never_offers_more_runs_than_it_can_describe() -> None:
    outbox = Outbox(8, 4, trains=4)
    aead = make_aead("aes-128-gcm", KEY, "cryptography")
    source = StreamRing(1 << 16)
    source.write(0, memoryview(bytes(1 << 16)))
    counter = 0
    while outbox.flight_room(PATHS[0], 1200, 0):  # as connections do that share a path and have a packet each
        outbox.run(PATHS[0], 0, aead, 7, counter, 1200, 1, 4, source, 0, 1200 - RUN_OVERHEAD)
        counter += 1
    assert counter
    assert not outbox.run_room(PATHS[0], 1200, 0)
    assert sum(1 for _ in outbox.finish().records()) == 1
    outbox.clear()


@pytest.mark.parametrize("refused", [0, 3, 7])
def test_a_flight_that_was_not_sealed_as_a_whole_is_not_handed_out_and_its_slots_come_back(refused: int) -> None:
    outbox = Outbox(8, 4)
    failing = FailingCipher(refused)
    source = StreamRing(1 << 16)
    source.write(0, memoryview(bytes(1 << 16)))
    outbox.run(PATHS[0], 0, failing, 7, 0, 1200, 6, 4, source, 0, 6 * (1200 - RUN_OVERHEAD))
    for counter in (6, 7, 8):
        outbox.packet(PATHS[1], 0, failing, 7, counter, b"\x01" * 1300)
    with pytest.raises(CryptoError):
        outbox.finish()
    assert failing.sealed == refused
    outbox.clear()
    assert outbox.empty
    assert outbox.ring.leased == 0


def test_ciphers_live_until_the_flight_is_sealed_and_no_longer_than_until_it_was_sent() -> None:
    outbox = Outbox(8, 4)
    source = StreamRing(1 << 16)
    source.write(0, memoryview(bytes(1 << 16)))
    ciphers = [FailingCipher(1 << 30) for _ in range(3)]
    known = [weakref.ref(one) for one in ciphers]
    outbox.run(PATHS[0], 0, ciphers[0], 7, 0, 1200, 2, 4, source, 0, 2 * (1200 - RUN_OVERHEAD))
    outbox.run(PATHS[0], 0, ciphers[1], 8, 0, 1200, 2, 4, source, 0, 2 * (1200 - RUN_OVERHEAD))
    outbox.packet(PATHS[1], 0, ciphers[2], 9, 0, b"\x01" * 1300)
    ciphers.clear()
    gc.collect()
    assert all(one() is not None for one in known)
    outbox.finish()
    outbox.clear()
    gc.collect()
    assert all(one() is None for one in known)
