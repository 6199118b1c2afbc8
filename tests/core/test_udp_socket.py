"""Real sockets on the loopback: the same promises on every back end, address family and offload."""

from __future__ import annotations

import errno
import fcntl
import functools
import gc
import operator
import os
import socket
from collections.abc import Iterator
from itertools import product

import pytest
from udp import Node, datagrams

from burstwire.core import ANY_LOCAL, BufferRing, RunTable, TrainTable, UdpSocket, capabilities, pack_address
from burstwire.errors import AddressError, ConfigError
from burstwire.proto.outbox import most_packets

HAS_MMSG = bool(capabilities()["mmsg"])
HAS_DUAL = bool(capabilities()["dual_stack"])

# (bind, the host that the peer sends to, the host that the peer is)
FAMILIES = {
    "v4": ("127.0.0.1", "127.0.0.1"),
    "v4-any": ("0.0.0.0", "127.0.0.1"),
    "v6": ("::1", "::1"),
    "dual-v4": ("::", "127.0.0.1"),
    "dual-v6": ("::", "::1"),
}
MODES = [("portable", False, False), *(("mmsg", gso, gro) for gso, gro in product([True, False], repeat=2))]


@pytest.fixture(
    params=MODES,
    ids=lambda mode: f"{mode[0]}-{'gso' if mode[1] else 'plain'}-{'gro' if mode[2] else 'single'}",
)
def mode(request: pytest.FixtureRequest) -> tuple[str, bool, bool]:
    if request.param[0] == "mmsg" and not HAS_MMSG:
        pytest.skip("no sendmmsg here")
    return request.param


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[str, str]:
    if request.param.startswith("dual") and not HAS_DUAL:
        pytest.skip("no IPv6 here")
    return FAMILIES[request.param]


def node(host: str, mode: tuple[str, bool, bool] = ("auto", True, True)) -> Node:
    backend, gso, gro = mode
    return Node(UdpSocket((host, 0), backend=backend, gso=gso, gro=gro))


@pytest.fixture
def pair(mode: tuple[str, bool, bool], family: tuple[str, str]) -> Iterator[tuple[Node, Node, bytes]]:
    """Two nodes of the same kind, and the address of the second."""
    a, b = node(family[0], mode), node(family[0], mode)
    yield a, b, b.address(family[1])
    for one in (a, b):
        assert (one.out.leased, one.into.leased) == (0, 0)
        one.close()


