"""What pyproject.toml cannot say: the cffi module, and one wheel for every CPython from 3.11 on (abi3)."""

import sysconfig

from setuptools import setup

free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    cffi_modules=["src/burstwire/_build.py:builder"],
    options={} if free_threaded else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
