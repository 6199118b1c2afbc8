"""Faults of the kernel: errors from any call, at any time; the transport keeps its promises and its books.

What is injected runs in processes of its own (fault_scenarios.py, behind the stand-ins of tests/support/faults): each
scenario compares hashes, and asserts that slots and counters balance.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.faults.shim import behind, build

from burstwire.core import capabilities

SCENARIOS = Path(__file__).parent / "fault_scenarios.py"

MOST_CPU = 0.10
"""Share of one processor that a node may take while the network refuses everything."""

pytestmark = [
    pytest.mark.skipif(not capabilities()["mmsg"] or not capabilities()["gso"], reason="needs Linux with GSO"),
    pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's allocator is in the way"),
]

Outcome = Callable[[str, str, str], None]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    shim = build("refusing.c", tmp_path_factory.mktemp("shim"))

    def run(*words: object) -> dict[str, Any]:
        return dict(json.loads(behind(shim, SCENARIOS, *map(str, words), timeout=120)))

    return run


@pytest.mark.repeat
def test_transfers_survive_errors_of_every_kind_at_random(
    refusing: Callable[..., dict[str, Any]], outcome: Outcome, full: bool, seed: int
) -> None:
    """Both ways at once, from the first INITIATE on: packets in trains, packets alone, and large packets."""
    rounds = 60 if full else 3
    refused, worst = 0, 0.0
    for number in range(rounds):
        figures = refusing("riot", seed * 1000 + number, 3_000_000 if full else 1_000_000, 50)
        refused += figures["refused"]
        worst = max(worst, figures["recovered"])
    assert refused > 0
    outcome(
        "faults",
        "errors of every kind at random (EAGAIN, ENOBUFS, ENOMEM, EMSGSIZE, EIO, EINVAL, ECONNREFUSED, ENETUNREACH, "
        "EHOSTUNREACH, EPERM, EINTR, batches cut short), 5 % of all messages, both ways",
        f"{rounds} seeds, {refused:,} refusals, every hash equal; 100 kB through {worst * 1e3:.0f} ms after the last",
    )


@pytest.mark.parametrize("name", ["ENETUNREACH", "ENOBUFS"])
def test_an_outage_ends_no_connection_and_takes_no_processor(
    refusing: Callable[..., dict[str, Any]], outcome: Outcome, full: bool, name: str
) -> None:
    seconds = 5 if full else 1
    figures = refusing("outage", name, seconds, 10)
    assert figures["survived"] == 10
    assert figures["cpu"] < MOST_CPU
    # Probes are at most so far apart as the outage was long, and twice that.
    assert figures["recovered"] < 3 * seconds + 10
    outcome(
        "demands",
        f"{seconds} s of {name} on 10 connections with data waiting",
        f"all survive, {figures['cpu'] * 100:.1f} % of a processor for both ends, "
        f"everything through {figures['recovered']:.2f} s after the end",
    )


@pytest.mark.parametrize(
    ("what", "name"), [("send", "EAGAIN"), ("send", "EINTR"), ("receive", "ENOMEM"), ("receive", "ECONNREFUSED")]
)
def test_an_error_without_end_from_a_ready_socket_takes_no_processor(
    refusing: Callable[..., dict[str, Any]], outcome: Outcome, full: bool, what: str, name: str
) -> None:
    seconds = 5 if full else 0.5
    figures = refusing("endless", what, name, seconds)
    # Two endpoints in one process, each readable all the time; half a second holds few timer ticks to average over.
    assert figures["cpu"] < (2 * MOST_CPU if full else 5 * MOST_CPU)
    outcome(
        "faults",
        f"{name} without end from a socket that is ready ({what})",
        f"{figures['cpu'] * 100:.1f} % of a processor, through {figures['recovered'] * 1e3:.0f} ms after the end",
    )


@pytest.mark.parametrize("name", ["EIO", "EINVAL"])
def test_segmentation_that_fails_in_mid_flight_costs_one_destination_only_and_is_tried_again(
    refusing: Callable[..., dict[str, Any]], outcome: Outcome, name: str
) -> None:
    figures = refusing("segmenting", name)
    bad, good = figures["segmented"]
    outcome(
        "demands",
        f"GSO refused in mid-flight ({name}) for one of two peers",
        f"every byte there, {figures['refusals']} refusal, segmented {bad:.0%} and {good:.0%} of the packets; "
        f"used again {figures['retried']:.2f} s after it works, at a retry of 0.3 s",
    )


def test_every_allocation_of_the_c_core_may_fail(tmp_path: Path, outcome: Outcome) -> None:
    figures = json.loads(behind(build("starving.c", tmp_path), SCENARIOS, "starving", timeout=120))
    assert figures["allocations"] >= 10
    assert set(figures["errors"]) <= {"none", "MemoryError", "AddressError", "EndpointClosed"}
    told = ", ".join(f"{count} {name}" for name, count in figures["errors"].items() if name != "none")
    outcome(
        "faults",
        "the n-th allocation in C fails (malloc, calloc, aligned_alloc, mmap), for each n of a whole life",
        f"{figures['allocations']} allocations: {told}, the rest did without; no descriptor left, and then it works",
    )