def test_the_socket_is_what_was_asked_for(mode: tuple[str, bool, bool], family: tuple[str, str]) -> None:
    one = node(family[0], mode).socket
    can = capabilities()
    assert one.backend == mode[0]
    assert one.gso == (mode[1] and can["gso"])
    assert one.gro == (mode[2] and can["gro"])
    assert one.local_address[0] == family[0]
    assert one.local_address[1] > 0
    assert one.family == (6 if ":" in family[0] else 4)
    assert one.dual == (family[0] == "::")
    assert not os.get_blocking(one.fileno())
    assert fcntl.fcntl(one.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    one.close()


@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_trains_arrive_byte_for_byte_with_mark_and_addresses(pair: tuple[Node, Node, bytes], ecn: int) -> None:
    a, b, to = pair
    sent = datagrams(50, 1200, tail=333)
    a.queue(sent, to, ecn)
    a.queue(datagrams(3, 90, seed=1), to, ecn)
    a.queue([b"\x01alone"], to, ecn)
    a.flush()
    got = b.receive(55)
    assert [one.data for one in got] == sent + datagrams(3, 90, seed=1) + [b"\x01alone"]
    assert {one.ecn for one in got} == {ecn}
    assert {one.path for one in got} == {a.address(_host(to)) + to[:2] + bytes(2) + to[4:]}


def _host(address: bytes) -> str:
    return (
        socket.inet_ntop(socket.AF_INET, address[8:12])
        if address[0] == 4
        else socket.inet_ntop(socket.AF_INET6, address[8:])
    )


def test_books_of_the_socket_count_every_byte_and_call(pair: tuple[Node, Node, bytes]) -> None:
    a, b, to = pair
    a.queue(datagrams(40, 1000, tail=7), to)
    a.queue([b"x" * 500], to)
    a.flush()
    b.receive(42)
    sent, received = a.socket.stats(), b.socket.stats()
    assert (sent["datagrams_sent"], sent["bytes_sent"]) == (42, 40_507)
    assert (received["datagrams_received"], received["bytes_received"]) == (42, 40_507)
    assert sent["send_calls"] == (1 if a.socket.backend == "mmsg" else 42)
    assert received["kernel_drops"] == received["truncated"] == received["overflow"] == 0
    if b.socket.backend == "portable":
        assert received["recv_calls"] >= 42
    elif b.socket.gro and a.socket.gso:
        assert received["recv_calls"] == 1
        assert received["trains_received"] == 2


def test_segments_that_come_one_by_one_still_form_runs(pair: tuple[Node, Node, bytes]) -> None:
    a, b, to = pair
    a.queue(datagrams(52, 1200), to)
    a.flush()
    assert b.socket.recv(b.into, b.runs) >= 1
    first = next(b.runs.records())
    assert first[:8] == (0, 0, b.runs.held[0], 0, 1200, 1200, first[6], 0x10)
    assert first[6] == 52
    assert len(b.runs.held) == 1
    b.runs.release(b.into)


@pytest.mark.parametrize("size", [1200, 1424, 9352, 32_734])
def test_the_longest_trains_that_are_ever_made_are_not_cut_by_the_kernel(
    pair: tuple[Node, Node, bytes], size: int
) -> None:
    """With headers they are as long as loopback takes in one piece; longer ones would come datagram by datagram."""
    a, b, to = pair
    longest = datagrams(most_packets(size), size)
    a.queue(longest, to)
    a.flush()
    assert [one.data for one in b.receive(len(longest))] == longest
    if a.socket.gso and b.socket.gro:
        assert b.socket.stats()["trains_received"] == 1


def test_more_than_64_segments_and_more_bytes_than_a_packet_holds_are_cut(
    pair: tuple[Node, Node, bytes],
) -> None:
    a, b, to = pair
    many = datagrams(200, 40, tail=30)
    a.queue(many, to)
    wide = datagrams(54, 1200, tail=736, seed=5)  # 65,536 bytes: one more than fits a packet
    a.queue(wide, to)
    assert a.socket.send(a.trains) == 2
    assert [a.trains.results(i) for i in range(2)] == [(8030, 0), (65536, 0)]
    a.drop()
    assert [one.data for one in b.receive(256)] == many + wide
    assert a.socket.stats()["gso_fallbacks"] == 0
    if a.socket.gso and b.socket.gro:  # 64 segments at most, and 65,507 bytes
        assert b.socket.stats()["trains_received"] == 4 + 2


def test_many_trains_leave_in_order(pair: tuple[Node, Node, bytes]) -> None:
    a, b, to = pair
    expected: list[bytes] = []
    for i in range(12):
        train = datagrams(1 + i % 5, 100 + i, tail=i * 3, seed=i)
        expected += train
        a.queue(train, to, ecn=i % 3)
    a.flush()
    assert [one.data for one in b.receive(len(expected))] == expected


def test_empty_datagrams_are_counted_and_nothing_else(pair: tuple[Node, Node, bytes]) -> None:
    _a, b, to = pair
    with socket.socket(socket.AF_INET6 if to[0] == 6 else socket.AF_INET, socket.SOCK_DGRAM) as plain:
        target = (_host(to), int.from_bytes(to[2:4]))
        for data in (b"", b"\x01first", b"", b"", b"\x02second"):
            plain.sendto(data, target)
    got = b.receive(2)
    while len(got) < 2 or b.socket.stats()["empty"] < 3:
        got += b.take()
    assert [one.data for one in got] == [b"\x01first", b"\x02second"]
    assert b.socket.stats()["empty"] == 3


def test_a_datagram_longer_than_a_slot_is_dropped_and_counted(pair: tuple[Node, Node, bytes]) -> None:
    a, b, to = pair
    small = BufferRing(4, 1024)
    a.queue([b"\x01" * 1025], to)
    a.queue([b"\x02" * 1024], to)
    a.flush()
    table = RunTable()
    got: list[tuple[int, int]] = []
    while not got or b.socket.stats()["truncated"] < 1:
        b.socket.recv(small, table)
        got += [(run[7], run[5]) for run in table.records()]
        table.release(small)
    assert got == [(2, 1024)]
    assert small.leased == 0


def test_a_train_longer_than_a_slot_keeps_its_whole_segments() -> None:
    a, b = node("127.0.0.1"), node("127.0.0.1")
    if not (a.socket.gso and b.socket.gro):
        pytest.skip("needs GSO and GRO")
    small = BufferRing(2, 3000)
    sent = datagrams(10, 700)
    a.queue(sent, b.address())
    a.flush()
    table = RunTable()
    assert b.socket.recv(small, table) == 1
    run = next(table.records())
    assert (run[4], run[5], run[6]) == (700, 700, 4)
    assert bytes(small.views[run[2]][:2800]) == b"".join(sent[:4])
    assert b.socket.stats()["truncated"] == 1
    table.release(small)


def test_one_train_too_long_for_any_packet_ends_alone(pair: tuple[Node, Node, bytes]) -> None:
    a, b, to = pair
    limit = 65507 if to[0] == 4 else 65536 - 48  # the loopback's MTU, and no fragments
    rows = [
        a.queue([b"\x01before"], to),
        a.queue([bytes(limit + 1)], to),
        a.queue([b"\x02" * limit], to),
        a.queue(datagrams(5, 100, tail=9), to),
    ]
    assert a.socket.send(a.trains) == 4
    assert [a.trains.results(row) for row in rows] == [(7, 0), (0, -errno.EMSGSIZE), (limit, 0), (509, 0)]
    assert a.socket.blocked == ""
    assert a.socket.stats()["trains_refused"] == 1
    a.drop()
    assert [one.data for one in b.receive(8)] == [b"\x01before", b"\x02" * limit, *datagrams(5, 100, tail=9)]


def test_rows_that_cannot_be_sent_end_with_an_error_and_harm_none_of_the_others() -> None:
    a, b = node("127.0.0.1"), node("127.0.0.1")
    to, v6 = b.address(), pack_address("::1", 9)
    slot = a.out.lease()
    free = a.out.lease()
    a.out.release(free)
    rows = [
        (slot, 0, 0, 0, 0, to + ANY_LOCAL),
        (slot, 65536, 1, 0, 0, to + ANY_LOCAL),
        (slot, 1, 65536, 0, 0, to + ANY_LOCAL),
        (free, 0, 10, 0, 0, to + ANY_LOCAL),
        (99, 0, 10, 0, 0, to + ANY_LOCAL),
        (slot, 0, 10, 0, 4, to + ANY_LOCAL),
        (slot, 0, 10, 0, 0, v6 + ANY_LOCAL),
        (slot, 0, 10, 0, 0, bytes(48)),
        (slot, 0, 10, 0, 0, to + pack_address("::1", 0)),
        (slot, 0, 10, 0, 0, to + ANY_LOCAL),
    ]
    for row in rows:
        a.trains.append(*row)
    assert a.socket.send(a.trains) == len(rows)
    errors = [a.trains.results(i) for i in range(len(rows))]
    assert errors == [(0, -errno.EINVAL)] * 6 + [(0, -errno.EAFNOSUPPORT)] * 3 + [(10, 0)]
    assert len(b.receive(1)) == 1
    assert a.socket.stats()["send_calls"] == 1


def test_a_full_table_of_trains_says_so() -> None:
    table = TrainTable(BufferRing(1), 1)
    table.append(0, 0, 1, 0, 0, bytes(48))
    with pytest.raises(IndexError, match="full"):
        table.append(0, 0, 1, 0, 0, bytes(48))


def test_an_answer_leaves_from_the_address_that_was_asked(mode: tuple[str, bool, bool]) -> None:
    """A peer that sent to 127.0.0.2 drops an answer from 127.0.0.1."""
    a, b = node("127.0.0.1", mode), node("0.0.0.0", mode)
    a.queue(datagrams(3, 100), b.address("127.0.0.2"))
    a.flush()
    path = b.receive(3)[0].path
    assert path[24:] == pack_address("127.0.0.2", 0)
    b.queue(datagrams(3, 100), path[:24], ecn=2, local=path[24:])
    b.flush()
    got = a.receive(3)
    assert {one.path[:24] for one in got} == {b.address("127.0.0.2")}
    assert {one.ecn for one in got} == {2}


@pytest.mark.skipif(not HAS_DUAL, reason="no IPv6 here")
def test_an_answer_over_a_dual_socket_leaves_from_the_ipv4_address_that_was_asked(
    mode: tuple[str, bool, bool],
) -> None:
    a, b = node("127.0.0.1", mode), node("::", mode)
    a.queue(datagrams(3, 100), b.address("127.0.0.3"), ecn=1)
    a.flush()
    path = b.receive(3)[0].path
    assert path == a.address() + pack_address("127.0.0.3", 0)
    b.queue(datagrams(3, 100), path[:24], ecn=3, local=path[24:])
    b.flush()
    got = a.receive(3)
    assert {(one.path[:24], one.ecn) for one in got} == {(b.address("127.0.0.3"), 3)}


def test_a_call_takes_at_most_so_many_slots_and_leaves_the_rest() -> None:
    a, b = node("127.0.0.1"), node("127.0.0.1")
    trains = [datagrams(50, 1200, seed=i) for i in range(6)]
    for train in trains:
        a.queue(train, b.address())
    a.flush()
    got: list[bytes] = []
    while len(got) < 300:
        got += [one.data for one in b.take(max_slots=2)]
    assert got == functools.reduce(operator.iadd, trains, [])
    assert b.into.high_water == 2


def test_no_free_slot_is_no_error() -> None:
    a, b = node("127.0.0.1"), node("127.0.0.1")
    a.queue([b"\x01x"], b.address())
    a.flush()
    taken = [b.into.lease() for _ in range(16)]
    assert b.socket.recv(b.into, b.runs) == 0
    assert b.socket.stats()["no_slot"] == 1
    for slot in taken:
        b.into.release(slot)
    assert len(b.receive(1)) == 1


def test_a_flood_is_left_in_the_socket_after_a_bounded_number_of_messages(mode: tuple[str, bool, bool]) -> None:
    a, b = node("127.0.0.1", mode), node("127.0.0.1", mode)
    b.runs = RunTable(4096)
    for _ in range(20):
        a.queue([bytes([1, i]) for i in range(50)], b.address())
        a.flush()
    most = 1000 if a.socket.gso and b.socket.gro else 512 + 8
    total = 0
    while total < 1000:
        taken = len(b.take())
        assert 0 < taken <= most
        total += taken
    assert total == 1000


def test_a_small_table_of_runs_takes_little_at_a_time_and_loses_nothing(mode: tuple[str, bool, bool]) -> None:
    a, b = node("127.0.0.1", mode), node("127.0.0.1", mode)
    b.runs = RunTable(64)
    sent = [bytes([1, i]) for i in range(64)]
    for _ in range(4):
        a.queue(sent, b.address())
    a.flush()
    assert [one.data for one in b.receive(256)] == sent * 4
    assert b.socket.stats()["overflow"] == 0


def test_a_table_that_still_holds_slots_is_refused() -> None:
    a, b = node("127.0.0.1"), node("127.0.0.1")
    a.queue([b"\x01x"], b.address())
    a.flush()
    assert b.socket.recv(b.into, b.runs) == 1
    with pytest.raises(ValueError, match="release them first"):
        b.socket.recv(b.into, b.runs)
    b.runs.release(b.into)


def test_datagrams_that_found_the_buffer_full_are_counted() -> None:
    if not capabilities()["kernel_drops"]:
        pytest.skip("this kernel does not report drops")
    a, b = node("127.0.0.1"), Node(UdpSocket(("127.0.0.1", 0), receive_buffer=4096))
    assert b.socket.receive_buffer < 65536
    for _ in range(8):
        a.queue(datagrams(20, 1200), b.address())
        a.flush()
    arrived = len(b.receive(1))
    while more := b.take():
        arrived += len(more)
    a.queue([b"\x01 the kernel tells with the next one"], b.address())
    a.flush()
    b.receive(1)
    stats = b.socket.stats()
    assert stats["kernel_drops"] > 0
    assert arrived < 160


def test_buffers_are_what_the_kernel_granted() -> None:
    one = UdpSocket(("127.0.0.1", 0), receive_buffer=100_000, send_buffer=200_000)
    dup = socket.socket(fileno=os.dup(one.fileno()))
    assert one.receive_buffer == dup.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 100_000
    assert one.send_buffer == dup.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 200_000
    dup.close()
    one.close()


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="names of Linux")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_options_are_set_at_every_level(host: str) -> None:
    one = UdpSocket((host, 0))
    dup = socket.socket(fileno=os.dup(one.fileno()))
    probe, recverr, dontfrag = 3, (11, 25), 62
    if host != "::1":
        assert dup.getsockopt(socket.IPPROTO_IP, 10) == probe
        assert dup.getsockopt(socket.IPPROTO_IP, recverr[0]) == 0
        assert dup.getsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS) == 1
    if ":" in host:
        assert dup.getsockopt(socket.IPPROTO_IPV6, 23) == probe
        assert dup.getsockopt(socket.IPPROTO_IPV6, recverr[1]) == 0
        assert dup.getsockopt(socket.IPPROTO_IPV6, dontfrag) == 1
        assert dup.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) == 1
        assert dup.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == (host != "::")
    # Set, UDP_SEGMENT would cut plain sends to pieces.
    assert dup.getsockopt(socket.IPPROTO_UDP, 103) == 0
    dup.close()
    one.close()


