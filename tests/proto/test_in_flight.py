"""Bytes in flight return to zero once for each packet, in the unit in which they were charged, whatever happens.

Against `Recovery` alone, and through two connections, with every congestion controller.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pair import Pair, Side

from burstwire.config import CONGESTION_CONTROLLERS, Config
from burstwire.core.address import pack_address
from burstwire.errors import LocalProtocolError
from burstwire.proto import recovery as module
from burstwire.proto.recovery import Acked, Lost, Recovery
from burstwire.proto.sent import SentLog, SentRecord


class Ledger:
    """A controller that keeps books of what it is told; everything else is the real one's."""

    def __init__(self, books: Books, controller: Any) -> None:
        self._books = books
        self._controller = controller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)

    def on_sent(self, now: float, size: int, *rest: Any) -> None:
        assert size >= 0
        self._books.charged += size
        self._controller.on_sent(now, size, *rest)

    def on_ack(self, now: float, acked: int, in_flight: int, *rest: Any) -> None:
        assert 0 <= acked <= in_flight
        self._books.released += acked
        self._controller.on_ack(now, acked, in_flight, *rest)

    def on_loss(self, now: float, lost: int, *rest: Any) -> None:
        assert lost >= 0
        self._books.released += lost
        self._controller.on_loss(now, lost, *rest)


class Books:
    """What all controllers made in the meantime were told, together."""

    def __init__(self) -> None:
        self.charged = 0
        self.released = 0

    @property
    def outstanding(self) -> int:
        return self.charged - self.released


@contextmanager
def kept() -> Iterator[Books]:
    """Has every controller that a `Recovery` makes keep books. Controllers are not told of what left before a move and
    was lost, nor of what is under way on a path to another host: that is released here."""
    books = Books()
    make = module.make_controller
    leave, move = Recovery.new_path, Recovery.moved
    acknowledge, expire = Recovery.acknowledged, Recovery.on_timeout
    elsewhere: dict[Recovery, int] = {}  # how many packets, in send order, had left before the latest move

    def moved(recovery: Recovery) -> None:
        elsewhere[recovery] = recovery.log.sent
        move(recovery)

    def new_path(recovery: Recovery, now: float) -> None:
        books.released += recovery.log.in_flight
        leave(recovery, now)
        assert recovery.log.in_flight == 0

    def untold(recovery: Recovery, lost: Lost) -> None:
        before = elsewhere.get(recovery, 0)
        books.released += sum(
            record.size * mask.bit_count() for record, mask in lost if not record.is_probe and record.order < before
        )

    def acknowledged(recovery: Recovery, *args: Any) -> tuple[Acked, Lost]:
        acked, lost = acknowledge(recovery, *args)
        untold(recovery, lost)
        return acked, lost

    def on_timeout(recovery: Recovery, now: float) -> Lost:
        lost = expire(recovery, now)
        untold(recovery, lost)
        return lost

    with (
        mock.patch.object(module, "make_controller", lambda *args: Ledger(books, make(*args))),
        mock.patch.object(Recovery, "moved", moved),
        mock.patch.object(Recovery, "new_path", new_path),
        mock.patch.object(Recovery, "acknowledged", acknowledged),
        mock.patch.object(Recovery, "on_timeout", on_timeout),
    ):
        yield books


class Watch:
    """The life of every packet of a log: pending once, then settled for good."""

    def __init__(self, log: SentLog) -> None:
        self.log = log
        self.sizes: dict[int, int] = {}
        self.settled: set[int] = set()

    def check(self) -> None:
        """Looks at all records; what was pending and is not any more must never be pending again."""
        pending: dict[int, int] = {}
        for record in self.log.records:
            assert not record.pending & record.lost, "a packet is either pending or lost"
            for index in range(record.count):
                if record.pending >> index & 1:
                    pending[record.first + index] = record.size
        assert self.log.in_flight == sum(pending.values())
        for number, size in pending.items():
            assert number not in self.settled, f"packet {number} came back"
            known = self.sizes.get(number, size)
            assert size in (known, 0), f"packet {number} changed its size"  # 0: its path was left
            self.sizes[number] = size
        self.settled |= self.sizes.keys() - pending.keys()


