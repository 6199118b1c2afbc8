"""One rate for all connections of an endpoint: kept, shared evenly, given to whoever can use it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_link import CONFIG, SharedLink, jain

from burstwire.config import Config
from burstwire.errors import ConfigError
from burstwire.proto.budget import FLOOR_INTERVAL, POOL_TIME, Budget, Share
from burstwire.proto.pacing import TIMER

MTU = 1472
RATE = 1e6


def balance(budget: Budget, shares: list[Share]) -> float:
    """What the books are out by; 0 but for rounding."""
    accounts = sum(share.account for share in shares)
    return budget.sent + budget.pool + accounts - (budget.earned - budget.expired + budget.overdrawn)


class Crowd:
    """Connections that want to send so many bytes per second, and are woken by the budget's times alone."""

    def __init__(self, rate: float, demands: list[float], mtu: int = MTU) -> None:
        self.budget = Budget(rate, 0.0)
        self.shares = [Share(self.budget) for _ in demands]
        self.demands = demands
        self.mtu = mtu
        self.now = 0.0
        self.sent = [0] * len(demands)
        self.wanted = [0.0] * len(demands)
        self._due = [0.0] * len(demands)

    def run(self, seconds: float) -> list[float]:
        """Bytes per second that each sent."""
        before = list(self.sent)
        end = self.now + seconds
        while True:
            index = min(range(len(self._due)), key=self._due.__getitem__)
            if self._due[index] > end:
                break
            self._turn(index, self._due[index])
        self.now = end
        return [(after - then) / seconds for after, then in zip(self.sent, before, strict=True)]

    def _turn(self, index: int, now: float) -> None:
        share, mtu = self.shares[index], self.mtu
        wanted = self.demands[index] * now - self.sent[index]
        allowed = share.allowance(now, mtu)
        while wanted >= mtu and allowed >= mtu:
            share.charge(now, mtu)
            self.sent[index] += mtu
            wanted -= mtu
            allowed -= mtu
        when = share.next_time(now, mtu) if wanted >= mtu else now
        share.end_turn()
        assert share.waiting == (wanted >= mtu)
        if not share.waiting:
            when = (self.sent[index] + mtu) / self.demands[index] + 1e-9
        self._due[index] = max(when, now + TIMER)
        assert abs(balance(self.budget, self.shares)) < 1e-3


def max_min(rate: float, demands: list[float]) -> list[float]:
    """Max-min fair shares by their definition: fill all evenly until they are satisfied."""
    shares = [0.0] * len(demands)
    left, open_ = rate, list(range(len(demands)))
    while open_ and left > 1e-9:
        step = min(left / len(open_), min(demands[i] - shares[i] for i in open_))
        for i in open_:
            shares[i] += step
        left -= step * len(open_)
        open_ = [i for i in open_ if demands[i] - shares[i] > 1e-9]
    return shares


@pytest.mark.parametrize(
    "demands",
    [
        [5e6],
        [5e6, 5e6],
        [5e6] * 20,
        [0.1e6, 5e6],
        [0.05e6, 0.1e6, 0.3e6, 5e6, 5e6],
        [0.3e6, 0.3e6, 0.3e6],
        [0.1e6, 0.2e6],
        [0.02e6] * 10 + [5e6] * 2,
    ],
)
def test_shares_are_max_min_fair(demands: list[float]) -> None:
    crowd = Crowd(RATE, demands)
    crowd.run(1.0)
    rates = crowd.run(10.0)
    assert rates == pytest.approx(max_min(RATE, demands), rel=0.05)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(2e4, 4e6),
    demands=st.lists(st.floats(1e4, 4e6), min_size=1, max_size=5),
    mtu=st.sampled_from([1200, 1472, 8900]),
)
def test_the_budget_is_neither_exceeded_nor_wasted(rate: float, demands: list[float], mtu: int) -> None:
    crowd = Crowd(rate, demands, mtu)
    crowd.run(1.0)
    seconds = 2.0
    total = sum(crowd.run(seconds))
    slack = (max(POOL_TIME * rate, 2 * mtu) + 4 * mtu * len(demands)) / seconds
    # a floor of one packet in half a second each, as far as the rate does not cover that anyway
    floor = len(demands) * mtu / FLOOR_INTERVAL
    assert total <= max(rate, floor) + slack
    # The bucket of a connection that is woken a timer late at most holds two of them.
    assert total >= 0.95 * min(rate, sum(demands)) - slack


