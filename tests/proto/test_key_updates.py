"""A key is replaced by packets, bytes and time; not before the peer has it, nor so fast that late packets suffer."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from pair import Pair

from burstwire.config import Config
from burstwire.errors import ConfigError
from burstwire.proto.events import ConnectionEnded, StreamOpened
from burstwire.proto.key_updates import KEPT_PTOS
from burstwire.wire import frames as f

GENERATION = 1 << 22
NEVER = {"key_update_bytes": 0, "key_update_interval": 0.0}


def ping(pair: Pair, times: int = 1) -> None:
    """Has side a send so many packets, each acknowledged, a tenth of a second apart."""
    for _ in range(times):
        pair.a.connection.ask((f.PING,))
        pair.settle()
        pair.now += 0.1


def generation(pair: Pair) -> int:
    return pair.a.connection.next_counter // GENERATION


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("key_update_packets", 0, "key_update_packets is 0; it must be from 1 to 4,194,304"),
        ("key_update_packets", GENERATION + 1, "from 1 to 4,194,304"),
        ("key_update_bytes", -1, "key_update_bytes is -1; it must be from 0"),
        ("key_update_interval", -0.1, "key_update_interval is -0.1; it must be from 0"),
        ("key_update_interval", float("nan"), "key_update_interval is nan"),
        ("key_update_packets", True, "key_update_packets is True"),
    ],
)
def test_a_limit_out_of_range_is_refused(setting: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(**{setting: value})  # type: ignore[arg-type]


def test_a_key_is_replaced_after_so_many_packets() -> None:
    pair = Pair(Config(key_update_packets=10, **NEVER))
    ping(pair, 10)
    assert generation(pair) == 0
    ping(pair)
    assert generation(pair) == 1
    ping(pair, 30)
    assert generation(pair) == 4
    assert pair.a.connection.stats()["key_updates"] == pair.b.connection.stats()["key_updates_peer"] == 4
    # What the peer sent were ten acknowledgements in between: its limits are for what it sends itself.
    assert pair.b.connection.stats()["key_updates"] == pair.a.connection.stats()["key_updates_peer"]


def test_a_key_is_replaced_after_so_many_bytes() -> None:
    pair = Pair(Config(key_update_bytes=20_000, key_update_interval=0.0))
    assert pair.a.connection.open_stream().write(bytes(19_000)) == 19_000
    pair.settle()
    assert generation(pair) == 0
    assert pair.a.connection.open_stream().write(bytes(2000)) == 2000
    pair.settle()
    ping(pair)
    assert generation(pair) == 1


def test_a_key_is_replaced_after_so_many_seconds_if_anything_is_sent() -> None:
    pair = Pair(Config(key_update_bytes=0, key_update_interval=5.0, keep_alive=0))
    ping(pair, 40)
    assert pair.now < 5
    assert generation(pair) == 0
    pair.now = 5.5
    ping(pair)
    assert generation(pair) == 1
    pair.now += 30
    assert pair.step() == 0
    assert generation(pair) == 1
    ping(pair)
    assert generation(pair) == 2


def test_without_limits_a_key_lasts() -> None:
    pair = Pair(Config(**NEVER, keep_alive=0))
    ping(pair, 40)
    pair.now += 50
    ping(pair)
    assert generation(pair) == 0


def test_nothing_is_sealed_in_the_next_generation_before_the_current_one_was_acknowledged() -> None:
    pair = Pair(Config(key_update_packets=1, **NEVER))
    a = pair.a.connection
    for _ in range(20):  # nothing comes back, whatever is sent
        a.ask((f.PING,))
        pair.a.datagrams(pair.now)
        a.handle_timeout(pair.now)
        pair.now += 0.05
    assert a.next_counter < GENERATION
    assert a.keys.sealing == 0
    ping(pair, 2)
    assert a.keys.sealing == 1


def test_the_next_update_waits_as_long_as_the_peer_keeps_the_key_before() -> None:
    pair = Pair(Config(key_update_packets=1, **NEVER))
    a = pair.a.connection
    begun: list[tuple[float, float]] = []
    for _ in range(400):
        before = generation(pair)
        a.ask((f.PING,))
        if generation(pair) == before:
            pair.step()
        if generation(pair) > before:
            begun.append((pair.now, a.recovery.pto()))
    assert len(begun) > 20
    waits = [(later[0] - earlier[0]) / later[1] for earlier, later in pairwise(begun[1:])]
    assert min(waits) >= KEPT_PTOS
    assert max(waits) < 3 * KEPT_PTOS
    assert pair.b.connection.stats()["packets_unopened"] == 0


def test_who_only_acknowledges_asks_to_be_acknowledged_before_its_numbers_run_out() -> None:
    pair = Pair(Config(key_update_packets=8, **NEVER), Config(key_update_packets=8, **NEVER))
    data = random.Random(1).randbytes(1 << 20)
    stream = pair.a.connection.open_stream()
    written = stream.write(data)
    stream.finish()
    got = b""
    incoming = None
    while incoming is None or not incoming.at_end:
        if not pair.step():
            pair.wait()
        for event in pair.b.take(StreamOpened):
            incoming = event.stream
        if incoming is not None:
            got += incoming.read(1 << 20) or b""
    assert got == data[:written]
    assert pair.b.connection.stats()["key_updates"] >= 1
    assert not pair.a.take(ConnectionEnded)


def test_a_side_that_only_acknowledged_goes_on_beyond_the_end_of_its_generation() -> None:
    pair = Pair(Config(**NEVER))
    b = pair.b.connection
    b.next_counter = GENERATION * 3 // 4  # as if it had acknowledged so many packets
    b.counters.skip_to(b.counter_index, b.next_counter)
    ping(pair)  # the answer goes with a question
    ping(pair)
    assert b.recovery.log.largest_acked >= GENERATION * 3 // 4
    b.next_counter = GENERATION - 3
    b.counters.skip_to(b.counter_index, b.next_counter)
    ping(pair, 10)
    assert b.next_counter > GENERATION
    assert b.keys.sealing == pair.a.connection.keys.opening == 1
    assert not pair.a.take(ConnectionEnded)


def test_limits_of_an_update_on_request_begin_anew() -> None:
    pair = Pair(Config(key_update_packets=10, **NEVER))
    ping(pair, 8)
    pair.a.connection.update_keys()
    ping(pair, 8)
    assert generation(pair) == 1
    ping(pair, 4)
    assert generation(pair) == 2
