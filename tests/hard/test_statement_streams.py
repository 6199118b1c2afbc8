"""Statements 2 and 3, clause by clause, with figures: streams are exact, and a stream that fails takes no other along.

That an interrupted file goes on where it stopped is tests/cli/test_cli_transfer.py; streams themselves cannot be
resumed: a new one begins at 0, and applications say in it from where they go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import cache

import pytest
from linked import linked
from sim.exact import STALL_RTOS, exact
from support.loops import LOOPS, run_under

from burstwire import Config, DeadlineExceeded
from burstwire.errors import StreamReset, StreamStopped
from burstwire.sim import Link, Simulation

Outcome = Callable[[str, str, str], None]


def test_streams_are_exact_on_bad_paths_and_flow_on_once_these_heal(full: bool, seed: int, outcome: Outcome) -> None:
    """Each run draws 1 byte to 8 MiB, 5 % each of loss, duplication and reordering, replays, and an outage or none."""
    first = 100_000 * seed
    runs = [exact(number) for number in range(first, first + (600 if full else 50))]
    wrong = [f"run {run.seed}: {run.error}" for run in runs if run.error]
    stalls = [run.stall for run in runs if run.stall >= 0]
    plain = [run.plain for run in runs if run.stall >= 0]
    outcome(
        "demands",
        "2: streams of 1 B to 8 MiB over 5 % each of loss, duplication and reordering, with replays",
        f"{len(runs) - len(wrong):,} of {len(runs):,} byte for byte, {sum(run.size for run in runs):,} bytes; "
        f"{sum(run.replayed for run in runs):,} datagrams replayed",
    )
    outcome(
        "demands",
        "2: the longest stall on a path that healed, in probe timeouts as far as the sender had backed off",
        f"{max(stalls):.2f} on {len(stalls):,} paths (at most {STALL_RTOS}); {max(plain):.1f} without back-off",
    )
    assert not wrong


# --- one of eight streams is given up ----------------------------------------------------------------------------

RATE = 2.5e6
RTT = 0.05
QUEUE = 0.05
"""Seconds that a full queue takes."""

SECONDS = 3


@cache
def beside(seed: int, who: str) -> tuple[float, float, float, float]:
    """Bytes a second of seven streams, after the eighth was given up by `who`, or not: "".

    Also when its sender stopped, when the other side had its error, and when nothing of it was in flight any more,
    in seconds from then on.
    """
    with Simulation(seed, Link(delay=RTT / 2, rate=RATE, queue=round(RATE * QUEUE))) as sim:
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}") for n in (1, 2)))
        flows = [left.open().send(1 << 30) for _ in range(8)]
        sim.run(lambda: len(right.flows) == 8)
        sim.pass_time(2)
        doomed, others = flows[3], flows[:3] + flows[4:]
        log = left.connection.recovery.log
        halves = [flow.stream.sending for flow in flows if flow.stream is not None]
        half = halves[3]

        def in_flight(*of: object) -> int:
            return sum(each.size * each.pending.bit_count() for each in log.records if each.half in of)

        before = sum(right.flow(flow).received for flow in others)
        start = sim.clock.now
        stopped = told = drained = 0.0
        if who:
            assert in_flight(half) > 0
            if who == "sender":
                doomed.reset(9)
            else:
                right.flow(doomed).stop(9)
            sim.run(lambda: half.reset_code is not None, RTT + QUEUE)
            stopped, sent = sim.clock.now - start, half.sent
            failed = right.flow(doomed) if who == "sender" else doomed
            sim.run(lambda: failed.read_error or failed.write_error, RTT + QUEUE)
            told = sim.clock.now - start
            error = failed.read_error if who == "sender" else failed.write_error
            assert isinstance(error, StreamReset if who == "sender" else StreamStopped)
            assert error.code == 9
            assert log.in_flight == in_flight(*halves, None)
            sim.run(lambda: not in_flight(half), 2 * (RTT + QUEUE))
            drained = sim.clock.now - start
            assert log.in_flight == in_flight(*halves[:3], *halves[4:], None)
            assert half.sent == sent, "nothing is sent after the reset"
        sim.pass_time(start + SECONDS - sim.clock.now)
        assert half.sent == sent if who else True
        rate = (sum(right.flow(flow).received for flow in others) - before) / SECONDS
        for flow in flows:
            flow.reset(0)
    return rate, stopped, told, drained


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_one_of_eight_streams_is_given_up_and_only_that_one(who: str, seed: int, outcome: Outcome) -> None:
    with_it, *_ = beside(seed, "")
    rate, stopped, told, drained = beside(seed, who)
    outcome(
        "demands",
        f"3: one of eight streams is given up by its {who}, {RTT * 1e3:.0f} ms and up to {QUEUE * 1e3:.0f} of queue",
        f"sender stops after {stopped * 1e3:.0f} ms, typed error after {told * 1e3:.0f}, nothing of it in flight after "
        f"{drained * 1e3:.0f}; the other seven {rate / 1e6:.2f} MB/s, {with_it / 1e6:.2f} beside it (at most 5 % less)",
    )
    assert stopped <= RTT
    assert told <= RTT + QUEUE
    assert drained <= RTT + QUEUE + Config().max_ack_delay
    assert rate >= 0.95 * with_it


GIVE_UP = 5.0
"""Seconds beyond a deadline that only a machine that stands still could need."""


@pytest.mark.parametrize("loop", LOOPS)
def test_no_read_outlives_its_deadline(loop: str, full: bool, seed: int, outcome: Outcome) -> None:
    generator = random.Random(seed)
    late: list[float] = []

    async def main() -> None:
        async with linked(Config()) as link:
            streams = [(await link.stream())[0] for _ in range(50)]

            async def read(number: int) -> None:
                clock = asyncio.get_running_loop().time
                deadline = generator.uniform(0.005, 0.2)
                began = clock()
                with pytest.raises(DeadlineExceeded):
                    await streams[number].read(1, timeout=deadline)
                late.append(clock() - began - deadline)

            for _ in range(20 if full else 2):
                await asyncio.gather(*(read(number) for number in range(len(streams))))

    run_under(loop, main)
    outcome(
        "demands",
        f"3: reads of a silent peer with deadlines of 5 to 200 ms, 50 at a time ({loop})",
        f"{len(late)} reads, the latest ended {max(late) * 1e3:.1f} ms after its deadline",
    )
    assert max(late) < GIVE_UP
