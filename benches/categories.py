"""Which part of the work a sampled stack belongs to.

A stack is a list of frames, the innermost last, each `function (path)` or `function (path:line)`, as py-spy writes them
with full paths. It belongs to the innermost frame of burstwire, of the benchmark or of the event loop. C has no frames:
its time is found at the Python function that calls it, which is why those functions have categories of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["CATEGORIES", "OTHER", "classify", "count"]

KERNEL_SEND = "kernel: send"
KERNEL_RECEIVE = "kernel: receive, and headers in C"
SEAL = "frame and seal"
OPEN = "open"
GATHER = "gather"
COPIES = "copies to and from the rings of streams"
TABLES = "tables, slots and counters for C"
WAY_OUT = "protocol, way out"
WAY_IN = "protocol, way in"
TIMERS = "timers"
HANDSHAKE = "handshake and keys"
DRIVER = "driver and what applications hold"
LOOP = "event loop and its system calls"
BENCHMARK = "the benchmark itself"
OTHER = "other"

CATEGORIES = (
    KERNEL_SEND, KERNEL_RECEIVE, SEAL, OPEN, GATHER, COPIES, TABLES, WAY_OUT, WAY_IN, TIMERS, HANDSHAKE, DRIVER, LOOP,
    BENCHMARK, OTHER,
)  # fmt: skip
"""In the order of tables."""

FUNCTIONS = {
    ("core/socket.py", "send"): KERNEL_SEND,
    ("core/socket.py", "recv"): KERNEL_RECEIVE,
    ("core/run.py", "parse"): KERNEL_RECEIVE,
    ("core/run.py", "FillTable.run"): SEAL,
    ("core/run.py", "GatherTable.run"): GATHER,
    ("core/run.py", "seal"): SEAL,
    ("core/run.py", "open"): OPEN,
    ("core/ring.py", "write"): COPIES,
    ("core/ring.py", "read"): COPIES,
    ("core/ring.py", "readinto"): COPIES,
    ("core/ring.py", "grown"): COPIES,
    **{
        (f"crypto/{module}.py", function): category
        for module in ("aead", "aead_cryptography", "aead_native")
        for function, category in (("seal_run", SEAL), ("open_run", OPEN))
    },
    **{("proto/endpoint.py", name): WAY_OUT for name in ("transmit", "sent")},
    **{("proto/endpoint.py", name): HANDSHAKE for name in ("connect", "cancel", "_greet", "_stranger")},
    **{("proto/connection.py", name): WAY_OUT for name in ("send_datagram", "wants_to_send", "ask")},
    **{("proto/message_calls.py", name): WAY_OUT for name in ("message_room", "send_message", "add_message")},
    ("proto/message_calls.py", "send_messages"): WAY_OUT,
    ("proto/recovery.py", "sent"): WAY_OUT,
    ("proto/recovery.py", "allowance"): WAY_OUT,
    ("proto/recovery.py", "pacing_time"): WAY_OUT,
    ("proto/acks.py", "frame"): WAY_OUT,
    ("proto/acks.py", "sent"): WAY_OUT,
    ("proto/streams.py", "read"): WAY_IN,
    ("proto/streams.py", "readinto"): WAY_IN,
    ("aio/driver.py", "_arm"): TIMERS,
    ("aio/driver.py", "_on_timer"): TIMERS,
}
"""By path inside burstwire, and function, with its class where the name alone would not do."""

TIMER_FUNCTIONS = {
    "next_timeout", "handle_timeout", "deadline", "on_timeout", "_rearm", "_wake", "_changed", "_idle_timeout",
    "_idle_deadline", "_keep_alive_deadline", "_next_quiet", "close_deadline", "idle_out", "pto",
}  # fmt: skip
"""In any module of the protocol."""

READER_CLASSES = {"MessageReader"}
"""Half of `proto/messages.py` is the way in."""

MODULES = {
    **dict.fromkeys(("core/__init__", "core/_errno", "core/address", "core/counter"), TABLES),
    **dict.fromkeys(("core/ring", "core/run", "core/socket"), TABLES),
    **{
        f"crypto/{name}": HANDSHAKE
        for name in ("__init__", "cookie", "kdf", "keys", "noise", "reset", "aead", "aead_cryptography",
                     "aead_ipsecmb", "aead_libcrypto", "aead_native", "secret")
    },
    **dict.fromkeys(("wire/__init__", "wire/errors", "wire/header", "wire/varint"), WAY_IN),
    "wire/frames": WAY_IN,
    **dict.fromkeys(("wire/packets", "wire/parameters"), HANDSHAKE),
    **{
        f"proto/{name}": WAY_IN
        for name in ("acks", "connection", "ecn", "endpoint", "events", "inbound", "intake", "lifetime",
                     "message_calls", "ranges", "receiving", "recovery", "roster", "rtt", "sent", "toll",
                     "watch")
    },
    **{
        f"proto/congestion/{name}": WAY_IN
        for name in ("__init__", "base", "bbr", "bbr_control", "bbr_model", "bbr_states", "cubic", "delivery",
                     "fixed", "hystart", "ledbat")
    },
    **{
        f"proto/{name}": WAY_OUT
        for name in ("budget", "control", "datagrams", "flow", "key_updates", "messages", "mtu", "offload", "outbound",
                     "outbox", "pacing", "path", "sending", "stream_table", "streams", "tracing")
    },
    **{
        f"proto/{name}": HANDSHAKE
        for name in ("answers", "attempts", "desk", "halfopen", "handshake", "handshake_context", "load",
                     "negotiation")
    },
    **{
        f"aio/{name}": DRIVER
        for name in ("__init__", "address", "buffers", "channel", "connection", "deadlines", "driver", "endpoint",
                     "failing", "stream", "tracing", "waiting")
    },
}  # fmt: skip
"""What a module does when none of the names above says otherwise. A module that is missing here is "other"."""

PASSED = {
    ("core/ring.py", "packets"),
    ("core/ring.py", "_cut"),
    ("crypto/aead_cryptography.py", "_views"),
    ("crypto/aead.py", "for_size"),
}
"""Helpers of whoever calls them."""

_FRAME = re.compile(r"(?P<function>.*) \((?P<path>.*?)(?::\d+)?\)$")
_OURS = re.compile(r".*/burstwire/(?P<inside>(?:core|crypto|wire|proto|aio)/.*\.py)$")
_LOOP = re.compile(r"(?:.*/)?(?:asyncio/.*|selectors|uvloop/.*)\.pyx?$")
_BENCHMARK = re.compile(r"(?:.*/)?benches/.*\.py$")
_NESTED = re.compile(r".*<locals>\.")


def classify(stack: Sequence[str]) -> str:
    """The category of a stack, one of `CATEGORIES`."""
    loop = False
    for frame in reversed(stack):
        found = _FRAME.match(frame)
        if found is None:
            continue
        function, path = _NESTED.sub("", found["function"]), found["path"]
        if _LOOP.match(path):
            loop = True
            continue
        ours = _OURS.match(path)
        if ours is not None:
            category = _category(ours["inside"], function)
            if category is not None:
                return category
        elif _BENCHMARK.match(path):
            return LOOP if loop else BENCHMARK
        elif loop:
            return LOOP
    return LOOP if loop else OTHER


def _category(inside: str, function: str) -> str | None:
    """Of one frame; None when it belongs to whoever called it."""
    class_name, _, name = function.rpartition(".")
    if (inside, name) in PASSED:
        return None
    for key in (function, name):
        if (inside, key) in FUNCTIONS:
            return FUNCTIONS[inside, key]
    if inside.startswith("proto/") and name in TIMER_FUNCTIONS:
        return TIMERS
    if class_name in READER_CLASSES:
        return WAY_IN
    if inside.startswith("wire/") and name.startswith("encode"):
        return WAY_OUT if inside == "wire/frames.py" else MODULES.get(inside.removesuffix(".py"), OTHER)
    return MODULES.get(inside.removesuffix(".py"), OTHER)


def count(lines: Iterable[str]) -> Counter[str]:
    """Samples by category of the lines `frame;frame;… count` that py-spy writes in its format "raw"."""
    samples: Counter[str] = Counter()
    for line in lines:
        stack, _, times = line.strip().rpartition(" ")
        if stack:
            samples[classify(stack.split(";"))] += int(times)
    return samples
