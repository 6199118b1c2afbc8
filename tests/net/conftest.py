"""Every test here that takes `run` and `config` runs under asyncio and uvloop, with both socket back ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.loops import LOOPS, Run, run_under

from burstwire import Config
from burstwire.core import capabilities


@pytest.fixture(params=LOOPS)
def run(request: Any) -> Run:
    return partial(run_under, request.param)


@pytest.fixture(
    params=[
        pytest.param(
            "mmsg", marks=pytest.mark.skipif(not capabilities()["mmsg"], reason="this system has no sendmmsg")
        ),
        "portable",
    ]
)
def config(request: Any) -> Config:
    return Config(socket_backend=request.param)