def test_gso_can_be_switched_off_and_on_again() -> None:
    one = node("127.0.0.1").socket
    if not one.gso:
        pytest.skip("no GSO here")
    one.gso = False
    assert capabilities(one)["gso_in_force"] is False
    one.gso = True
    assert capabilities(one)["gso_in_force"] is True
    portable = node("127.0.0.1", ("portable", True, True)).socket
    with pytest.raises(ConfigError, match="no GSO"):
        portable.gso = True
    portable.gso = False


def test_kill_switches_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSTWIRE_GSO", "0")
    monkeypatch.setenv("BURSTWIRE_GRO", "off")
    one = UdpSocket(("127.0.0.1", 0), gso=True, gro=True)
    assert (one.gso, one.gro) == (False, False)
    assert capabilities()["switched_off"] == ["BURSTWIRE_GSO", "BURSTWIRE_GRO"]
    monkeypatch.setenv("BURSTWIRE_SOCKET_BACKEND", "portable")
    assert UdpSocket(("127.0.0.1", 0), backend="auto").backend == "portable"
    monkeypatch.setenv("BURSTWIRE_SOCKET_BACKEND", "carrier-pigeon")
    with pytest.raises(ConfigError, match="carrier-pigeon"):
        UdpSocket(("127.0.0.1", 0))


