"""Traces of simulated connections: every event is valid, and together they account for every packet and byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.qlog_schema import EVENTS, FRAMES, Trace, acknowledged, elicits, read_trace

from burstwire.config import Config
from burstwire.errors import ConfigError
from burstwire.proto.connection import Connection
from burstwire.qlog import Trace as Tracing
from burstwire.qlog import TraceFolder, trace_folder
from burstwire.qlog.frames import frames_of, transport_error
from burstwire.sim import Flow, Link, Peer, Simulation
from burstwire.wire import frames as f

LOSSY = Link(delay=0.02, rate=1e6, queue=40_000, loss=0.01, duplication=0.01, reordering=0.01, corruption=0.005)

SECRET = b"the words of an application"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(qlog_dir=str(tmp_path / "traces"))


def pair(sim: Simulation, config: Config) -> tuple[Peer, Peer]:
    return sim.connect(sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config))


def arrived(peer: Peer, flow: Flow) -> bool:
    return flow.stream is not None and flow.stream.id in peer.flows and peer.flow(flow).at_end


def traces(folder: Path) -> dict[str, Trace]:
    """The two traces of a connection by their role."""
    found = [read_trace(path) for path in sorted((folder / "traces").iterdir())]
    result = {trace.role: trace for trace in found}
    assert len(found) == len(result) == 2
    return result


def reach(connection: Connection) -> Trace:
    """What the trace of a connection says up to now."""
    tracer = connection.tracer
    assert isinstance(tracer, Tracing)
    tracer.flush()
    return read_trace(Path(tracer.path))


def everything(sim: Simulation, config: Config) -> None:
    """A life in which as much happens as can."""
    left, right = pair(sim, config)
    flow = left.open().send(400_000)
    back = right.open().send(50_000)
    left.send_messages([SECRET * 20])
    left.send_datagram(SECRET)
    left.host.poke()
    right.host.poke()
    sim.run(lambda: arrived(right, flow) and arrived(left, back))
    left.connection.update_keys()
    left.host.move("10.9.9.9", 777)
    flow = left.open().send(200_000)
    doomed, unwanted = left.open().send(3_000_000, finish=False), left.open().send(3_000_000, finish=False)
    left.host.poke()
    sim.run(lambda: arrived(right, flow) and doomed.stream is not None and unwanted.stream is not None)
    doomed.reset(7)
    sim.run(lambda: unwanted.stream.id in right.flows)
    right.flow(unwanted).stop(8)
    right.host.poke()
    left.host.poke()
    sim.pass_time(2)
    # Nothing is heard for a while: probes go out.
    sim.network.set_link(Link(delay=0.02, loss=1.0))
    flow = left.open().send(1000)
    left.host.poke()
    sim.pass_time(1)
    sim.network.set_link(Link(delay=0.02))
    sim.run(lambda: arrived(right, flow))
    left.close(9, "enough")
    left.host.poke()
    sim.pass_time(2)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_makes_valid_events(config: Config, tmp_path: Path, seed: int) -> None:
    with Simulation(seed, LOSSY) as sim:
        everything(sim, config.replace(application_protocol="test/1"))
    found = traces(tmp_path)
    assert {event["name"] for trace in found.values() for event in trace.events} == EVENTS.keys() - {"generic:info"}
    frames = {
        frame["frame_type"]
        for trace in found.values()
        for name in ("transport:packet_sent", "transport:packet_received")
        for packet in trace.named(name)
        for frame in packet["frames"]
    }
    # What only happens to those who run out of credit, and what this version does not send.
    assert frames >= FRAMES.keys() - {"data_blocked", "stream_data_blocked", "streams_blocked", "unknown"} - {
        "max_streams", "max_data", "max_stream_data",
    }  # fmt: skip
    (closed,) = found["client"].named("connectivity:connection_closed")
    assert closed == {"owner": "local", "application_code": 9, "reason": "enough", "trigger": "application"}
    (closed,) = found["server"].named("connectivity:connection_closed")
    assert closed == {"owner": "remote", "application_code": 9, "reason": "enough", "trigger": "application"}
    assert {data["dst_ip"] for data in found["server"].named("connectivity:path_updated")} == {"10.9.9.9"}
    assert found["client"].named("security:key_updated")[0]["trigger"] == "local_update"
    assert found["server"].named("security:key_updated")[0]["trigger"] == "remote_update"
    states = [data["new"] for data in found["client"].named("connectivity:connection_state_updated")]
    assert states[:2] == ["handshake_complete", "handshake_confirmed"]
    assert states[-1] == "closed"


@pytest.mark.parametrize("seed", range(2))
def test_every_number_sent_is_acknowledged_lost_or_in_flight(config: Config, seed: int) -> None:
    """Looked at while much is under way, and once more when it has come to rest."""
    with Simulation(seed, LOSSY) as sim:
        left, right = pair(sim, config)
        flow = left.open().send(1_000_000)
        for until in (lambda: flow.written or sim.elapsed > 0.5, lambda: arrived(right, flow)):
            sim.run(until)
            trace = reach(left.connection)
            stats = left.connection.stats()
            sent = {
                data["header"]["packet_number"]: data for data in trace.named("transport:packet_sent") if elicits(data)
            }
            acked, lost = acknowledged(trace), set(trace.numbers("recovery:packet_lost"))
            open_numbers = sent.keys() - acked - lost
            pending = {
                record.first + i
                for record in left.connection.recovery.log.records
                for i in range(record.count)
                if record.pending >> i & 1
            }
            assert open_numbers == pending
            assert acked <= set(trace.numbers("transport:packet_sent"))
            in_flight = sum(
                data["raw"]["length"]
                for number, data in sent.items()
                if number in open_numbers and not data.get("is_mtu_probe_packet")
            )
            assert in_flight == trace.metrics()["bytes_in_flight"] == stats["bytes_in_flight"]
        sim.pass_time(2)
        assert reach(left.connection).metrics()["bytes_in_flight"] == 0


@pytest.mark.parametrize("seed", range(2))
def test_packets_and_metrics_are_those_of_the_statistics(config: Config, seed: int) -> None:
    with Simulation(seed, LOSSY) as sim:
        for peer in (peers := pair(sim, config)):
            peer.open().send(300_000)
            peer.host.poke()
        for moment in (0.05, 0.3, 5):
            sim.pass_time(moment)
            for peer in peers:
                trace, stats = reach(peer.connection), peer.connection.stats()
                sent, received = trace.named("transport:packet_sent"), trace.named("transport:packet_received")
                dropped = [data["trigger"] for data in trace.named("transport:packet_dropped")]
                lost = trace.named("recovery:packet_lost")
                assert len(sent) == stats["packets_sent"]
                assert sum(data["raw"]["length"] for data in sent) == stats["bytes_sent"]
                assert len(received) == stats["packets_received"]
                assert dropped.count("rejected") == stats["packets_duplicate"]
                assert dropped.count("decryption_failure") == stats["packets_invalid"] + stats["packets_unopened"]
                assert len([data for data in lost if "is_mtu_probe_packet" not in data]) == stats["packets_lost"]
                assert len(trace.named("recovery:loss_timer_updated")) == stats["pto_expired"]
                assert trace.metrics()["congestion_window"] == stats["congestion_window"]
                assert trace.metrics()["smoothed_rtt"] == pytest.approx(stats["rtt"] * 1000)
                assert trace.metrics()["min_rtt"] == pytest.approx(stats["rtt_minimum"] * 1000)
                assert trace.named("connectivity:mtu_updated")[-1]["new"] == stats["mtu"]
        ours, theirs = (reach(peer.connection) for peer in peers)
        assert set(theirs.numbers("transport:packet_received")) <= set(ours.numbers("transport:packet_sent"))


def test_what_arrived_is_told_as_it_was_sent(config: Config, tmp_path: Path) -> None:
    with Simulation(1, LOSSY) as sim:
        everything(sim, config)
    found = traces(tmp_path)
    for here, there in (("client", "server"), ("server", "client")):
        sent = {data["header"]["packet_number"]: data for data in found[here].named("transport:packet_sent")}
        for data in found[there].named("transport:packet_received"):
            told = sent[data["header"]["packet_number"]]
            assert data["raw"] == told["raw"]
            assert data["frames"] == told["frames"]
    group = {trace.header["trace"]["common_fields"]["group_id"] for trace in found.values()}
    assert len(group) == 1


def test_two_runs_with_one_seed_leave_the_same_traces(tmp_path: Path) -> None:
    contents = []
    for run in ("first", "second"):
        with Simulation(5, LOSSY) as sim:
            everything(sim, Config(qlog_dir=str(tmp_path / run)))
        contents.append({path.name: path.read_bytes() for path in (tmp_path / run).iterdir()})
    assert len(contents[0]) == 2
    assert contents[0] == contents[1]


def test_a_connection_does_the_same_traced_or_not(config: Config) -> None:
    digests = set()
    for chosen in (config, Config(qlog_dir="")):
        with Simulation(6, LOSSY) as sim:
            everything(sim, chosen)
            digests.add(sim.network.digest())
    assert len(digests) == 1


def test_nothing_is_traced_unless_somebody_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QLOGDIR", raising=False)
    with Simulation(1) as sim:
        for peer in pair(sim, Config()):
            assert peer.connection.tracer is None
    monkeypatch.setenv("QLOGDIR", str(tmp_path))
    assert trace_folder(Config()) == str(tmp_path)
    assert trace_folder(Config(qlog_dir="elsewhere")) == "elsewhere"
    assert trace_folder(Config(qlog_dir="")) is None
    with Simulation(1) as sim:
        pair(sim, Config())
    assert len(list(tmp_path.iterdir())) == 2


def test_neither_what_applications_say_nor_any_secret_is_written(config: Config, tmp_path: Path) -> None:
    with Simulation(2, LOSSY) as sim:
        left, right = pair(sim, config)
        secrets = [
            *(peer.connection.peer_parameters.stateless_reset_token or b"" for peer in (left, right)),
            *(peer.host.key.private_bytes() for peer in (left, right)),
            *(peer.connection.keys._seal._secret for peer in (left, right)),
        ]
        assert all(secrets)
        left.send_messages([SECRET])
        left.send_datagram(SECRET)
        for _ in range(2):
            flow = left.open().send(50_000)
            left.host.poke()
            sim.run(lambda flow=flow: arrived(right, flow))
            if not left.connection.keys.sealing:
                left.connection.update_keys()
                left.host.move("10.9.9.9", 777)
        secrets.append(left.connection.keys._seal._secret)
        assert left.connection.keys.sealing == 1
    for path in (tmp_path / "traces").iterdir():
        raw = path.read_bytes()
        assert b'"path_challenge"}' in raw
        assert SECRET not in raw
        assert SECRET.hex().encode() not in raw
        for secret in secrets:
            assert secret.hex().encode() not in raw


def test_an_attempt_that_comes_to_nothing_leaves_no_file(config: Config, tmp_path: Path) -> None:
    """The first packet of the initiator is mangled on its way: the responder makes a connection to read it, for it
    alone, and forgets both."""
    with Simulation(3, Link(delay=0.05)) as sim:
        left, right = sim.host("10.0.0.1", config=config), sim.host("10.0.0.2", config=config)
        begun: list[object] = []
        begin = right.endpoint.trace
        assert begin is not None
        right.endpoint.trace = lambda connection, now: begun.append(begin(connection, now))
        left.connect(right)
        sim.pass_time(0.08)  # the INITIATE is there, and the RESPOND under way
        sim.network.set_link(Link(delay=0.05, corruption=1.0), left.address, right.address)
        sim.run(lambda: len(begun) >= 2)
        assert not right.applications
        sim.network.set_link(Link(delay=0.05))
        sim.run(lambda: right.applications)
    assert len(begun) > 2
    assert traces(tmp_path).keys() == {"client", "server"}


@pytest.mark.parametrize("limit", [4096, 50_000])
def test_a_trace_ends_at_its_limit_and_says_so(config: Config, tmp_path: Path, limit: int) -> None:
    with Simulation(4, LOSSY) as sim:
        left, right = pair(sim, config.replace(qlog_limit=limit))
        flow = left.open().send(500_000)
        left.host.poke()
        sim.run(lambda: arrived(right, flow))
        assert left.connection.tracer is None
        assert right.connection.tracer is None
    for path in (tmp_path / "traces").iterdir():
        assert limit - 1024 < path.stat().st_size <= limit
        last = read_trace(path).events[-1]
        assert last["name"] == "generic:info"
        assert "qlog_limit" in last["data"]["message"]


def test_an_idle_connection_says_how_it_ended(config: Config, tmp_path: Path) -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, config.replace(idle_timeout=5, keep_alive=1))
        right.host.crash()
        sim.run(lambda: left.connection.error is not None)
        (closed,) = reach_closed(tmp_path, "client")
        assert closed["trigger"] == "idle_timeout"
        sim.hosts.remove(right.host)  # it cannot come to a good end


def reach_closed(folder: Path, role: str) -> list[dict[str, object]]:
    for path in (folder / "traces").iterdir():
        if f"-{role}" in path.name:
            return read_trace(path).named("connectivity:connection_closed")
    raise AssertionError(f"no trace of the {role}")


def test_a_peer_that_forgot_the_connection_is_told_of_as_such(config: Config, tmp_path: Path) -> None:
    with Simulation(1, Link(delay=0.01)) as sim:
        left, right = pair(sim, config.replace(qlog_dir=str(tmp_path / "traces")))
        gone = right.connection
        right.host.endpoint._remove(gone)  # as after a restart
        left.open().send(1000, finish=False)
        left.host.poke()
        sim.run(lambda: left.connection.error is not None)
        right.host.ended.append((gone, left.connection.error or ConfigError("")))
    (closed,) = reach_closed(tmp_path, "client")
    assert closed["trigger"] == "stateless_reset"
    (closed,) = reach_closed(tmp_path, "server")
    assert closed == {"owner": "local", "reason": "the endpoint ended", "trigger": "error"}


def test_files_of_one_name_stand_beside_each_other(config: Config, tmp_path: Path) -> None:
    for _ in range(3):
        with Simulation(1) as sim:
            pair(sim, config)
    names = sorted(path.name for path in (tmp_path / "traces").iterdir())
    assert len(names) == 6
    assert [name.partition("-client")[2] for name in names if "client" in name] == ["-2.sqlog", "-3.sqlog", ".sqlog"]


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    folder = TraceFolder(str(tmp_path), 1 << 20, 0.0)
    with Simulation(1) as sim:
        left, _ = pair(sim, Config(qlog_dir=""))
        name = folder._name(left.connection, sim.clock.now)
        (tmp_path / name).symlink_to(precious)
        trace = folder.trace(left.connection, sim.clock.now)
        trace.stop()
    assert precious.read_text() == "keep"
    assert (tmp_path / name.replace(".sqlog", "-2.sqlog")).stat().st_mode & 0o777 == 0o600


def test_another_trace_takes_over(tmp_path: Path) -> None:
    folder = TraceFolder(str(tmp_path), 1 << 20, 0.0)
    with Simulation(1) as sim:
        left, _ = pair(sim, Config(qlog_dir=""))
        first = folder.trace(left.connection, sim.clock.now)
        sim.pass_time(1)
        second = folder.trace(left.connection, sim.clock.now)
        assert not first.active
        assert left.connection.tracer is second
        assert "took over" in read_trace(Path(first.path)).events[-1]["data"]["message"]
        second.stop()
        second.stop()
        assert left.connection.tracer is None
        flow = left.open().send(1000)
        sim.run(lambda: flow.written)
    assert len(read_trace(Path(second.path)).named("transport:packet_sent")) == 0


@pytest.mark.parametrize("value", [3, b"folder", Path("folder")])
def test_the_folder_is_named_by_a_string(value: object) -> None:
    with pytest.raises(ConfigError, match="qlog_dir"):
        Config(qlog_dir=value)  # type: ignore[arg-type]


# what packets carry

ALL = [
    (f.encode_ping(), {"frame_type": "ping"}),
    (
        f.encode_ack([(7, 9), (3, 3)], 100, (1, 2, 3)),
        {"frame_type": "ack", "ack_delay": 0.8, "acked_ranges": [[7, 9], [3]], "ect0": 1, "ect1": 2, "ce": 3},
    ),
    (f.encode_reset_stream(4, 5, 6), {"frame_type": "reset_stream", "stream_id": 4, "error_code": 5, "final_size": 6}),
    (f.encode_stop_sending(4, 5), {"frame_type": "stop_sending", "stream_id": 4, "error_code": 5}),
    (
        f.encode_stream(4, 10, b"abc", fin=True),
        {"frame_type": "stream", "stream_id": 4, "offset": 10, "length": 3, "fin": True},
    ),
    (f.encode_max_data(5), {"frame_type": "max_data", "maximum": 5}),
    (f.encode_max_stream_data(4, 5), {"frame_type": "max_stream_data", "stream_id": 4, "maximum": 5}),
    (f.encode_max_streams(5), {"frame_type": "max_streams", "maximum": 5, "stream_type": "bidirectional"}),
    (f.encode_max_streams(5, True), {"frame_type": "max_streams", "maximum": 5, "stream_type": "unidirectional"}),
    (f.encode_data_blocked(5), {"frame_type": "data_blocked", "limit": 5}),
    (f.encode_stream_data_blocked(4, 5), {"frame_type": "stream_data_blocked", "stream_id": 4, "limit": 5}),
    (f.encode_streams_blocked(5), {"frame_type": "streams_blocked", "limit": 5, "stream_type": "bidirectional"}),
    (f.encode_path_challenge(bytes(8)), {"frame_type": "path_challenge"}),
    (f.encode_path_response(bytes(8)), {"frame_type": "path_response"}),
    (
        f.encode_close(0x0A, "no", 6),
        {
            "frame_type": "connection_close",
            "error_space": "transport",
            "error_code": "protocol_violation",
            "error_code_value": 10,
            "reason": "no",
            "trigger_frame_type": 6,
        },
    ),
    (
        f.encode_close(10, "bye", by_application=True),
        {
            "frame_type": "connection_close",
            "error_space": "application",
            "error_code": 10,
            "error_code_value": 10,
            "reason": "bye",
        },
    ),
    (f.encode_confirm(), {"frame_type": "handshake_done"}),
    (f.encode_datagram(b"abc"), {"frame_type": "datagram", "length": 3}),
    (
        f.encode_ack_frequency(3, 31, 12_500, 0),
        {
            "frame_type": "ack_frequency",
            "sequence_number": 3,
            "ack_eliciting_threshold": 31,
            "request_max_ack_delay": 12.5,
            "reordering_threshold": 0,
        },
    ),
    (f.encode_observed_address(bytes(24)), {"frame_type": "unknown", "frame_type_value": 0x40}),
]


@pytest.mark.parametrize(("raw", "told"), ALL, ids=lambda value: value["frame_type"] if isinstance(value, dict) else "")
def test_a_frame_is_told_in_the_words_of_the_draft(raw: bytes, told: dict[str, object]) -> None:
    assert frames_of(raw + f.encode_padding(3), 3) == [told]
    assert EVENTS["transport:packet_received"]({"header": {"packet_type": "1RTT"}, "frames": [told]})


def test_what_cannot_be_read_is_told_as_such() -> None:
    assert frames_of(b"\x2f", 3) == [{"frame_type": "unknown", "frame_type_value": 0}]
    assert transport_error(0x3333) == 0x3333
