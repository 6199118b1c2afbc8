"""The kernel refuses: with a preloaded stand-in (refusals.py says what must follow), and where it really does."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.faults.shim import behind, build
from udp import Node, datagrams

from burstwire.core import UdpSocket, capabilities, pack_address
from burstwire.core.socket import spoils_equal_segments

HERE = Path(__file__).parent
NO_SOURCE = 2

pytestmark = pytest.mark.skipif(not capabilities()["mmsg"] or not capabilities()["gso"], reason="needs Linux with GSO")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("refusing.c", tmp_path_factory.mktemp("shim"))


SCENARIOS = [
    ("a_refused_train_is_sent_segment_by_segment", "EIO"),
    ("a_refused_train_is_sent_segment_by_segment", "EINVAL"),
    ("a_refusal_for_one_destination_costs_the_others_nothing", "EIO"),
    ("a_refusal_for_one_destination_costs_the_others_nothing", "EINVAL"),
    ("equal_segments_are_not_left_to_kernels_that_spoil_them",),
    *(("what_was_sent_before_a_refusal_is_not_sent_again", str(skip)) for skip in range(9)),
    ("a_lone_segment_goes_without_the_option",),
    ("an_interrupted_call_is_repeated",),
    ("a_call_that_is_interrupted_for_ever_does_not_spin",),
    ("calls_that_do_not_exist_are_replaced",),
    *(
        ("a_full_socket_keeps_the_tail", backend, name, blocked)
        for backend in ("mmsg", "portable")
        for name, blocked in (("EAGAIN", "again"), ("ENOBUFS", "nobufs"), ("ENOMEM", "nobufs"))
    ),
    *(
        ("an_error_of_one_train_ends_that_train_only", name)
        for name in ("EMSGSIZE", "ENETUNREACH", "EHOSTUNREACH", "EPERM", "EACCES", "ECONNREFUSED", "EINVAL")
    ),
    ("an_icmp_answer_to_somebody_else_costs_nothing",),
    ("errors_while_receiving_never_spin",),
    *(("a_refused_mark_is_left_out", name, host) for name in ("EINVAL", "EIO") for host in ("127.0.0.1", "::1", "::")),
    ("both_offload_and_mark_refused_still_delivers",),
    ("a_train_that_nothing_helps_ends_with_the_error",),
    ("a_segment_beyond_the_mtu_does_not_cost_the_offload",),
    ("cut_control_messages_drop_what_may_be_a_train", "gro"),
    ("cut_control_messages_drop_what_may_be_a_train", "single"),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: "-".join(scenario))
def test_refusals(shim: Path, scenario: tuple[str, ...]) -> None:
    if "::" in scenario and not capabilities()["dual_stack"]:
        pytest.skip("no IPv6 here")
    behind(shim, HERE / "refusals.py", *scenario)


def kernel_refuses_gso(node: Node) -> None:
    """Without transmit checksums the kernel answers EINVAL to UDP_SEGMENT, as it does for some virtual devices."""
    with socket.socket(fileno=os.dup(node.socket.fileno())) as dup:
        if node.socket.family == 4:
            dup.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
        else:
            dup.setsockopt(socket.IPPROTO_UDP, 101, 1)  # UDP_NO_CHECK6_TX


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_the_kernel_itself_refuses_gso_and_no_byte_is_lost(host: str) -> None:
    a, b = Node(UdpSocket((host, 0))), Node(UdpSocket((host, 0)))
    to = b.address("127.0.0.1" if host == "127.0.0.1" else "::1")
    if host == "::":
        with socket.socket(fileno=os.dup(b.socket.fileno())) as dup:
            dup.setsockopt(socket.IPPROTO_UDP, 102, 1)  # UDP_NO_CHECK6_RX
    kernel_refuses_gso(a)
    first, second = datagrams(50, 1200, tail=77), datagrams(30, 500, seed=1)
    a.queue(first, to, ecn=2)
    a.queue(second, to, ecn=1)
    a.flush()
    got = b.receive(81)
    assert [one.data for one in got] == first + second
    assert [one.ecn for one in got] == [2] * 51 + [1] * 30
    assert a.socket.gso
    stats = a.socket.stats()
    assert (stats["gso_fallbacks"], stats["ecn_fallbacks"], stats["trains_refused"]) == (1, 0, 0)


@pytest.mark.parametrize(("host", "version"), [("0.0.0.0", 4), ("::", 4), ("::", 6)])
def test_a_local_address_that_is_gone_is_left_out_and_nothing_else_is_blamed(host: str, version: int) -> None:
    a, b = Node(UdpSocket((host, 0))), Node(UdpSocket((host, 0)))
    to = b.address("127.0.0.1" if version == 4 else "::1")
    gone = pack_address("203.0.113.9" if version == 4 else "2001:db8::9", 0)
    train = datagrams(50, 1200, tail=77)
    row = a.queue(train, to, ecn=2, local=gone)
    a.queue(train, to, ecn=2)
    assert a.socket.send(a.trains) == 2
    assert a.trains.results(row) == (60077, 0)
    assert list(a.trains.records())[row][5] == NO_SOURCE
    got = b.receive(102)
    assert [one.data for one in got] == train * 2
    assert {one.ecn for one in got} == {2}
    assert a.socket.gso
    stats = a.socket.stats()
    assert (stats["source_fallbacks"], stats["gso_fallbacks"], stats["ecn_fallbacks"]) == (1, 0, 0)


def test_a_destination_that_cannot_be_ends_its_train_only() -> None:
    a, b = Node(UdpSocket(("::", 0))), Node(UdpSocket(("::", 0)))
    a.queue(datagrams(3, 100), pack_address("127.0.0.1", 0))  # port 0: EINVAL whatever is left out
    a.queue(datagrams(3, 100, seed=1), b.address("127.0.0.1"))
    assert a.socket.send(a.trains) == 2
    assert a.trains.results(0) == (0, -errno.EINVAL)
    assert [one.data for one in b.receive(3)] == datagrams(3, 100, seed=1)
    assert a.socket.gso


def test_a_dead_peer_does_not_fail_a_send_to_a_living_one() -> None:
    """With IP_RECVERR on, the ICMP answer of the dead one would take the next datagram's place."""
    a, b = Node(UdpSocket(("127.0.0.1", 0))), Node(UdpSocket(("127.0.0.1", 0)))
    dead = UdpSocket(("127.0.0.1", 0))
    nobody = pack_address(*dead.local_address)
    dead.close()
    for i in range(5):
        a.queue([b"\x01 to nobody"], nobody)
        a.queue([bytes([2, i])], b.address())
    a.flush()
    assert [one.data for one in b.receive(5)] == [bytes([2, i]) for i in range(5)]
    assert a.take() == []
    assert a.socket.stats()["trains_refused"] == 0


