"""What goes wrong around the endpoint: addresses, keys, networks, sockets, bugs."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest
from linked import KEYS, LOCALHOST, deaf, endpoints, linked
from support.loops import Run, settled, turns

from burstwire import (
    AddressError,
    Config,
    Connection,
    Endpoint,
    EndpointClosed,
    HandshakeRefused,
    HandshakeTimeout,
    KeyPair,
    PeerClosed,
    PublicKey,
    bind,
)

IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")


# --- addresses


def test_a_port_in_use_is_named(run: Run, config: Config) -> None:
    async def main() -> None:
        async with await bind(LOCALHOST, KEYS[0], config=config) as endpoint:
            host, port = endpoint.local_address
            with pytest.raises(AddressError) as caught:
                await bind(f"{host}:{port}", KEYS[1], config=config)
            assert f"{host}:{port}" in str(caught.value)
            assert caught.value.errno == errno.EADDRINUSE

    run(main)


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0", "localhost"])
def test_an_address_that_cannot_be_bound_is_named(run: Run, config: Config, address: str) -> None:
    async def main() -> None:
        with pytest.raises(AddressError) as caught:
            await bind(address, KEYS[0], config=config)
        assert address.rpartition(":")[0] in str(caught.value)

    run(main)


@pytest.mark.parametrize(
    ("address", "reached_at"),
    [
        ("localhost:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1"),
        (("127.0.0.1", 0), "127.0.0.1"),
        pytest.param("[::1]:0", "::1", marks=pytest.mark.skipif(not IPV6, reason="no IPv6 here")),
        pytest.param(":0", "127.0.0.1", marks=pytest.mark.skipif(not IPV6, reason="no IPv6 here")),
        pytest.param("[::]:0", "::1", marks=pytest.mark.skipif(not IPV6, reason="no IPv6 here")),
    ],
)
def test_every_way_to_write_the_address_works(
    run: Run, config: Config, address: str | tuple[str, int], reached_at: str
) -> None:
    async def main() -> None:
        host = "[::]:0" if IPV6 else "0.0.0.0:0"
        async with await bind(address, KEYS[1], config=config) as b, await bind(host, KEYS[0], config=config) as a:
            here = await a.connect((reached_at, b.local_address[1]), KEYS[1].public)
            there = await anext(b.incoming())
            await here.send(b"x")
            assert await there.recv() == b"x"
            assert here.peer_address == (reached_at, b.local_address[1])
            assert here.peer_key == KEYS[1].public
            assert there.peer_key == KEYS[0].public
            assert there.peer_address[1] == a.local_address[1]

    run(main)


@pytest.mark.skipif(not IPV6, reason="no IPv6 here")
def test_a_family_that_the_socket_does_not_speak_is_refused_in_words(run: Run, config: Config) -> None:
    async def main() -> None:
        for address, target, word in ((LOCALHOST, "[::1]:9", "IPv6"), ("[::1]:0", "127.0.0.1:9", "IPv4")):
            async with await bind(address, KEYS[0], config=config) as endpoint:
                with pytest.raises(AddressError, match=f"has only {word} addresses"):
                    await endpoint.connect(target, KEYS[1].public)

    run(main)


def test_a_name_with_several_addresses_is_tried_until_one_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address is silent; the second answers, long before the first is given up."""

    async def main() -> None:
        async with endpoints(Config()) as (a, b):
            silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            silent.bind(("127.0.0.2", b.local_address[1]))

            async def both(host: str, port: int) -> list[Any]:
                return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (at, port)) for at in ("127.0.0.2", "127.0.0.1")]

            with silent, monkeypatch.context() as patch:
                patch.setattr("burstwire.aio.address.lookup", both)
                here = await a.connect(("two.example", b.local_address[1]), b.public_key, timeout=30.0)
                assert here.peer_address[0] == "127.0.0.1"
                assert a.stats()["attempts"] == 0, "the other attempt was given up"

    run(main)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_cannot_be_dialled_is_refused(run: Run, config: Config, port: int) -> None:
    async def main() -> None:
        async with endpoints(config, 1) as (a,):
            with pytest.raises(AddressError):
                await a.connect(("127.0.0.1", port), KEYS[1].public)

    run(main)


# --- keys


