"""Delivery-rate samples against numbers worked out from draft-ietf-ccwg-bbr §4.1."""

from __future__ import annotations

import pytest

from burstwire.proto.congestion.delivery import DeliverySampler
from burstwire.proto.recovery import Recovery
from burstwire.proto.sent import SentLog, SentRecord


class Sender:
    """A log and its sampler; packets of 1,000 bytes."""

    def __init__(self) -> None:
        self.log = SentLog()
        self.sampler = DeliverySampler(0.0)
        self.number = 0

    def send(self, now: float, count: int = 1, size: int = 1000) -> SentRecord:
        record = SentRecord(self.number, count, self.log.sent, size, now)
        self.number += count
        self.log.add(record)
        self.sampler.on_sent(record, self.log.in_flight)
        return record

    def ack(self, now: float, low: int, high: int) -> DeliverySampler:
        self.sampler.on_acked(self.log.acknowledge([(low, high)]), now)
        return self.sampler

    def lose(self, now: float) -> None:
        self.sampler.on_lost(self.log.detect(now, 0.0, 3)[0])


def test_the_first_flight_is_measured_over_its_round_trip() -> None:
    sender = Sender()
    sender.send(1.0, 10)
    sample = sender.ack(1.1, 0, 9)
    assert sample.rate == pytest.approx(10_000 / 0.1)
    assert (sample.span, sample.newly_acked, sample.prior_delivered) == (10_000, 10_000, 0)


def test_acknowledgements_that_come_bundled_are_bounded_by_the_rate_of_sending() -> None:
    """§4.1.1.2.2: ten packets sent over 90 ms and acknowledged all at once were not delivered at once."""
    sender = Sender()
    sender.send(0.90)
    sender.ack(1.0, 0, 0)
    for i in range(10):
        sender.send(1.0 + i * 0.01)
    sender.ack(1.1, 1, 1)
    for i in range(10):
        sender.send(1.1 + i * 0.01)
    assert sender.ack(1.2, 2, 20).rate <= 1000 / 0.01 * 1.01


def test_packets_sent_faster_than_the_path_are_measured_at_the_rate_of_acknowledgements() -> None:
    sender = Sender()
    sender.send(1.0, 50)
    for i in range(49):
        sender.ack(1.1 + i * 0.01, i, i)
        sender.send(1.1 + i * 0.01, 1)
    assert sender.ack(1.6, 50, 60).rate == pytest.approx(100_000, rel=0.25)


def test_after_a_pause_the_interval_begins_with_the_new_flight() -> None:
    sender = Sender()
    sender.send(1.0, 5)
    sender.ack(1.1, 0, 4)
    sender.send(61.0, 5)
    assert sender.sampler.restarted
    assert sender.ack(61.1, 5, 9).rate == pytest.approx(5000 / 0.1)


def test_the_long_rate_is_the_mean_of_this_flight_and_the_one_before() -> None:
    sender = Sender()
    for i in range(10):
        sender.send(1.0 + i * 0.01)
    for i in range(10):  # each acknowledgement lets two go: twice the rate from now on
        sender.ack(1.1 + i * 0.01, i, i)
        sender.send(1.1 + i * 0.01, 2)
    for i in range(10):
        sender.ack(1.2 + i * 0.01, 10 + 2 * i, 11 + 2 * i)
        sender.send(1.2 + i * 0.01, 2)
    sample = sender.ack(1.3, 30, 31)
    assert sample.rate == pytest.approx(20_000 / 0.1, rel=0.06)
    assert sample.long_rate == pytest.approx(30_000 / 0.2, rel=0.06)


def test_the_long_rate_does_not_look_behind_a_pause_or_what_the_application_limited() -> None:
    sender = Sender()
    sender.send(1.0, 5)
    sender.ack(1.1, 0, 4)
    sender.send(61.0, 5)
    sample = sender.ack(61.1, 5, 9)
    assert sample.long_rate == pytest.approx(5000 / 0.1) == sample.rate
    sender.send(61.1, 5)
    sender.sampler.mark_app_limited(sender.log.in_flight)
    sender.send(61.15, 1)
    sender.ack(61.2, 10, 14)
    sender.ack(61.25, 15, 15)
    assert sender.sampler.is_app_limited
    sender.sampler.app_limited = 0
    sender.send(61.4, 5)
    sample = sender.ack(61.5, 16, 20)
    assert sample.long_rate == pytest.approx(5000 / 0.1)


