"""Profiles: each sampled stack is counted where its time goes, and what may not be sampled fails nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "burstwire"

OUTER = ["<module> (/x/benches/peers/ours.py:1)", "main (/x/benches/peers/process.py:58)"]
UVLOOP = [*OUTER, "Runner.run (/usr/lib/python3/asyncio/runners.py:118)"]
ASYNCIO = [*UVLOOP, "BaseEventLoop._run_once (/usr/lib/python3/asyncio/base_events.py:1922)"]
READABLE = [*ASYNCIO, "Handle._run (/usr/lib/python3/asyncio/events.py:80)"]


def python(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def own(function: str, path: str) -> str:
    return f"{function} (/some/where/src/burstwire/{path}:12)"


RECEIVE = [*READABLE, own("Driver._on_readable", "aio/driver.py"), own("Endpoint.receive", "proto/endpoint.py")]
SEND = [*UVLOOP, own("Driver._flush", "aio/driver.py"), own("Endpoint.transmit", "proto/endpoint.py")]

STACKS = [
    ([*SEND[:-1], own("UdpSocket.send", "core/socket.py")], "kernel: send"),
    ([*RECEIVE[:-1], own("UdpSocket.recv", "core/socket.py")], "kernel: receive, and headers in C"),
    ([*SEND, own("FillTable.run", "core/run.py")], "frame and seal"),
    ([*SEND, own("ProtectTable.seal", "core/run.py")], "frame and seal"),
    ([*SEND, own("CryptographyAead.seal_run", "crypto/aead_cryptography.py")], "frame and seal"),
    ([*SEND, own("NativeAead.seal_run", "crypto/aead_native.py")], "frame and seal"),
    ([*RECEIVE, own("ProtectTable.open", "core/run.py")], "open"),
    ([*RECEIVE, own("CryptographyAead.open_run", "crypto/aead_cryptography.py")], "open"),
    (
        [*RECEIVE, own("CryptographyAead.open_run", "crypto/aead_cryptography.py"),
         own("_views", "crypto/aead_cryptography.py"), own("BufferRing.packets", "core/ring.py")],
        "open",
    ),
    ([*RECEIVE, own("GatherTable.run", "core/run.py")], "gather"),
    ([*RECEIVE, own("GatherTable.append", "core/run.py")], "tables, slots and counters for C"),
    ([*UVLOOP, own("Stream.write", "aio/stream.py"), own("StreamRing.write", "core/ring.py")],
     "copies to and from the rings of streams"),
    (RECEIVE, "protocol, way in"),
    ([*RECEIVE, own("parse", "wire/frames.py")], "protocol, way in"),
    ([*RECEIVE, own("Recovery.acknowledged", "proto/recovery.py")], "protocol, way in"),
    ([*RECEIVE, own("Cubic.on_ack", "proto/congestion/cubic.py")], "protocol, way in"),
    ([*RECEIVE, own("MessageReader.arrived", "proto/messages.py")], "protocol, way in"),
    ([*SEND, own("MessageWriter.collect", "proto/messages.py")], "protocol, way out"),
    (SEND, "protocol, way out"),
    ([*SEND, own("encode_ack", "wire/frames.py")], "protocol, way out"),
    ([*SEND, own("Recovery.sent", "proto/recovery.py")], "protocol, way out"),
    ([*READABLE, own("Driver._arm", "aio/driver.py"), own("Endpoint.next_timeout", "proto/endpoint.py")], "timers"),
    (
        [*READABLE, own("Driver._arm", "aio/driver.py"), "TimerHandle.__init__ (/usr/lib/python3/asyncio/events.py:9)"],
        "timers",
    ),
    (
        [*RECEIVE, own("NoiseHandshake.read", "crypto/noise.py"),
         "HKDF.derive (/venv/site-packages/cryptography/hazmat/primitives/kdf/hkdf.py:30)"],
        "handshake and keys",
    ),
    ([*RECEIVE, own("Desk.received", "proto/desk.py")], "handshake and keys"),
    (RECEIVE[:-1], "driver and what applications hold"),
    (
        [*RECEIVE[:-1], "BaseEventLoop.call_soon (/usr/lib/python3/asyncio/base_events.py:768)"],
        "driver and what applications hold",
    ),
    (UVLOOP, "event loop and its system calls"),
    (READABLE, "event loop and its system calls"),
    ([*ASYNCIO, "EpollSelector.select (/usr/lib/python3/selectors.py:468)"], "event loop and its system calls"),
    ([*READABLE, "_echo (/x/benches/peers/tasks.py:157)"], "the benchmark itself"),
    ([*READABLE, "_serve (/x/benches/peers/tasks.py:9)", "loads (/usr/lib/python3/json/__init__.py:3)"],
     "the benchmark itself"),
    (["elsewhere (/usr/lib/python3/threading.py:3)"], "other"),
    ([own("new_thing", "proto/no_such_module.py")], "other"),
]  # fmt: skip


def test_a_stack_belongs_to_the_innermost_part_that_works() -> None:
    code = (
        f"from benches.categories import classify; print(json.dumps([classify(s) for s in {[s for s, _ in STACKS]}]))"
    )
    found = dict(zip([stack[-1] for stack, _ in STACKS], python(code), strict=True))
    assert found == {stack[-1]: category for stack, category in STACKS}


def test_a_clone_in_a_folder_of_the_same_name_is_not_taken_for_the_package() -> None:
    stack = ["main (/home/burstwire/benches/peers/process.py:1)"]
    loop = [*stack, "run (/home/burstwire/.venv/lib/python3/asyncio/runners.py:1)"]
    code = f"from benches.categories import classify; print(json.dumps([classify({stack}), classify({loop})]))"
    assert python(code) == ["the benchmark itself", "event loop and its system calls"]


def test_every_module_of_the_data_path_has_a_category() -> None:
    modules = sorted(
        str(path.relative_to(SOURCE).with_suffix(""))
        for layer in ("core", "crypto", "wire", "proto", "aio")
        for path in (SOURCE / layer).rglob("*.py")
    )
    assert len(modules) > 50
    assert python("from benches.categories import MODULES; print(json.dumps(sorted(MODULES)))") == modules


def test_every_function_that_is_named_exists() -> None:
    named = python("from benches.categories import FUNCTIONS, PASSED; print(json.dumps([*FUNCTIONS, *PASSED]))")
    for path, function in named:
        name = function.rpartition(".")[2]
        assert f"def {name}(" in (SOURCE / path).read_text(encoding="utf-8"), f"{path} has no {function}"


def test_samples_of_one_category_add_up() -> None:
    lines = [f"{';'.join(SEND)} 3\n", f"{';'.join(RECEIVE)} 4\n", f"{';'.join(SEND)} 5\n", "\n"]
    found = python(f"from benches.categories import count; print(json.dumps(count({lines})))")
    assert found == {"protocol, way out": 8, "protocol, way in": 4}


TABLE = """
from collections import Counter
from benches.profiles import Sampled, add_table
from benches.report import Report
report = Report()
about = {"aead": "x", "receive_buffer": 1, "send_buffer": 1}
sampled = [Sampled("", {"client": Counter({"open": 3, "other": 1}), "server": Counter({"open": 5})},
                   {"client": 2.0, "server": 1.0}, 1000, about)]
add_table(report, "profile-echo", "Echo", ("client", "server"), "request", sampled, "")
print(json.dumps(report.tables[0].rows))
"""


def test_a_share_becomes_the_time_that_a_request_takes_of_it() -> None:
    assert python(TABLE) == [
        ["open", "75.0", "1500.00", "100.0", "1000.00"],
        ["other", "25.0", "500.00", "0.0", "0.00"],
        ["together", "100.0", "2000.00", "100.0", "1000.00"],
    ]


REFUSED = """
from benches import parts, profiles
from benches.report import Report
profiles.obstacle = lambda pid: "py-spy may not attach here (denied)"
report = Report()
parts.PARTS["profiles"].run(report, quick=False)
print(json.dumps([[table.name, table.rows, table.notes] for table in report.tables]))
"""


@pytest.mark.slow
def test_where_nothing_may_attach_every_table_says_so_and_nothing_fails() -> None:
    tables = python(REFUSED)
    known = python("from benches.parts import PARTS; print(json.dumps(PARTS['profiles'].tables))")
    assert [name for name, _, _ in tables] == known
    for _, rows, notes in tables:
        assert rows == []
        assert any("may not attach" in note or "not installed" in note for note in notes)
