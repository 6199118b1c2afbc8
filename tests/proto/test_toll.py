"""The node's time among peers of whom some send packets that cost far more than their bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pair import Pair

from burstwire.errors import RemoteProtocolError
from burstwire.identity import KeyPair
from burstwire.proto.inbound import MOST_WORK, VIOLATION
from burstwire.proto.message_calls import TINY
from burstwire.proto.toll import (
    BURST,
    BYTES_A_UNIT,
    CHARGED_FROM,
    MAX_ACCOUNTS,
    MESSAGE,
    MOST_A_UNIT,
    MOST_DEBT,
    STREAM,
    Account,
    Toll,
)
from burstwire.wire import frames as f
from burstwire.wire.header import DATA_OVERHEAD, RUN_OVERHEAD

KEYS = [KeyPair.generate().public for _ in range(3)]
STEP = 0.002
"""Seconds of a wake-up that a flood fills."""


def connection(key: object) -> Any:
    """As much of a connection as the toll looks at."""
    inbound = SimpleNamespace(packets=0, size=0, opened_streams=0, tiny_messages=0, account=None)
    return SimpleNamespace(
        peer_key=key, local_cid=hash(key), inbound=inbound, outbound=SimpleNamespace(packets=0, size=0)
    )


class Node:
    """An endpoint's time: `floods` fill every wake-up as far as they are let, `bulk` sends much, `small` little."""

    def __init__(self, share: float = 0.25, floods: int = 1, bulk: bool = False, small: bool = False) -> None:
        self.floods = [connection(KEYS[n]) for n in range(floods)]
        self.bulk = connection("bulk") if bulk else None
        self.small = connection("small") if small else None
        self.everybody = [c for c in (*self.floods, self.bulk, self.small) if c]
        roster = type("Roster", (), {"lately": lambda _: self.everybody, "__len__": lambda _: 9})
        self.toll = Toll(share, roster())
        self.now = 100.0
        self.taken = [0.0] * floods

    def run(self, seconds: float) -> list[float]:
        """The part of the time that each flood takes, once it has had its burst."""
        for _first_and_then in range(2):
            self.taken = [0.0] * len(self.floods)
            until = self.now + seconds
            while self.now < until:
                self.wake_up()
        return [taken / seconds for taken in self.taken]

    def wake_up(self) -> None:
        units = int(STEP * 1e6)
        let = [c for c in self.floods if c.inbound.account is None or c.inbound.account.until <= self.now]
        for each in let:
            self.toll.worked(each, units)
        moved = 0
        if self.bulk is not None:
            moved = 100_000
            self.bulk.inbound.size += moved
            self.bulk.inbound.packets += 80
        if self.small is not None:
            self.small.inbound.size += 100
            self.small.inbound.packets += 1
            self.toll.worked(self.small, 5)
        spent = STEP * len(let) + moved / BYTES_A_UNIT * 1e-6 + 5e-6
        self.now += spent if let else 0.0005
        if self.toll.charges(moved):
            self.toll.spent(spent, self.now)
        for each in let:
            self.taken[self.floods.index(each)] += STEP


def test_a_flood_beside_bulk_data_has_the_share_that_was_configured():
    (part,) = Node(bulk=True).run(20)
    assert 0.2 < part <= 0.26


def test_a_flood_beside_small_traffic_leaves_that_share_free():
    (part,) = Node(small=True).run(20)
    assert 0.6 < part <= 0.76


def test_several_floods_have_no_more_together_than_one():
    parts = Node(floods=2, bulk=True).run(20)
    assert sum(parts) <= 0.27
    assert max(parts) < 1.2 * min(parts)


def test_whoever_is_alone_is_never_held_back():
    node = Node()
    (part,) = node.run(20)
    assert part == pytest.approx(1, abs=0.01)
    assert node.floods[0].inbound.account.debt == 0


def test_a_share_of_all_switches_it_off():
    (part,) = Node(share=1.0, bulk=True).run(20)
    assert part > 0.9


def test_little_work_in_a_wake_up_is_free_and_asks_for_no_clock():
    node = Node(bulk=True)
    for _ in range(1000):
        node.toll.worked(node.floods[0], CHARGED_FROM - 1)
        assert not node.toll.charges(1_000_000)
    assert len(node.toll) == 0