def test_samples_are_app_limited_until_the_gap_was_acknowledged() -> None:
    sender = Sender()
    sender.send(1.0, 4)
    sender.sampler.mark_app_limited(sender.log.in_flight)
    sender.send(1.05, 4)  # sent behind the gap
    sender.ack(1.1, 0, 3)
    assert not sender.sampler.is_app_limited, "it was sent before the gap"
    assert sender.sampler.app_limited
    sender.send(1.1, 4)
    assert sender.ack(1.15, 4, 7).is_app_limited
    assert not sender.sampler.app_limited
    sender.send(1.15, 4)
    assert sender.ack(1.2, 8, 11).is_app_limited, "it was sent while the gap was in flight"
    assert not sender.ack(1.25, 12, 15).is_app_limited


def test_what_was_in_flight_and_lost_is_counted_from_the_packet_not_from_its_record() -> None:
    sender = Sender()
    sender.send(1.0, 10)
    sender.send(1.01, 20)
    sample = sender.ack(1.1, 10, 14)
    assert sample.tx_in_flight == 15_000, "ten before, and the five up to the newest"
    sender.lose(1.1)
    assert [tuple(run) for run in sample.lost_runs] == [(0, 0, 10_000, False)]
    assert sender.ack(1.12, 15, 29).lost_since == 10_000


def test_runs_of_lost_packets_are_told_apart_with_what_was_in_flight_before_each() -> None:
    sender = Sender()
    sender.send(1.0, 10)
    sender.log.acknowledge([(9, 9), (4, 5), (0, 1)])
    sender.lose(2.0)
    assert [tuple(run) for run in sender.sampler.lost_runs] == [(2000, 0, 2000, False), (6000, 2000, 3000, False)]
    assert sender.sampler.lost == 5000


def test_a_late_acknowledgement_counts_as_delivered() -> None:
    sender = Sender()
    sender.send(1.0, 10)
    sender.ack(1.1, 5, 9)
    sender.lose(2.0)
    assert sender.sampler.delivered == 5000
    assert sender.ack(2.1, 0, 4).delivered == 10_000


def test_probes_of_the_path_mtu_give_no_sample() -> None:
    sender = Sender()
    probe = sender.send(1.0, size=0)
    assert probe.delivery is None
    assert not sender.ack(1.1, 0, 0).has_sample


def test_where_time_stands_still_the_rate_stays_finite() -> None:
    sender = Sender()
    sender.send(1.0)
    assert 0 < sender.ack(1.0, 0, 0).rate <= 1e9


def test_records_carry_no_snapshot_for_a_controller_that_asks_for_none() -> None:
    recovery = Recovery(0.0, "cubic", 1200, 0.0, 0, True, 0.05)
    record = SentRecord(0, 5, 0, 1200, 0.0)
    recovery.sent(record)
    assert recovery.sampler is None
    assert record.delivery is None


def test_a_new_path_is_measured_without_what_the_old_one_delivers() -> None:
    recovery = Recovery(0.0, "bbr", 1200, 0.0, 0, True, 0.05)
    recovery.sent(SentRecord(0, 5, 0, 1200, 0.0))
    recovery.acknowledged([(0, 2)], 0.0, 0.05)
    recovery.new_path(0.06)
    sampler = recovery.sampler
    assert sampler is not None
    assert sampler.delivered == 0
    recovery.acknowledged([(0, 4)], 0.0, 0.07)
    assert (sampler.delivered, sampler.has_sample) == (0, False)
    recovery.sent(SentRecord(5, 5, recovery.log.sent, 1200, 0.1))
    recovery.acknowledged([(0, 9)], 0.0, 0.2)
    assert sampler.rate == pytest.approx(6000 / 0.1)
