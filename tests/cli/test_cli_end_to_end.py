"""Files between two real processes over loopback, with everything that may happen to them on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import LIMIT, Bench

from burstwire.cli.exits import ExitCode
from burstwire.config import AEADS
from burstwire.crypto.aead import backends

MIB = 1 << 20


def make_file(path: Path, size: int, seed: int = 1) -> str:
    """Random content that is the same for the same seed; its SHA-256."""
    source, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            block = source.randbytes(min(MIB, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def partial_in(folder: Path) -> Path | None:
    return next((entry for entry in folder.iterdir() if entry.name.startswith(".")), None)


def wait_for_partial(folder: Path, size: int) -> int:
    """Wait until the unfinished file has at least `size` bytes; how many it has."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        part = partial_in(folder)
        try:
            if part is not None and part.stat().st_size >= size:
                return part.stat().st_size
        except FileNotFoundError:
            pass
        time.sleep(0.0005)
    raise AssertionError("the partial file does not grow")


@pytest.mark.parametrize("size", [0, 1, 100_000, 20 * MIB + 1])
def test_a_file_arrives_with_its_content_time_and_permissions(bench: Bench, size: int) -> None:
    path = bench.folder / "a file.bin"
    digest = make_file(path, size)
    os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    path.chmod(0o640)
    receiver = bench.receiver("--once")
    sent = bench.run("send", str(path), *receiver.at, "--json")
    assert (sent.code, sent.stderr) == (ExitCode.OK, "")
    (event,) = sent.events
    assert (event["size"], event["sent"], event["sha256"]) == (size, size, digest)
    received = receiver.running.finish()
    assert (received.code, received.stderr) == (ExitCode.OK, "")
    assert received.events[-1]["sha256"] == digest
    arrived = bench.inbox / "a file.bin"
    assert hash_of(arrived) == digest
    assert arrived.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert arrived.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in bench.inbox.iterdir()] == ["a file.bin"]


