"""Transfers over shaped links: loss, small MTUs, black holes. Real sockets, real kernels, a link of 1,500 bytes.

What is asserted are counters and bytes, never how long something took.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from benches.shaped import Link, Namespace, Shape
from support.loops import run_under
from support.shaped import Ends, connected, payload, receive, send, shaped

pytestmark = shaped

DATA = payload(2 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()

CLEAN = Shape(rate=50e6, delay=0.005, queue=64_000)

Test = Callable[[Ends, Link], Coroutine[Any, Any, None]]


@contextmanager
def hosts(shape: Shape, mtu: int = 1500) -> Iterator[tuple[Namespace, Namespace, Link]]:
    with Namespace() as client, Namespace() as server, Link(client, server, shape, mtu=mtu) as link:
        yield client, server, link


def over(shape: Shape, test: Test, *, mtu: int = 1500, version: int = 4) -> None:
    """Run a test on two connected endpoints. No packet of theirs may have been a fragment."""
    with hosts(shape, mtu) as (client, server, link):

        async def main() -> None:
            addresses = link.addresses if version == 4 else link.addresses6
            async with connected(client, server, addresses[1]) as ends:
                await test(ends, link)

        run_under("asyncio", main)
        for direction in link.counters():
            assert direction["udp"]["fragments"] == 0
            assert direction["udp"]["largest"] <= mtu
        for host in (client, server):
            assert host.counter("FragCreates") == 0
            assert host.counter6("Ip6FragCreates") == 0


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_bulk_arrives_whole_over_a_long_link(loss: float) -> None:
    async def test(ends: Ends, link: Link) -> None:
        _, digest = await asyncio.gather(send(ends.up, DATA), receive(ends.down))
        assert digest == DIGEST
        lost = link.counters()[0]["udp"]["lost"]
        assert bool(lost) == bool(loss)
        assert ends.here.stats()["packets_lost"] > 0 or not loss

    over(Shape(rate=20e6, delay=0.015, queue=75_000, loss=loss), test)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["of the interface", "of the path"])
def test_no_packet_is_a_fragment_where_the_mtu_is_1280(where: str, version: int) -> None:
    async def test(ends: Ends, link: Link) -> None:
        _, digest = await asyncio.gather(send(ends.up, DATA), receive(ends.down))
        assert digest == DIGEST
        headers = 28 if version == 4 else 48
        assert 1200 <= ends.here.stats()["mtu"] <= 1280 - headers

    if where == "of the interface":
        over(CLEAN, test, mtu=1280, version=version)
    else:
        over(Shape(rate=50e6, delay=0.005, queue=64_000, size=1280), test, version=version)


def test_a_black_hole_in_mid_transfer_costs_at_most_three_ptos_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Packets above 1,280 bytes vanish from some moment on, as after a change of route, and no ICMP message says so."""

    async def test(ends: Ends, link: Link) -> None:
        before = 0

        def shrink() -> None:
            nonlocal before
            assert ends.here.stats()["mtu"] > 1400
            before = int(ends.here.stats()["pto_expired"])
            link.change(size=1280)

        _, digest = await asyncio.gather(send(ends.up, DATA), receive(ends.down, len(DATA) // 2, shrink))
        assert digest == DIGEST
        expired = int(ends.here.stats()["pto_expired"]) - before
        with capsys.disabled():
            print(f" [{expired} PTOs]", end="")
        assert ends.here.stats()["mtu"] <= 1252
        assert link.counters()[0]["udp"]["oversize"] > 0
        assert expired <= 3

    over(CLEAN, test)


def test_random_loss_of_fifteen_percent_never_lowers_the_mtu() -> None:
    async def test(ends: Ends, link: Link) -> None:
        found = 0
        seen = set()

        def spoil() -> None:
            nonlocal found
            found = int(ends.here.stats()["mtu"])
            assert found > 1400
            link.change(loss=0.15)

        def watch() -> None:
            if found:
                seen.add(int(ends.here.stats()["mtu"]))

        _, digest = await asyncio.gather(send(ends.up, DATA), receive(ends.down, len(DATA) // 4, spoil, watch))
        assert digest == DIGEST
        assert link.counters()[0]["udp"]["lost"] > 100
        assert min(seen) >= found

    over(Shape(rate=50e6, delay=0.001, queue=64_000), test)
