"""What links and bottlenecks do to datagrams, between dummy nodes."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise
from random import Random

import pytest

from burstwire.core.address import pack_address
from burstwire.errors import ConfigError
from burstwire.sim import Bottleneck, Bursts, Clock, Link, Network, Policer, Steps
from burstwire.sim.bursts import BurstState
from burstwire.sim.codel import CoDel

A, B, C = (pack_address(f"10.0.0.{n}", 4000) for n in (1, 2, 3))
SIZE = 1000


class Sink:
    """Notes what arrives: (seconds since the start, source, ECN, datagram)."""

    def __init__(self, net: Network, address: bytes) -> None:
        self.net = net
        self.start = net.clock.now
        self.got: list[tuple[float, bytes, int, bytes]] = []
        net.attach(address, self.receive)

    def receive(self, source: bytes, datagrams: list[bytes], ecn: int) -> None:
        now = self.net.clock.now - self.start
        self.got += [(now, source, ecn, data) for data in datagrams]

    @property
    def times(self) -> list[float]:
        return [time for time, *_ in self.got]


def world(link: Link) -> tuple[Network, Sink]:
    net = Network(Clock(0.0), 1, link)
    return net, Sink(net, C)


def settle(net: Network) -> None:
    while net.clock.step():
        pass


def load(net: Network, rate: float, seconds: float, source: bytes = A, ecn: int = 0) -> None:
    """Sends datagrams to C at a constant rate, from now on."""
    for n in range(int(seconds * rate / SIZE)):
        net.clock.at(net.clock.now + n * SIZE / rate, lambda: net.send(source, C, [bytes(SIZE)], ecn))


# steps


def test_a_stepped_value_holds_from_each_step_to_the_next_and_repeats() -> None:
    once = Steps([(1, 10), (3, 20)])
    assert [once.at(time) for time in (0, 1, 2.9, 3, 99)] == [10, 10, 10, 20, 20]
    again = Steps([(0, 10), (3, 20)], period=5)
    assert [again.at(time) for time in (0, 3, 4.9, 5, 8, 5003)] == [10, 20, 20, 10, 20, 20]


@pytest.mark.parametrize("period", [None, 0.7])
def test_what_passes_until_an_amount_has_passed_is_that_amount(period: float | None) -> None:
    rate = Steps([(0, 100), (0.1, 3000), (0.35, 1), (0.6, 50)], period)
    random = Random(1)
    for _ in range(300):
        start, amount = random.uniform(0, 3), random.uniform(0, 900)
        assert rate.passed(start, rate.passing(start, amount)) == pytest.approx(amount)


@pytest.mark.parametrize(("steps", "period"), [([], None), ([(1, 1), (1, 2)], None), ([(0, 1), (2, 2)], 2.0)])
def test_steps_that_make_no_sense_are_refused(steps: list[tuple[float, float]], period: float | None) -> None:
    with pytest.raises(ConfigError):
        Steps(steps, period)


# bottleneck


def test_two_senders_share_the_rate_and_the_queue_of_one_bottleneck() -> None:
    there = Bottleneck(100_000, queue=5 * SIZE)
    net, sink = world(Link(delay=0.1, bottleneck=there))
    net.send(A, C, [bytes(SIZE)] * 4)
    net.send(B, C, [bytes(SIZE)] * 4)
    settle(net)
    assert [source for _, source, *_ in sink.got] == [A] * 4 + [B]
    assert sink.times == pytest.approx([0.1 + 0.01 * n for n in range(1, 6)])
    assert (there.usage.dropped[A], there.usage.dropped[B]) == (0, 3)


def test_a_bottleneck_delays_only_the_directions_that_name_it() -> None:
    net, sink = world(Link(delay=0.1))
    net.set_link(Link(delay=0.1, bottleneck=Bottleneck(1000)), A)
    net.send(A, C, [bytes(SIZE)])
    net.send(B, C, [bytes(SIZE)])
    settle(net)
    assert [(source, round(time, 6)) for time, source, *_ in sink.got] == [(B, 0.1), (A, 1.1)]


def test_a_rate_that_changes_applies_to_datagrams_that_wait_already() -> None:
    rate = Steps([(0, 100_000), (0.025, 10_000)])
    net, sink = world(Link(bottleneck=Bottleneck(rate)))
    net.send(A, C, [bytes(SIZE)] * 4)
    settle(net)
    # 2.5 datagrams at the first rate, the rest ten times as slowly
    assert sink.times == pytest.approx([0.01, 0.02, 0.075, 0.175])


@pytest.mark.parametrize("rate", [100_000.0, Steps([(0, 50_000), (1, 150_000)], period=2)])
def test_an_overloaded_bottleneck_is_used_wholly_and_its_queue_is_full(rate: float | Steps) -> None:
    there = Bottleneck(rate, queue=20 * SIZE)
    net, sink = world(Link(bottleneck=there))
    load(net, 200_000, 10)
    net.clock.run(1)
    there.measure(1)
    net.clock.run(9)
    usage = there.measure(9)
    assert usage.use == pytest.approx(1, abs=0.01)
    assert usage.capacity == pytest.approx(800_000)
    assert 18 * SIZE < usage.mean_queue < 20 * SIZE
    assert usage.dropped[A] == pytest.approx(800, abs=20)
    arrived = sum(1 <= time < 9 for time in sink.times)
    assert arrived * SIZE == pytest.approx(800_000, rel=0.01)


def test_a_filling_bottleneck_marks_what_may_be_marked() -> None:
    for ecn, marks in ((2, [2, 2, 2, 3, 3]), (1, [1, 1, 1, 3, 3]), (0, [0] * 5)):
        there = Bottleneck(1e6, mark=2500)
        net, sink = world(Link(bottleneck=there))
        net.send(A, C, [bytes(SIZE)] * 5, ecn)
        settle(net)
        assert [mark for _, _, mark, _ in sink.got] == marks
        assert there.usage.marked == marks.count(3)


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"queue": 0}, {"discipline": "red"}])
def test_impossible_bottlenecks_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Bottleneck(**({"rate": 1e6} | wrong))  # type: ignore[arg-type]


# CoDel


def test_codel_lets_bursts_through_that_drain_within_its_interval() -> None:
    there = Bottleneck(1e6, queue=1 << 20, discipline="codel")
    net, sink = world(Link(bottleneck=there))
    for start in range(5):
        net.clock.at(start, lambda: net.send(A, C, [bytes(SIZE)] * 90))
    settle(net)
    assert len(sink.got) == 450


def test_codel_drops_ever_faster_while_a_queue_stands() -> None:
    codel = CoDel()
    dropped = [n / 1000 for n in range(2000) if codel.too_long(n / 1000, waited=0.02)]
    assert dropped[0] == pytest.approx(0.1, abs=0.002)  # RFC 8289: an interval after the queue was first too long
    gaps = [b - a for a, b in pairwise(dropped)]
    expected = [0.1 / n**0.5 for n in range(1, len(gaps) + 1)]
    assert gaps == pytest.approx(expected, abs=0.0021)
    assert len(gaps) > 50
    assert not codel.too_long(2.0, waited=0.004)
    assert not codel.too_long(2.001, waited=0.02)


def test_codel_marks_ecn_capable_datagrams_instead_of_dropping_them() -> None:
    for ecn, lossless in ((0, False), (2, True)):
        there = Bottleneck(100_000, queue=1 << 20, discipline="codel")
        net, sink = world(Link(bottleneck=there))
        load(net, 110_000, 3, ecn=ecn)
        settle(net)
        assert (there.usage.dropped.total() == 0) is lossless
        assert (sum(mark == 3 for _, _, mark, _ in sink.got) > 5) is lossless
        assert (there.usage.marked > 5) is lossless


# losses in bursts


@pytest.mark.parametrize(
    "bursts", [Bursts(0.02, 5), Bursts(0.1, 20), Bursts(0.3, 2), Bursts(0.05, 10, density=0.5), Bursts(0.01, 1)]
)
def test_bursts_lose_their_share_in_stretches_of_their_length(bursts: Bursts) -> None:
    state = BurstState(bursts, Random(5))
    lost = [state.lost(0.0) for _ in range(400_000)]
    assert sum(lost) / len(lost) == pytest.approx(bursts.loss, rel=0.1)
    if bursts.density == 1:
        stretches = [sum(1 for _ in group) for gone, group in groupby(lost) if gone]
        assert sum(stretches) / len(stretches) == pytest.approx(bursts.length, rel=0.1)


def test_a_bad_stretch_ends_after_its_limit_however_little_is_sent() -> None:
    state = BurstState(Bursts(0.5, 1000, limit=0.1), Random(3))
    now = 0.0
    while not state.lost(now):
        now += 0.001
    begun = now
    while state.lost(now):
        now += 0.03
    assert now - begun == pytest.approx(0.12)


@pytest.mark.parametrize("values", [(-0.1, 5), (0.95, 5), (0.1, 0.5), (0.6, 1), (0.2, 5, 0.1)])
def test_impossible_bursts_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        Bursts(*values)


# policers


def test_a_policer_lets_a_burst_pass_then_its_rate_and_delays_nothing() -> None:
    net, sink = world(Link(delay=0.01, policer=Policer(100_000, burst=10 * SIZE)))
    load(net, 300_000, 2)
    settle(net)
    assert len(sink.got) == pytest.approx(10 + 200, abs=2)
    assert all((time - 0.01) * 300 == pytest.approx(round((time - 0.01) * 300), abs=1e-6) for time in sink.times)
    assert net.stats()["policed"] == 600 - len(sink.got)


def test_an_impossible_policer_is_refused() -> None:
    with pytest.raises(ConfigError):
        Policer(0)


# grain and plans


@pytest.mark.parametrize("link", [Link(delay=0.0101), Link(delay=0.0101, loss=1e-12)])
def test_a_grain_hands_over_together_what_arrives_within_it_and_never_early(link: Link) -> None:
    net, sink = world(replace(link, grain=0.004))
    for n in range(20):
        net.clock.at(n / 1000, lambda n=n: net.send(A, C, [bytes([n])]))
    settle(net)
    assert [data[0] for *_, data in sink.got] == list(range(20))
    for time, _, _, data in sink.got:
        assert 0 <= time - (data[0] / 1000 + 0.0101) < 0.004 + 1e-9
        assert time / 0.004 == pytest.approx(round(time / 0.004))


def test_a_plan_changes_the_path_at_its_times() -> None:
    net, sink = world(Link(delay=0.01, mtu=1400))
    net.plan([(1, Link(delay=0.2, mtu=1400)), (2, Link(delay=0.2, mtu=900))], destination=C)
    for time in (0.5, 1.5, 2.5):
        net.clock.at(time, lambda: net.send(A, C, [bytes(SIZE)]))
    settle(net)
    assert sink.times == pytest.approx([0.51, 1.7])
    assert net.stats()["mtu"] == 1
