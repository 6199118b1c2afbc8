"""Names from the network are plain names, or they are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.cli.names import MAX_NAME_BYTES, BadName, check_name, partial_name

ATTACKS = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../up",
    "a/b",
    "a\\b",
    "..\\up",
    "a\0b",
    "a\nb",
    "a\rb",
    "\x1b[31mred",
    "a\x7f",
    "a\x85b",
    "a\u2028b",
    "lone\ud800surrogate",
    "\u202egpj.exe",
    "a\u2066b",
    ".hidden",
    ".file.0123456789abcdef.part",
    "...",
    " leading",
    "trailing ",
    "trailing\u3000",
    "x" * (MAX_NAME_BYTES + 1),
    "ü" * (MAX_NAME_BYTES // 2 + 1),
]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "photo.jpg",
        "a b",
        "ünïcode",
        "文書.txt",
        "CON",
        "nul.txt",
        "-rf",
        "a..b",
        "x" * MAX_NAME_BYTES,
        "👩‍🚀",
    ],
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert check_name(name) == name


@given(st.text(max_size=300))
def test_an_accepted_name_is_one_visible_path_component(name: str) -> None:
    try:
        accepted = check_name(name)
    except BadName:
        return
    assert accepted == name
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES


@given(st.text(max_size=300))
def test_a_partial_name_fits_a_directory_entry_and_is_no_acceptable_name(name: str) -> None:
    try:
        check_name(name)
    except BadName:
        return
    partial = partial_name(name, "0123456789abcdef")
    assert len(partial.encode()) <= MAX_NAME_BYTES
    with pytest.raises(BadName):
        check_name(partial)


def test_partial_names_differ_for_long_names_with_the_same_start_by_their_identity() -> None:
    assert partial_name("x" * 250, "0" * 16) != partial_name("x" * 250, "1" * 16)
