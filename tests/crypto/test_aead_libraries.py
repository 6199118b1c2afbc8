"""Which libraries packet protection is done with: found, named, missing."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from burstwire.core._burstwire import ffi, lib
from burstwire.crypto import aead_ipsecmb, aead_libcrypto
from burstwire.crypto.aead import backends

CSRC = Path(__file__).parents[2] / "csrc"
KEYS = (16, 32, 32)

needs_libcrypto = pytest.mark.skipif("libcrypto" not in backends(), reason="no libcrypto on this machine")
needs_ipsecmb = pytest.mark.skipif("ipsec-mb" not in backends(), reason="no ipsec-mb on this machine")


@pytest.fixture
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if not found:
        pytest.skip("needs a C compiler")
    return found


def told(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def loaded(name: str) -> list[Path]:
    """Files of this process whose name holds `name`."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split(maxsplit=5)[5]) for line in maps if name in line})


@needs_libcrypto
def test_the_environment_names_the_libcrypto(tmp_path: Path) -> None:
    # A copy, so that it can be told from the system's.
    copy = tmp_path / "another.so"
    copy.write_bytes(loaded("libcrypto")[0].read_bytes())
    code = """
from burstwire.crypto.aead import backends, make_aead
assert "libcrypto" in backends()
make_aead("aes-128-gcm", bytes(16), "libcrypto")
print([line.split()[-1] for line in open("/proc/self/maps") if "another.so" in line or "libcrypto.so.3" in line])
"""
    assert str(copy) in told(code, BURSTWIRE_LIBCRYPTO=str(copy))
    assert str(copy) not in told(code, BURSTWIRE_LIBCRYPTO="")
    assert aead_libcrypto.SONAME in told(code, BURSTWIRE_LIBCRYPTO=aead_libcrypto.SONAME)


@pytest.mark.parametrize("name", ["/nowhere/libcrypto.so.3", "libc.so.6", os.fspath(Path(__file__))])
def test_a_library_that_is_named_and_no_libcrypto_is_an_error_and_not_overlooked(name: str) -> None:
    said = told("from burstwire.crypto.aead import backends; backends()", BURSTWIRE_LIBCRYPTO=name)
    assert "ConfigError: BURSTWIRE_LIBCRYPTO" in said
    assert name in said


@pytest.mark.parametrize("name", [b"/nowhere/libIPSec_MB.so.1", b"libc.so.6", os.fsencode(__file__)])
def test_what_is_no_ipsec_mb_is_not_opened(name: bytes) -> None:
    assert lib.bw_ipsecmb_open(name) == ffi.NULL


@needs_ipsecmb
def test_the_copy_beside_the_extension_comes_before_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [soname] = [Path(file).name for file in aead_ipsecmb.candidates()[-1:]]
    monkeypatch.setattr(aead_ipsecmb.core, "__file__", str(tmp_path / "__init__.py"))
    assert aead_ipsecmb.candidates() == [soname]
    (tmp_path / soname).touch()
    assert aead_ipsecmb.candidates() == [str(tmp_path / soname), soname]


@needs_ipsecmb
def test_a_library_of_another_major_version_is_not_opened(tmp_path: Path, compiler: str) -> None:
    source = tmp_path / "other.c"
    source.write_text(
        f"unsigned imb_get_version(void) {{ return {lib.bw_ipsecmb_major() + 1}u << 16; }}\n"
        'const char *imb_get_version_str(void) { return "another"; }\n'
    )
    target = tmp_path / "other.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source], check=True)
    assert lib.bw_ipsecmb_open(os.fsencode(target)) == ffi.NULL


def test_c_without_the_librarys_header_has_the_same_functions_and_they_say_absent(
    tmp_path: Path, compiler: str
) -> None:
    target = tmp_path / "without.so"
    source = CSRC / "aead_ipsecmb.c"
    options = ["-std=c11", "-DBW_WITHOUT_IPSEC_MB", "-shared", "-fPIC", "-I", CSRC]
    subprocess.run([compiler, *options, "-o", target, source], check=True)
    without = ctypes.CDLL(str(target))
    without.bw_ipsecmb_open.restype = without.bw_ipsecmb_cipher.restype = ctypes.c_void_p
    without.bw_ipsecmb_version.restype = ctypes.c_char_p
    assert without.bw_ipsecmb_major() == 0
    assert without.bw_ipsecmb_open(b"libIPSec_MB.so.1") is None
    assert without.bw_ipsecmb_version(None) == b""
    assert without.bw_ipsecmb_cipher(None, 0, bytes(16), 16) is None
    without.bw_ipsecmb_close(None)


def test_python_believes_c_that_it_was_built_without_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def bw_ipsecmb_major(self) -> int:
            return 0

    monkeypatch.setattr(aead_ipsecmb, "lib", Without())
    aead_ipsecmb._library.cache_clear()
    try:
        assert aead_ipsecmb.candidates() == []
        assert aead_ipsecmb.version() == ""
        assert "ipsec-mb" not in backends()
    finally:
        aead_ipsecmb._library.cache_clear()


def libraries() -> list[object]:
    """(function that makes ciphers, library) of each back end in C."""
    found: list[object] = []
    if "libcrypto" in backends():
        found.append(pytest.param(lib.bw_libcrypto_cipher, aead_libcrypto._library(), id="libcrypto"))
    if "ipsec-mb" in backends():
        found.append(pytest.param(lib.bw_ipsecmb_cipher, aead_ipsecmb._library(), id="ipsec-mb"))
    return found


@pytest.mark.parametrize(("make", "library"), libraries())
def test_a_cipher_of_no_library_no_such_number_or_no_such_key_is_refused(make: object, library: object) -> None:
    assert callable(make)
    for number, size in enumerate(KEYS):
        cipher = make(library, number, bytes(size), size)
        assert cipher != ffi.NULL
        lib.bw_cipher_free(cipher)
        for wrong in (0, size - 1, size + 1, 48 - size, 64):
            assert make(library, number, bytes(64), wrong) == ffi.NULL
        assert make(ffi.NULL, number, bytes(size), size) == ffi.NULL
    assert make(library, len(KEYS), bytes(32), 32) == ffi.NULL
    lib.bw_cipher_free(ffi.NULL)
