"""Reads qlog files, event by event: those of `burstwire.qlog`, and those that other stacks of QUIC write.

JSON text sequences (RFC 7464) and one JSON object a line are read record by record, plain JSON with a parser that
needs no more than one event in memory. So a trace may be larger than memory. Versions "0.3" and "0.4", and files that
name a `file_schema` instead, differ in names and in the words for their times; both are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from burstwire.cli.text import printable

__all__ = ["Event", "NotATrace", "TraceFile"]

CHUNK = 1 << 20
"""Bytes read at once."""

MOST = 16 << 20
"""Bytes of the largest record; an event has some hundreds."""

HEAD = 4096
"""Bytes in which a file must show what it is; the draft wants its version in the first 256."""

Event = tuple[float, str, dict[str, Any]]
"""Seconds since the first event of the trace, the name without its category, and the data."""


class NotATrace(Exception):
    """The file holds no qlog, or one of a kind that is not read; the message says why."""


class TraceFile:
    """A qlog file; only its first trace is read.

    Attributes:
        path: its name.
        version: what it says of itself.
        title: what a plot of it may be called.
        milliseconds: how many of them a unit of its times is.
        truncated: whether the last record is cut off, as when its writer crashed; known once all events were read.
        damaged: records in between that could not be read and were left out.
        more: whether the file has further traces.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and reads its head. Raises `NotATrace` and `OSError`."""
        self.path = path
        self.version = ""
        self.title = ""
        self.milliseconds = 1.0
        self.truncated = False
        self.damaged = 0
        self.more = False
        self._format = "absolute"
        with path.open("rb") as file:
            head = file.read(HEAD)
        text = head.lstrip()
        if not text:
            raise NotATrace("the file is empty")
        if text[:1] == b"\x1e":
            self._separator: bytes | None = b"\x1e"
        elif text[:1] != b"{":
            raise NotATrace("it is neither a JSON text sequence nor JSON")
        else:
            self._separator = b"\n" if b'"NDJSON"' in text else None
        if self._separator is None:
            self._read_head_of_json()
        else:
            self._read_head_of_sequence()

    def events(self) -> Iterator[Event]:
        """All events. Raises `NotATrace` for what no qlog has in their place."""
        clock = _Clock(self._format, self.milliseconds)
        for event in self._json_events() if self._separator is None else self._sequence_events():
            if isinstance(event, list):
                raise NotATrace("its events are lists, as before version 0.3")
            name, data, time = event.get("name"), event.get("data"), event.get("time")
            if not isinstance(name, str) or not isinstance(time, int | float) or isinstance(time, bool):
                raise NotATrace(f"an event has no name or no time: {printable(json.dumps(event), 60)}")
            seconds = clock.seconds(float(time), event.get("time_format"))
            yield seconds, name.rpartition(":")[2], data if isinstance(data, dict) else {}

    # inside: the head

    def _take_head(self, top: dict[str, Any], trace: dict[str, Any]) -> None:
        version = top.get("qlog_version") or top.get("file_schema")
        if not isinstance(version, str):
            raise NotATrace("it names no qlog_version")
        self.version = version
        vantage = trace.get("vantage_point")
        vantage = vantage if isinstance(vantage, dict) else {}
        words = (trace.get("title") or top.get("title") or vantage.get("name"), vantage.get("type"))
        self.title = ", ".join(printable(word, 60) for word in words if isinstance(word, str))
        common = trace.get("common_fields")
        if isinstance(common, dict) and isinstance(common.get("time_format"), str):
            self._format = common["time_format"]
        configuration = trace.get("configuration")
        if isinstance(configuration, dict) and configuration.get("time_units") == "us":
            self.milliseconds = 0.001

    def _read_head_of_sequence(self) -> None:
        with self.path.open("rb") as file:
            record = next(self._records(file), b"")
        try:
            header = json.loads(record)
        except ValueError:
            raise NotATrace("its first record is no JSON") from None
        if not isinstance(header, dict):
            raise NotATrace("its first record is no header of a qlog")
        trace = header.get("trace")
        self._take_head(header, trace if isinstance(trace, dict) else {})

    def _read_head_of_json(self) -> None:
        """What stands before the events of the first trace; what stands behind them, too, if something is missing."""
        import ijson

        top: dict[str, Any] = {}
        builder = ijson.ObjectBuilder()
        whole = False
        with self.path.open("rb") as file:
            try:
                for prefix, kind, value in ijson.parse(file, use_float=True, buf_size=CHUNK):
                    if kind in ("string", "number") and "." not in prefix:
                        top[prefix] = value
                    elif whole:
                        pass
                    elif prefix == "traces.item.events" and kind == "start_array":
                        whole = "common_fields" in builder.value
                        builder.event("null", None)  # stands for the events, so that the object can go on
                    elif prefix.startswith("traces.item") and not prefix.startswith("traces.item.events"):
                        builder.event(kind, value)
                        whole = prefix == "traces.item" and kind == "end_map"
                    if whole and ("qlog_version" in top or "file_schema" in top):
                        break
            except ijson.JSONError as error:
                if not top:
                    raise NotATrace(f"it is no JSON: {_first_line(error)}") from None
        found = getattr(builder, "value", None)
        if found is None and "qlog_version" in top:
            raise NotATrace("it has no traces")
        self._take_head(top, found or {})

    # inside: the events

    def _json_events(self) -> Iterator[Any]:
        import ijson

        place = "traces.item.events.item"
        inside = place + "."
        builder: Any = None
        depth = traces = 0
        with self.path.open("rb") as file:
            try:
                for prefix, kind, value in ijson.parse(file, use_float=True, buf_size=CHUNK):
                    if prefix == "traces.item" and kind == "start_map":
                        traces += 1
                        if traces > 1:
                            self.more = True
                            return
                    if prefix != place and not prefix.startswith(inside):
                        continue
                    if builder is None:
                        builder = ijson.ObjectBuilder()
                    builder.event(kind, value)
                    if prefix == place:
                        depth += {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}.get(kind, 0)
                        if not depth:
                            event, builder = builder.value, None
                            if not isinstance(event, dict | list):
                                raise NotATrace("an event is no object")
                            if event:  # some writers end the list with an empty one
                                yield event
            except ijson.JSONError:
                self.truncated = True

    def _sequence_events(self) -> Iterator[Any]:
        """RFC 7464 §2.4: what cannot be read is left out. At the end of the file, it was being written."""
        with self.path.open("rb") as file:
            records = self._records(file)
            next(records, None)
            bad = 0
            for record in records:
                try:
                    event = json.loads(record)
                except ValueError:
                    bad += 1
                    continue
                self.damaged += bad
                bad = 0
                if not isinstance(event, dict | list):
                    raise NotATrace("a record is no object")
                yield event
            self.truncated = bad > 0
            self.damaged += max(0, bad - 1)

    def _records(self, file: IO[bytes]) -> Iterator[bytes]:
        assert self._separator is not None
        kept = b""
        while chunk := file.read(CHUNK):
            *whole, kept = (kept + chunk).split(self._separator)
            for record in whole:
                if not record.isspace() and record:
                    yield record
            if len(kept) > MOST:
                raise NotATrace(f"a record has more than {MOST:,} bytes")
        if kept and not kept.isspace():
            yield kept


class _Clock:
    """Makes seconds since the first event of whatever a file calls time."""

    def __init__(self, kind: str, milliseconds: float) -> None:
        self._kind = kind
        self._scale = milliseconds / 1000
        self._first: float | None = None
        self._now = 0.0

    def seconds(self, time: float, kind: object) -> float:
        kind = kind if isinstance(kind, str) else self._kind
        if kind in ("delta", "relative_to_previous_event"):
            if self._first is None:  # may count from anything
                self._first = 0.0
            else:
                self._now += time * self._scale
        else:
            if self._first is None:
                self._first = time
            self._now = (time - self._first) * self._scale
        return self._now


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0], 100) if lines else type(error).__name__