# Recovery alone


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "send", "send", "ack", "ack", "ack", "time", "probe", "mtu", "path", "control", "skip"]
        ),
        st.integers(0, 1 << 30),
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_recovery_charges_and_releases_each_packet_once(name: str, steps: list[tuple[str, int]]) -> None:
    with kept() as books:
        recovery = Recovery(0.0, name, 1200, 0.005, 0, True, 0.03)
        watch = Watch(recovery.log)
        sent: list[int] = []
        now, number = 1.0, 0
        for what, value in steps:
            now += 0.001 + value % 7 / 1000
            match what:
                case "send":
                    count = 1 + value % 64
                    recovery.sent(SentRecord(number, count, recovery.log.sent, recovery.mtu - value % 3, now))
                    sent += range(number, number + count)
                    number += count
                case "probe":
                    record = SentRecord(number, 1, recovery.log.sent, 0, now)
                    record.is_probe = True
                    recovery.sent(record)
                    sent.append(number)
                    number += 1
                case "ack" if sent:
                    # any mix of numbers, those acknowledged before and those declared lost among them
                    some = random.Random(value)
                    named = sorted(some.sample(sent, min(len(sent), 1 + value % 40)))
                    recovery.acknowledged(ranges(named), 0.002, now)
                case "time":
                    deadline = recovery.deadline()
                    if deadline is not None:
                        now = max(now, deadline)
                        recovery.on_timeout(now)
                case "mtu":
                    recovery.set_mtu(1200 + value % 60_000)
                case "path":
                    recovery.new_path(now)
                case "control":
                    recovery.set_controller(CONGESTION_CONTROLLERS[value % len(CONGESTION_CONTROLLERS)], now)
                case "skip":
                    number += 1 + value % 3
            watch.check()
            assert books.outstanding == recovery.log.in_flight
        if sent:
            recovery.acknowledged(ranges(sent), 0.0, now + 0.01)
        watch.check()
        assert recovery.log.in_flight == books.outstanding == 0
        assert not recovery.log.records


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as an ACK frame has them: inclusive ranges, the highest first."""
    result: list[tuple[int, int]] = []
    for number in numbers:
        if result and result[-1][1] == number - 1:
            result[-1] = result[-1][0], number
        else:
            result.append((number, number))
    return result[::-1]


# through connections


class Network:
    """Loses, copies and holds datagrams back, for one direction."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.badness = 0.0
        self._held: list[bytes] = []

    def carry(self, datagrams: list[bytes]) -> list[bytes]:
        """What arrives in this step."""
        chance, bad = self._rng.random, self.badness
        arriving, self._held = (self._held, []) if chance() < 0.5 or not bad else ([], self._held)
        for datagram in datagrams:
            fate = chance()
            if fate < bad / 3:
                continue
            if fate < bad * 2 / 3:
                self._held.append(datagram)
                if chance() < 0.5:
                    continue
            arriving.append(datagram)
        if bad and chance() < 0.3:
            self._rng.shuffle(arriving)
        return arriving


