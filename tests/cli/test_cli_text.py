"""What people read is right and harmless; what they write as addresses is understood or refused."""

from __future__ import annotations

import pytest

from burstwire.cli.exits import CODES_HELP, ExitCode
from burstwire.cli.hosts import format_address, parse_address, reachable_host
from burstwire.cli.text import format_duration, format_rate, format_size, printable


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (1530, "1.53 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (268_435_456, "268 MB"),
        (10**21, "1000 EB"),
    ],
)
def test_sizes_have_three_digits_and_the_right_unit(count: int, text: str) -> None:
    assert format_size(count) == text


def test_rates_are_sizes_per_second() -> None:
    assert format_rate(268_435_456, 0.5) == "537 MB/s"
    assert format_rate(10, 20) == "0 B/s"
    assert format_rate(10, 0) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000421, "0.04 ms"),
        (0.0042, "4.20 ms"),
        (0.25, "250 ms"),
        (1, "1.0 s"),
        (59.97, "1:00 min"),
        (75, "1:15 min"),
        (3700, "1:01:40 h"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_foreign_text_cannot_steer_the_terminal_or_make_lines() -> None:
    shown = printable("a\x1b[2J\nb\r\u202ec\u2028d")
    assert shown == "a\ufffd[2J\ufffdb\ufffd\ufffdc\ufffdd"
    assert len(printable("x" * 10_000)) < 300


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:1", ("host", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[::1]:7000", ("::1", 7000)),
        ("[fe80::1%eth0]:7000", ("fe80::1%eth0", 7000)),
    ],
)
def test_an_address_is_understood_and_written_back(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", "host:0", "host:65536", "host:-1", "host: 1", "host:１", ":1", "::1", "::1:80"),
        *("[::1]", "[zz]:1", "[127.0.0.1]:1", "a b:1", "a\nb:1", "host:99999999999"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


def test_only_a_listener_may_leave_out_the_host_or_take_any_port() -> None:
    assert parse_address(":7000", listening=True) == ("", 7000)
    assert parse_address("127.0.0.1:0", listening=True) == ("127.0.0.1", 0)


def test_a_wildcard_is_never_what_a_sender_is_told() -> None:
    for host in ("", "0.0.0.0", "::"):
        assert reachable_host(host) not in ("", "0.0.0.0", "::")
    assert reachable_host("10.1.2.3") == "10.1.2.3"


def test_the_help_lists_exactly_the_exit_codes_that_exist() -> None:
    listed = {int(word) for line in CODES_HELP.splitlines() for word in line.split()[:1] if word.isdigit()}
    assert listed == {int(code) for code in ExitCode}
