"""Addresses as people write them."""

from __future__ import annotations

import pytest
from support.loops import Run

from burstwire.aio.address import parse_address, resolve, show
from burstwire.core.address import pack_address
from burstwire.errors import AddressError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("node.example:4433", ("node.example", 4433)),
        ("[::]:0", ("::", 0)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
        (":4433", ("", 4433)),
        (("localhost", 1), ("localhost", 1)),
        (("::1", 4433, 0, 0), ("::1", 4433)),
    ],
)
def test_an_address_is_read(written: str | tuple[str, int], meant: tuple[str, int]) -> None:
    assert parse_address(written) == meant


@pytest.mark.parametrize(
    "written", ["", "host", "host:", "host:x", "host:-1", "host:65536", "::1:4433", ("host", 65536), "host:١"]
)
def test_what_is_no_address_is_refused_and_quoted(written: str | tuple[str, int]) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(written)
    assert repr(written) in str(caught.value)


@pytest.mark.parametrize("written", [None, 4433, b"host:1", ("host", "1"), ("host", True), ("host",)])
def test_what_is_not_even_of_the_right_type_is_a_type_error(written: object) -> None:
    with pytest.raises(TypeError):
        parse_address(written)  # type: ignore[arg-type]


@pytest.mark.parametrize(("host", "shown"), [("192.0.2.1", "192.0.2.1:9"), ("::1", "[::1]:9")])
def test_an_address_is_shown_as_it_is_written(host: str, shown: str) -> None:
    assert show(host, 9) == shown
    assert parse_address(shown) == (host, 9)


def test_a_numeric_host_is_not_looked_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        coroutine = resolve("192.0.2.1", 7)
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        assert end.value.value == [pack_address("192.0.2.1", 7)]

    run(main)


def test_a_name_is_looked_up(run: Run) -> None:
    async def main() -> None:
        assert set(await resolve("localhost", 7)) <= {pack_address("127.0.0.1", 7), pack_address("::1", 7)}

    run(main)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "fe80::1%no_such_if", "1:2"])
def test_a_host_that_cannot_be_found_is_named(run: Run, host: str) -> None:
    async def main() -> None:
        with pytest.raises(AddressError) as caught:
            await resolve(host, 7)
        assert host in str(caught.value)

    run(main)