def test_the_line_that_the_receiver_prints_is_the_command_that_works(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    digest = make_file(path, 1000)
    running = bench.start("receive", str(bench.inbox), "--listen", "0.0.0.0:0", "--once", who="receiver")
    line = running.wait_line(lambda line: line.strip().startswith("burstwire send FILE"))
    words = line.split()[1:]
    words[1] = str(path)
    outcome = bench.run(*words)
    assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")
    assert "file.bin: sent 1.00 kB" in outcome.stdout
    finished = running.finish()
    assert finished.code == ExitCode.OK
    assert "ANYONE" in finished.stdout
    assert "file.bin: received 1.00 kB" in finished.stdout
    assert hash_of(bench.inbox / "file.bin") == digest


def test_a_receiver_without_an_address_takes_both_families(bench: Bench) -> None:
    running = bench.start("receive", str(bench.inbox), "--listen", ":0", "--json", who="receiver")
    listening = running.wait_event("listening")
    port = int(listening["address"].rpartition(":")[2])
    hosts = ["127.0.0.1", "localhost"]
    if listening["address"].startswith("["):
        hosts.append("[::1]")
    for index, host in enumerate(hosts):
        make_file(bench.folder / f"f{index}", 1000, index)
        outcome = bench.run(
            "send", str(bench.folder / f"f{index}"), "--to", f"{host}:{port}", "--key", listening["key"]
        )
        assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")
    assert len(list(bench.inbox.iterdir())) == len(hosts)


def test_a_name_of_both_families_finds_a_receiver_of_one(bench: Bench) -> None:
    make_file(bench.folder / "file.bin", 1000)
    receiver = bench.receiver("--once")  # on 127.0.0.1, while localhost may be ::1 first
    outcome = bench.run(
        "send", str(bench.folder / "file.bin"), "--to", f"localhost:{receiver.port}", "--key", receiver.key
    )
    assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")


def test_several_files_go_in_one_connection_and_the_receiver_counts_them(bench: Bench) -> None:
    paths = [bench.folder / f"f{index}" for index in range(5)]
    digests = [make_file(path, 100_000 * index, index) for index, path in enumerate(paths)]
    receiver = bench.receiver("--count", "5")
    sent = bench.run("send", *map(str, paths), *receiver.at)
    assert (sent.code, sent.stderr) == (ExitCode.OK, "")
    received = receiver.running.finish()
    assert received.code == ExitCode.OK
    assert len({event["address"] for event in received.events[1:]}) == 1
    assert [hash_of(bench.inbox / path.name) for path in paths] == digests


def test_a_sender_killed_half_way_resumes_and_moves_only_the_rest(bench: Bench) -> None:
    size = 96 * MIB
    path = bench.folder / "big.bin"
    digest = make_file(path, size)
    receiver = bench.receiver("--once")
    victim = bench.start("send", str(path), *receiver.at)
    seen = wait_for_partial(bench.inbox, 8 * MIB)
    victim.signal(signal.SIGKILL)
    assert victim.finish().code == -signal.SIGKILL
    assert not (bench.inbox / "big.bin").exists()
    again = bench.run("send", str(path), *receiver.at, "--json")
    assert (again.code, again.stderr) == (ExitCode.OK, "")
    (event,) = again.events
    assert event["resumed_from"] >= seen
    assert event["sent"] == size - event["resumed_from"]
    assert receiver.running.finish().code == ExitCode.OK
    assert hash_of(bench.inbox / "big.bin") == digest
    assert [entry.name for entry in bench.inbox.iterdir()] == ["big.bin"]


def test_a_receiver_killed_half_way_leaves_only_a_hidden_part_that_a_new_one_continues(bench: Bench) -> None:
    size = 96 * MIB
    path = bench.folder / "big.bin"
    digest = make_file(path, size)
    receiver = bench.receiver()
    sender = bench.start("send", str(path), *receiver.at, "--timeout", "1")
    seen = wait_for_partial(bench.inbox, 8 * MIB)
    receiver.running.signal(signal.SIGKILL)
    receiver.running.finish()
    ended = sender.finish()
    assert ended.code == ExitCode.TRANSFER
    assert "resumes" in ended.complaint
    assert [entry.name[0] for entry in bench.inbox.iterdir()] == ["."]
    again = bench.receiver("--once")
    assert again.listening["unfinished"] == 1
    outcome = bench.run("send", str(path), *again.at, "--json")
    assert outcome.code == ExitCode.OK
    assert outcome.events[0]["resumed_from"] >= seen
    assert hash_of(bench.inbox / "big.bin") == digest


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_an_interrupted_sender_ends_at_once_and_the_receiver_goes_on(
    bench: Bench, number: signal.Signals, code: ExitCode
) -> None:
    path = bench.folder / "big.bin"
    digest = make_file(path, 96 * MIB)
    receiver = bench.receiver("--once")
    sender = bench.start("send", str(path), *receiver.at)
    seen = wait_for_partial(bench.inbox, 8 * MIB)
    sender.signal(number)
    ended = sender.finish()
    assert ended.code == code
    assert "resumes" in ended.complaint
    outcome = bench.run("send", str(path), *receiver.at, "--json")
    assert outcome.code == ExitCode.OK
    assert outcome.events[0]["resumed_from"] >= seen
    assert hash_of(bench.inbox / "big.bin") == digest
    assert "the sender was interrupted" in receiver.running.finish().complaint


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_an_interrupted_receiver_tells_its_sender_at_once(bench: Bench, number: signal.Signals, code: ExitCode) -> None:
    path = bench.folder / "big.bin"
    make_file(path, 96 * MIB)
    receiver = bench.receiver()
    sender = bench.start("send", str(path), *receiver.at, "--timeout", "100")
    wait_for_partial(bench.inbox, 8 * MIB)
    receiver.running.signal(number)
    stopped = receiver.running.finish()
    assert stopped.code == code
    assert stopped.complaint == "burstwire: stopped"
    ended = sender.finish()
    assert ended.code == ExitCode.TRANSFER
    assert "the receiver was stopped" in ended.complaint


def test_a_file_that_is_there_already_is_confirmed_without_being_sent(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    make_file(path, 3 * MIB)
    receiver = bench.receiver("--count", "2")
    for expected in (False, True):
        outcome = bench.run("send", str(path), *receiver.at, "--json")
        assert outcome.code == ExitCode.OK
        assert outcome.events[0]["identical"] is expected
    assert receiver.running.finish().code == ExitCode.OK


def test_another_file_of_the_same_name_is_refused_and_the_other_files_still_go(bench: Bench) -> None:
    (bench.inbox / "taken").write_bytes(b"mine")
    for name in ("taken", "free"):
        make_file(bench.folder / name, 1000)
    receiver = bench.receiver()
    outcome = bench.run("send", str(bench.folder / "taken"), str(bench.folder / "free"), *receiver.at, "--json")
    assert outcome.code == ExitCode.TRANSFER
    assert "taken" in outcome.complaint
    assert [event["name"] for event in outcome.events] == ["free"]
    assert (bench.inbox / "taken").read_bytes() == b"mine"
    assert (bench.inbox / "free").exists()
    renamed = bench.run("send", str(bench.folder / "taken"), "--as", "other", *receiver.at)
    assert renamed.code == ExitCode.OK
    assert hash_of(bench.inbox / "other") == hash_of(bench.folder / "taken")


def test_overwriting_happens_on_request_only(bench: Bench) -> None:
    (bench.inbox / "taken").write_bytes(b"mine")
    digest = make_file(bench.folder / "taken", 1000)
    receiver = bench.receiver("--overwrite", "--once")
    assert bench.run("send", str(bench.folder / "taken"), *receiver.at).code == ExitCode.OK
    assert hash_of(bench.inbox / "taken") == digest


@pytest.mark.parametrize("name", ["../up", "/tmp/up", "..", "a\nb", ".hidden", "\x1b[2J"])
def test_a_name_attack_is_refused_by_the_receiver(bench: Bench, name: str) -> None:
    path = bench.folder / "file.bin"
    make_file(path, 1000)
    receiver = bench.receiver()
    outcome = bench.run("send", str(path), "--as", name, *receiver.at)
    assert outcome.code == ExitCode.TRANSFER
    assert "name" in outcome.complaint
    assert list(bench.inbox.iterdir()) == []
    assert bench.run("send", str(path), *receiver.at).code == ExitCode.OK
    receiver.running.signal(signal.SIGTERM)
    log = receiver.running.finish().stderr
    assert "\x1b" not in log
    assert log.count("\n") == 2  # the refusal, and "stopped"


def test_only_allowed_keys_may_send(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    make_file(path, 1000)
    friend = bench.run("key", who="friend").stdout.strip()
    receiver = bench.receiver("--allow", friend, "--once")
    assert receiver.listening["anyone"] is False
    stranger = bench.run("send", str(path), *receiver.at, who="stranger")
    assert stranger.code == ExitCode.PEER
    assert bench.run("key", who="stranger").stdout.strip() in stranger.complaint
    assert list(bench.inbox.iterdir()) == []
    assert bench.run("send", str(path), *receiver.at, who="friend").code == ExitCode.OK
    assert receiver.running.finish().code == ExitCode.OK


def test_the_wrong_key_of_the_receiver_gets_no_answer(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    make_file(path, 1000)
    receiver = bench.receiver()
    wrong = bench.run("key", who="nobody").stdout.strip()
    outcome = bench.run("send", str(path), "--to", receiver.address, "--key", wrong, "--timeout", "1")
    assert outcome.code == ExitCode.PEER
    assert "wrong" in outcome.complaint
    assert bench.run("send", str(path), *receiver.at).code == ExitCode.OK


def test_a_file_that_cannot_be_stored_fails_alone(bench: Bench) -> None:
    """A limit on the size of files stands for every error that a write can meet half-way."""
    big, small = bench.folder / "big", bench.folder / "small"
    make_file(big, 8 * MIB)
    make_file(small, 1000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))

    receiver = bench.receiver("--once", preexec_fn=limit)
    outcome = bench.run("send", str(big), *receiver.at)
    assert outcome.code == ExitCode.TRANSFER
    assert "too large" in outcome.complaint
    assert not (bench.inbox / "big").exists()
    assert bench.run("send", str(small), *receiver.at).code == ExitCode.OK
    ended = receiver.running.finish()
    assert ended.code == ExitCode.OK
    assert "too large" in ended.complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_is_one_clear_line_at_both_ends(bench: Bench) -> None:
    big, small = bench.folder / "big", bench.folder / "small"
    make_file(big, 8 * MIB)
    make_file(small, 1000)
    volume = bench.folder / "volume"
    volume.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(volume)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        receiver = bench.receiver("--once", directory=volume)
        outcome = bench.run("send", str(big), *receiver.at)
        assert outcome.code == ExitCode.TRANSFER
        assert "free" in outcome.complaint
        assert list(volume.iterdir()) == []
        assert bench.run("send", str(small), *receiver.at).code == ExitCode.OK
        ended = receiver.running.finish()
        assert ended.code == ExitCode.OK
        assert "big" in ended.complaint
    finally:
        bench.close()
        subprocess.run(["umount", str(volume)], check=True)


def test_a_receiver_serves_several_senders_at_the_same_time(bench: Bench) -> None:
    digests = [make_file(bench.folder / f"f{index}", 8 * MIB, index) for index in range(4)]
    receiver = bench.receiver("--count", "4")
    senders = [
        bench.start("send", str(bench.folder / f"f{index}"), *receiver.at, who=f"sender-{index}") for index in range(4)
    ]
    assert [sender.finish().code for sender in senders] == [ExitCode.OK] * 4
    assert receiver.running.finish().code == ExitCode.OK
    assert [hash_of(bench.inbox / f"f{index}") for index in range(4)] == digests


def test_a_receiver_answers_pings_also_while_files_come(bench: Bench) -> None:
    make_file(bench.folder / "big.bin", 64 * MIB)
    receiver = bench.receiver()
    sender = bench.start("send", str(bench.folder / "big.bin"), *receiver.at)
    outcome = bench.run("ping", *receiver.at, "--count", "3", "--interval", "0", "--json", who="other")
    assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")
    (summary,) = outcome.events
    assert summary["count"] == len(summary["seconds"]) == 3
    assert 0 < summary["min"] <= summary["median"] <= summary["max"]
    assert sender.finish().code == ExitCode.OK
    plain = bench.run("ping", *receiver.at, "--count", "2", "--interval", "0")
    assert plain.code == ExitCode.OK
    assert plain.stdout.splitlines()[-1].startswith("2 answers: ")


def test_a_receiver_whose_report_nobody_reads_goes_on(bench: Bench) -> None:
    reading, writing = os.pipe()
    fixed = ("receive", str(bench.inbox), "--listen", "127.0.0.1:0", "--json", "--count", "2")
    receiver = bench.start(*fixed, who="receiver", stdout=writing)
    os.close(writing)
    with open(reading) as report:
        listening = json.loads(report.readline())
    for name in ("one", "two"):
        make_file(bench.folder / name, 1000)
        to = ("--to", listening["reachable"], "--key", listening["key"])
        assert bench.run("send", str(bench.folder / name), *to).code == ExitCode.OK
    ended = receiver.finish()
    assert (ended.code, ended.stderr) == (ExitCode.OK, "")


def test_a_fixed_datagram_size_works(bench: Bench) -> None:
    path = bench.folder / "file.bin"
    digest = make_file(path, 4 * MIB)
    receiver = bench.receiver("--once", "--max-datagram-size", "1452")
    assert bench.run("send", str(path), *receiver.at, "--max-datagram-size", "1452").code == ExitCode.OK
    assert receiver.running.finish().code == ExitCode.OK
    assert hash_of(bench.inbox / "file.bin") == digest


def test_doctor_finds_a_way_through_this_machine(bench: Bench) -> None:
    outcome = bench.run("doctor", "--json")
    assert (outcome.code, outcome.stderr) == (ExitCode.OK, "")
    (report,) = outcome.events
    assert report["loopback"]["intact"] is True
    assert report["loopback"]["rate"] > 0
    assert {speed["aead"] for speed in report["aeads"]} >= {"aes-128-gcm", "chacha20-poly1305"}
    assert all(speed["seal"] > 0 and speed["open"] > 0 for speed in report["aeads"])
    assert set(report["aead_libraries"]) == set(backends())
    assert set(report["aead_chosen"]) == set(AEADS)
    assert all(set(chosen) <= set(backends()) for chosen in report["aead_chosen"].values())
    assert report["sockets"]
    for line in bench.run("doctor").stdout.splitlines():
        assert len(line) < 200