def test_nothing_is_saved_up_while_all_are_silent() -> None:
    crowd = Crowd(RATE, [5e6])
    crowd.now = crowd._due[0] = 1000.0
    crowd.sent[0] = int(5e6 * 1000) - 10**9
    crowd.run(0.001)
    assert crowd.budget.sent <= RATE * (POOL_TIME + 0.003) + 2 * MTU


def test_a_connection_that_wakes_has_its_share_at_once() -> None:
    crowd = Crowd(RATE, [5e6, 5e6, 5e6])
    crowd._due[2] = 5.0
    crowd.run(5.0)
    crowd.sent[2] = int(5e6 * 5) - 10**8
    rates = crowd.run(1.0)
    assert rates == pytest.approx([RATE / 3] * 3, rel=0.05)


def test_with_more_connections_than_packets_each_still_has_one_in_half_a_second() -> None:
    crowd = Crowd(10_000.0, [1e6] * 100)
    crowd.run(1.0)
    rates = crowd.run(10.0)
    assert min(rates) >= 0.9 * MTU / FLOOR_INTERVAL
    assert crowd.budget.overdrawn > 0


def test_after_floors_that_exceeded_the_budget_there_is_no_long_debt() -> None:
    crowd = Crowd(10_000.0, [1e6] * 100)
    crowd.run(10.0)
    for share in crowd.shares[1:]:
        share.leave()
    crowd._due[1:] = [1e9] * 99
    assert crowd.run(10.0)[0] == pytest.approx(10_000, rel=0.1)


def test_what_leaves_unasked_is_paid_back() -> None:
    budget = Budget(RATE, 0.0)
    share = Share(budget)
    share.allowance(1.0, MTU)
    share.charge(1.0, int(POOL_TIME * RATE) + 2 * MTU)  # probes after a timeout
    assert share.next_time(1.0, MTU) >= 1.0 + 3 * MTU / RATE
    share.end_turn()
    assert share.waiting
    assert balance(budget, [share]) == pytest.approx(0, abs=1e-6)


def test_who_leaves_gives_back_what_it_did_not_use() -> None:
    budget = Budget(RATE, 0.0)
    one, other = Share(budget), Share(budget)
    one.allowance(1.0, MTU)
    other.allowance(1.0, MTU)
    one.leave()
    one.leave()
    assert budget.held == 1
    assert balance(budget, [one, other]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [-1.0, 10, 1e16, True, "1"])
def test_a_budget_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="total_bandwidth"):
        Config(total_bandwidth=value)


# through endpoints

TOTAL = 0.4e6
SLOW = 0.04e6
BUDGET = CONFIG.replace(total_bandwidth=TOTAL)


@pytest.mark.parametrize("none", [None, 0])
def test_without_a_budget_there_is_nothing_of_it(none: float | None) -> None:
    with SharedLink(rate=None, delay=0.01, config=Config(total_bandwidth=none)) as link:
        peer = link.start("cubic", 10_000)
        assert peer.connection.recovery.share is None
        assert not any(name.startswith("budget") for name in link.sender.endpoint.stats())