def test_a_port_in_use_is_named_with_its_cause() -> None:
    one = UdpSocket(("127.0.0.1", 0))
    with pytest.raises(AddressError, match=r"127\.0\.0\.1:\d+: EADDRINUSE") as caught:
        UdpSocket(one.local_address)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(AddressError, match=r"203\.0\.113\.1:0: EADDRNOTAVAIL"):
        UdpSocket(("203.0.113.1", 0))
    with pytest.raises(AddressError, match="'localhost'"):
        UdpSocket(("localhost", 0))


def test_a_closed_socket_raises_and_closes_twice() -> None:
    one = node("127.0.0.1")
    with one.socket as udp:
        descriptor = udp.fileno()
    one.socket.close()
    assert one.socket.fileno() == -1
    with pytest.raises(OSError, match="EBADF"):
        one.socket.recv(one.into, one.runs)
    with pytest.raises(OSError, match="EBADF"):
        one.socket.send(one.trains)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert "closed" in repr(one.socket)


def test_an_empty_host_takes_both_families() -> None:
    one = UdpSocket(("", 0))
    assert one.dual == HAS_DUAL
    one.close()


def test_a_socket_that_is_collected_in_a_cycle_can_still_be_used_by_the_finalizers_of_others() -> None:
    """They find it closed or open, but never freed memory."""
    told: list[str] = []

    class Owner:
        def __init__(self) -> None:
            self.me = self
            self.socket = UdpSocket(("127.0.0.1", 0))

        def __del__(self) -> None:
            table, ring = RunTable(), BufferRing(2)
            try:
                self.socket.recv(ring, table)
            except OSError as error:
                told.append(type(error).__name__)
            self.socket.close()
            told.append(f"{self.socket.stats()['truncated']} {self.socket.fileno()}")

    for _ in range(20):
        Owner()
    gc.collect()
    assert told.count("0 -1") == 20
