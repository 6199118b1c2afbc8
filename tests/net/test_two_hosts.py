"""Two hosts on a link with an MTU of 1,500 bytes: no loopback, no jumbo packets."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hosts import Host, two_hosts
from linked import KEYS, Link
from support.loops import Run

from burstwire import Config, Stream, bind

pytestmark = pytest.mark.netns

DATA = random.Random(11).randbytes(32 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def wire() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as hosts:
        yield hosts


@asynccontextmanager
async def across(wire: tuple[Host, Host], config: Config, version: int = 4) -> AsyncIterator[Link]:
    """`here` on the first host, connected to `there` on the second."""
    first, second = wire
    at = first.address if version == 4 else first.address6, second.address if version == 4 else second.address6
    with first.inside():
        a = await bind(("0.0.0.0" if version == 4 else "::", 0), KEYS[0], config=config)
    with second.inside():
        b = await bind((at[1], 0), KEYS[1], config=config)
    async with a, b:
        here = await a.connect((at[1], b.local_address[1]), KEYS[1].public)
        there = await anext(b.incoming())
        assert there.peer_address[0] == at[0]
        yield Link(a, b, here, there)


async def send(stream: Stream) -> None:
    await stream.write(DATA)
    await stream.finish()


async def receive(stream: Stream) -> str:
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    while count := await stream.readinto(buffer):
        digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


@pytest.mark.parametrize("version", [4, 6])
def test_bulk_crosses_the_link_both_ways_and_no_packet_is_fragmented(
    run: Run, config: Config, wire: tuple[Host, Host], version: int
) -> None:
    async def main() -> None:
        fragments = [host.counter("FragCreates") for host in wire]
        async with across(wire, config, version) as link:
            here, there = await link.stream()
            results = await asyncio.gather(send(here), send(there), receive(here), receive(there))
            assert results[2:] == [DIGEST, DIGEST]
            headers = 28 if version == 4 else 48
            assert 1200 <= link.here.stats()["mtu"] <= 1500 - headers
        assert [host.counter("FragCreates") for host in wire] == fragments

    run(main)


def test_packets_of_the_links_own_size_pass(run: Run, config: Config, wire: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with across(wire, config.replace(max_datagram_size=1472)) as link:
            here, there = await link.stream()
            _, digest = await asyncio.gather(send(here), receive(there))
            assert digest == DIGEST
            assert link.here.stats()["mtu"] == 1472

    run(main)


def test_a_link_that_is_down_for_a_while_ends_no_connection(run: Run, config: Config, wire: tuple[Host, Host]) -> None:
    """The kernel says ENETUNREACH to everything meanwhile; nothing spins, and the transfer goes on by itself."""

    async def main() -> None:
        async with across(wire, config) as link:
            here, there = await link.stream()
            sending = asyncio.create_task(send(here))
            digest = hashlib.sha256()
            buffer = bytearray(1 << 20)
            received = 0
            while received < len(DATA) // 4:
                count = await there.readinto(buffer)
                digest.update(memoryview(buffer)[:count])
                received += count
            before = link.a.stats()["loop_flushes"]
            wire[0].link("down")
            try:
                await asyncio.sleep(1.0)
                assert link.a.stats()["loop_flushes"] - before < 500
                assert not link.here.closed
            finally:
                wire[0].link("up")
                wire[0].addresses("replace", f"{wire[0].address6}/64", "nodad")  # IPv6 addresses do not survive it
            while count := await there.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
            await sending
            assert digest.hexdigest() == DIGEST

    run(main)


def test_a_host_that_gets_another_address_goes_on_from_there(run: Run, config: Config, wire: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with across(wire, config) as link:
            here, there = await link.stream()
            sending = asyncio.create_task(send(here))
            buffer = bytearray(1 << 20)
            received = 0
            while received < len(DATA) // 4:
                received += await there.readinto(buffer)
            wire[0].addresses("delete", f"{wire[0].address}/24")
            wire[0].addresses("add", "10.99.0.77/24")
            try:
                while count := await there.readinto(buffer):
                    received += count
                await sending
                assert received == len(DATA)
                assert link.there.peer_address[0] == "10.99.0.77"
            finally:
                wire[0].addresses("delete", "10.99.0.77/24")
                wire[0].addresses("add", f"{wire[0].address}/24")

    run(main)
