"""Statement 11, clause by clause, with figures: the size of packets.

That the kernel is told never to fragment is tests/proto/test_mtu.py.
"""

from __future__ import annotations

import hashlib
import os
import sys
from asyncio import gather
from collections.abc import Callable
from pathlib import Path
from socket import AF_PACKET, SOCK_DGRAM, htons, socket
from struct import unpack_from

import pytest
from support.loops import run_under
from support.sized import transfer, wide

sys.path.insert(0, str(Path(__file__).parent.parent / "net"))  # its helpers are made for this

from hosts import Host, two_hosts
from linked import KEYS

import burstwire as bw
from burstwire.sim import Link, Simulation

Outcome = Callable[[str, str, str], None]

ETH_P_ALL = 3
DF = 0x4000
FRAGMENT = 0x3FFF
"""More fragments, and the offset."""


def test_packets_begin_with_1200_bytes_and_grow_by_probes(seed: int, outcome: Outcome) -> None:
    with Simulation(seed, Link(delay=0.02, mtu=1472)) as sim:
        seen: list[int] = []
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}") for n in (1, 2)))
        sim.network.tap = lambda now, source, to, sent: (
            seen.extend(map(len, sent)) if source == left.host.address else 0
        )
        sizes = [left.connection.mtu]
        flow = left.open().send(3_000_000)

        def done() -> bool:
            if left.connection.mtu != sizes[-1]:
                assert max(seen[:-1], default=0) >= left.connection.mtu, "no larger size without a probe that arrived"
                sizes.append(left.connection.mtu)
            return flow.stream is not None and flow.stream.id in right.flows and right.flow(flow).at_end

        sim.run(done)
        first = next(n for n, size in enumerate(seen) if size > 1200)
        outcome(
            "demands",
            "11: from 1,200 bytes upwards",
            f"{first:,} datagrams of at most 1,200 bytes, then a probe of {seen[first]:,}; packets had "
            + ", ".join(f"{size:,}" for size in sizes),
        )
        assert sizes[0] == 1200
        assert sizes == sorted(sizes)
        assert sizes[-1] == 1472
        assert sum(size > 1472 for size in seen) < 20, "only probes are larger than what arrives"


def fragments(host: Host) -> int:
    """Everything that this host's IP layers count of fragments: made, failed, and put together."""
    counted = 0
    with host.inside():
        lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
        counted += sum(int(line.split()[1]) for line in lines if line.startswith(("Ip6Frag", "Ip6Reasm")))
    names = ("FragOKs", "FragFails", "FragCreates", "ReasmReqds", "ReasmOKs", "ReasmFails")
    return counted + sum(host.counter(name) for name in names)


@pytest.mark.netns
@pytest.mark.parametrize("version", [4, 6])
def test_a_link_with_an_mtu_of_1280_sees_no_fragment(version: int, full: bool, outcome: Outcome) -> None:
    data = os.urandom((32 if full else 4) << 20)
    seen = [0, 0]
    sizes: list[int] = []

    async def main() -> None:
        with two_hosts() as (one, other):
            for host in (one, other):
                host.link("mtu", "1280")
            at = other.address if version == 4 else other.address6
            with other.inside():
                b = await bw.bind((at, 0), KEYS[1])
                tap = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL))
            with one.inside():
                a = await bw.bind(("0.0.0.0" if version == 4 else "::", 0), KEYS[0])
            with tap:
                tap.setblocking(False)
                tap.bind(("wire", 0))
                async with a, b:
                    here = await a.connect((at, b.local_address[1]), KEYS[1].public)
                    there = await anext(b.incoming())
                    stream = await here.open_stream()

                    async def write() -> None:
                        await stream.write(data)
                        await stream.finish()

                    async def read() -> bytes:
                        got = hashlib.sha256()
                        incoming = await anext(there.incoming_streams())
                        while piece := await incoming.read(1 << 18):
                            got.update(piece)
                            look(tap, seen)
                            sizes.append(int(here.stats()["mtu"]))
                        return got.digest()

                    _, digest = await gather(write(), read())
                    assert digest == hashlib.sha256(data).digest()
                    packets = here.stats()["packets_sent"]
            counted = fragments(one) + fragments(other)
            assert min(sizes) >= 1200
            assert max(sizes) <= 1280 - (28 if version == 4 else 48)
            assert seen[0] > 20, "nothing was looked at"
            assert seen[1] == 0
            outcome(
                "demands",
                f"11: no IP fragments at an MTU of 1,280, IPv{version}",
                f"{len(data) >> 20} MiB in {packets:,} packets of {max(sizes)} bytes: {counted} fragments "
                f"made, failed or joined; of {seen[0]} headers looked at {seen[1]} without DF or of a fragment",
            )
            assert counted == 0

    run_under("asyncio", main)


