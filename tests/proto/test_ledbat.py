"""LEDBAT++ against numbers worked out from draft-irtf-iccrg-ledbat-plus-plus, version 01, and beside others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_link import SharedLink

from burstwire.proto.congestion.base import MAX_WINDOW, initial_window, minimum_window
from burstwire.proto.congestion.ledbat import TARGET, Ledbat
from burstwire.proto.rtt import Rtt

MTU = 1200


class Path:
    """A sender that keeps the window full over a path with a base round trip and a queue that the test sets."""

    def __init__(self, base: float = 0.04) -> None:
        self.now = 0.0
        self.base = base
        self.queue = 0.0
        self.rtt = Rtt()
        self.cc = Ledbat(0.0, MTU)

    def round(self, acks: int = 10, app_limited: bool = False) -> None:
        """One window leaves now and is acknowledged a round trip later, in `acks` frames."""
        window, sent = self.cc.window, self.now
        self.now = sent + self.base + self.queue
        for i in range(acks):
            self.rtt.update(self.base + self.queue, 0.0, self.now)
            share = window * (i + 1) // acks - window * i // acks
            self.cc.on_ack(self.now, share, window, self.rtt, app_limited, sent)

    def avoid(self) -> None:
        """Reaches congestion avoidance with an empty queue, behind the initial slowdown."""
        while self.cc.window < 100 * MTU:
            self.round()
        self.queue = TARGET
        self.round()
        self.queue = 0.0
        for _ in range(200):
            self.round()
            if self.slowdowns and not self.slowing:
                break

    @property
    def slowdowns(self) -> float:
        return self.cc.stats()["slowdowns"]

    @property
    def slowing(self) -> bool:
        return self.cc.window < self.cc.stats()["ssthresh"]

    @property
    def segments(self) -> float:
        return self.cc._cwnd / MTU


@pytest.mark.parametrize(
    ("base", "gain"), [(0.001, 1 / 16), (0.0075, 1 / 16), (0.02, 1 / 6), (0.05, 1 / 3), (0.12, 1.0), (0.6, 1.0)]
)
def test_the_gain_is_that_of_section_4_2(base: float, gain: float) -> None:
    path = Path(base)
    path.round()
    assert path.cc.gain == pytest.approx(gain)


def test_slow_start_grows_by_the_gain() -> None:
    path = Path(0.05)
    path.round(1)
    path.round(1)
    assert path.cc.window == pytest.approx(initial_window(MTU) * (4 / 3) ** 2, abs=2)


def test_the_initial_slow_start_ends_when_the_queue_is_beyond_three_quarters_of_the_target() -> None:
    path = Path()
    path.round()
    path.queue = TARGET * 0.74
    path.round()
    assert path.cc.stats()["ssthresh"] == -1
    path.queue = TARGET * 0.76
    path.round()
    assert path.cc.stats()["ssthresh"] > 0


def test_two_round_trips_after_slow_start_the_window_is_two_packets_for_two_round_trips() -> None:
    path = Path()
    for _ in range(10):
        path.round()
    path.queue = TARGET
    path.round()
    ended = path.now
    before = path.cc.window
    path.queue = 0.0
    while not path.slowdowns:
        path.round()
    srtt = path.rtt.smoothed
    began = path.now
    assert began - ended == pytest.approx(2 * srtt, abs=2 * 0.04)
    assert path.cc.stats()["ssthresh"] >= before
    while path.cc.window == minimum_window(MTU):
        path.round()
    assert 2 * srtt <= path.now - began <= 2 * srtt + 3 * 0.04


def test_slowdowns_take_a_tenth_of_the_time() -> None:
    path = Path()
    path.avoid()
    slow = total = 0.0
    while path.slowdowns < 6:
        path.queue = TARGET if path.cc.window > 100 * MTU else 0.0
        start = path.now
        path.round()
        total += path.now - start
        slow += (path.now - start) * path.slowing
    assert slow / total == pytest.approx(0.1, abs=0.03)


def test_below_the_target_the_window_grows_by_the_gain_a_round_trip() -> None:
    path = Path(0.05)
    path.avoid()
    before = path.segments
    for _ in range(9):
        path.round()
    assert path.segments - before == pytest.approx(9 / 3, rel=0.1)


@pytest.mark.parametrize("queue", [0.066, 0.075, 0.080])
def test_beyond_the_target_the_window_falls_in_proportion(queue: float) -> None:
    path = Path(0.05)
    path.avoid()
    path.queue = queue
    path.round(4)  # the filter holds the least of four samples
    before = path.segments
    path.round(1)
    expected = max(1 / 3 - before * (queue / TARGET - 1), -before / 2)
    assert path.segments - before == pytest.approx(expected, rel=1e-3)


def test_no_round_trip_takes_more_than_half_of_the_window() -> None:
    path = Path(0.05)
    path.avoid()
    path.queue = 0.3
    path.round(4)
    before = path.segments
    path.round(1)
    assert path.segments == pytest.approx(before / 2, rel=1e-3)


def test_a_queue_is_answered_once_and_not_again_while_it_drains() -> None:
    path = Path(0.05)
    path.avoid()
    path.queue = 0.1
    path.round(4)
    path.round(1)
    decided, before = path.now, path.segments
    for i in range(20):  # acknowledgements of what was sent before the decrease
        path.rtt.update(0.15, 0.0, decided + 0.005 * i)
        path.cc.on_ack(decided + 0.005 * i, MTU, path.cc.window, path.rtt, False, decided - 0.001)
    assert path.segments == before


def test_a_loss_spares_the_window_a_decrease_for_the_queue_of_the_same_round_trip() -> None:
    path = Path(0.05)
    path.avoid()
    path.queue = 0.1
    path.round(4)
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    before = path.segments
    path.cc.on_ack(path.now + 0.01, MTU, path.cc.window, path.rtt, False, path.now - 0.01)
    assert path.segments == before


@pytest.mark.parametrize("queue", [0.066, 0.1])
def test_a_loss_and_the_delay_of_one_round_trip_take_half_together(queue: float) -> None:
    path = Path(0.05)
    path.avoid()
    before = path.segments
    path.queue = queue
    sent = path.now
    path.round(4)
    path.round(1)
    path.cc.on_loss(path.now, MTU, sent, False)
    assert path.segments == pytest.approx(before / 2, rel=0.01)


def test_what_the_decrease_took_does_not_come_back_as_slow_start() -> None:
    path = Path(0.05)
    path.avoid()
    path.queue = 0.1
    path.round()
    path.queue = 0.0
    path.round()  # the filter
    before = path.segments
    path.round()
    assert path.segments - before == pytest.approx(1 / 3, rel=0.1)


def test_a_short_peak_of_delay_is_no_queue() -> None:
    path = Path(0.05)
    path.avoid()
    before = path.segments
    for i in range(30):
        sample = path.base + (0.5 if i % 4 else 0.0)
        path.rtt.update(sample, 0.0, path.now)
        path.cc.on_ack(path.now, MTU, path.cc.window, path.rtt, False, path.now)
    assert path.segments > before


def test_the_time_that_the_peer_holds_its_acknowledgements_back_is_no_queue() -> None:
    path = Path(0.05)
    path.avoid()
    for _ in range(8):
        path.rtt.update(path.base + 0.1, 0.1, path.now)
        path.cc.on_ack(path.now, MTU, path.cc.window, path.rtt, False, path.now)
    assert path.cc.stats()["queue_delay"] == pytest.approx(0.0, abs=1e-9)


def test_a_longer_route_becomes_the_base_when_the_history_has_passed() -> None:
    path = Path(0.05)
    path.round()
    path.base = 0.2
    for _ in range(11):
        path.round()
        path.now += 61
    assert path.cc.stats()["base_delay"] == pytest.approx(0.2)


def test_a_loss_halves_the_window_once_a_round_trip() -> None:
    path = Path()
    path.avoid()
    before = path.segments
    for _ in range(3):
        path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    assert path.segments == pytest.approx(before / 2)
    path.cc.on_loss(path.now + 0.04, MTU, path.now + 0.02, False)
    assert path.segments == pytest.approx(before / 4)


def test_a_mark_halves_the_window_for_good() -> None:
    path = Path()
    path.avoid()
    before = path.segments
    path.cc.on_ecn(path.now, path.now - 0.01)
    path.cc.on_spurious_loss(path.now)
    assert path.segments == pytest.approx(before / 2)


def test_a_spurious_loss_is_taken_back() -> None:
    path = Path()
    path.avoid()
    before = path.segments
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    path.cc.on_spurious_loss(path.now)
    assert path.segments == before


def test_a_loss_during_a_slowdown_halves_what_is_gone_back_to() -> None:
    path = Path()
    path.avoid()
    taken = path.slowdowns
    while path.slowdowns == taken:
        path.queue = TARGET if path.cc.window > 100 * MTU else 0.0
        path.round()
    target = path.cc.stats()["ssthresh"]
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    assert path.cc.stats()["ssthresh"] == pytest.approx(target / 2)
    assert path.cc.window == minimum_window(MTU)


def test_a_loss_on_the_way_back_from_a_slowdown_ends_it_at_half_of_the_window() -> None:
    path = Path()
    path.avoid()
    taken = path.slowdowns
    while path.slowdowns == taken or path.cc.window < 20 * MTU:
        path.queue = TARGET if path.cc.window > 100 * MTU and path.slowdowns == taken else 0.0
        path.round()
    before = path.segments
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    assert path.segments == pytest.approx(before / 2)
    assert path.cc.window == int(path.cc.stats()["ssthresh"])
    for _ in range(2):  # the first acknowledges what was sent before the loss was found
        path.round()
    assert path.segments == pytest.approx(before / 2 + path.cc.gain, abs=0.01)


def test_a_spurious_loss_on_the_way_back_from_a_slowdown_lets_it_go_on() -> None:
    path = Path()
    path.avoid()
    taken = path.slowdowns
    while path.slowdowns == taken or path.cc.window < 20 * MTU:
        path.queue = TARGET if path.cc.window > 100 * MTU and path.slowdowns == taken else 0.0
        path.round()
    before, goal = path.cc.window, path.cc.stats()["ssthresh"]
    path.cc.on_loss(path.now, MTU, path.now - 0.01, False)
    path.cc.on_spurious_loss(path.now)
    assert (path.cc.window, path.cc.stats()["ssthresh"]) == (before, goal)
    for _ in range(12):
        path.round()
    assert path.cc.window >= goal
    assert path.slowdowns == taken + 1


def frozen_for(queues: list[float]) -> float:
    """Round trips that a slowdown stays at two packets, when these queues are met in turn."""
    path = Path(0.05)
    path.avoid()
    path.queue = TARGET
    taken = path.slowdowns
    while path.slowdowns == taken:
        path.round()
    began, srtt = path.now, path.rtt.smoothed
    waiting = list(queues)
    while path.cc.window == minimum_window(MTU):
        path.queue = waiting.pop(0) if waiting else path.queue
        path.round(1)
    return (path.now - began) / srtt


def test_a_slowdown_waits_for_the_queue_as_long_as_it_falls() -> None:
    alone = frozen_for([0.0])
    falling = frozen_for([0.055, 0.045, 0.035, 0.025, 0.015, 0.0])
    standing = frozen_for([0.058])
    endless = frozen_for([1.0 - 0.01 * i for i in range(90)])
    assert alone <= 3
    assert standing <= 3
    assert 4 <= falling <= 6
    assert endless <= 20  # eight round trips of before the slowdown, and one of a second


def test_persistent_congestion_leaves_two_packets() -> None:
    path = Path()
    path.avoid()
    path.cc.on_loss(path.now, MTU, path.now - 0.01, True)
    assert path.cc.window == minimum_window(MTU)


def test_after_persistent_congestion_it_is_back_at_half_of_its_window_within_twenty_round_trips() -> None:
    path = Path(0.05)
    path.avoid()
    before = path.segments
    while not path.slowdowns:
        path.round()
    path.now += 60.0  # the next slowdown was due meanwhile
    for _ in range(2):  # what was lost is found in two steps
        path.cc.on_loss(path.now, MTU, path.now - 60.0 + 0.01, True)
        path.now += 0.01
    for _ in range(20):
        path.round()
    assert path.segments >= 0.45 * before


def test_a_sender_limited_by_its_application_keeps_its_window_but_still_yields() -> None:
    path = Path()
    path.avoid()
    before = path.cc.window
    path.round(app_limited=True)
    assert path.cc.window == before
    path.queue = 0.1
    for _ in range(2):  # a round trip until the filter holds nothing else
        path.round(app_limited=True)
    assert path.cc.window < before


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0005, 2.0), st.integers(1, 10**6)), max_size=60))
def test_whatever_happens_the_window_stays_in_its_bounds(steps: list[tuple[int, float, int]]) -> None:
    cc, rtt, now, mtu = Ledbat(0.0, MTU), Rtt(), 0.0, MTU
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
        assert cc.window == int(cc._cwnd)
        assert cc.pacing_rate(rtt) > 0
        assert all(math.isfinite(value) for value in cc.stats().values())


# on a link


def test_alone_it_takes_the_link_and_holds_its_queue_near_the_target() -> None:
    with SharedLink(rate=0.5e6, delay=0.02, queue=0.15) as link:
        flow = link.start("ledbat")
        link.run(5.0)
        (share,) = link.shares(25.0)
        assert share >= 0.80
        assert flow.connection.recovery.rtt.smoothed < 0.04 + TARGET + 0.03


def test_on_a_long_path_the_overshoot_of_slow_start_does_not_cost_it_the_link() -> None:
    with SharedLink(rate=1.5e6, delay=0.1, queue=0.2) as link:
        link.start("ledbat")
        link.run(5.0)
        assert link.shares(6.0)[0] >= 0.80


def test_flows_that_come_upon_the_queue_of_others_learn_how_long_the_path_is() -> None:
    with SharedLink(rate=0.6e6, delay=0.02, queue=0.15) as link:
        for _ in range(4):
            link.start("ledbat")
            link.run(3.0)
        link.run(20.0)
        bases = [peer.connection.recovery.controller.stats()["base_delay"] for peer in link.peers]
        assert max(bases) - min(bases) < 0.002, bases
        assert link.fairness(15.0) >= 0.95


def test_in_avoidance_packets_leave_at_the_rate_of_the_window_and_not_in_bursts() -> None:
    path = Path(0.05)
    path.avoid()
    path.round()
    assert path.cc.pacing_rate(path.rtt) == pytest.approx(path.cc.window / path.rtt.smoothed, rel=0.001)


def test_beside_cubic_it_takes_next_to_nothing() -> None:
    with SharedLink(rate=0.5e6, delay=0.02, queue=0.15) as link:
        link.start("ledbat")
        link.run(3.0)
        link.start("cubic")
        link.run(5.0)
        background, foreground = link.shares(15.0)
        assert foreground >= 0.80
        assert background <= 0.10


def test_when_cubic_has_gone_it_takes_the_link_again() -> None:
    with SharedLink(rate=0.5e6, delay=0.02, queue=0.15) as link:
        link.start("ledbat")
        cubic = link.start("cubic")
        link.run(8.0)
        link.stop(cubic)
        link.run(25.0)
        assert link.shares(10.0)[0] >= 0.80


def test_two_flows_share_a_link_evenly() -> None:
    with SharedLink(rate=0.5e6, delay=0.02, queue=0.15) as link:
        link.start("ledbat")
        link.start("ledbat")
        link.run(10.0)
        assert link.fairness(20.0) >= 0.95
