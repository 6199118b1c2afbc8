"""Refuses an interpreter that burstwire does not work with, before the C extension fails to load without saying why."""

from __future__ import annotations

import sysconfig

__all__: list[str] = []

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError(
        "burstwire does not support free-threaded CPython: its C extension is built for the stable ABI, which that "
        "build does not have, and its objects rely on the GIL. Use the ordinary build of CPython."
    )