class Play:
    """Two connections, what lies between them, and everything that may happen to them."""

    def __init__(self, config: Config, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pair = Pair(config, seed=seed)
        for side in self.sides:
            side.connection.confirmed = True  # so that the path MTU is searched
        self.watches = [Watch(side.connection.recovery.log) for side in self.sides]
        self.networks = [Network(self.rng), Network(self.rng)]
        self.paths = [side.connection.path for side in self.sides]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.pair.a, self.pair.b

    def check(self, books: Books) -> None:
        for watch in self.watches:
            watch.check()
        assert books.outstanding == sum(watch.log.in_flight for watch in self.watches)

    def step(self) -> int:
        """One trip each way; returns how many datagrams were sent."""
        count = 0
        pair = self.pair
        for index in (0, 1):
            datagrams = self.sides[index].datagrams(pair.now)
            count += len(datagrams)
            pair.now += pair.delay
            self.sides[1 - index].deliver(self.networks[index].carry(datagrams), pair.now, self.paths[1 - index])
        return count

    def happen(self, what: str, value: int) -> None:
        side = self.sides[value & 1]
        connection = side.connection
        match what:
            case "write":
                stream = connection.open_stream()
                if stream is not None:
                    stream.write(self.rng.randbytes(1 + value % 100_000))
                    if value & 2:
                        stream.finish()
            case "message" if connection.message_room():
                connection.send_message(bytes(value % 5000))
            case "datagram":
                connection.send_datagram(bytes(value % 1000))
            case "reset":
                for stream in list(connection.streams.open.values()):
                    if stream is not connection.streams.messages and self.rng.random() < 0.5:
                        stream.reset(7)
            case "stop":
                for stream in list(connection.streams.open.values()):
                    if stream is not connection.streams.messages and self.rng.random() < 0.5:
                        stream.stop(7)
            case "keys":
                with suppress(LocalProtocolError):
                    connection.update_keys()
            case "narrow":
                connection.too_large(False, self.pair.now)
            case "move":
                port = 1000 + value % 1000
                mine = pack_address("10.1.1.1", port)
                self.paths[1 - (value & 1)] = mine + self.paths[1 - (value & 1)][24:]
            case "control":
                name = CONGESTION_CONTROLLERS[value % len(CONGESTION_CONTROLLERS)]
                connection.set_congestion(name, self.pair.now)
            case "weather":
                self.networks[value & 1].badness = value % 7 / 10
            case "silence":
                with suppress(AssertionError):
                    self.pair.wait()

    def end(self, books: Books) -> None:
        """Fair weather, until all is acknowledged."""
        for network in self.networks:
            network.badness = 0.0
        for _ in range(2000):
            sent = self.step()
            self.check(books)
            if not sent:
                if not any(side.connection.recovery.log.in_flight for side in self.sides):
                    return
                self.pair.wait()
        raise AssertionError([side.connection.stats() for side in self.sides])


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "message", "datagram", "reset", "stop", "keys", "narrow", "move", "control", "weather",
             "weather", "silence"]
        ),
        st.integers(0, 1 << 20),
        st.integers(1, 4),
    ),
    min_size=5,
    max_size=30,
)  # fmt: skip


SHORT_LAST = [("write", 0, 1), ("write", 1201, 1), ("write", 577_157, 2), ("write", 0, 1), ("move", 0, 1)]
"""A train that begins with a path challenge, and whose 17th packet is shorter and the last."""


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
@settings(max_examples=60, deadline=None)
@given(events=EVENTS, seed=st.integers(0, 1 << 16))
@example(events=SHORT_LAST, seed=0)
def test_two_connections_charge_and_release_each_packet_once(
    name: str, events: list[tuple[str, int, int]], seed: int
) -> None:
    config = Config(congestion=name, fixed_rate=1e7, idle_timeout=0, keep_alive=0)
    with kept() as books:
        play = Play(config, seed)
        for what, value, steps in events:
            play.happen(what, value)
            play.check(books)
            for _ in range(steps):
                play.step()
                play.check(books)
        play.end(books)
        assert books.outstanding == 0
        for side in play.sides:
            assert side.connection.established
            side.connection.abort(play.pair.now)
            assert side.connection.recovery.log.in_flight == 0


@pytest.mark.parametrize("name", CONGESTION_CONTROLLERS)
def test_a_reset_stream_leaves_the_window_to_its_siblings(name: str) -> None:
    """What an abandoned stream had in flight is released by acknowledgement or loss like anything else."""
    pair = Pair(Config(congestion=name, fixed_rate=1e7, max_datagram_size=1200))
    connection = pair.a.connection
    first, second = connection.open_stream(), connection.open_stream()
    assert first is not None
    assert second is not None
    first.write(bytes(200_000))
    pair.step(a_to_b=lambda datagram: [])
    first.reset(1)
    second.write(bytes(200_000))  # nobody reads: within the first window
    second.finish()
    pair.settle()
    assert connection.recovery.log.in_flight == 0
    assert second.sending.all_acked