def test_a_wrong_key_is_a_timeout_that_names_the_peer(run: Run, config: Config) -> None:
    """Whoever does not hold the private key cannot even answer."""

    async def main() -> None:
        async with endpoints(config) as (a, b):
            host, port = b.local_address
            with pytest.raises(HandshakeTimeout) as caught:
                await a.connect((host, port), KeyPair.generate().public, timeout=0.5)
            assert f"{host}:{port}" in str(caught.value)
            await a.connect((host, port), b.public_key)

    run(main)


def test_a_key_that_is_none_is_a_type_error(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 1) as (a,):
            with pytest.raises(TypeError, match="KeyPair"):
                await a.connect(a.local_address, KEYS[1])  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="PublicKey"):
                await bind(LOCALHOST, KEYS[1].public, config=config)  # type: ignore[arg-type]

    run(main)


def test_a_peer_that_is_not_authorised_is_told_so(run: Run, config: Config) -> None:
    async def main() -> None:
        asked: list[tuple[PublicKey, tuple[str, int]]] = []

        def authorize(peer: PublicKey, address: tuple[str, int]) -> bool:
            asked.append((peer, address))
            return peer == KEYS[0].public

        async with (
            await bind(LOCALHOST, KEYS[1], config=config.replace(authorize=authorize)) as b,
            await bind(LOCALHOST, KEYS[0], config=config) as a,
            await bind(LOCALHOST, KEYS[2], config=config) as c,
        ):
            await a.connect(b.local_address, b.public_key)
            with pytest.raises(HandshakeRefused) as caught:
                await c.connect(b.local_address, b.public_key)
            assert str(b.local_address[1]) in str(caught.value)
            assert asked == [(KEYS[0].public, a.local_address), (KEYS[2].public, c.local_address)]

    run(main)


def test_an_authorize_that_raises_lets_nobody_in_and_the_endpoint_lives(run: Run, config: Config) -> None:
    async def main() -> None:
        def authorize(peer: PublicKey, address: tuple[str, int]) -> bool:
            raise KeyError("a bug of the application")

        async with (
            await bind(LOCALHOST, KEYS[1], config=config.replace(authorize=authorize)) as b,
            await bind(LOCALHOST, KEYS[0], config=config) as a,
        ):
            for _ in range(2):
                with pytest.raises(HandshakeRefused):
                    await a.connect(b.local_address, b.public_key)

    run(main)


def test_a_full_backlog_refuses_and_accepts_again_when_there_is_room(run: Run, config: Config) -> None:
    async def main() -> None:
        async with (
            await bind(LOCALHOST, KEYS[1], config=config.replace(accept_backlog=2)) as b,
            await bind(LOCALHOST, KEYS[0], config=config) as a,
        ):
            for _ in range(2):
                await a.connect(b.local_address, b.public_key)
            await settled(lambda: len(b._backlog) == 2)
            with pytest.raises(HandshakeRefused):
                await a.connect(b.local_address, b.public_key)
            await anext(b.incoming())
            await a.connect(b.local_address, b.public_key)

    run(main)


def test_a_burst_beyond_the_backlog_is_cut_off_not_kept(run: Run, config: Config) -> None:
    """Handshakes that were under way when the queue filled: they are told at once that nobody takes them."""

    async def main() -> None:
        async with (
            await bind(LOCALHOST, KEYS[1], config=config.replace(accept_backlog=2)) as b,
            await bind(LOCALHOST, KEYS[0], config=config) as a,
        ):
            results = await asyncio.gather(
                *(a.connect(b.local_address, b.public_key) for _ in range(8)), return_exceptions=True
            )
            made = [result for result in results if isinstance(result, Connection)]
            assert all(isinstance(result, Connection | HandshakeRefused) for result in results)
            await settled(lambda: sum(not connection.closed for connection in made) == 2)
            for connection in made:
                if connection.closed:
                    assert isinstance(await connection.wait_closed(), PeerClosed)
            assert len(b._backlog) == 2

    run(main)


# --- the network


def test_an_unreachable_peer_is_a_timeout_and_nothing_spins(run: Run, config: Config) -> None:
    """A closed port on this host answers with ICMP; the attempt goes on, for a node may start late."""

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
            reserved.bind(("127.0.0.1", 0))
            nobody = reserved.getsockname()
        async with endpoints(config, 1) as (a,):
            before = a.stats()
            with pytest.raises(HandshakeTimeout, match=f"127.0.0.1:{nobody[1]}"):
                await a.connect(nobody, KEYS[1].public, timeout=0.7)
            after = a.stats()
            assert after["loop_flushes"] - before["loop_flushes"] < 50
            assert after["loop_wakeups"] - before["loop_wakeups"] < 50

    run(main)


