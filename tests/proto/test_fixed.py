"""The fixed rate: kept through single losses, given up for lasting ones, taken again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_link import CONFIG, SharedLink

from burstwire.config import FIXED_RATE
from burstwire.proto.congestion.base import MAX_WINDOW, make_controller, minimum_window
from burstwire.proto.congestion.fixed import DECREASE, PERSISTENT_INTERVALS, RECOVERY_TIME, Fixed
from burstwire.proto.rtt import Rtt

MTU = 1200
RATE = 1.2e6
RTT = 0.05


class Sender:
    """Sends its rate over a path of 50 ms, in rounds of one round trip."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rtt = Rtt()
        self.cc = Fixed(0.0, MTU, RATE)
        self.delay = RTT
        self.lost = 0
        self._owed = 0.0

    @property
    def rate(self) -> float:
        return self.cc.pacing_rate(self.rtt)

    def round(self, loss: float = 0.0, app_limited: bool = False) -> None:
        """A round trip's worth leaves over a round trip, in tenths; each arrives, but for `loss` of it."""
        packets = max(20, round(self.rate * RTT / MTU))
        for i in range(10):
            self.now += RTT / 10
            sent = self.now - self.delay
            count = packets * (i + 1) // 10 - packets * i // 10
            self._owed += count * loss
            lost = int(self._owed)
            self._owed -= lost
            self.lost += lost
            self.rtt.update(self.delay, 0.0, self.now)
            self.cc.on_ack(self.now, (count - lost) * MTU, packets * MTU, self.rtt, app_limited, sent)
            if lost:
                self.cc.on_loss(self.now, lost * MTU, sent, False)

    def queue(self, seconds: float) -> None:
        """A queue stands on the path from now on."""
        self.delay = RTT + seconds

    def rounds(self, count: int, loss: float = 0.0) -> None:
        for _ in range(count):
            self.round(loss)

    def suffer(self) -> None:
        """Loses a fifth until the rate has fallen."""
        while self.rate == RATE:
            self.round(0.2)


def test_the_rate_is_the_configured_one_whatever_the_round_trip_is() -> None:
    for seconds in (0.0001, 0.05, 2.0):
        sender = Sender()
        sender.rtt.update(seconds, 0.0, 1.0)
        assert sender.rate == RATE


def test_without_a_rate_it_is_ten_megabits() -> None:
    assert make_controller("fixed", 0.0, MTU).pacing_rate(Rtt()) == FIXED_RATE == 10e6 / 8
    assert make_controller("fixed", 0.0, MTU, 5e6).pacing_rate(Rtt()) == 5e6


def test_one_percent_of_loss_changes_nothing() -> None:
    sender = Sender()
    sender.rounds(200, 0.01)
    assert sender.lost >= 99
    assert sender.rate == RATE


def test_little_loss_lowers_the_rate_while_a_queue_stands() -> None:
    sender = Sender()
    sender.rounds(20, 0.01)
    sender.queue(0.04)
    sender.rounds(30, 0.01)
    assert sender.rate < RATE


def test_a_queue_alone_changes_nothing() -> None:
    sender = Sender()
    sender.rounds(20)
    sender.queue(0.04)
    sender.rounds(50)
    assert sender.rate == RATE


def test_a_short_burst_of_loss_changes_nothing() -> None:
    sender = Sender()
    for _ in range(5):
        sender.rounds(2, 0.3)
        sender.rounds(20)
    assert sender.rate == RATE


def test_lasting_loss_lowers_the_rate_by_three_tenths_an_interval_down_to_two_packets_a_round_trip() -> None:
    sender = Sender()
    rates = [sender.rate]
    for _ in range(200):
        sender.round(0.3)
        if sender.rate != rates[-1]:
            rates.append(sender.rate)
    assert rates[1] == pytest.approx(RATE * DECREASE)
    assert rates[2] == pytest.approx(RATE * DECREASE**2)
    assert rates[-1] == pytest.approx(2 * MTU / RTT)


def test_the_rate_falls_after_a_few_round_trips_not_before() -> None:
    sender = Sender()
    sender.suffer()
    assert PERSISTENT_INTERVALS * RTT <= sender.now <= 3 * PERSISTENT_INTERVALS * RTT


def test_what_was_lost_of_before_the_rate_fell_does_not_lower_it_again() -> None:
    sender = Sender()
    sender.suffer()
    lowered = sender.rate
    for _ in range(20):
        sender.cc.on_loss(sender.now, 10 * MTU, sender.now - RTT / 2, False)
    assert sender.rate == lowered


def test_the_rate_comes_back_when_loss_has_ended() -> None:
    sender = Sender()
    sender.suffer()
    lowered, start = sender.rate, sender.now
    while sender.rate < RATE:
        sender.round()
    assert sender.now - start == pytest.approx((1 - lowered / RATE) * RECOVERY_TIME, rel=0.2)


def test_an_unused_rate_does_not_come_back() -> None:
    sender = Sender()
    sender.suffer()
    lowered = sender.rate
    for _ in range(100):
        sender.round(app_limited=True)
    assert sender.rate == lowered