@pytest.mark.parametrize("congestion", ["cubic", "ledbat", "fixed"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_together_connections_send_the_budget_and_each_the_same(count: int, congestion: str) -> None:
    config = BUDGET.replace(fixed_rate=1e6)
    with SharedLink(rate=None, delay=0.02, config=config) as link:
        for _ in range(count):
            link.start(congestion)
        link.run(4.0 if congestion == "ledbat" else 2.0)
        before = link.sender.endpoint.stats()["budget_sent"]
        rates = link.rates(5.0)
        sent = (link.sender.endpoint.stats()["budget_sent"] - before) / 5.0
        if congestion != "ledbat":  # which takes a tenth of its time to slow down
            assert sent == pytest.approx(TOTAL, rel=0.05)
        assert 0.85 * TOTAL <= sent <= 1.05 * TOTAL
        assert jain(rates) >= 0.95


def test_what_a_slow_path_leaves_goes_to_the_others() -> None:
    with SharedLink(rate=SLOW, delay=0.02, config=BUDGET) as link:
        slow = link.start()
        other = link.sim.host("10.0.0.9", config=CONFIG)
        fast = [link.sim.connect(link.sender, other) for _ in range(2)]
        for left, _ in fast:
            left.open().send(1 << 40, finish=False)
        link.run(3.0)
        before = [sum(flow.received for flow in right.flows.values()) for _, right in fast]
        share = link.shares(5.0)[0]
        rates = [
            (sum(flow.received for flow in right.flows.values()) - then) / 5.0
            for (_, right), then in zip(fast, before, strict=True)
        ]
        assert share >= 0.8
        assert jain(rates) >= 0.95
        assert sum(rates) / 0.97 == pytest.approx(TOTAL - SLOW, rel=0.07)
        assert slow.connection.established
        for left, _ in fast:
            left.connection.abort(link.sim.clock.now)


def test_a_connection_that_wakes_gets_its_share_within_a_second() -> None:
    with SharedLink(rate=None, delay=0.02, config=BUDGET) as link:
        for _ in range(3):
            link.start()
        idle = link.start(size=0)
        link.run(3.0)
        idle.open().send(1 << 40, finish=False)
        link.run(1.0)
        rates = link.rates(1.0)
        assert rates[3] >= 0.85 * TOTAL / 4
        assert jain(rates) >= 0.95


def test_a_held_back_connection_does_not_grow_its_window() -> None:
    with SharedLink(rate=None, delay=0.02, config=BUDGET) as link:
        peer = link.start()
        link.run(10.0)
        assert peer.connection.recovery.controller.window <= 8 * TOTAL * 0.04
        assert link.sender.endpoint.stats()["budget_waiting"] == 1


def test_acknowledgements_are_never_held_back() -> None:
    """The receiver has no budget worth the name, is out of it, and still takes at full speed."""
    config = CONFIG.replace(total_bandwidth=1000)
    with SharedLink(rate=1e6, delay=0.02) as link:
        host = link.sim.host("10.0.0.7", config=config)
        left, right = link.sim.connect(link.sender, host)
        right.open().send(1 << 30, finish=False)
        left.open().send(2_000_000)
        link.sim.run(lambda: sum(flow.received for flow in right.flows.values()) == 2_000_000, within=6)
        assert host.endpoint.stats()["budget_waits"] > 0
        left.connection.abort(link.sim.clock.now)


def test_handshakes_and_close_are_never_held_back() -> None:
    with SharedLink(rate=None, delay=0.02, config=CONFIG.replace(total_bandwidth=1000)) as link:
        for _ in range(5):
            link.start()
        link.run(5.0)
        start = link.sim.clock.now
        peer = link.start(size=0)
        assert link.sim.clock.now - start <= 0.1
        other = link._others[0]
        start = link.sim.clock.now
        link.stop(link.peers[0])
        link.sim.run(lambda: other.error is not None, within=0.1)
        peer.connection.abort(link.sim.clock.now)


def test_connections_that_end_leave_the_budget_to_the_others() -> None:
    with SharedLink(rate=None, delay=0.02, config=BUDGET) as link:
        peers = [link.start() for _ in range(4)]
        link.run(2.0)
        for peer in peers[1:]:
            link.stop(peer)
        link.run(0.5)
        assert link.sender.endpoint._budget is not None
        assert link.sender.endpoint._budget.held <= 1
        assert link.rates(3.0)[0] / 0.97 == pytest.approx(TOTAL, rel=0.05)
