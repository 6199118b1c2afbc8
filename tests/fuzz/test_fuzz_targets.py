"""A slice of the fuzzing with every run of the tests: what was found worth keeping is replayed, and a little is new.

`make fuzz` is the real thing; this needs neither clang nor atheris.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest
import run
from mutation import mutated
from reader import Reader
from targets import TARGETS
from world import ATTACKER, CONFIG, HONEST, KEYS, SIDE, Ledger

from burstwire.proto.endpoint import Endpoint

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = {
    "packets": 1500,
    "frames": 1500,
    "parameters": 1500,
    "noise": 300,
    "desk": 150,
    "datagrams": 25,
    "peer": 50,
}
"""Inputs of each target in Python, some tenths of a second's worth."""

CC = os.environ.get("CC", "cc")


def sanitizers() -> bool:
    """Whether the C compiler has AddressSanitizer's library."""
    if not shutil.which(CC):
        return False
    found = subprocess.run([CC, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    return "/" in found.stdout


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def test_every_target_has_a_corpus_and_all_of_them_are_small() -> None:
    names = {*run.SOURCES, *TARGETS}
    assert {place.name for place in CORPUS.iterdir()} == names
    assert all(corpus(name) for name in names)
    assert sum(path.stat().st_size for name in names for path in corpus(name)) < 300_000


def test_the_document_lists_the_targets_that_there_are() -> None:
    shown = (run.ROOT / "docs" / "fuzzing.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", shown, re.M)) == sorted([*run.SOURCES, *TARGETS])


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_taken(name: str) -> None:
    target = TARGETS[name]
    for data in [*target.seeds(), *(path.read_bytes() for path in corpus(name))]:
        target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_taken(name: str) -> None:
    target = TARGETS[name]
    inputs = [*target.seeds(), *(path.read_bytes() for path in corpus(name))]
    random = Random(1)
    for number in range(MUTATIONS[name]):
        data = mutated(inputs, random, target.longest)
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"input {number}: bytes.fromhex({data.hex()!r})")
            raise


@pytest.mark.skipif(not sanitizers(), reason="needs a C compiler with AddressSanitizer")
@pytest.mark.parametrize("name", run.SOURCES)
def test_the_c_core_takes_every_kept_input_and_changed_ones(name: str, tmp_path: Path) -> None:
    program = run.build(name, CC, False)
    done = subprocess.run(
        [str(program), "-seconds=0.3", f"-save={tmp_path / 'crash'}", *map(str, corpus(name))],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "ASAN_OPTIONS")},
    )
    crash = tmp_path / "crash"
    saved = crash.read_bytes().hex() if crash.exists() else "nothing"
    assert done.returncode == 0, f"{done.stderr}\ninput saved: {saved}"
    files, executions = (int(word) for word in done.stdout.split() if word.isdigit())
    assert files == len(corpus(name))
    assert executions > files


def test_a_finding_ends_with_an_input_that_replays_it(tmp_path: Path) -> None:
    import python_fuzzer

    def brittle(data: bytes) -> None:
        assert b"\xff" not in data

    place = tmp_path / "corpus"
    place.mkdir()
    (place / "one").write_bytes(bytes(8))
    options = {"max_total_time": "60", "artifact_prefix": f"{tmp_path}/"}
    assert python_fuzzer.without_atheris(brittle, 100, options, [place]) == 1
    (crash,) = tmp_path.glob("crash-*")
    with pytest.raises(AssertionError):
        python_fuzzer.replayed(brittle, [crash])


def test_the_report_of_a_run_adds_up_what_its_targets_did() -> None:
    crash = Path("peer-crash-1")
    found = run.summary(
        {
            "peer": run.Outcome("atheris", 500, 20, 30, 2, [crash], 77, "its output"),
            "ring": run.Outcome("libFuzzer", 1500, 5, 6, 0, [], 0, ""),
            "desk": run.Outcome("atheris", None, None, None, None, [], 1, "it did not end"),
        },
        60,
        91.0,
    )
    assert (found["seconds"], found["executions"], found["crashes"]) == (180, 2000, 1)
    assert found["failed"] == ["desk", "peer"]


def test_an_address_gets_no_more_than_three_times_its_bytes_until_a_connection_uses_it() -> None:
    address, path = ATTACKER, ATTACKER + SIDE
    endpoint = Endpoint(KEYS[0], CONFIG, now=0.0, random=Random(1).randbytes)
    ledger = Ledger([HONEST])
    ledger.went(endpoint, [(HONEST + SIDE, bytes(1200))])
    ledger.came(address, 100)
    ledger.went(endpoint, [(path, bytes(200)), (path, bytes(100))])
    with pytest.raises(AssertionError, match="unproven"):
        ledger.went(endpoint, [(path, b"!")])


def test_an_input_is_read_to_its_end_and_never_beyond() -> None:
    reader = Reader(b"\x01\x02\x03\x00\x02abc")
    assert reader.number() == 1
    assert reader.number(2) == 0x0203
    assert reader.block() == b"ab"
    assert reader
    assert reader.number(2) == ord("c") << 8
    assert not reader
    assert reader.block() == b""
    assert reader.number(4) == 0