IN_NAMESPACE = """
import errno, subprocess, sys
sys.path.insert(0, {here!r})
from udp import Node, datagrams
from burstwire.core import UdpSocket, pack_address
def ip(*words): subprocess.run(words, check=True)
ip("ip", "link", "set", "lo", "up", "mtu", "1400")
"""

BEYOND_THE_MTU = """
for host, target in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")):
    most = 1400 - 8 - (40 if target == "::1" else 20)
    a, b = Node(UdpSocket((host, 0))), Node(UdpSocket((host, 0)))
    assert a.socket.gso
    to = b.address(target)
    a.queue(datagrams(10, most + 1), to)
    a.queue([bytes(most + 1)], to)
    a.queue(datagrams(10, most), to)
    a.queue([b"x" * most], to)
    assert a.socket.send(a.trains) == 4
    size, full = -errno.EMSGSIZE, (10 * most, 0)
    assert [a.trains.results(i) for i in range(4)] == [(0, size), (0, size), full, (most, 0)], (host, target)
    assert a.socket.gso
    assert [one.data for one in b.receive(11)] == datagrams(10, most) + [b"x" * most]
"""

FULL_QUEUE = """
ip("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "50mbit", "burst", "5000", "limit", "1000000")
a = Node(UdpSocket(("127.0.0.1", 0), send_buffer=20000, gso={gso}))
b = Node(UdpSocket(("127.0.0.1", 0)))
trains = [datagrams(40, 1200, tail=50 + i, seed=i) for i in range(8)]
for train in trains:
    a.queue(train, b.address())
assert a.socket.send(a.trains) < 8
assert a.socket.blocked == "again"
taken = sum(a.trains.results(i)[0] for i in range(8))
a.drop()
while taken > 0:
    taken -= sum(len(one.data) for one in b.receive(1))
assert taken == 0
for train in trains:
    a.queue(train, b.address())
a.flush()
assert [one.data for one in b.receive(41 * 8)] == sum(trains, [])
assert a.socket.stats()["trains_refused"] == 0
"""


