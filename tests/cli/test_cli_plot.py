"""`burstwire plot`: what is drawn of a trace, and what is said of files that are none."""

from __future__ import annotations

import json
import struct
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from processes import Bench
from support.qlog_schema import Trace, acknowledged, read_trace

from burstwire.cli import main
from burstwire.cli.exits import ExitCode
from burstwire.cli.plot import COLOURS
from burstwire.cli.series import POINTS, SHOWN_BINS, Bins, Curve, collect
from burstwire.cli.traces import MOST, NotATrace, TraceFile
from burstwire.config import Config
from burstwire.sim import Link, Simulation


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace of the sender of a simulated transfer over a lossy link."""
    folder = tmp_path_factory.mktemp("traces")
    with Simulation(1, Link(delay=0.02, rate=1e6, queue=40_000, loss=0.01)) as sim:
        hosts = [sim.host(f"10.0.0.{n}", config=Config(qlog_dir=str(folder))) for n in (1, 2)]
        left, right = sim.connect(*hosts)
        flow = left.open().send(500_000)
        sim.run(lambda: flow.stream is not None and flow.stream.id in right.flows and right.flow(flow).at_end)
    (path,) = folder.glob("*client*")
    return path


@pytest.fixture
def path(lossy: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    copy = tmp_path / "trace.sqlog"
    copy.write_bytes(lossy.read_bytes())
    return copy


def plot(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["plot", *map(str, arguments), "--json"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.err == ""
    return dict(json.loads(shown.out))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: ExitCode = ExitCode.LOCAL) -> str:
    assert main(["plot", *map(str, arguments)]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


def points(trace: Trace, metric: str) -> list[tuple[float, float]]:
    start = trace.events[0]["time"]
    return [
        (pytest.approx((event["time"] - start) / 1000), event["data"][metric])
        for event in trace.events
        if event["name"] == "recovery:metrics_updated" and metric in event["data"]
    ]


def write_sequence(path: Path, header: dict[str, Any], events: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"\x1e{json.dumps(record)}\n" for record in (header, *events)))
    return path


# what is drawn


def test_the_series_are_what_the_trace_says(lossy: Path) -> None:
    trace, file = read_trace(lossy), TraceFile(lossy)
    series = collect(file.events())
    assert (file.version, file.title) == ("0.3", "burstwire, client")
    assert series.events == len(trace.events)
    assert series.window.points == points(trace, "congestion_window")
    assert series.in_flight.points == points(trace, "bytes_in_flight")
    assert series.threshold.points == points(trace, "ssthresh")
    for curve, metric in (
        (series.latest, "latest_rtt"),
        (series.smoothed, "smoothed_rtt"),
        (series.minimum, "min_rtt"),
    ):
        assert curve.points == [(time, pytest.approx(value / 1000)) for time, value in points(trace, metric)]
        assert curve.points
    assert series.packets_sent == len(trace.named("transport:packet_sent"))
    assert series.lost.total == len(trace.named("recovery:packet_lost")) > 0
    acked = acknowledged(trace)
    assert series.acknowledged.total == sum(
        data["raw"]["length"]
        for data in trace.named("transport:packet_sent")
        if data["header"]["packet_number"] in acked
    )
    assert series.received.total == sum(data["raw"]["length"] for data in trace.named("transport:packet_received"))


def test_an_svg_has_every_series_by_its_name(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    result = plot(capsys, path)
    picture = path.with_suffix(".svg")
    assert result["output"] == str(picture)
    root = ET.fromstring(picture.read_bytes())
    names = {group.get("id") for group in root.iter("{http://www.w3.org/2000/svg}g")}
    assert names >= COLOURS.keys()
    words = "".join(root.itertext())
    assert "burstwire, client" in words
    assert "congestion window" in words


def test_a_png_is_one(capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.PNG"
    result = plot(capsys, path, "--output", picture)
    raw = picture.read_bytes()
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", raw, 16)
    assert (width, height) == (1200, 1080)
    assert result["packets_lost"] > 0
    assert not path.with_suffix(".svg").exists()


def test_the_same_trace_makes_the_same_picture(capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{n}.svg" for n in range(2)]
    for picture in pictures:
        plot(capsys, path, "--output", picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_a_trace_of_a_command_is_drawn(bench: Bench, tmp_path: Path) -> None:
    receiver = bench.receiver("--qlog", str(tmp_path / "theirs"))
    outcome = bench.run("ping", *receiver.at, "--count", "1", "--qlog", str(tmp_path / "ours"))
    assert outcome.code == ExitCode.OK
    (ours,) = (tmp_path / "ours").iterdir()
    assert read_trace(ours).role == "client"
    drawn = bench.run(
        "plot", str(ours), "--output", str(tmp_path / "p.svg"), environment={"MPLCONFIGDIR": str(tmp_path)}
    )
    assert drawn.code == ExitCode.OK
    assert "packets sent" in drawn.stdout
    ET.fromstring((tmp_path / "p.svg").read_bytes())


# long traces


def test_a_long_curve_keeps_its_extremes_and_little_else() -> None:
    curve = Curve()
    values = [float(n % 1000) for n in range(40 * POINTS)]
    values[12_345], values[99_999] = 5000.0, -7.0
    for n, value in enumerate(values):
        curve.add(n / 10, value)
    assert len(curve.points) < 2 * POINTS
    assert curve.points == sorted(curve.points)
    assert (1234.5, 5000.0) in curve.points
    assert (9999.9, -7.0) in curve.points
    assert set(curve.points) <= {(n / 10, value) for n, value in enumerate(values)}


def test_amounts_by_time_lose_nothing_when_stretches_grow() -> None:
    bins = Bins()
    for n in range(100_000):
        bins.add(n * 0.01, n % 7)
    shown = bins.shown(1000.0)
    assert 50 <= len(shown) <= SHOWN_BINS
    assert sum(amount for _, amount in shown) == bins.total == sum(n % 7 for n in range(100_000))
    assert shown[0][0] == 0.0
    assert all(b - a == pytest.approx(bins.width) for (a, _), (b, _) in pairwise(shown))


def test_acknowledgements_count_once_also_late_and_out_of_order() -> None:
    def packet(name: str, number: int, size: int, ranges: list[list[int]] | None = None) -> tuple[str, dict[str, Any]]:
        frames = [] if ranges is None else [{"frame_type": "ack", "acked_ranges": ranges}]
        header = {"packet_type": "1RTT", "packet_number": number}
        return name, {"header": header, "raw": {"length": size}, "frames": frames}

    events = [
        packet("packet_sent", 1, 10),
        packet("packet_sent", 3, 1000),
        packet("packet_sent", 2, 100),
        packet("packet_received", 1, 1, [[1, 2]]),
        packet("packet_lost", 3, 0),
        packet("packet_received", 2, 1, [[1, 2], [0]]),
        packet("packet_received", 3, 1, [[1, 3]]),
    ]
    totals = []
    for end in range(1, len(events) + 1):
        totals.append(collect((float(n), *event) for n, event in enumerate(events[:end])).acknowledged.total)
    assert totals == [0, 0, 0, 110, 110, 110, 1110]


# files of others

AIOQUIC = {
    "qlog_format": "JSON",
    "qlog_version": "0.3",
    "traces": [
        {
            "common_fields": {"ODCID": "d2f1"},
            "events": [
                {
                    "data": {"bytes_in_flight": 1280, "cwnd": 12800},
                    "name": "recovery:metrics_updated",
                    "time": 1_600_000_000_000.5,
                },
                {
                    "data": {
                        "frames": [{"frame_type": "ping"}],
                        "header": {"packet_number": 0, "packet_type": "initial", "scid": "", "dcid": "d2f1"},
                        "raw": {"length": 1280},
                    },
                    "name": "transport:packet_sent",
                    "time": 1_600_000_000_001.5,
                },
                {
                    "data": {
                        "frames": [{"ack_delay": 1.0, "acked_ranges": [[0, 0]], "frame_type": "ack"}],
                        "header": {"packet_number": 0, "packet_type": "initial", "scid": "", "dcid": "d2f1"},
                        "raw": {"length": 100},
                    },
                    "name": "transport:packet_received",
                    "time": 1_600_000_000_011.5,
                },
                {
                    "data": {"latest_rtt": 10.0, "smoothed_rtt": 10.0, "min_rtt": 10.0},
                    "name": "recovery:metrics_updated",
                    "time": 1_600_000_000_011.5,
                },
            ],
            "vantage_point": {"name": "aioquic", "type": "client"},
        }
    ],
}
"""As aioquic writes it, absolute times and all."""


def quic_go(path: Path) -> Path:
    """As quic-go writes it since it names schemas: version by URN, times to a struct, categories of before."""
    header = {
        "file_schema": "urn:ietf:params:qlog:file:sequential",
        "serialization_format": "application/qlog+json-seq",
        "title": "quic-go qlog",
        "trace": {
            "vantage_point": {"type": "client"},
            "common_fields": {
                "reference_time": {"clock_type": "monotonic", "epoch": "unknown", "wall_clock_time": "2026-01-01"},
                "time_format": "relative_to_epoch",
            },
        },
    }
    trace: list[dict[str, Any]] = [dict(event) for event in AIOQUIC["traces"][0]["events"]]  # type: ignore[index]
    for event in trace:
        event["time"] -= 1_600_000_000_000.25
    trace[0]["name"], trace[1]["name"] = "recovery:metrics_updated", "quic:packet_sent"
    trace[3]["name"] = "quic:recovery_metrics_updated"
    return write_sequence(path, header, trace)


def check_foreign(file: TraceFile) -> None:
    series = collect(file.events(), file.milliseconds)
    assert series.events == 4
    assert series.duration == pytest.approx(0.011)
    assert series.window.points == [(0.0, 12800)]
    assert series.latest.points == [(pytest.approx(0.011), pytest.approx(0.010))]
    assert series.acknowledged.total == 1280
    assert series.received.total == 100
    assert not file.truncated


def test_a_trace_of_aioquic_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(AIOQUIC, indent=1))
    file = TraceFile(path)
    check_foreign(file)
    assert plot(capsys, path)["events"] == 4


def test_a_trace_of_quic_go_is_read(tmp_path: Path) -> None:
    file = TraceFile(quic_go(tmp_path / "g.sqlog"))
    assert file.title == "quic-go qlog, client"
    check_foreign(file)


def test_the_order_of_fields_does_not_matter(tmp_path: Path) -> None:
    """What says how times are meant may stand behind the events."""
    path = tmp_path / "a.qlog"
    trace = dict(AIOQUIC["traces"][0])  # type: ignore[index]
    events = [event | {"time": (event["time"] - 1_600_000_000_000) * 1000} for event in trace.pop("events")]
    for event in events:
        if "latest_rtt" in event["data"]:
            event["data"] = {name: value * 1000 for name, value in event["data"].items()}
    last = {"configuration": {"time_units": "us"}, "common_fields": {"time_format": "relative"}}
    path.write_text(json.dumps({"traces": [{"events": events, **last}], "qlog_version": "0.3"}))
    file = TraceFile(path)
    assert file.milliseconds == 0.001
    check_foreign(file)


@pytest.mark.parametrize("kind", ["delta", "relative_to_previous_event"])
def test_times_may_count_from_the_event_before(tmp_path: Path, kind: str) -> None:
    header = {"qlog_version": "0.4", "trace": {"common_fields": {"time_format": kind}}}
    events = [{"time": time, "name": "quic:packet_sent", "data": {}} for time in (1_600_000_000_000, 5, 0, 7.5)]
    file = TraceFile(write_sequence(tmp_path / "d.sqlog", header, events))
    assert [time for time, _, _ in file.events()] == pytest.approx([0, 0.005, 0.005, 0.0125])


def test_one_object_a_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "n.qlog"
    trace: dict[str, Any] = AIOQUIC["traces"][0]  # type: ignore[index]
    header = {"qlog_version": "0.3", "qlog_format": "NDJSON", "trace": {"common_fields": trace["common_fields"]}}
    path.write_text("\n".join(json.dumps(record) for record in (header, *trace["events"])))
    check_foreign(TraceFile(path))


def test_of_several_traces_the_first_is_drawn_and_that_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(AIOQUIC | {"traces": AIOQUIC["traces"] * 2}))
    assert main(["plot", str(path)]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert shown.startswith(f"{path.with_suffix('.svg')}: 4 events")
    assert "several traces" in shown


# files that are cut off or none


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_last_record_that_is_cut_off_is_left_out_and_told_of(
    capsys: pytest.CaptureFixture[str], path: Path, cut: int
) -> None:
    whole = len(list(TraceFile(path).events()))
    path.write_bytes(path.read_bytes()[:-cut])
    lost = cut > 1  # the line feed alone is no part of the JSON
    file = TraceFile(path)
    assert len(list(file.events())) == whole - lost
    assert file.truncated is lost
    assert main(["plot", str(path)]) == ExitCode.OK
    assert ("cut off" in capsys.readouterr().out) is lost


def test_plain_json_that_is_cut_off_is_drawn_as_far_as_it_goes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.qlog"
    text = json.dumps(AIOQUIC)
    path.write_text(text[: text.index('"latest_rtt"')])
    result = plot(capsys, path)
    assert (result["events"], result["truncated"]) == (3, True)


def test_records_in_between_that_cannot_be_read_are_counted(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    whole = len(list(TraceFile(path).events()))
    records = path.read_bytes().split(b"\x1e")
    records[5], records[9] = records[5][:10], b"{"
    path.write_bytes(b"\x1e".join(records))
    result = plot(capsys, path)
    assert (result["events"], result["damaged"], result["truncated"]) == (whole - 2, 2, False)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"hello", "neither"),
        (b"\x89PNG\r\n\x1a\n", "neither"),
        (b"[1, 2]", "neither"),
        (b"{", "no JSON"),
        (b"{}", "qlog_version"),
        (b'{"qlog_version": "0.3"}', "no traces"),
        (b'{"qlog_version": "0.3", "traces": []}', "no traces"),
        (b'{"name": "package", "version": "1.0"}', "qlog_version"),
        (b"\x1enonsense\n", "first record"),
        (b"\x1e[]\n", "first record"),
        (b'\x1e{"qlog_format": "JSON-SEQ"}\n', "qlog_version"),
        (b'\x1e{"qlog_version": "0.3", "trace": {}}\n\x1e[0, "transport", "packet_sent"]\n', "lists"),
        (b'\x1e{"qlog_version": "0.3", "trace": {}}\n\x1e{"time": 1}\n', "no name"),
        (b'\x1e{"qlog_version": "0.3", "trace": {}}\n\x1e7\n', "no object"),
        (b'{"qlog_version": "0.3", "traces": [{"events": [3]}]}', "no object"),
        (b'\x1e{"qlog_version": "0.3", "trace": {}}\n', "no events"),
    ],
)
def test_what_is_no_qlog_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "what.qlog"
    path.write_bytes(content)
    complaint = refused(capsys, path)
    assert str(path) in complaint
    assert why in complaint
    assert not path.with_suffix(".svg").exists()


def test_a_record_without_end_is_refused_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "long.sqlog"
    with path.open("wb") as file:
        file.write(b'\x1e{"qlog_version": "0.3", "trace": {}}\n\x1e')
        file.write(bytes(MOST + (4 << 20)))
    with pytest.raises(NotATrace, match="record"):
        list(TraceFile(path).events())


def test_fields_of_unexpected_kinds_are_passed_over() -> None:
    events: list[Any] = [
        (0.0, "metrics_updated", {"congestion_window": "many", "bytes_in_flight": None, "ssthresh": True}),
        (0.1, "packet_sent", {"header": [], "raw": 3, "frames": 7}),
        (0.2, "packet_sent", {}),
        (0.25, "packet_sent", {"header": {"packet_type": "1RTT", "packet_number": 4}, "raw": {"length": 100}}),
        (0.3, "packet_received", {"header": {"packet_number": "x"}, "frames": [5, {"frame_type": "ack"}]}),
        (0.4, "packet_received", {"frames": [{"frame_type": "ack", "acked_ranges": [[], 4, ["a", "b"]]}]}),
    ]
    series = collect(events)
    assert series.events == 6
    assert not series.window.points
    assert series.acknowledged.total == 0


def test_files_that_cannot_be_read_or_written_are_named(
    capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    assert "no such file" in refused(capsys, tmp_path / "nowhere.sqlog")
    assert "is a directory" in refused(capsys, tmp_path)
    assert str(tmp_path / "no" / "p.svg") in refused(capsys, path, "--output", tmp_path / "no" / "p.svg")


@pytest.mark.parametrize("output", ["p.pdf", "p", "trace.svg"])
def test_a_picture_of_another_kind_or_in_place_of_the_trace_is_refused(
    capsys: pytest.CaptureFixture[str], path: Path, output: str
) -> None:
    if output == "trace.svg":
        path = path.rename(path.with_suffix(".svg"))
    complaint = refused(capsys, path, "--output", path.with_name(output), code=ExitCode.USAGE)
    assert "--help" in complaint


@pytest.mark.parametrize("package", ["matplotlib", "ijson"])
def test_without_its_packages_one_line_says_how_to_install_them(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    complaint = refused(capsys, path)
    assert package in complaint
    assert "pip install 'burstwire[plot]'" in complaint
