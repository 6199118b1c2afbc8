"""Files through a network that loses, doubles, reorders and damages datagrams arrive as they were."""

from __future__ import annotations

import signal

import pytest
from processes import Bench
from support.relay import Faults, Relay
from test_cli_end_to_end import MIB, hash_of, make_file, wait_for_partial

from burstwire.cli.exits import ExitCode

BAD = Faults(drop=0.05, duplicate=0.01, reorder=0.01, corrupt=0.01)


@pytest.mark.parametrize("size", [16 * MIB, pytest.param(64 * MIB, marks=pytest.mark.slow)])
def test_a_file_arrives_intact_through_loss_duplication_reordering_and_damage(bench: Bench, size: int) -> None:
    path = bench.folder / "file.bin"
    digest = make_file(path, size)
    receiver = bench.receiver("--once")
    with Relay(("127.0.0.1", receiver.port), BAD, seed=7) as relay:
        outcome = bench.run("send", str(path), *receiver.through(relay.address), "--json")
        received = receiver.running.finish()
    assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")
    assert outcome.events[0]["sha256"] == digest
    assert (received.code, received.stderr) == (ExitCode.OK, "")
    assert hash_of(bench.inbox / "file.bin") == digest
    for fault in ("dropped", "duplicated", "reordered", "corrupted"):
        assert relay.counts[fault] > 0, relay.counts


@pytest.mark.parametrize("size", [8 * MIB, pytest.param(64 * MIB, marks=pytest.mark.slow)])
def test_a_transfer_cut_off_in_a_bad_network_resumes_there(bench: Bench, size: int) -> None:
    path = bench.folder / "file.bin"
    digest = make_file(path, size)
    receiver = bench.receiver("--once")
    with Relay(("127.0.0.1", receiver.port), BAD, seed=8) as relay:
        victim = bench.start("send", str(path), *receiver.through(relay.address))
        seen = wait_for_partial(bench.inbox, size // 2 if size > 8 * MIB else 2 * MIB)
        victim.signal(signal.SIGKILL)
        victim.finish()
        outcome = bench.run("send", str(path), *receiver.through(relay.address), "--json")
        assert receiver.running.finish().code == ExitCode.OK
    assert outcome.code == ExitCode.OK
    (event,) = outcome.events
    assert event["resumed_from"] >= seen
    assert event["sent"] == size - event["resumed_from"]
    assert hash_of(bench.inbox / "file.bin") == digest


def test_a_network_that_goes_dead_ends_the_transfer_after_the_timeout(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    make_file(path, 64 * MIB)
    receiver = bench.receiver("--timeout", "1")
    relay = Relay(("127.0.0.1", receiver.port), Faults(drop=0.05), seed=9)
    try:
        sender = bench.start("send", str(path), *receiver.through(relay.address), "--timeout", "1")
        wait_for_partial(bench.inbox, MIB)
    finally:
        relay.close()
    ended = sender.finish()
    assert ended.code == ExitCode.TRANSFER
    assert "file.bin" in ended.complaint
    receiver.running.wait_line(lambda line: "file.bin" in line, errors=True)
    assert [entry.name[0] for entry in bench.inbox.iterdir()] == ["."]
