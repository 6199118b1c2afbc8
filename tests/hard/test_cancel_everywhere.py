"""Every call that waits, cancelled at every suspension of its task: it keeps its promise, and nothing is left over.

What each call promises is checked by its scenario (listed in `cancel_scenarios.py`). Whatever it was: the connection
still works or has ended as it was told to, every slot is back, no task, future or descriptor is left, nothing was
reported to the loop, and nothing in the loop refers to an endpoint that was closed, so no timer and no callback of it
is left either.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from cancel_ground import CONFIG, Limit, Scenario, still_works
from cancel_scenarios import ENDING, LINKED, UNLINKED
from linked import Link, endpoints, linked
from support.loops import run_under, uvloop
from support.stepping import HOWS, Cut, How, everywhere

from burstwire import Endpoint

FAMILIES = {**LINKED, **ENDING, **UNLINKED}
RUNS: list[tuple[str, Limit, tuple[How, ...]]] = [("asyncio", {}, HOWS)]
"""The loop, the timeout of the calls, and in which states they are cancelled."""
FURTHER: list[tuple[str, Limit, tuple[How, ...]]] = [("asyncio", {"timeout": 30.0}, HOWS)]
"""With `make test-hard` only."""
if uvloop is not None:
    RUNS += [("uvloop", {"timeout": 30.0}, ("woken",))]
    FURTHER += [("uvloop", {}, HOWS), ("uvloop", {"timeout": 30.0}, ("waiting", "again"))]


@contextmanager
def quick_collection() -> Iterator[None]:
    """What is there already is left alone by the garbage collector, which is called after each cancellation."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@asynccontextmanager
async def given(family: str) -> AsyncIterator[Any]:
    """Two endpoints, connected unless the family is about that; nothing of them is left afterwards."""
    made: list[Endpoint] = []
    it: Any
    if family in UNLINKED:
        async with endpoints(CONFIG) as it:
            made += it
            yield it
    else:
        async with linked(CONFIG) as it:
            made += [it.a, it.b]
            yield it
            if family in LINKED:
                await still_works(it.here, it.there)
                await no_one_waits(it)
    for endpoint in made:
        assert endpoint.closed
        assert endpoint.stats()["ring_leased"] == endpoint._driver._ring.leased == 0
        assert not endpoint._driver.protocol.connections
        assert not endpoint._attempts
    left = [weakref.ref(one) for one in made]
    made.clear()
    del it, endpoint
    gc.collect()
    assert [one() for one in left] == [None, None], "something in the loop refers to a closed endpoint"


async def no_one_waits(link: Link) -> None:
    """No line of the connection holds anybody."""
    for connection in (link.here, link.there):
        assert not connection._waiting, "a line has waiters, and no task waits"


async def all_of(family: str, limit: Limit, hows: tuple[How, ...]) -> list[str]:
    """Where the calls of a family were cancelled."""
    places = []
    for scenario in FAMILIES[family]:
        try:
            places += await everywhere(bound(scenario, limit), lambda: given(family), hows)
        except BaseException as error:
            error.add_note(f"in {scenario.__name__}, with {limit or 'no timeout'}")
            raise
    return places


def bound(scenario: Scenario, limit: Limit) -> Callable[[Any, Cut], Any]:
    async def limited(it: Any, cut: Cut) -> None:
        await scenario(it, cut, limit)

    return limited


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_cancelled_wherever_it_waits_keeps_its_promise_and_leaves_nothing_behind(
    family: str, full: bool, outcome: Callable[[str, str, str], None]
) -> None:
    places: list[str] = []
    with quick_collection():
        for loop, limit, hows in RUNS + FURTHER * full:
            places += run_under(loop, lambda limit=limit, hows=hows: all_of(family, limit, hows))
    if family == "streams":
        outcome(
            "demands",
            "12, cancelling at each await leaves the stream usable or reset",
            f"{len(places)} of {len(places)} cancellations do",
        )
    outcome(
        "faults",
        f"A task cancelled at each of its awaits: {family}",
        f"{len(FAMILIES[family])} scenarios, cancelled {len(places)} times at {len(set(places))} places, on asyncio"
        f"{' and uvloop' if uvloop is not None else ''}: every promise kept, nothing lost, nothing left over",
    )
