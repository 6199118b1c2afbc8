"""Everything that can be wrong on this side: one clear line and the right exit code, at once."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from processes import COMMAND, Bench

from burstwire.cli import main
from burstwire.cli.exits import ExitCode
from burstwire.identity import KeyPair

NOWHERE = "127.0.0.1:9"


@pytest.fixture
def key() -> str:
    return str(KeyPair.generate().public)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("--nonsense",),
        ("send",),
        ("send", "file", "--to", NOWHERE),
        ("send", "file", "--to", "nowhere", "--key", "KEY"),
        ("send", "file", "--to", "host:0", "--key", "KEY"),
        ("send", "file", "--to", NOWHERE, "--key", "not a key"),
        ("send", "file", "--to", NOWHERE, "--key", "KEY", "--timeout", "0"),
        ("send", "file", "--to", NOWHERE, "--key", "KEY", "--max-datagram-size", "100"),
        ("send", "one", "two", "--as", "name", "--to", NOWHERE, "--key", "KEY"),
        ("receive",),
        ("receive", ".", "--listen", "nonsense"),
        ("receive", ".", "--listen", "127.0.0.1:65536"),
        ("receive", ".", "--count", "0"),
        ("receive", ".", "--once", "--count", "2"),
        ("receive", ".", "--allow", "KEYx"),
        ("ping", "--key", "KEY"),
        ("ping", "--to", NOWHERE, "--key", "KEY", "--count", "0"),
        ("plot",),
        ("plot", "trace.sqlog", "--output", "trace.pdf"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], key: str, arguments: tuple[str, ...]
) -> None:
    assert main([argument.replace("KEY", key) for argument in arguments]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("burstwire: ")
    assert "--help" in shown.err


def test_a_wrong_command_line_ends_the_process_with_its_code(bench: Bench) -> None:
    outcome = bench.run("send", "file", "--to", NOWHERE)
    assert outcome.code == ExitCode.USAGE
    assert "--key" in outcome.complaint


@pytest.mark.parametrize(
    "command", [(), ("send",), ("receive",), ("ping",), ("keygen",), ("key",), ("doctor",), ("plot",)]
)
def test_every_help_says_what_the_exit_codes_mean(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    assert main([*command, "--help"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "Exit codes:" in shown.out
    for code in ExitCode:
        assert f"\n    {int(code)} " in shown.out or f"\n  {int(code)} " in shown.out


def test_the_version_is_that_of_the_package(bench: Bench) -> None:
    from importlib.metadata import version

    outcome = bench.run("--version")
    assert (outcome.code, outcome.stdout) == (ExitCode.OK, f"burstwire {version('burstwire')}\n")


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError('no click here', name='click')")
    ended = subprocess.run(
        [*COMMAND, "doctor"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == ExitCode.LOCAL
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "pip install 'burstwire[cli]'" in ended.stderr


def test_the_library_itself_imports_neither_click_nor_rich() -> None:
    program = "import sys, burstwire, burstwire.cli; print({'click', 'rich'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "set()\n"


def test_a_new_key_is_private_and_never_replaced_by_accident(bench: Bench) -> None:
    path = bench.folder / "mine"
    first = bench.run("keygen", str(path))
    assert first.code == ExitCode.OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = bench.run("keygen", str(path))
    assert again.code == ExitCode.LOCAL
    assert "--force" in again.complaint
    assert bench.run("--identity", str(path), "key").stdout == first.stdout
    forced = bench.run("keygen", "--force", str(path))
    assert forced.code == ExitCode.OK
    assert forced.stdout != first.stdout
    assert sorted(entry.name for entry in bench.folder.iterdir() if entry.is_file()) == ["mine"]


def test_the_default_identity_is_made_once_and_for_its_owner_only(bench: Bench) -> None:
    first = bench.run("key")
    assert first.code == ExitCode.OK
    path = bench.folder / "home-user" / "burstwire" / "identity"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert bench.run("key").stdout == first.stdout
    assert bench.run("key", who="somebody else").stdout != first.stdout


def test_two_commands_that_make_the_default_identity_together_agree_on_it(bench: Bench) -> None:
    running = [bench.start("key") for _ in range(6)]
    assert len({one.finish().stdout for one in running}) == 1


def test_an_identity_is_refused_when_it_is_missing_damaged_or_readable_by_others(bench: Bench) -> None:
    missing = bench.run("--identity", str(bench.folder / "missing"), "key")
    assert missing.code == ExitCode.LOCAL
    assert "keygen" in missing.complaint
    damaged = bench.folder / "damaged"
    damaged.write_text("not a key")
    damaged.chmod(0o600)
    outcome = bench.run("--identity", str(damaged), "key")
    assert outcome.code == ExitCode.LOCAL
    assert str(damaged) in outcome.complaint
    KeyPair.generate().save(bench.folder / "open")
    (bench.folder / "open").chmod(0o644)
    outcome = bench.run("--identity", str(bench.folder / "open"), "key")
    assert outcome.code == ExitCode.LOCAL
    assert str(bench.folder / "open") in outcome.complaint


def test_a_key_cannot_be_made_where_nothing_can_be_written(bench: Bench) -> None:
    outcome = bench.run("keygen", str(bench.folder / "missing" / "mine"))
    assert outcome.code == ExitCode.LOCAL
    assert "no such file" in outcome.complaint


def test_a_key_with_one_wrong_character_is_noticed(bench: Bench, key: str) -> None:
    wrong = key[:-1] + ("q" if key[-1] != "q" else "p")
    outcome = bench.run("send", __file__, "--to", NOWHERE, "--key", wrong)
    assert outcome.code == ExitCode.USAGE
    assert "key" in outcome.complaint


@pytest.mark.parametrize("what", ["missing", "directory", "fifo"])
def test_a_file_that_cannot_be_sent_fails_before_anything_is_connected(bench: Bench, key: str, what: str) -> None:
    good, bad = bench.folder / "good", bench.folder / what
    good.write_bytes(b"x")
    if what == "directory":
        bad.mkdir()
    elif what == "fifo":
        os.mkfifo(bad)
    outcome = bench.run("send", str(good), str(bad), "--to", NOWHERE, "--key", key, "--timeout", "60")
    assert outcome.code == ExitCode.LOCAL
    assert str(bad) in outcome.complaint


def test_two_files_that_would_get_the_same_name_are_not_sent(bench: Bench, key: str) -> None:
    (bench.folder / "sub").mkdir()
    for path in (bench.folder / "a", bench.folder / "sub" / "a"):
        path.write_bytes(b"x")
    outcome = bench.run("send", str(bench.folder / "a"), str(bench.folder / "sub" / "a"), "--to", NOWHERE, "--key", key)
    assert outcome.code == ExitCode.USAGE
    assert "--as" in outcome.complaint


@pytest.mark.parametrize("what", ["missing", "file"])
def test_a_receiver_without_a_directory_says_so(bench: Bench, what: str) -> None:
    (bench.folder / "file").touch()
    outcome = bench.run("receive", str(bench.folder / what))
    assert outcome.code == ExitCode.LOCAL
    assert str(bench.folder / what) in outcome.complaint


def test_a_port_in_use_is_named(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = bench.run("receive", str(bench.inbox), "--listen", address)
    assert outcome.code == ExitCode.LOCAL
    assert address in outcome.complaint
    assert "in use" in outcome.complaint


def test_a_host_that_does_not_exist_is_named(bench: Bench, key: str) -> None:
    outcome = bench.run("send", __file__, "--to", "no-such-host.invalid:1", "--key", key)
    assert outcome.code == ExitCode.PEER
    assert "no-such-host.invalid" in outcome.complaint


@pytest.mark.parametrize("command", ["send", "ping"])
def test_nobody_there_is_code_3_after_the_timeout(bench: Bench, key: str, command: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        files = (__file__,) if command == "send" else ()
        outcome = bench.run(command, *files, "--to", address, "--key", key, "--timeout", "1")
    assert outcome.code == ExitCode.PEER
    assert address in outcome.complaint


def test_output_that_nobody_reads_any_more_ends_the_command_quietly(bench: Bench) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        outcome = bench.run("--help", stdout=writing)
    finally:
        os.close(writing)
    assert outcome.stderr == ""


def test_output_that_cannot_be_written_is_one_line(bench: Bench) -> None:
    with open("/dev/full", "w") as full:
        outcome = bench.run("key", stdout=full)
    assert outcome.code == ExitCode.LOCAL
    assert "No space" in outcome.complaint


def test_a_terminal_of_another_encoding_shows_what_it_can(bench: Bench) -> None:
    outcome = bench.run("receive", str(bench.folder / "文書"), environment={"PYTHONIOENCODING": "latin-1"})
    assert outcome.code == ExitCode.LOCAL
    assert "??" in outcome.complaint


def test_waiting_for_an_answer_can_be_interrupted(bench: Bench, key: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        running = bench.start("ping", "--to", address, "--key", key, "--timeout", "100")
        silent.recv(65535)  # it is at it
        running.signal(signal.SIGINT)
        outcome = running.finish()
    assert outcome.code == ExitCode.INTERRUPTED
    assert outcome.complaint == "burstwire: interrupted"