def look(tap: socket, seen: list[int]) -> None:
    """Counts the IP packets that passed, and those that are fragments or may become some."""
    while True:
        try:
            packet = tap.recv(64)
        except BlockingIOError:
            return
        if packet[0] >> 4 == 4:
            (flags,) = unpack_from("!H", packet, 6)
            seen[0] += 1
            seen[1] += not flags & DF or bool(flags & FRAGMENT)
        elif packet[0] >> 4 == 6:
            seen[0] += 1
            seen[1] += packet[6] == 44  # the fragment header; routers make none


@pytest.mark.parametrize("mtu", [8972, 1472])
def test_losses_by_chance_never_lower_the_packet_size(mtu: int, seed: int, full: bool, outcome: Outcome) -> None:
    amount = 100_000_000 if full else 10_000_000
    with Simulation(seed, Link(delay=0.01, mtu=mtu)) as sim:
        left, right = wide(sim, mtu)
        sim.network.set_link(Link(delay=0.01, mtu=mtu, loss=0.15))
        before = left.connection.recovery.packets_lost
        least = transfer(sim, left, right, amount)
        lost = left.connection.recovery.packets_lost - before
    outcome(
        "demands",
        f"11: 15 % loss by chance, packets of {mtu:,} bytes",
        f"{amount / 1e6:.0f} MB, {lost:,} packets lost, never below {least:,} bytes",
    )
    assert least == mtu
    assert lost > 0.1 * amount / mtu


@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize(("before", "after"), [(8972, 1472), (1472, 1200)])
def test_a_black_hole_is_left_within_three_ptos(
    before: int, after: int, loss: float, seed: int, full: bool, outcome: Outcome
) -> None:
    waits = []
    for run in range(seed, seed + ((50 if loss else 10) if full else 2)):
        with Simulation(run, Link(delay=0.02, mtu=before, rate=3e6)) as sim:
            left, right = wide(sim, before)
            flow = left.open().send(3_000_000)
            sim.pass_time(0.4)
            assert not right.flow(flow).at_end
            recovery = left.connection.recovery
            pto, rtt = recovery.pto(), recovery.rtt.smoothed
            sim.network.set_link(Link(delay=0.02, mtu=after, rate=3e6, loss=loss), source=left.host.address)
            waited = sim.run(lambda left=left: left.connection.mtu == 1200)
            # What was under way at that moment still arrives and is acknowledged: a round trip.
            waits.append((waited - rtt) / pto)
            sim.run(lambda right=right, flow=flow: right.flow(flow).at_end)
    waits.sort()
    beyond = sum(wait > 3 for wait in waits)
    outcome(
        "demands",
        f"11: a black hole for more than {after:,} bytes, {loss:.0%} loss",
        f"left {waits[len(waits) // 2]:.1f} PTO after the last acknowledgement in the median, {waits[-1]:.1f} at most; "
        f"{beyond} of {len(waits)} beyond 3",
    )
    assert waits[-1] <= (7 if loss else 3)
