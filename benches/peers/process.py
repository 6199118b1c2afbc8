"""One side of a peer as a process: the command line, the event loop, the conversation over standard input and
output."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import selectors
import sys
from collections.abc import Callable
from typing import Any

from benches.peers.link import Peer
from benches.peers.meter import memory, usage
from benches.peers.tasks import TASKS, Server, open_idle, run_task

__all__ = ["CountingSelector", "main"]

DESCRIPTORS = 16384


class CountingSelector(selectors.DefaultSelector):
    """The loop's selector, with a count of its system calls."""

    selects = 0

    def select(self, timeout: float | None = None) -> Any:
        CountingSelector.selects += 1
        return super().select(timeout)


def main(make: type[Peer]) -> None:
    """What `python -m benches.peers.MODULE` does."""
    parser = argparse.ArgumentParser(prog=f"python -m benches.peers.{make.__module__.rpartition('.')[2]}")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--count-calls", action="store_true", help="count C calls and selects (slows the run)")
    make.arguments(parser)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser(
        "serve", help="answer tasks; one line of JSON says where; 'report' on standard input gives counters"
    )
    run = what.add_parser("run", help="do one task; prints one line of JSON")
    run.add_argument("task", choices=(*TASKS, "idle"))
    run.add_argument("--info", required=True, help="what the server printed")
    run.add_argument("--count", type=int, required=True, help="bytes, requests, messages or handshakes")
    run.add_argument("--hash-all", action="store_true", help="hash every byte of a bulk transfer")
    run.add_argument("--syscalls", action="store_true", help="count system calls with perf, on both sides")
    run.add_argument("--warm", type=int, default=0, help="bulk: report how memory grew after so many bytes")
    run.add_argument("--announce", action="store_true", help="print an empty line when the work begins")
    options = parser.parse_args()
    _allow_descriptors()
    peer = make(options)
    work = _serve(peer) if options.what == "serve" else _run(peer, options)
    with asyncio.Runner(loop_factory=_loop_factory(options)) as runner:
        runner.run(work)


def _allow_descriptors() -> None:
    """A thousand connections of TCP are more descriptors than many systems allow without being asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory(options: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop]:
    if options.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if options.count_calls:
        return lambda: asyncio.SelectorEventLoop(CountingSelector())
    return asyncio.new_event_loop


async def _serve(peer: Peer) -> None:
    server = Server(peer)
    info = await peer.serve(server)
    print(json.dumps(info), flush=True)
    done = asyncio.Event()

    def on_input() -> None:
        data = os.read(0, 4096)
        if not data:
            done.set()
        for line in data.decode().split():
            if line == "report":
                gc.collect()
                report = {
                    **peer.counters(), **usage(), **memory(),
                    "links": server.links, "finished": server.finished, "failures": server.failures,
                    "about": peer.about(),
                }  # fmt: skip
                print(json.dumps(report), flush=True)

    loop = asyncio.get_running_loop()
    loop.add_reader(0, on_input)
    await done.wait()
    loop.remove_reader(0)
    await peer.close()


async def _run(peer: Peer, options: argparse.Namespace) -> None:
    info = json.loads(options.info)
    if options.task == "idle":
        await _idle(peer, info, options.count)
        return
    result = await run_task(
        peer, info, options.task, options.count, hash_all=options.hash_all, syscalls=options.syscalls,
        warm=options.warm, **({"started": lambda: print(flush=True)} if options.announce else {}),
    )  # fmt: skip
    await peer.close()
    print(json.dumps(result), flush=True)


async def _idle(peer: Peer, info: dict[str, Any], count: int) -> None:
    """Open connections and keep them until the input ends."""
    gc.collect()
    before = memory()
    links = await open_idle(peer, info, count)
    gc.collect()
    print(json.dumps({"connections": len(links), "before": before, "after": memory()}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for link in links:
        await link.close()
    await peer.close()
