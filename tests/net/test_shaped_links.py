"""The shaped link itself: what tests and benchmarks believe of it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benches.shaped import Counters, Link, Namespace, Shape
from support.shaped import payload, shaped

pytestmark = shaped

ROOT = Path(__file__).resolve().parents[2]
HEADERS = 28
"""Bytes of IPv4 and UDP before a datagram."""


@contextmanager
def hosts(forth: Shape, back: Shape | None = None, seed: int = 1) -> Iterator[tuple[Namespace, Namespace, Link]]:
    with Namespace() as first, Namespace() as second, Link(first, second, forth, back, seed=seed) as link:
        yield first, second, link


@contextmanager
def sockets(first: Namespace, second: Namespace, link: Link) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP socket on the first host, connected to one on the second."""
    with first.inside():
        a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with second.inside():
        b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with a, b:
        b.bind((link.addresses[1], 0))
        b.settimeout(10)
        a.connect(b.getsockname())
        yield a, b


def settled(link: Link, packets: int) -> Counters:
    """The counters of the way forth once so many datagrams have come to the link."""
    while link.counters()[0]["udp"]["packets"] < packets:
        time.sleep(0.001)
    return link.counters()[0]["udp"]


def test_a_packet_takes_at_least_the_delay() -> None:
    with hosts(Shape(delay=0.05)) as (first, second, link), sockets(first, second, link) as (a, b):
        started = time.monotonic()
        a.send(b"x")
        assert b.recv(100) == b"x"
        assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("jitter", [0, 0.003])
def test_packets_come_no_faster_than_the_rate_and_in_order(jitter: float) -> None:
    with hosts(Shape(rate=8e6, jitter=jitter)) as (first, second, link), sockets(first, second, link) as (a, b):
        started = time.monotonic()
        for number in range(100):
            a.send(number.to_bytes(1000 - HEADERS, "big"))
        assert [int.from_bytes(b.recv(2000), "big") for _ in range(100)] == list(range(100))
        assert time.monotonic() - started >= 100 * 1000 / 1e6


def test_a_full_queue_drops_what_comes_last() -> None:
    with hosts(Shape(rate=800, queue=5500)) as (first, second, link), sockets(first, second, link) as (a, _):
        for number in range(20):  # at 100 bytes a second, nothing leaves meanwhile
            a.send(number.to_bytes(1000 - HEADERS, "big"))
        assert settled(link, 20)["full"] == 15
        assert link.counters()[0]["queued_most"] <= 5500


def test_the_same_seed_loses_the_same_packets() -> None:
    def survivors(seed: int) -> list[bytes]:
        with hosts(Shape(loss=0.1), seed=seed) as (first, second, link), sockets(first, second, link) as (a, b):
            for number in range(200):
                a.send(number.to_bytes(4, "big"))
            lost = settled(link, 200)["lost"]
            assert 5 <= lost <= 45
            return [b.recv(100) for _ in range(200 - lost)]

    assert survivors(1) == survivors(1) != survivors(2)


def test_what_is_too_large_vanishes_and_nobody_is_told() -> None:
    with hosts(Shape(size=1280)) as (first, second, link), sockets(first, second, link) as (a, b):
        a.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE: don't fragment
        a.send(bytes(1281 - HEADERS))
        a.send(bytes(1280 - HEADERS))
        assert len(b.recv(2000)) == 1280 - HEADERS
        assert settled(link, 2)["oversize"] == 1
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_link_that_is_down_carries_nothing_either_way_until_it_is_up() -> None:
    with hosts(Shape()) as (first, second, link), sockets(first, second, link) as (a, b):
        link.change(down=True)
        a.send(b"lost")
        assert settled(link, 1)["down"] == 1
        link.change(down=False)
        a.send(b"there")
        assert b.recv(100) == b"there"


def test_fragments_are_counted() -> None:
    with hosts(Shape()) as (first, second, link), sockets(first, second, link) as (a, b):
        a.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_PMTUDISC_DONT
        a.send(bytes(4000))
        assert len(b.recv(5000)) == 4000
        assert link.counters()[0]["udp"]["fragments"] == 3
        assert first.counter("FragCreates") == 3


def test_tcp_is_cut_to_the_mtu_before_it_crosses() -> None:
    """No offload reaches the link: it would carry 64 KiB for one packet's worth of queue and loss."""
    data = payload(1 << 20)
    with hosts(Shape()) as (first, second, link):
        with second.inside():
            listener = socket.create_server((link.addresses[1], 0))
        with first.inside():
            a = socket.socket()
        with listener, a:
            a.connect(listener.getsockname())
            b, _ = listener.accept()
            with b:
                sending = threading.Thread(target=lambda: (a.sendall(data), a.shutdown(socket.SHUT_WR)))
                sending.start()
                received = bytearray()
                while part := b.recv(1 << 16):
                    received += part
                sending.join()
        assert received == data
        tcp = link.counters()[0]["tcp"]
        assert tcp["largest"] == 1500
        assert tcp["packets"] >= len(data) / 1460


def test_nothing_is_left_when_the_process_that_made_a_link_is_killed() -> None:
    code = (
        "import sys, time, json\n"
        "from benches.shaped import Link, Namespace, Shape\n"
        "with Namespace() as a, Namespace() as b, Link(a, b, Shape()) as link:\n"
        "    print(json.dumps(link._process.pid), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        link = json.loads(maker.stdout.readline())
        watched = os.pidfd_open(link)
        try:
            maker.send_signal(signal.SIGKILL)
            maker.wait()
            ended, _, _ = select.select([watched], [], [], 10)  # readable once the process has ended
            assert ended
        finally:
            os.close(watched)


@pytest.mark.parametrize("order", ["set 0 colour 1", "set 2 rate 1", "gibberish"])
def test_what_the_link_does_not_understand_is_an_error(order: str) -> None:
    from benches.shaped import ShapedError

    with hosts(Shape()) as (_, _, link), pytest.raises(ShapedError, match=order):
        link._order(order)
