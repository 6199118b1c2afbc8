"""What pyproject.toml cannot say: the cffi module, one wheel for every CPython from 3.11 on (abi3), and the copy of
Intel's multi-buffer library that BURSTWIRE_BUNDLE=1 puts into the wheel (`make wheel BUNDLE=1`)."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HEADER = "#include <intel-ipsec-mb.h>\nIMB_VERSION_NUM\n"
LICENCES = ("/usr/share/doc/libipsec-mb{0}/copyright", "/usr/local/share/doc/libipsec-mb{0}/LICENSE")


def library() -> tuple[Path, Path]:
    """The library that the linker would take, of the header's major version, and its licence, which must go with it."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.run([*compiler, "-E", "-P", "-"], input=HEADER, capture_output=True, text=True, check=False)
    version = re.search(r"(0x[0-9a-fA-F]+)\s*$", found.stdout) if found.returncode == 0 else None
    if version is None:
        raise SystemExit("BURSTWIRE_BUNDLE: there is no intel-ipsec-mb.h (Debian: apt install libipsec-mb-dev)")
    major = int(version[1], 16) >> 16
    asked = [*compiler, f"-print-file-name=libIPSec_MB.so.{major}"]
    file = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    named = os.environ.get("BURSTWIRE_BUNDLE_LICENCE")
    candidates = [Path(named)] if named else [Path(place.format(major)) for place in LICENCES]
    licence = next((place for place in candidates if place.is_file()), None)
    if not file.is_file() or licence is None:
        raise SystemExit(f"BURSTWIRE_BUNDLE: {file} or its licence ({', '.join(map(str, candidates))}) is missing")
    return file, licence


class BuildWithLibrary(build_py):
    """Beside the extension, where burstwire.crypto.aead_ipsecmb looks first."""

    def run(self) -> None:
        super().run()
        if os.environ.get("BURSTWIRE_BUNDLE") == "1" and not self.editable_mode:
            file, licence = library()
            target = Path(self.build_lib, "burstwire", "core", file.name)
            self.mkpath(str(target.parent))
            shutil.copyfile(file, target)  # the file behind the link
            shutil.copyfile(licence, f"{target}.LICENCE")


setup(
    cffi_modules=["src/burstwire/_build.py:builder"],
    cmdclass={"build_py": BuildWithLibrary},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
