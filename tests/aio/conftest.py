"""Every test here that takes `run` runs under asyncio and under uvloop."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.loops import LOOPS, Run, run_under


@pytest.fixture(params=LOOPS)
def run(request: Any) -> Run:
    return partial(run_under, request.param)