def test_lasting_marks_lower_the_rate() -> None:
    sender = Sender()
    for _ in range(20):
        sender.cc.on_ecn(sender.now, sender.now)
        sender.round()
    assert sender.rate < RATE


def test_reordering_taken_for_loss_is_taken_back() -> None:
    sender = Sender()
    sender.suffer()
    sender.cc.on_spurious_loss(sender.now)
    assert sender.rate == RATE
    assert sender.cc.stats()["undone"] == 1


def test_persistent_congestion_starts_over_at_the_least_rate() -> None:
    sender = Sender()
    sender.rounds(3)
    sender.cc.on_loss(sender.now, 100 * MTU, sender.now, True)
    assert sender.rate == pytest.approx(2 * MTU / RTT)
    assert sender.cc.window == 2 * sender.rate * RTT == pytest.approx(4 * MTU)


def test_after_persistent_congestion_the_rate_doubles_each_round_trip_up_to_the_whole() -> None:
    sender = Sender()
    sender.rounds(3)
    sender.cc.on_loss(sender.now, 100 * MTU, sender.now, True)
    start = sender.rate
    sender.rounds(4)
    assert 4 * start <= sender.rate <= 16 * start
    sender.rounds(10)
    assert sender.rate == RATE


def test_a_loss_ends_the_doubling() -> None:
    sender = Sender()
    sender.rounds(3)
    sender.cc.on_loss(sender.now, 100 * MTU, sender.now, True)
    sender.rounds(2)
    sender.cc.on_loss(sender.now, MTU, sender.now, False)
    before = sender.rate
    assert before < RATE / 4
    sender.rounds(4)
    assert sender.rate < 2 * before


def test_no_more_than_two_round_trips_are_in_flight() -> None:
    sender = Sender()
    sender.rounds(10)
    assert sender.cc.window == pytest.approx(2 * RATE * RTT, rel=0.01)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0005, 2.0), st.integers(1, 10**6)), max_size=60))
def test_whatever_happens_window_and_rate_stay_in_their_bounds(steps: list[tuple[int, float, int]]) -> None:
    cc, rtt, now, mtu = Fixed(0.0, MTU, RATE), Rtt(), 0.0, MTU
    for what, seconds, size in steps:
        now += seconds
        rtt.update(seconds, 0.0, now)
        if what == 0:
            cc.on_loss(now, size, now - seconds, size % 5 == 0)
        elif what == 1:
            cc.on_ecn(now, now - seconds)
        elif what == 2:
            cc.on_spurious_loss(now)
        elif what == 3:
            mtu = 1200 + size % 60_000
            cc.on_mtu(mtu)
        else:
            cc.on_ack(now, size, size, rtt, what == 5, now - seconds)
        assert minimum_window(mtu) <= cc.window <= MAX_WINDOW
        assert 0 < cc.pacing_rate(rtt) <= RATE
        assert all(math.isfinite(value) for value in cc.stats().values())


# on a link


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_on_a_link_that_has_it_the_rate_is_sent(loss: float) -> None:
    with SharedLink(rate=1e6, delay=0.02, loss=loss, config=CONFIG.replace(fixed_rate=0.5e6)) as link:
        link.start("fixed")
        link.run(2.0)
        (rate,) = link.rates(8.0)
        assert 0.93 * 0.5e6 <= rate <= 0.5e6


def test_a_link_with_less_than_the_rate_is_not_flooded() -> None:
    with SharedLink(rate=0.25e6, delay=0.02, config=CONFIG.replace(fixed_rate=1e6)) as link:
        flow = link.start("fixed")
        link.run(5.0)
        before = flow.connection.stats()
        (share,) = link.shares(15.0)
        after = flow.connection.stats()
        lost = after["packets_lost"] - before["packets_lost"]
        assert share >= 0.7
        assert lost / (after["packets_sent"] - before["packets_sent"]) < 0.05


@pytest.mark.parametrize("rate", [0.5e6, 1e6])
def test_beside_it_cubic_still_gets_through(rate: float) -> None:
    """Also where the rate just fills the link."""
    with SharedLink(rate=0.5e6, delay=0.02, config=CONFIG.replace(fixed_rate=rate)) as link:
        link.start("cubic")
        link.run(2.0)
        link.start("fixed")
        link.run(5.0)
        assert link.shares(25.0)[0] >= 0.1


def test_a_peer_that_falls_silent_is_sent_two_round_trips_and_probes() -> None:
    with SharedLink(rate=None, delay=0.05, config=CONFIG.replace(fixed_rate=1e6, idle_timeout=0, keep_alive=0)) as link:
        flow = link.start("fixed")
        link.run(3.0)
        link.sim.network.outage(60.0)
        before = flow.connection.stats()["bytes_sent"]
        link.run(60.0)
        assert flow.connection.stats()["bytes_sent"] - before <= 2.2 * 1e6 * 0.1 + 30 * 1472
