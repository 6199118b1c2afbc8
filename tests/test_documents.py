"""README.md and docs/ against the code: names, options, numbers, examples and links."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import click
import pytest

from burstwire.cli.app import burstwire
from burstwire.cli.exits import CODES_HELP, ExitCode
from burstwire.cli.headers import _KINDS, APPLICATION_PROTOCOL, ResetCode
from burstwire.config import Config
from burstwire.crypto.keys import _ALGORITHMS, INTEGRITY_LIMITS
from burstwire.proto.mtu import SIZES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """With every stretch of white space as one space, so that line breaks do not matter."""
    return " ".join(text(name).split())


def table(name: str, *heading: str) -> list[list[str]]:
    """The rows of the table with this heading, as cells without backquotes."""
    found = re.search(rf"^\| {re.escape(' | '.join(heading))} \|\n[|-]+\n((?:\|.*\n)+)", text(name), re.M)
    assert found, f"{name} has no table {heading}"
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


# --- README ------------------------------------------------------------------------------------------------------


def test_the_readme_shows_the_first_example_as_it_runs() -> None:
    assert re.findall(r"^```python\n(.*?)^```$", text("README.md"), re.M | re.S) == [text("examples/hello.py")]


def test_the_targets_of_make_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.M))
    for document in DOCUMENTS:
        shown = document.read_text(encoding="utf-8")
        assert set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", shown, re.M)) <= {
            pair for target in targets for pair in ((target, ""), ("", target))
        }


def test_the_environment_variables_that_documents_name_are_read() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for document in DOCUMENTS:
        for name in re.findall(r"BURSTWIRE_[A-Z_]+", document.read_text(encoding="utf-8")):
            assert f'"{name}"' in sources, f"{name} in {document.name}"


# --- all documents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_and_their_sections_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.is_file(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_settings_that_documents_name_exist(document: Path) -> None:
    named = set(re.findall(r"`Config\.(\w+)`", document.read_text(encoding="utf-8")))
    assert named <= {field.name for field in dataclasses.fields(Config)}


def test_every_setting_is_described() -> None:
    # CPython 3.13 takes the common indentation off docstrings, so take it off everywhere.
    described = re.findall(r"^    (\w+): ", inspect.cleandoc(Config.__doc__ or ""), re.M)
    assert described == [field.name for field in dataclasses.fields(Config)]


# --- docs/architecture.md ----------------------------------------------------------------------------------------


def test_every_source_file_is_named_in_the_architecture() -> None:
    shown = text("docs/architecture.md")
    covered_by_folder = {"sim", "cli", "congestion"}
    for path in [*(ROOT / "src" / "burstwire").rglob("*.py"), *(ROOT / "csrc").glob("*.[ch]")]:
        if path.name.startswith("_") or path.parent.name in covered_by_folder:
            continue
        assert re.search(rf"(?<![\w.]){re.escape(path.name)}(?!\w)", shown), path


def test_every_file_that_the_architecture_names_is_there() -> None:
    there = {path.name for folder in ("src", "csrc") for path in (ROOT / folder).rglob("*.*")}
    assert set(re.findall(r"(?<![\w.])\w+\.(?:py|c|h)\b", text("docs/architecture.md"))) <= there


# --- docs/protocol.md, what test_protocol_document.py does not read ------------------------------------------------


def test_the_sizes_that_are_probed_are_documented() -> None:
    assert ", ".join(f"{size:,}" for size in SIZES[:-1]) + f" and {SIZES[-1]:,} bytes" in prose("docs/protocol.md")


def test_the_integrity_limits_are_documented() -> None:
    listed = {name.lower(): limit for name, limit in table("docs/protocol.md", "Packet protection", "Integrity limit")}
    assert listed == {
        name: f"2^{limit.bit_length() - 1}" for (name, _), limit in zip(_ALGORITHMS, INTEGRITY_LIMITS, strict=True)
    }


# --- docs/command.md ---------------------------------------------------------------------------------------------


def test_every_command_is_documented() -> None:
    listed = {row[0].split()[1] for row in table("docs/command.md", "Command", "What it does")}
    assert listed == set(burstwire.commands)


def test_every_option_is_documented_and_no_other() -> None:
    shown = re.findall(r"^\|(?: `\w+` \|)? `(--[\w-]+)", text("docs/command.md"), re.M)
    known = {
        name
        for command in (burstwire, *burstwire.commands.values())
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
    }
    assert set(shown) == known - {"-h", "--help"}


@pytest.mark.parametrize("row", table("docs/command.md", "Command", "Option", "Meaning"), ids=" ".join)
def test_options_are_documented_with_their_command_and_default(row: list[str]) -> None:
    command, spelled, meaning = row
    name = spelled.split()[0]
    (option,) = [option for option in burstwire.commands[command].params if name in option.opts]
    if isinstance(option.default, str | int | float) and not isinstance(option.default, bool):
        assert f"default {option.default}" in meaning


def test_the_exit_codes_are_documented() -> None:
    listed = {int(code): meaning for code, meaning in table("docs/command.md", "Code", "Meaning")}
    assert listed.keys() == {int(code) for code in ExitCode}
    for code, meaning in listed.items():
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", CODES_HELP, re.M)


def test_the_transfer_protocol_is_documented() -> None:
    listed = {row[0]: row[1] for row in table("docs/command.md", "Header", "Fields", "By", "Meaning")}
    assert listed == {
        name: ", ".join(field.name for field in dataclasses.fields(kind)) or "none" for name, kind in _KINDS.items()
    }
    codes = {row[1]: int(row[0]) for row in table("docs/command.md", "Code", "Name", "Meaning")}
    assert codes == {code.name: code.value for code in ResetCode}
    assert f"`{APPLICATION_PROTOCOL}`" in text("docs/command.md")


def test_the_words_of_a_refusal_are_documented() -> None:
    source = text("src/burstwire/cli/receiver.py")
    used = set(re.findall(r'Rejection\(\s*"(\w+)"', source)) | {"space", "storage"}  # the latter two by _storage_code
    (listed,) = re.findall(r"words of `refuse` are (.*?)\.", prose("docs/command.md"))
    assert set(re.findall(r"`(\w+)`", listed)) == used


# --- security ----------------------------------------------------------------------------------------------------


def test_every_test_that_shows_a_promise_exists() -> None:
    shown = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text("docs/security.md"))
    assert len(shown) > 30
    for path, name in shown:
        assert re.search(rf"^(async )?def {name}\(", text(path), re.M), f"{path} has no {name}"


# --- docs/udp.md -------------------------------------------------------------------------------------------------


def test_what_keeps_out_of_each_trap_of_udp_exists() -> None:
    shown = text("docs/udp.md")
    rows = re.findall(r"^\| (?!Trap)[^|]+ \| ([^|]+) \|$", shown, re.M)
    assert len(rows) > 30
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        places = re.findall(r"`((?:csrc|src|benches)/[\w/.]+)`: `(\w+)`", row)
        assert tests or places, row
        for path, name in tests:
            assert re.search(rf"^(async )?def {name}\(", text(path), re.M), f"{path} has no {name}"
        for path, name in places:
            assert re.search(rf"\b{name}\b", text(path)), f"{path} has no {name}"
    # Each of these is one case of a test with many.
    scenarios = [name for group in re.findall(r"\(((?:`\w+`(?:, )?)+)\)", shown) for name in re.findall(r"\w+", group)]
    assert len(scenarios) > 5
    for name in scenarios:
        assert f"def {name}(" in text("tests/core/refusals.py"), name
