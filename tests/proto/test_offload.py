"""Where the kernel refuses to segment: remembered for the destination, for a while, and for no other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burstwire.core.address import ANY_LOCAL, pack_address
from burstwire.core.run import NO_GSO, SINGLE, TRAIN
from burstwire.crypto.aead import make_aead
from burstwire.proto.offload import FIRST_RETRY, LONGEST_RETRY, Offload
from burstwire.proto.outbox import Outbox


def path(host: str, port: int = 1) -> bytes:
    return pack_address(host, port) + ANY_LOCAL


A, B, SIX = path("192.0.2.1"), path("192.0.2.2"), path("2001:db8::1")


def test_a_refusal_counts_for_every_port_of_its_address_and_for_no_other_address() -> None:
    offload = Offload(10)
    offload.refused(A, 100.0)
    assert offload.avoids(A)
    assert offload.avoids(path("192.0.2.1", 2))
    assert not offload.avoids(B)
    assert not offload.avoids(SIX)
    assert offload.stats() == {"gso_refusals": 1, "gso_retries": 0, "gso_forgotten": 0, "gso_avoided": 1}


def test_it_is_tried_again_after_a_while_and_rarer_and_rarer_while_it_goes_on_being_refused() -> None:
    offload = Offload(10)
    now, pauses = 100.0, []
    for _ in range(10):
        offload.refused(A, now)
        offload.refused(A, now)  # a second train of the same flight
        began = now
        while offload.avoids(A):
            now += 1.0
            offload.expire(now)
        pauses.append(now - began)
    assert pauses == [min(FIRST_RETRY * 2**i, LONGEST_RETRY) for i in range(10)]
    assert offload.counts["gso_retries"] == 10


def test_what_worked_for_long_in_between_begins_anew() -> None:
    offload = Offload(10)
    offload.refused(A, 0.0)
    offload.expire(FIRST_RETRY)
    assert not offload.avoids(A)
    offload.refused(A, FIRST_RETRY + 10 * FIRST_RETRY)
    offload.expire(FIRST_RETRY * 12 + 0.1)
    assert not offload.avoids(A)


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 50)), max_size=80))
def test_the_table_is_bounded_and_an_address_is_never_avoided_beyond_its_time(steps: list[tuple[int, float]]) -> None:
    offload = Offload(3)
    now = 0.0
    for which, passed in steps:
        now += passed
        offload.expire(now)
        assert all(until > now for until in offload.avoided.values())
        offload.refused(path(f"192.0.2.{which}"), now)
        assert len(offload.avoided) <= len(offload._pauses) <= 3
        assert offload.avoids(path(f"192.0.2.{which}"))
    offload.expire(now + LONGEST_RETRY)
    assert not offload.avoided


def test_the_oldest_refusal_is_forgotten_for_a_new_one_and_counted() -> None:
    offload = Offload(2)
    for host in (A, B, SIX):
        offload.refused(host, 1.0)
    assert [offload.avoids(host) for host in (A, B, SIX)] == [False, True, True]
    assert offload.counts["gso_forgotten"] == 1


def trains(outbox: Outbox, *paths: bytes) -> list[int]:
    """The flags of a flight with two packets for each path."""
    aead = make_aead("aes-128-gcm", bytes(16), "cryptography")
    for number, to in enumerate(paths):
        for packet in range(2):
            outbox.packet(to, 0, aead, 7, 2 * number + packet, bytes(100))
    return [record[5] for record in outbox.finish().records()]


def refuse(outbox: Outbox, row: int) -> None:
    """What csrc/send.c writes when the kernel does not segment a train."""
    table = outbox.trains
    slot, start, length, segment, ecn, flags, _, _, to = list(table.records())[row]
    TRAIN.pack_into(table._view, row * TRAIN.size, slot, start, length, segment, ecn, flags | NO_GSO, length, 0, to)


def test_trains_to_that_address_only_are_marked_until_the_time_is_over() -> None:
    offload = Offload(10)
    outbox = Outbox(8, 4, offload=offload)
    outbox.gso = True
    assert trains(outbox, A, B, SIX) == [0, 0, 0]
    refuse(outbox, 1)
    assert outbox.settle(5.0) == [], "no train was given up"
    outbox.clear()
    assert outbox.segments(A)
    assert not outbox.segments(B)
    assert trains(outbox, A, B, SIX) == [0, SINGLE, 0]
    outbox.settle(5.0)
    outbox.clear()
    offload.expire(5.0 + FIRST_RETRY)
    assert outbox.segments(B)
    assert trains(outbox, A, B) == [0, 0]
    outbox.settle(5.0)
    outbox.close()


def test_a_socket_without_gso_segments_nothing() -> None:
    assert not Outbox(2, 1, offload=Offload(1)).segments(A)
