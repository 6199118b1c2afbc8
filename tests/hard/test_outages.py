"""Outages of a real link in mid-transfer: survived if the idle timeout allows, and how soon data flow again.

Between network namespaces, through a shaped link; nobody is told that it is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

import pytest
from benches.shaped import Link, Namespace, Shape
from support.loops import run_under
from support.shaped import connected, payload, receive, send, shaped

from burstwire import Config
from burstwire.proto.recovery import LONGEST_WAIT

pytestmark = shaped

SHAPE = Shape(rate=30e6, delay=0.02, queue=150_000)
DATA = payload(3 << 20)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("sender", ["client", "server"])
def test_an_outage_in_mid_transfer_is_survived_if_the_idle_timeout_allows(
    sender: str, full: bool, outcome: Callable[..., None]
) -> None:
    seconds = 30.0 if full else 1.5
    config = Config(idle_timeout=2 * seconds + 5, keep_alive=seconds)
    healed = resumed = 0.0
    expired = 0

    with Namespace() as client, Namespace() as server, Link(client, server, SHAPE) as link:

        async def main() -> None:
            nonlocal expired
            async with connected(client, server, link.addresses[1], config) as ends:
                by, way, end = (
                    (ends.here, ends.up, ends.down) if sender == "client" else (ends.there, ends.down, ends.up)
                )
                before = 0

                def heal() -> None:
                    nonlocal healed
                    link.change(down=False)
                    healed = time.monotonic()

                def cut() -> None:
                    nonlocal before
                    before = int(by.stats()["pto_expired"])
                    link.change(down=True)
                    asyncio.get_running_loop().call_later(seconds, heal)

                def watch() -> None:
                    nonlocal resumed
                    if healed and not resumed:
                        resumed = time.monotonic()

                _, digest = await asyncio.gather(send(way, DATA), receive(end, len(DATA) // 3, cut, watch))
                assert digest == DIGEST
                expired = int(by.stats()["pto_expired"]) - before

        run_under("asyncio", main)
    assert healed, "the transfer was not under way any more when the link was cut"
    wait = resumed - healed
    outcome(
        "faults",
        f"a link that is gone for {seconds:g} s in the middle of a transfer, nobody is told, the {sender} sends",
        f"survived, every byte right; the next byte {wait:.2f} s after the link was back; {expired} probe timeouts",
    )
    # A probe is due after as long again at the latest, or after the longest wait between two; half as much for the way.
    assert wait <= min(seconds, LONGEST_WAIT) + 5
    assert expired <= 12