def test_a_flood_that_ends_is_forgiven_and_forgotten():
    node = Node(floods=2, bulk=True)
    node.run(2)
    first = node.floods[0].inbound.account
    assert first.debt <= MOST_DEBT
    assert first.until <= node.now + MOST_DEBT / 0.125
    node.floods.pop(0)
    node.taken.pop(0)
    node.run(20)
    assert first.until < node.now
    assert node.toll.account(KEYS[0]) is None
    assert node.toll.account(KEYS[1]) is not None


def test_a_single_long_wake_up_is_charged_by_its_work_and_not_for_all_that_happened_in_it():
    node = Node(bulk=True)
    node.toll.worked(node.floods[0], 100)
    assert node.toll.charges(0)
    node.toll.spent(5.0, node.now)
    assert node.floods[0].inbound.account.debt <= 100 * MOST_A_UNIT < BURST


@pytest.mark.parametrize(("counter", "each"), [("opened_streams", STREAM), ("tiny_messages", MESSAGE)])
def test_what_the_application_does_later_about_streams_and_tiny_messages_is_charged(counter: str, each: float):
    node = Node(bulk=True)
    node.wake_up()
    (flood,) = node.floods
    before = flood.inbound.account.debt
    setattr(flood.inbound, counter, round(0.02 / each))
    node.toll.worked(flood, CHARGED_FROM)
    assert node.toll.charges(0)
    node.toll.spent(0.0, node.now)
    assert flood.inbound.account.debt == pytest.approx(before + 0.02)
    assert getattr(flood.inbound, counter) == 0


def test_a_tiny_message_now_and_then_is_never_charged():
    node = Node(bulk=True)
    (flood,) = node.floods
    flood.inbound.tiny_messages = 40_000
    node.toll.worked(flood, CHARGED_FROM - 1)
    assert flood.inbound.tiny_messages == 0


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("size", "tiny"), [(0, True), (8, True), (100, False)])
def test_messages_are_tiny_if_there_is_more_than_one_in_so_many_bytes(size: int, tiny: bool, many: bool):
    pair = Pair()
    sender, receiver = pair.a.connection, pair.b.connection
    assert sender.send_messages([bytes(size)] * 500) == 500
    pair.settle()
    if many:
        assert len(receiver.next_messages(1000)) == 500
    else:
        for _ in range(500):
            assert receiver.next_message() == bytes(size)
    expected = 500 - 500 * (size + 1 + (size > 63)) // TINY
    assert receiver.inbound.tiny_messages == pytest.approx(max(0, expected), abs=20)
    assert (receiver.inbound.tiny_messages > 0) is tiny


def test_accounts_are_bounded_and_the_oldest_goes_first():
    node = Node(bulk=True)
    node.wake_up()
    for n in range(MAX_ACCOUNTS + 10):
        node.toll.worked(connection(n), 50_000)
        assert node.toll.charges(0)
        node.toll.spent(0.1, node.now)
    assert len(node.toll) == MAX_ACCOUNTS
    assert node.toll.account(0) is None  # type: ignore[arg-type]
    assert node.toll.account(MAX_ACCOUNTS) is not None  # type: ignore[arg-type]


def test_handshakes_beside_bulk_data_have_the_share_that_was_configured():
    node = Node(floods=0, bulk=True)
    node.toll = Toll(1.0, node.toll._roster, 0.25)
    busy = total = 0.0
    node.toll.spent(0.0, node.now)
    while total < 20:
        let = not node.toll.strain(node.now)
        node.bulk.inbound.size += 100_000  # type: ignore[union-attr]
        node.bulk.inbound.packets += 80  # type: ignore[union-attr]
        took = 0.003 * let + 0.0001
        if let:
            node.toll.handshaken(3000)
        node.now += took
        if node.toll.charges(100_000):
            node.toll.spent(took, node.now)
        busy += 0.003 * let
        total += took
    assert 0.2 < busy / total < 0.27


