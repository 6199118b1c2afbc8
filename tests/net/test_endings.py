"""Closing: seen at once, bounded in time, and nothing is left behind (`run` looks for tasks and descriptors)."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import warnings

import pytest
from linked import KEYS, LOCALHOST, deaf, endpoints, linked
from support.loops import Run, settled, turns

from burstwire import (
    Config,
    ConnectionLost,
    Endpoint,
    EndpointClosed,
    IdleTimeout,
    LocallyClosed,
    PeerClosed,
    TransportError,
    bind,
)


async def still_bound(endpoint: Endpoint) -> bool:
    """Whether another socket cannot have its port."""
    try:
        async with await bind(endpoint.local_address, KEYS[0]):
            return False
    except TransportError:
        return True


def test_leaving_the_endpoint_leaves_no_task_callback_or_descriptor(run: Run, config: Config) -> None:
    async def main() -> None:
        tasks = asyncio.all_tasks()
        async with linked(config) as link:
            await link.here.send(b"x")
            await link.there.recv()
            assert asyncio.all_tasks() == tasks, "the endpoint needs no task of its own"
            a, b = link.a, link.b
        assert not await still_bound(a)
        for endpoint in (a, b):
            driver = endpoint._driver
            assert driver._soon is driver._timer is driver._paused is None

    run(main)


def test_the_peer_sees_a_close_at_once_with_code_and_reason(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(idle_timeout=0, keep_alive=0)) as link:
            waiting = [asyncio.create_task(call) for call in (link.there.recv(), link.there.recv_datagram())]
            await turns()
            await link.here.close(77, "so long")
            ended = await link.there.wait_closed()
            assert isinstance(ended, PeerClosed)
            assert (ended.code, ended.reason, ended.by_application) == (77, "so long", True)
            for result in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(result, PeerClosed)
                assert result is not ended, "each gets its own copy"
            assert isinstance(await link.here.wait_closed(), LocallyClosed)
            for call in (link.here.send(b"x"), link.here.recv(), link.here.open_stream()):
                with pytest.raises(LocallyClosed):
                    await call
            await link.here.close()  # twice is once

    run(main)


def test_close_delivers_what_was_accepted(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            await here.write(bytes(1 << 20))
            await link.here.send(bytes(100_000))
            closing = asyncio.create_task(link.here.close())
            received = 0
            while received < 1 << 20:
                received += len(await there.read(1 << 20))
            assert len(await link.there.recv()) == 100_000
            await closing

    run(main)


def test_closing_an_endpoint_delivers_what_was_accepted_and_tells_every_peer(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 3) as (a, b, c):
            there = []
            for peer in (b, c):
                here = await a.connect(peer.local_address, peer.public_key)
                await here.send(bytes(50_000))
                there.append(await anext(peer.incoming()))
            await a.close(5, "shutting down")
            for connection in there:
                assert len(await connection.recv()) == 50_000
                with pytest.raises(PeerClosed) as caught:
                    await connection.recv()
                assert (caught.value.code, caught.value.reason) == (5, "shutting down")

    run(main)


@pytest.mark.parametrize("what", ["connection", "endpoint"])
def test_close_is_bounded_when_the_peer_has_vanished(run: Run, config: Config, what: str) -> None:
    """Nobody acknowledges anything any more; without a bound this would take the idle timeout, which is off here."""

    async def main() -> None:
        async with linked(config.replace(close_timeout=0.3, idle_timeout=0, keep_alive=0)) as link:
            loop = asyncio.get_running_loop()
            with deaf(link.b):
                await link.here.send(bytes(100_000))
                started = loop.time()
                if what == "connection":
                    await link.here.close()
                    assert link.here.closed
                else:
                    await link.a.close()
                    assert link.a.closed
                assert loop.time() - started < 30  # far from a timing test, and far from for ever

    run(main)


def test_close_does_not_wait_for_a_peer_that_does_not_read(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(close_timeout=0.2)) as link:
            here, _ = await link.stream()
            writing = asyncio.create_task(here.write(bytes(64 << 20)))
            await settled(lambda: bool(here._writers))
            await link.here.close()
            with pytest.raises(ConnectionLost):
                await writing

    run(main)


def test_a_peer_that_vanished_is_noticed(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config.replace(idle_timeout=0.3, keep_alive=0.1)) as link:
            with deaf(link.b), pytest.raises(IdleTimeout):
                await link.here.recv()

    run(main)


def test_a_peer_that_restarted_ends_the_old_connection(run: Run, config: Config) -> None:
    """Killed without a word and started again on its port with its key: it answers what it does not know with RESET."""

    async def main() -> None:
        async with endpoints(config, 1) as (a,):
            b = await bind(LOCALHOST, KEYS[1], config=config)
            here = await a.connect(b.local_address, b.public_key)
            address = b.local_address
            b._end(EndpointClosed("killed"))  # no CLOSE
            async with await bind(address, KEYS[1], config=config) as b:
                await here.send(bytes(100))
                with pytest.raises(ConnectionLost):
                    await here.recv()
                again = await a.connect(address, KEYS[1].public)
                await again.send(b"again")
                assert await (await anext(b.incoming())).recv() == b"again"

    run(main)


def test_incoming_ends_when_the_endpoint_closes(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):

            async def accept() -> int:
                return len([connection async for connection in b.incoming()])

            accepting = [asyncio.create_task(accept()) for _ in range(2)]
            await a.connect(b.local_address, b.public_key)
            await a.connect(b.local_address, b.public_key)
            await settled(lambda: b.stats()["connections_accepted"] == 2)
            await b.close()
            assert sum(await asyncio.gather(*accepting)) == 2
            assert [connection async for connection in b.incoming()] == []

    run(main)


def test_a_closed_endpoint_says_so_to_every_call(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):
            connecting = asyncio.create_task(a.connect(b.local_address, KEYS[2].public))
            await turns(5)
            await a.close()
            await a.close()
            with pytest.raises(EndpointClosed):
                await connecting
            with pytest.raises(EndpointClosed):
                await a.connect(b.local_address, b.public_key)
            with pytest.raises(EndpointClosed):
                async with a:
                    pass
            assert a.stats()["socket_datagrams_sent"] > 0
            assert "closed" in repr(a)

    run(main)


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_an_endpoint_that_was_never_closed_warns_and_closes_its_socket(kind: str) -> None:
    loop = pytest.importorskip("uvloop").new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
    endpoint = loop.run_until_complete(bind(LOCALHOST, KEYS[0]))
    descriptor = endpoint._driver.socket.fileno()
    os.fstat(descriptor)
    loop.close()
    del endpoint
    with pytest.warns(ResourceWarning, match="unclosed <burstwire.Endpoint 127.0.0.1"):
        gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_closed_endpoint_does_not_warn(run: Run) -> None:
    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with await bind(LOCALHOST, KEYS[0]) as endpoint:
                pass
            del endpoint
            gc.collect()

    run(main)


def test_the_child_of_a_fork_can_use_nothing_and_the_parent_goes_on(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            here, there = await link.stream()
            read_end, write_end = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # other threads may exist; this child only reports
                child = os.fork()
            if child == 0:
                report = []
                for call in (
                    lambda: link.here.send(b"from the child").send(None),
                    lambda: here.write(b"from the child").send(None),
                    lambda: link.a.connect(link.b.local_address, link.b.public_key).send(None),
                    lambda: link.here.send_datagram(b"from the child"),
                    lambda: link.a.close().send(None),
                ):
                    try:
                        call()
                        report.append("nothing")
                    except EndpointClosed as error:
                        report.append("closed" if "forked" in str(error) else str(error))
                    except BaseException as error:
                        report.append(repr(error))
                os.write(write_end, ",".join(report).encode())
                os._exit(0)
            os.close(write_end)
            _, status = os.waitpid(child, 0)
            with os.fdopen(read_end) as pipe:
                assert pipe.read() == ",".join(["closed"] * 5)
            assert status == 0
            await link.here.send(b"from the parent")
            assert await link.there.recv() == b"from the parent"
            await here.write(b"too")
            assert await there.read(10) == b"too"

    run(main)


def test_a_child_that_outlives_the_parents_endpoint_does_not_hold_its_port(run: Run) -> None:
    async def main() -> None:
        async with await bind(LOCALHOST, KEYS[0]) as endpoint:
            (from_child, to_parent), (from_parent, to_child) = os.pipe(), os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                os.close(to_child)
                os.write(to_parent, b"up")
                os.read(from_parent, 1)  # until the parent is done
                os._exit(0)
            assert os.read(from_child, 2) == b"up"
        held = await still_bound(endpoint)
        for descriptor in (from_child, to_parent, from_parent, to_child):
            os.close(descriptor)
        os.waitpid(child, 0)
        assert not held

    run(main)


def test_nothing_can_be_pickled_or_copied(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            stream = await link.here.open_stream()
            for thing, name in ((link.a, "Endpoint"), (link.here, "Connection"), (stream, "Stream")):
                with pytest.raises(TypeError, match=f"{name} cannot be pickled"):
                    pickle.dumps(thing)
                with pytest.raises(TypeError, match=f"{name} cannot be pickled"):
                    copy.copy(thing)

    run(main)


def test_use_from_another_thread_or_loop_is_refused(run: Run, config: Config) -> None:
    async def main() -> None:
        async with linked(config) as link:
            stream = await link.here.open_stream()
            refusals = []

            async def elsewhere() -> None:
                for call in (
                    lambda: link.here.send(b"x"),
                    lambda: link.here.recv(),
                    lambda: stream.write(b"x"),
                    lambda: stream.read(1),
                    lambda: link.a.connect(link.b.local_address, link.b.public_key),
                    lambda: link.a.close(),
                ):
                    try:
                        await call()
                    except RuntimeError as error:
                        refusals.append(str(error))

            def without_a_loop() -> None:
                try:
                    link.here.send_datagram(b"x")
                except RuntimeError as error:
                    refusals.append(str(error))

            for work in (lambda: asyncio.run(elsewhere()), without_a_loop):
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
            assert len(refusals) == 7
            assert all("event loop in which it was bound" in refusal for refusal in refusals)
            await link.here.send(b"unharmed")
            assert await link.there.recv() == b"unharmed"

    run(main)


def test_memory_of_ended_connections_is_given_back(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config) as (a, b):
            incoming = b.incoming()
            for _ in range(3):
                async with await a.connect(b.local_address, b.public_key) as here:
                    await here.send(b"x")
                    there = await anext(incoming)
                    assert await there.recv() == b"x"
                await there.wait_closed()
            await settled(lambda: not a._driver.protocol.connections and not b._driver.protocol.connections)
            assert a.stats()["ring_leased"] == b.stats()["ring_leased"] == 0

    run(main)
