"""A receiver's directory and a file to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Bench, bench_in

from burstwire.cli.folder import Folder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


@pytest.fixture
def folder(box: Path) -> Iterator[Folder]:
    opened = Folder(str(box))
    yield opened
    opened.close()


@pytest.fixture
def source_path(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"