def test_handshakes_are_not_held_back_where_nobody_moves_bulk_data():
    node = Node(floods=0, small=True)
    node.toll = Toll(1.0, node.toll._roster, 0.25)
    for _ in range(1000):
        node.toll.handshaken(3000)
        node.now += 0.003
        assert node.toll.charges(0)
        node.toll.spent(0.003, node.now)
        assert node.toll.strain(node.now) == 0


def test_handshakes_far_beyond_their_share_strain_more_and_time_relieves():
    node = Node(floods=0, bulk=True)
    node.toll = Toll(1.0, node.toll._roster, 0.25)
    seen = {0}
    for _ in range(100):
        node.bulk.inbound.size += 1_000_000  # type: ignore[union-attr]
        node.bulk.inbound.packets += 800  # type: ignore[union-attr]
        node.toll.handshaken(3000)
        node.now += 0.003
        assert node.toll.charges(0)
        node.toll.spent(0.003, node.now)
        seen.add(node.toll.strain(node.now))
    assert seen == {0, 1, 2}
    assert node.toll.strain(node.now + 1.0) == 0


# --- what becomes of the packets ---------------------------------------------------------------------------------


def packets(pair: Pair, payloads: list[bytes]) -> list[bytes]:
    """Sealed packets of `a`."""
    outbox, connection = pair.a.outbox, pair.a.connection
    sealed = []
    for payload in payloads:
        number = connection.counters.reserve(connection.counter_index, 1)
        connection.next_counter = number + 1
        outbox.packet(connection.path, 0, connection.keys.sealer(0), connection.remote_cid, number, payload)
        (row,) = list(outbox.finish().records())
        sealed.append(bytes(outbox.ring.views[row[0]][row[1] : row[1] + row[2]]))
        outbox.clear()
    return sealed


def test_packets_of_a_peer_in_debt_are_dropped_as_if_lost_and_come_again():
    pair = Pair()
    here = pair.a.connection.open_stream()
    here.write(memoryview(bytes(100_000)))
    account = pair.b.connection.inbound.account = Account(pair.now)
    account.until = pair.now + 0.2
    pair.step()
    assert pair.b.connection.stats()["packets_limited"] > 0
    assert pair.b.connection.stats()["packets_received"] == 0
    pair.settle()
    (there,) = list(pair.b.connection.streams.open.values())[1:]
    assert there.read(200_000) == bytes(100_000)


def test_a_wake_up_reads_no_more_frames_of_a_connection_than_its_limit_and_notes_what_it_read():
    pair = Pair()
    n = 60
    pair.b.deliver(packets(pair, [f.encode_ping() * 1000] * n), pair.now)
    stats = pair.b.connection.stats()
    assert pair.b.connection.established
    assert stats["packets_limited"] + stats["packets_received"] == n
    assert MOST_WORK // 1004 < stats["packets_received"] <= MOST_WORK // 1004 + 17
    assert pair.b.connection.inbound.cost <= MOST_WORK + 17 * 1004
    pair.b.deliver(packets(pair, [f.encode_ping()]), pair.now)
    assert pair.b.connection.stats()["packets_received"] == stats["packets_received"] + 1, "the next one has its own"


def test_frames_that_hide_between_packets_of_bulk_data_end_the_connection_in_time():
    pair = Pair()
    size = 1200
    bulk = f.encode_run_stream(4, 0, bytes(size - RUN_OVERHEAD), False)
    hidden = (f.encode_ping() * f.MAX_FRAMES).ljust(size - DATA_OVERHEAD, b"\0")
    pair.b.deliver(packets(pair, [bulk] + [hidden] * 200), pair.now)
    assert isinstance(pair.b.connection.error, RemoteProtocolError)
    assert pair.b.connection.inbound.cost <= (VIOLATION + 1) * MOST_WORK


def test_acknowledgements_of_what_was_sent_cost_the_peer_nothing_and_others_do():
    pair = Pair()
    here = pair.a.connection.open_stream()
    here.write(memoryview(bytes(500_000)))
    for _ in range(30):
        pair.step()
        assert pair.a.connection.inbound.cost < CHARGED_FROM
    top = pair.a.connection.acks.received.largest
    pair.b.deliver(packets(pair, [f.encode_ack([(0, max(0, top))], 0)] * 20), pair.now)
    assert pair.b.connection.inbound.cost >= 15 * 5