LINK_LOCAL = """
ip("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
ip("ip", "link", "set", "d1", "up")
ip("ip", "link", "set", "d0", "up")
ip("ip", "address", "add", "fe80::5/64", "dev", "d0", "nodad")
a, b = Node(UdpSocket(("::", 0))), Node(UdpSocket(("::", 0)))
here = pack_address("fe80::5%d0", 0)
assert here[4:8] != bytes(4)
row = a.queue(datagrams(10, 100), b.address("fe80::5%d0"), ecn=1, local=here)
assert a.socket.send(a.trains) == 1
assert a.trains.results(row) == (1000, 0)
assert a.socket.stats()["source_fallbacks"] == 0
got = b.receive(10)
assert {one.path for one in got} == {a.address("fe80::5%d0") + here}
"""


def in_namespace(body: str) -> None:
    script = IN_NAMESPACE.format(here=str(HERE)) + body
    run = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.netns
def test_segments_beyond_the_mtu_end_their_train_and_keep_the_offload() -> None:
    in_namespace(BEYOND_THE_MTU)


@pytest.mark.netns
def test_link_local_addresses_carry_their_interface_both_ways() -> None:
    in_namespace(LINK_LOCAL)


@pytest.mark.netns
@pytest.mark.skipif(not shutil.which("tc"), reason="needs tc (iproute2)")
@pytest.mark.parametrize("gso", [True, False])
def test_a_full_socket_buffer_is_waited_for_and_nothing_is_lost(gso: bool) -> None:
    in_namespace(FULL_QUEUE.format(gso=gso))


@pytest.mark.parametrize(
    ("release", "spoils"),
    [
        ("6.8.0-59-generic", False),
        ("6.17.0-41-generic", False),
        ("6.99", False),
        ("7.0.0", True),
        ("7.0-rc1", True),
        ("7.0.2-6-pve", True),
        ("7.1.4+", True),
        ("7.1.5", False),
        ("7.10.0", False),
        ("7.2", False),
        ("70.1.0", False),
        ("17.0.1", False),
        ("Darwin", False),
        ("", False),
    ],
)
def test_kernels_that_spoil_equal_segments_are_known_by_their_release(release: str, spoils: bool) -> None:
    assert spoils_equal_segments(release) is spoils


@pytest.mark.parametrize(("release", "careful"), [("7.0.0-14-generic", True), ("6.8.0-59-generic", False)])
def test_on_such_a_kernel_every_socket_is_careful(monkeypatch: pytest.MonkeyPatch, release: str, careful: bool) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    assert capabilities()["gso_spoils_equal"] is careful
    a, b = Node(UdpSocket(("127.0.0.1", 0))), Node(UdpSocket(("127.0.0.1", 0)))
    assert a.socket.short_tails is careful
    train = datagrams(30, 1000)
    a.queue(train, b.address())
    a.flush()
    assert [one.data for one in b.receive(30)] == train
    assert a.socket.stats()["gso_sends"] == (0 if careful else 1)
