"""The file of a trace: whole records, a limit, few system calls, and no failure that gets out."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import pytest

from burstwire.qlog.folder import open_over
from burstwire.qlog.writer import BLOCK, NOTE_ROOM, SequenceWriter

RECORD = {"name": "something", "data": {"n": 1}}
SIZE = len(b"\x1e" + json.dumps(RECORD, separators=(",", ":")).encode() + b"\n")


class Counting(io.FileIO):
    """Takes at most `most` bytes at a time, and fails once `until` were written."""

    def __init__(self, path: Path, most: int = 1 << 30, until: int = 1 << 60) -> None:
        super().__init__(path, "wb")
        self.most = most
        self.until = until
        self.calls = 0
        self.written = 0

    def write(self, data: Any) -> int:
        self.calls += 1
        if self.written >= self.until:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = super().write(data[: self.most])
        self.written += n
        return n


def test_records_are_json_text_sequences(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = SequenceWriter(lambda: open_over(str(path)), 1 << 20)
    for n in range(3):
        assert writer.write({"ü": n})
    writer.close()
    writer.close()
    assert path.read_bytes() == b"".join(b'\x1e{"\\u00fc":%d}\n' % n for n in range(3))
    assert writer.size == path.stat().st_size
    assert not writer.write(RECORD)


def test_records_are_written_in_blocks(tmp_path: Path) -> None:
    file = Counting(tmp_path / "t")
    writer = SequenceWriter(lambda: file, 1 << 30)
    for _ in range(4 * BLOCK // SIZE):
        writer.write(RECORD)
    writer.close()
    assert file.calls <= 5
    assert file.written == writer.size


def test_a_file_that_takes_little_at_a_time_gets_everything(tmp_path: Path) -> None:
    path = tmp_path / "t"
    file = Counting(path, most=7)
    writer = SequenceWriter(lambda: file, 1 << 20)
    writer.write(RECORD)
    writer.flush()
    assert path.read_bytes()[1:-1] == json.dumps(RECORD, separators=(",", ":")).encode()
    writer.close()


@pytest.mark.parametrize("limit", [4096, 5000, 100_000])
def test_the_limit_is_kept_and_leaves_room_for_a_last_word(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "t"
    writer = SequenceWriter(lambda: open_over(str(path)), limit)
    while writer.write(RECORD):
        pass
    assert limit - NOTE_ROOM - SIZE < writer.size <= limit - NOTE_ROOM
    assert writer.write({"last": "x" * 400}, last=True)
    while writer.write(RECORD, last=True):
        pass
    writer.close()
    assert limit - SIZE < path.stat().st_size <= limit


def test_a_full_disk_ends_the_writing_and_is_remembered(tmp_path: Path) -> None:
    file = Counting(tmp_path / "t", until=BLOCK)
    writer = SequenceWriter(lambda: file, 1 << 30)
    taken = 0
    while writer.write(RECORD):
        taken += 1
    assert 2 * BLOCK // SIZE - 2 <= taken <= 2 * BLOCK // SIZE + 2
    assert writer.failure is not None
    assert writer.failure.errno == errno.ENOSPC
    calls = file.calls
    writer.flush()
    writer.close()
    assert file.calls == calls
    assert file.closed


def test_a_file_that_cannot_be_opened_is_remembered(tmp_path: Path) -> None:
    writer = SequenceWriter(lambda: open_over(str(tmp_path / "no" / "t")), 1 << 30)
    assert writer.write(RECORD)
    writer.flush()
    assert isinstance(writer.failure, FileNotFoundError)
    assert not writer.write(RECORD)
    writer.close()


def test_what_is_discarded_never_reaches_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "t"
    writer = SequenceWriter(lambda: open_over(str(path)), 1 << 30)
    writer.write(RECORD)
    writer.close(discard=True)
    assert not path.exists()
