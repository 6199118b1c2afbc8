"""From the events of a trace to what is drawn of them, in bounded memory however long the trace is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

from burstwire.cli.traces import Event

__all__ = ["Bins", "Curve", "Series", "collect"]

POINTS = 4096
"""Points of a curve that are kept, at least and at most twice as many: more than a picture has columns."""

BINS = 2048
"""Stretches of time that are told apart; twice as long ones when there would be more."""

SHOWN_BINS = 200
"""Stretches in a picture at most: shorter ones show single flights instead of a rate."""

SHORTEST = 0.001
"""Seconds of the stretches at first."""

OUTSTANDING = 1 << 17
"""Packets that may wait for their acknowledgement; of more, the oldest count as lost."""


class Curve:
    """Values over time. Of a long one the extremes of each stretch stay.

    Attributes:
        points: (seconds, value), in the order of time.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def add(self, time: float, value: float) -> None:
        """A value from this time on."""
        points = self.points
        points.append((time, value))
        if len(points) >= 2 * POINTS:
            thinned: list[tuple[float, float]] = []
            for start in range(0, len(points), 4):
                group = points[start : start + 4]
                low = min(group, key=lambda point: point[1])
                high = max(group, key=lambda point: point[1])
                thinned += sorted((low, high))
            self.points = thinned


class Bins:
    """Amounts by stretch of time.

    Attributes:
        total: their sum.
        width: seconds of a stretch.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.width = SHORTEST
        self._sums: dict[int, float] = {}

    def add(self, time: float, amount: float) -> None:
        """Something at a time."""
        self.total += amount
        place = int(time / self.width)
        self._sums[place] = self._sums.get(place, 0) + amount
        if len(self._sums) > BINS:
            self._widen()

    def shown(self, duration: float) -> list[tuple[float, float]]:
        """(start of a stretch, amount in it) from 0 to `duration`, at most `SHOWN_BINS` of them; [] for nothing."""
        if not self._sums:
            return []
        while duration / self.width >= SHOWN_BINS:
            self._widen()
        return [(i * self.width, self._sums.get(i, 0.0)) for i in range(int(duration / self.width) + 1)]

    def _widen(self) -> None:
        self.width *= 2
        sums: dict[int, float] = {}
        for place, amount in self._sums.items():
            sums[place // 2] = sums.get(place // 2, 0) + amount
        self._sums = sums


class Series:
    """What one trace shows.

    Attributes:
        window, in_flight, threshold: of the congestion controller, in bytes.
        latest, smoothed, minimum: round-trip times in seconds.
        acknowledged: bytes of packets that the peer has acknowledged for the first time, when it was heard.
        received: bytes of packets that came.
        lost: packets declared lost.
        moves: when the peer's address changed.
        events: how many there were. packets_sent, packets_received: the same of packets.
        duration: seconds from the first to the last event.
    """

    def __init__(self) -> None:
        self.window = Curve()
        self.in_flight = Curve()
        self.threshold = Curve()
        self.latest = Curve()
        self.smoothed = Curve()
        self.minimum = Curve()
        self.acknowledged = Bins()
        self.received = Bins()
        self.lost = Bins()
        self.moves: list[float] = []
        self.events = 0
        self.packets_sent = 0
        self.packets_received = 0
        self.duration = 0.0


_METRICS = {
    "congestion_window": "window",
    "cwnd": "window",  # as it was called before, and still is by some
    "bytes_in_flight": "in_flight",
    "ssthresh": "threshold",
    "latest_rtt": "latest",
    "smoothed_rtt": "smoothed",
    "min_rtt": "minimum",
}
_TIMES = {"latest_rtt", "smoothed_rtt", "min_rtt"}

MOST_MOVES = 1000
"""Changes of address that are kept: more lines hide everything else."""


def collect(events: Iterable[Event], milliseconds: float = 1.0) -> Series:
    """Everything that is drawn of a trace.

    Args:
        events: in the order of their times.
        milliseconds: how many of them the unit of times in their data is.
    """
    series = Series()
    waiting: dict[str, _Outstanding] = {}
    for time, name, data in events:
        series.events += 1
        series.duration = max(series.duration, time)
        if name in ("metrics_updated", "recovery_metrics_updated"):
            for field, curve in _METRICS.items():
                value = data.get(field)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    getattr(series, curve).add(time, value * milliseconds / 1000 if field in _TIMES else value)
        elif name == "packet_sent":
            space, number, size = _packet(data)
            series.packets_sent += 1
            if number is not None:
                waiting.setdefault(space, _Outstanding()).add(number, size)
        elif name == "packet_received":
            space, _, size = _packet(data)
            series.packets_received += 1
            if size:
                series.received.add(time, size)
            acked = sum(waiting[space].settle(ranges) for ranges in _acknowledged(data)) if space in waiting else 0
            if acked:
                series.acknowledged.add(time, acked)
        elif name == "packet_lost":
            series.lost.add(time, 1)
        elif name == "path_updated" and len(series.moves) < MOST_MOVES:
            series.moves.append(time)
    return series


class _Outstanding:
    """Packets of one number space that were sent and not yet acknowledged, the lost ones too: they may only be late."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._sizes: list[int] = []

    def add(self, number: int, size: int) -> None:
        """A packet was sent."""
        numbers, sizes = self._numbers, self._sizes
        if not numbers or number > numbers[-1]:
            numbers.append(number)
            sizes.append(size)
        else:  # some write their events out of order
            place = bisect_left(numbers, number)
            numbers.insert(place, number)
            sizes.insert(place, size)
        if len(numbers) > OUTSTANDING:
            del numbers[: OUTSTANDING // 2], sizes[: OUTSTANDING // 2]

    def settle(self, ranges: list[tuple[int, int]]) -> int:
        """Bytes of the packets in these ranges (inclusive) that had not been acknowledged."""
        total = 0
        for low, high in ranges:
            start, stop = bisect_left(self._numbers, low), bisect_right(self._numbers, high)
            if stop > start:
                total += sum(self._sizes[start:stop])
                del self._numbers[start:stop], self._sizes[start:stop]
        return total


def _packet(data: dict[str, Any]) -> tuple[str, int | None, int]:
    """Number space, number and bytes of a packet; None and 0 for what is not said."""
    header, raw = data.get("header"), data.get("raw")
    header = header if isinstance(header, dict) else {}
    raw = raw if isinstance(raw, dict) else {}
    number, size, kind = header.get("packet_number"), raw.get("length"), header.get("packet_type")
    return (
        kind if kind in ("initial", "handshake") else "application",  # RFC 9000 §12.3: 0-RTT and 1-RTT share theirs
        number if isinstance(number, int) else None,
        size if isinstance(size, int) else 0,
    )


def _acknowledged(data: dict[str, Any]) -> Iterable[list[tuple[int, int]]]:
    """The ranges of each ACK frame of a packet."""
    frames = data.get("frames")
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, dict) and frame.get("frame_type") == "ack":
            ranges = frame.get("acked_ranges")
            if isinstance(ranges, list):
                yield [
                    (pair[0], pair[-1])
                    for pair in ranges
                    if isinstance(pair, list) and pair and isinstance(pair[0], int) and isinstance(pair[-1], int)
                ]