def test_a_peer_that_comes_up_late_is_still_met(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 1) as (a,):
            async with await bind(LOCALHOST, KEYS[1], config=config) as b:
                address = b.local_address
            connecting = asyncio.create_task(a.connect(address, KEYS[1].public, timeout=30.0))
            await settled(lambda: a.stats()["initiates_sent"] > 0)
            async with await bind(address, KEYS[1], config=config):
                await connecting

    run(main)


class Refusing:
    """In place of the socket: every train is refused with an error, until it is told to stop."""

    def __init__(self, endpoint: Endpoint, error: int) -> None:
        self.driver = endpoint._driver
        self.real = endpoint._driver.socket
        self.error = error
        self.refused = 0
        self.driver.socket = self  # type: ignore[assignment]

    def send(self, table: Any, first: int = 0) -> int:
        for row in range(first, table.count):
            table.settle(row, 0, -self.error)
            self.refused += 1
        return table.count - first

    def stop(self) -> None:
        self.driver.socket = self.real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("error", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EPERM])
def test_a_network_that_refuses_everything_for_a_while_ends_nothing_and_nothing_spins(
    run: Run, config: Config, error: int
) -> None:
    async def main() -> None:
        async with linked(config) as link:
            refusing = Refusing(link.a, error)
            for number in range(3):
                await link.here.send(b"%d" % number)
            await settled(lambda: refusing.refused >= 6)  # probe after probe, further and further apart
            assert not link.here.closed
            assert refusing.driver.flushes < 200
            refusing.stop()
            assert [await link.there.recv() for _ in range(3)] == [b"0", b"1", b"2"]

    run(main)


# --- the socket, and bugs


@pytest.mark.parametrize("how", ["closed", "replaced"])
def test_a_dead_socket_is_told_to_everybody_who_waits(run: Run, config: Config, how: str) -> None:
    """The kernel reports nothing about a descriptor that somebody closed: it is noticed all the same."""

    async def main() -> None:
        async with endpoints(config) as (a, b):
            here = await a.connect(b.local_address, b.public_key)
            there = await anext(b.incoming())
            stream = await there.open_stream()
            waiting = [
                asyncio.create_task(call)
                for call in (there.recv(), stream.read(1), there.open_stream(), anext(b.incoming()))  # type: ignore[arg-type]
            ]
            opened = await waiting.pop(2)
            connecting = asyncio.create_task(b.connect(a.local_address, KEYS[2].public, timeout=60.0))
            await turns()
            descriptor = b._driver.socket.fileno()
            other = os.open(os.devnull, os.O_RDONLY)
            if how == "closed":
                os.close(descriptor)
            else:
                os.dup2(other, descriptor)
            results = await asyncio.gather(*waiting, connecting, return_exceptions=True)
            assert [type(result) for result in results] == [EndpointClosed] * 4
            assert all(isinstance(result.__cause__, OSError) for result in results)
            for call in (there.send(b"x"), opened.write(b"x"), b.connect(a.local_address, a.public_key)):  # type: ignore[attr-defined]
                with pytest.raises(EndpointClosed):
                    await call
            with pytest.raises(EndpointClosed):
                await anext(b.incoming())
            await b.close()
            os.close(other)
            del here

    run(main)


def test_a_bug_in_the_transport_is_reported_once_and_ends_the_endpoint(run: Run, config: Config) -> None:
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with linked(config.replace(close_timeout=0.1)) as link:
            loop.set_exception_handler(lambda _loop, context: reported.append(context))
            waiting = asyncio.create_task(link.there.recv())
            await turns()

            def broken(*_: object) -> None:
                raise ZeroDivisionError("a bug")

            link.b._driver.protocol.receive = broken  # type: ignore[method-assign]
            await link.here.send(b"x")
            with pytest.raises(EndpointClosed, match="ZeroDivisionError") as caught:
                await waiting
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            assert link.b.closed
            await turns(50)
        assert [context["exception"] for context in reported] == [caught.value.__cause__]

    run(main)


def test_other_endpoints_of_the_loop_survive_the_death_of_one(run: Run, config: Config) -> None:
    async def main() -> None:
        async with endpoints(config, 3) as (a, b, c):
            here = await a.connect(b.local_address, b.public_key)
            there = await anext(b.incoming())
            with deaf(c):
                c._end(EndpointClosed("gone"), failed=True)
            await here.send(b"still here")
            assert await there.recv() == b"still here"

    run(main)
