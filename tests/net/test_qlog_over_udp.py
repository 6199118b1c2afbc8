"""Traces of real connections: switched on by settings, environment or call; and files that fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from linked import linked
from support.loops import Run, run_under, settled
from support.qlog_schema import acknowledged, elicits, read_trace

import burstwire as bw
from burstwire import Config
from burstwire.aio import tracing

SIZE = 300_000


async def transfer(link: object, size: int = SIZE) -> None:
    here, there = await link.stream()  # type: ignore[attr-defined]
    await here.write(bytes(size))
    await here.finish()
    while await there.read(1 << 20):
        pass
    await link.here.send(b"a message")  # type: ignore[attr-defined]
    assert await link.there.recv() == b"a message"  # type: ignore[attr-defined]


def test_every_connection_of_an_endpoint_leaves_a_valid_trace(run: Run, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    stats = {}

    async def main() -> None:
        async with linked(config.replace(qlog_dir=str(folder))) as link:
            await transfer(link)
            await link.here.close()
            await link.there.wait_closed()
            for name, connection, endpoint in (("client", link.here, link.a), ("server", link.there, link.b)):
                stats[name] = connection.stats()
                stats[f"{name} address"] = connection.peer_address, endpoint.local_address
                assert endpoint.stats()["traces_started"] == 1
                assert endpoint.stats()["traces_failed"] == 0

    run(main)
    found = {trace.role: trace for trace in map(read_trace, folder.iterdir())}
    assert found.keys() == {"client", "server"}
    for role, trace in found.items():
        sent = trace.named("transport:packet_sent")
        assert len(sent) >= stats[role]["packets_sent"] > 0
        assert len(trace.named("transport:packet_received")) >= stats[role]["packets_received"] > 0
        numbers = {data["header"]["packet_number"] for data in sent if elicits(data)}
        settled_numbers = acknowledged(trace) | set(trace.numbers("recovery:packet_lost"))
        # The ACK of the last words, and the close, need not be acknowledged any more.
        assert len(numbers - settled_numbers) <= 4
        (started,) = trace.named("connectivity:connection_started")
        (peer_host, peer_port), (own_host, own_port) = stats[f"{role} address"]
        assert (started["dst_ip"], started["dst_port"]) == (peer_host, peer_port)
        assert (started["src_ip"], started["src_port"]) == (own_host, own_port)
        assert trace.named("connectivity:connection_state_updated")[-1]["new"] == "closed"
    ids = {(data["src_cid"], data["dst_cid"]) for trace in found.values()
           for data in trace.named("connectivity:connection_started")}  # fmt: skip
    assert len(ids) == 2
    assert {pair[::-1] for pair in ids} == ids


def test_one_connection_is_traced_on_demand(run: Run, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "one.sqlog"

    async def main() -> None:
        async with linked(config.replace(qlog_dir="")) as link:
            await transfer(link, 10_000)
            with link.here.trace(path) as trace:
                assert trace.active
                assert path.exists()
                await transfer(link)
            assert not trace.active
            assert trace.failure is None
            assert trace.size == path.stat().st_size
            await transfer(link, 10_000)
            assert trace.size == path.stat().st_size
            # Another one is written over it, and ends with the connection.
            again = link.here.trace(path)
            await transfer(link, 10_000)
            await link.here.close()
            with pytest.raises(bw.ConnectionLost):
                link.here.trace(tmp_path / "late.sqlog")
        assert not again.active

    run(main)
    trace = read_trace(path)
    data = [
        frame["length"]
        for packet in trace.named("transport:packet_sent")
        for frame in packet["frames"]
        if frame["frame_type"] == "stream"
    ]
    assert 10_000 < sum(data) < SIZE
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_cannot_be_opened_is_refused_at_once(run: Run, config: Config, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(config.replace(qlog_dir="")) as link:
            for path in (tmp_path / "no" / "file", tmp_path):
                with pytest.raises(OSError, match=str(path)):
                    link.here.trace(path)
            await transfer(link, 1000)

    run(main)


def test_a_full_disk_ends_the_trace_and_not_the_connection(
    run: Run, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with linked(config.replace(qlog_dir="")) as link:
            for times in (1, 2):
                trace = link.here.trace("/dev/full")
                await transfer(link)
                trace.flush()
                assert not trace.active
                assert trace.failure is not None
                assert "No space" in str(trace.failure)
                assert link.a.stats()["traces_failed"] == times
            await transfer(link)
        assert [message for message in caplog.messages if "/dev/full" in message] == caplog.messages
        assert len(caplog.messages) == 1

    run(main)


@pytest.mark.parametrize("place", ["a file", "gone"])
def test_a_folder_that_cannot_be_used_costs_the_traces_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    folder = tmp_path / "folder"
    if place == "a file":
        folder.write_text("not a folder")

    async def main() -> None:
        async with linked(Config(qlog_dir=str(folder))) as link:
            await transfer(link)
            if place == "gone":
                for connection in (link.here, link.there):
                    connection._core.tracer.flush()  # has its file now, and keeps it
                shutil.rmtree(folder)
                folder.write_text("not a folder any more")
                second = await link.a.connect(link.b.local_address, link.b.public_key)
                await second.send(b"hello")
                await second.close()
                await settled(lambda: len(link.b._driver.protocol.connections) == 1)
            await transfer(link)
            await link.here.close()
            await link.there.wait_closed()
        assert link.a.stats()["traces_failed"] == 1
        assert link.b.stats()["traces_failed"] == 1
        assert len([message for message in caplog.messages if str(folder) in message]) == 2  # once an endpoint

    run_under("asyncio", main)


def test_what_a_resting_connection_did_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_AFTER", 0.01)
    path = tmp_path / "one.sqlog"

    async def main() -> None:
        async with linked(Config(qlog_dir="", keep_alive=0)) as link:
            trace = link.here.trace(path)
            await transfer(link, 1000)
            await settled(lambda: trace.size == path.stat().st_size > 0)
            assert trace.active

    run_under("asyncio", main)


def test_the_environment_switches_traces_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLOGDIR", str(tmp_path))

    async def main() -> None:
        async with linked(Config(), Config(qlog_dir="")) as link:
            await transfer(link, 1000)

    run_under("asyncio", main)
    (path,) = tmp_path.iterdir()
    assert read_trace(path).role == "client"
