"""What happens when the kernel refuses: each function runs in a process of its own, behind refusing.c.

LD_PRELOAD=refusing.so python refusals.py NAME [ARGUMENTS]
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.faults.shim import (
    ALWAYS,
    ANY,
    CALLS,
    CUT_CONTROL,
    MARKED,
    RECEIVE,
    SEGMENTED,
    SEND,
    Refusals,
)
from udp import Node, datagrams

from burstwire.core import ANY_LOCAL, UdpSocket, capabilities, pack_address
from burstwire.errors import ConfigError

NO_GSO, NO_SOURCE, NO_ECN, SINGLE = 1, 2, 4, 8

_shim = Refusals()
refuse = _shim.refuse
relent = _shim.relent


def pair(host: str = "127.0.0.1", **options: object) -> tuple[Node, Node]:
    return Node(UdpSocket((host, 0), **options)), Node(UdpSocket((host, 0)))  # type: ignore[arg-type]


def flags(node: Node, row: int) -> int:
    return list(node.trains.records())[row][5]


def expect(node: Node, wanted: list[bytes]) -> None:
    """Exactly these, in this order, and nothing behind them."""
    got = node.receive(len(wanted))
    assert [one.data for one in got] == wanted
    assert node.take() == []


def a_refused_train_is_sent_segment_by_segment(name: str) -> None:
    a, b = pair()
    first, second = datagrams(50, 1200, tail=100), datagrams(20, 900, seed=3)
    rows = [a.queue(first, b.address(), ecn=1), a.queue(second, b.address())]
    refuse(SEND, SEGMENTED, getattr(errno, name), times=ALWAYS)
    assert a.socket.send(a.trains) == 2
    assert [a.trains.results(row) for row in rows] == [(60100, 0), (18000, 0)]
    # Only the first was refused; the second goes the same way and was not offered.
    assert [flags(a, row) for row in rows] == [NO_GSO, SINGLE]
    assert a.socket.gso
    stats = a.socket.stats()
    assert (stats["gso_fallbacks"], stats["gso_sends"], stats["datagrams_sent"]) == (1, 0, 71)
    expect(b, first + second)
    # Whoever remembers it, and says so, has no further refusal.
    a.drop()
    calls = a.socket.stats()["send_calls"]
    a.queue(first, b.address(), flags=SINGLE)
    a.flush()
    assert a.socket.stats()["send_calls"] == calls + 1
    expect(b, first)
    relent()
    a.queue(first, b.address())
    a.flush()
    expect(b, first)
    stats = a.socket.stats()
    assert (stats["gso_fallbacks"], stats["gso_sends"], stats["gso_datagrams"]) == (1, 1, 51)


def a_refusal_for_one_destination_costs_the_others_nothing(name: str) -> None:
    """In one flight: trains to an address that GSO fails for, before, between and behind those to another."""
    a = Node(UdpSocket(("127.0.0.1", 0)))
    bad, good = Node(UdpSocket(("127.0.0.2", 0))), Node(UdpSocket(("127.0.0.3", 0)))
    also_bad = Node(UdpSocket(("127.0.0.2", 0)))  # another port, but the same route
    sent = {id(node): [] for node in (bad, good, also_bad)}
    for turn, node in enumerate((good, bad, good, also_bad, bad, good)):
        train = datagrams(30, 1000 - turn, tail=50, seed=turn)
        sent[id(node)] += train
        a.queue(train, node.address())
    refuse(SEND, SEGMENTED, getattr(errno, name), times=ALWAYS, to="127.0.0.2")
    assert a.socket.send(a.trains) == 6
    for node in (bad, good, also_bad):
        expect(node, sent[id(node)])
    assert [flags(a, row) for row in range(6)] == [0, NO_GSO, 0, SINGLE, SINGLE, 0]
    stats = a.socket.stats()
    assert (stats["gso_fallbacks"], stats["gso_sends"], stats["gso_datagrams"]) == (1, 3, 93)
    assert stats["datagrams_sent"] == 186


def equal_segments_are_not_left_to_kernels_that_spoil_them() -> None:
    """Only a message that ends with a shorter segment is segmented by the kernel; every other leaves as it is."""
    a, b = pair(short_tails=True)
    equal, short, long = datagrams(30, 900), datagrams(30, 900, tail=20, seed=1), datagrams(70, 40, tail=30, seed=2)
    refuse(SEND, SEGMENTED, errno.EIO, skip=2, times=ALWAYS)  # the second and the end of the third may
    for train in (equal, short, long):
        a.queue(train, b.address())
    a.flush()
    expect(b, equal + short + long)
    stats = a.socket.stats()
    # Of 71, seven leave one by one until 64 are left, with the short one among them.
    assert (stats["gso_sends"], stats["gso_datagrams"], stats["gso_fallbacks"]) == (2, 31 + 64, 0)
    assert stats["datagrams_sent"] == 30 + 31 + 71


def what_was_sent_before_a_refusal_is_not_sent_again(skip: str) -> None:
    """Trains of several messages each; the refusal hits one in the middle."""
    a, b = pair()
    trains = [datagrams(150, 40, tail=30, seed=i) for i in range(4)]
    for train in trains:
        a.queue(train, b.address())
    refuse(SEND, SEGMENTED, errno.EIO, skip=int(skip), times=ALWAYS)
    assert a.socket.send(a.trains) == 4
    expect(b, sum(trains, []))  # noqa: RUF017
    stats = a.socket.stats()
    assert stats["datagrams_sent"] == 604
    assert stats["gso_fallbacks"] == 1
    assert stats["gso_sends"] == int(skip)


def a_lone_segment_goes_without_the_option() -> None:
    """Some drivers refuse UDP_SEGMENT for one segment; also for the one that is left over from a long train."""
    a, b = pair()
    alone, train = [b"\x01" * 500], datagrams(64, 40, tail=40)
    a.queue(alone, b.address())
    a.queue(train, b.address())
    refuse(SEND, SEGMENTED, errno.EIO, skip=1, times=ALWAYS)  # one message may segment: the first 64 of the train
    assert a.socket.send(a.trains) == 2
    assert a.socket.gso
    expect(b, alone + train)


def an_interrupted_call_is_repeated() -> None:
    a, b = pair()
    refuse(SEND, ANY, errno.EINTR, times=3)
    refuse(RECEIVE, ANY, errno.EINTR, times=3)
    train = datagrams(10, 500)
    a.queue(train, b.address())
    a.flush()
    assert a.socket.stats()["send_calls"] == 4
    expect(b, train)
    assert b.socket.stats()["recv_calls"] >= 4


def a_call_that_is_interrupted_for_ever_does_not_spin() -> None:
    a, b = pair()
    a.queue([b"\x01x"], b.address())
    refuse(SEND, ANY, errno.EINTR, times=ALWAYS)
    refuse(RECEIVE, ANY, errno.EINTR, times=ALWAYS)
    assert a.socket.send(a.trains) == 0
    assert a.socket.blocked == "again"
    assert b.socket.recv(b.into, b.runs) == 0
    assert (a.socket.stats()["send_calls"], b.socket.stats()["recv_calls"]) == (16, 16)
    relent()
    a.flush()
    expect(b, [b"\x01x"])


def calls_that_do_not_exist_are_replaced() -> None:
    a, b = pair()
    refuse(SEND, CALLS, errno.ENOSYS)
    refuse(RECEIVE, CALLS, errno.ENOSYS)
    train = datagrams(10, 500)
    for _ in range(2):
        a.queue(train, b.address())
        a.flush()
        expect(b, train)
    assert a.socket.stats()["mmsg_fallbacks"] == 1
    assert b.socket.stats()["mmsg_fallbacks"] == 1
    assert not capabilities()["mmsg"]
    assert UdpSocket(("127.0.0.1", 0)).backend == "portable"
    try:
        UdpSocket(("127.0.0.1", 0), backend="mmsg")
    except ConfigError:
        return
    raise AssertionError("mmsg was promised")


def a_full_socket_keeps_the_tail(backend: str, name: str, blocked: str) -> None:
    a, b = pair(backend=backend, gso=False)
    trains = [datagrams(30, 100, tail=50, seed=i) for i in range(3)]
    for train in trains:
        a.queue(train, b.address())
    refuse(
        SEND, ANY, getattr(errno, name), skip=40, times=2 + (backend == "portable")
    )  # there the first only ends the batch
    assert a.socket.send(a.trains) == 1
    assert a.socket.blocked == blocked
    assert [a.trains.results(i) for i in range(3)] == [(3050, 0), (900, 0), (0, 0)]
    assert a.socket.send(a.trains, 1) == 0
    assert a.socket.blocked == blocked
    assert a.trains.results(1) == (900, 0)
    assert a.socket.send(a.trains, 1) == 2
    assert a.socket.blocked == ""
    expect(b, sum(trains, []))  # noqa: RUF017


def an_error_of_one_train_ends_that_train_only(name: str) -> None:
    a, b = pair(gso=False)
    trains = [datagrams(5, 100, seed=i) for i in range(3)]
    for train in trains:
        a.queue(train, b.address())
    refuse(SEND, ANY, getattr(errno, name), skip=7, times=2 if name == "ECONNREFUSED" else 1)
    assert a.socket.send(a.trains) == 3
    assert a.socket.blocked == ""
    error = -getattr(errno, name)
    assert [a.trains.results(i) for i in range(3)] == [(500, 0), (200, error), (500, 0)]
    assert a.socket.stats()["trains_refused"] == 1
    expect(b, trains[0] + trains[1][:2] + trains[2])


def an_icmp_answer_to_somebody_else_costs_nothing() -> None:
    a, b = pair()
    train = datagrams(5, 100)
    a.queue(train, b.address())
    refuse(SEND, ANY, errno.ECONNREFUSED)
    refuse(RECEIVE, ANY, errno.ECONNREFUSED, times=3)
    a.flush()
    expect(b, train)
    assert b.socket.stats()["receive_errors"] == 3


def errors_while_receiving_never_spin() -> None:
    a, b = pair()
    refuse(RECEIVE, ANY, errno.EHOSTUNREACH, times=ALWAYS)
    assert b.socket.recv(b.into, b.runs) == 0
    assert b.socket.stats()["recv_calls"] <= 16
    assert b.into.leased == 0
    relent()
    a.queue([b"\x01x"], b.address())
    a.flush()
    expect(b, [b"\x01x"])


def a_refused_mark_is_left_out(name: str, host: str) -> None:
    a, b = pair(host)
    train = datagrams(20, 700)
    for mark in (2, 1, 0):
        a.queue(train, b.address("127.0.0.1" if "." in host else "::1"), ecn=mark)
    refuse(SEND, MARKED, getattr(errno, name), times=ALWAYS)
    assert a.socket.send(a.trains) == 3
    assert flags(a, 0) == NO_ECN
    stats = a.socket.stats()
    assert (stats["ecn_fallbacks"], stats["gso_fallbacks"], stats["source_fallbacks"]) == (1, 0, 0)
    assert a.socket.gso
    got = b.receive(60)
    assert [one.data for one in got] == train * 3
    assert {one.ecn for one in got} == {0}


def both_offload_and_mark_refused_still_delivers() -> None:
    a, b = pair()
    train = datagrams(20, 700)
    a.queue(train, b.address(), ecn=2)
    refuse(SEND, MARKED, errno.EINVAL, times=ALWAYS)
    refuse(SEND, SEGMENTED, errno.EINVAL, times=ALWAYS)
    assert a.socket.send(a.trains) == 1
    expect(b, train)
    assert flags(a, 0) == NO_GSO | NO_ECN


def a_train_that_nothing_helps_ends_with_the_error() -> None:
    a, b = pair("0.0.0.0")
    to = b.address("127.0.0.1")
    a.queue(datagrams(20, 700), to, ecn=2, local=pack_address("127.0.0.1", 0))
    refuse(SEND, ANY, errno.EINVAL, times=5)
    assert a.socket.send(a.trains) == 1
    assert a.trains.results(0) == (0, -errno.EINVAL)
    assert a.socket.stats()["send_calls"] == 5  # as it was, then without each suspect, then without the last two
    assert a.socket.gso
    a.drop()
    a.queue([b"\x01next"], to, ecn=2)
    a.flush()
    got = b.receive(1)
    assert (got[0].data, got[0].ecn) == (b"\x01next", 2)


def a_segment_beyond_the_mtu_does_not_cost_the_offload() -> None:
    """Kernels before 6.14 say EINVAL to a train whose segments exceed the MTU; alone, the segment says EMSGSIZE."""
    a, b = pair()
    a.queue(datagrams(20, 1400), b.address())
    refuse(SEND, SEGMENTED, errno.EINVAL)
    refuse(SEND, ANY, errno.EMSGSIZE)
    assert a.socket.send(a.trains) == 1
    assert a.trains.results(0) == (0, -errno.EMSGSIZE)
    assert a.socket.gso


def cut_control_messages_drop_what_may_be_a_train(gro: str) -> None:
    a = Node(UdpSocket(("127.0.0.1", 0)))
    b = Node(UdpSocket(("127.0.0.1", 0), gro=gro == "gro"))
    refuse(RECEIVE, CUT_CONTROL, 0, times=1)
    a.queue([b"\x01first"], b.address())
    a.queue([b"\x02second"], b.address(), ecn=1)
    a.flush()
    got = b.receive(1)
    got += b.take()
    assert b.socket.stats()["control_truncated"] == 1
    if gro == "gro":
        assert [one.data for one in got] == [b"\x02second"]
    else:
        assert [one.data for one in got] == [b"\x01first", b"\x02second"]
        assert got[0].path == a.address() + ANY_LOCAL


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
