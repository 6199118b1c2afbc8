"""The command line itself: options, help, and the way from failure to exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from burstwire.cli.exits import CODES_HELP, ExitCode, Failure
from burstwire.cli.hosts import parse_address
from burstwire.cli.output import Output, complain, discard_rest
from burstwire.cli.runner import run_async

__all__ = ["burstwire", "run"]

DEFAULT_LISTEN = ":27182"
"""A fixed port, so that one firewall rule lasts; none is registered there."""

DEFAULT_TIMEOUT = 15.0
"""Seconds: long enough for a handshake through heavy loss, short enough to wait for."""


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT, as a pair."""

    name = "HOST:PORT"

    def __init__(self, *, listening: bool) -> None:
        self.listening = listening

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The pair, or a usage error."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_address(value, listening=self.listening)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Key(click.ParamType):  # type: ignore[type-arg]
    """A public key."""

    name = "KEY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The `PublicKey`, or a usage error."""
        from burstwire.cli.identity import parse_key

        try:
            return parse_key(value) if isinstance(value, str) else value
        except Failure as failure:
            self.fail(failure.line, param, ctx)


def _network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every command on the network understands."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Results as JSON lines on stdout."),
        click.option(
            "--qlog",
            type=click.Path(file_okay=False, path_type=str),
            metavar="DIR",
            help="Leave a trace (qlog) of each connection in DIR. Default: where QLOGDIR says, if it is set.",
        ),
        click.option(
            "--max-datagram-size",
            type=click.IntRange(1200, 65507),
            metavar="BYTES",
            help="UDP payload in bytes, instead of what the path is found to carry.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(1, 3600),
            default=DEFAULT_TIMEOUT,
            show_default=True,
            metavar="SECONDS",
            help="Give up after so long without an answer or progress.",
        ),
    ):
        command = option(command)
    return command


def _peer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which receiver is meant."""
    for option in (
        click.option("--key", type=Key(), required=True, help="The receiver's public key, which it prints."),
        click.option("--to", type=Address(listening=False), required=True, help="Where the receiver listens."),
    ):
        command = option(command)
    return command


@click.group(
    epilog=CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--identity",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="BURSTWIRE_IDENTITY",
    help="This side's key file. Default: burstwire/identity in $XDG_CONFIG_HOME or ~/.config, made on first use.",
)
@click.version_option(package_name="burstwire", message="%(prog)s %(version)s")
@click.pass_context
def burstwire(context: click.Context, identity: Path | None) -> None:
    """Send files to a machine that you know by its public key: encrypted, over UDP, resumable.

    The receiver starts with "burstwire receive DIR" and gets a command line to paste on the sending machine.
    """
    context.obj = identity


@burstwire.command(epilog=CODES_HELP)
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace an existing key. Whoever knows the old one must be told.")
@click.pass_obj
def keygen(identity: Path | None, path: Path | None, force: bool) -> ExitCode:
    """Make a new key at PATH (or where --identity says) and print its public part."""
    from burstwire.cli.identity import create_identity

    _, public = create_identity(path or identity, force=force)
    click.echo(str(public))
    return ExitCode.OK


@burstwire.command(epilog=CODES_HELP)
@click.pass_obj
def key(identity: Path | None) -> ExitCode:
    """Print the public key of this machine, for the --allow of a receiver."""
    from burstwire.cli.identity import load_identity

    click.echo(str(load_identity(identity).public))
    return ExitCode.OK


@burstwire.command(epilog=CODES_HELP)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=str))
@click.option(
    "--listen",
    type=Address(listening=True),
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Address and port. Without an address: all of them, IPv4 and IPv6; port 0: any free one.",
)
@click.option("--allow", type=Key(), multiple=True, help="Accept this sender only; may be repeated.")
@click.option("--once", is_flag=True, help="Stop after one file.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after N files.")
@click.option("--overwrite", is_flag=True, help="Let a file replace one of the same name.")
@_network_options
@click.pass_obj
def receive(
    identity: Path | None,
    /,
    directory: str,
    listen: tuple[str, int],
    allow: tuple[Any, ...],
    once: bool,
    count: int | None,
    overwrite: bool,
    **network: Any,
) -> ExitCode:
    """Receive files into DIR, and print the command that sends them.

    A file appears under its name when it is whole and verified, and never replaces another unless --overwrite is given.
    An interrupted one is kept as .NAME.ID.part and goes on when the same file is sent again. Names that are hidden, or
    more than a name, are refused.
    """
    from burstwire.cli.receive import ReceiveOptions
    from burstwire.cli.receive import receive as serve

    if once and count not in (None, 1):
        raise click.UsageError("--once and --count contradict each other")
    options = ReceiveOptions(
        directory=directory,
        listen=listen,
        allow=frozenset(allow),
        count=1 if once else count,
        overwrite=overwrite,
        common=_common(identity, **network),
    )
    return run_async(partial(serve, options), interrupted="stopped")


@burstwire.command(epilog=CODES_HELP)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=str))
@click.option("--as", "rename", metavar="NAME", help="What the receiver shall call it (a single FILE).")
@_peer_options
@_network_options
@click.pass_obj
def send(
    identity: Path | None,
    /,
    files: tuple[str, ...],
    rename: str | None,
    to: tuple[str, int],
    key: Any,
    **network: Any,
) -> ExitCode:
    """Send each FILE to the receiver. An interrupted transfer goes on where it stopped when it is sent again."""
    from burstwire.cli.send import SendOptions
    from burstwire.cli.send import send as transfer

    if rename is not None and len(files) > 1:
        raise click.UsageError("--as names a single file")
    options = SendOptions(paths=files, rename=rename, to=to, key=key, common=_common(identity, **network))
    return run_async(partial(transfer, options), interrupted="interrupted; the same command resumes")


@burstwire.command(epilog=CODES_HELP)
@_peer_options
@click.option("--count", type=click.IntRange(1), default=5, show_default=True, metavar="N", help="How many.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 3600),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="From an answer to the next ping.",
)
@click.option(
    "--size",
    type=click.IntRange(0, 1000),
    default=56,
    show_default=True,
    metavar="BYTES",
    help="Data in each.",
)
@_network_options
@click.pass_obj
def ping(
    identity: Path | None,
    /,
    to: tuple[str, int],
    key: Any,
    count: int,
    interval: float,
    size: int,
    **network: Any,
) -> ExitCode:
    """Measure round trips to a receiver that is running."""
    from burstwire.cli.ping import PingOptions
    from burstwire.cli.ping import ping as measure

    options = PingOptions(to, key, count, interval, size, _common(identity, **network))
    return run_async(partial(measure, options))


@burstwire.command(epilog=CODES_HELP)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(as_json: bool) -> ExitCode:
    """Show what this machine supports, how fast each layer is on it, and whether packets get through."""
    from burstwire.cli.doctor import doctor as examine

    return run_async(partial(examine, Output(as_json)))


@burstwire.command(epilog=CODES_HELP)
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The picture, SVG or PNG by its suffix. Default: TRACE with the suffix .svg.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as a JSON line on stdout.")
def plot(trace: Path, output: Path | None, as_json: bool) -> ExitCode:
    """Draw what the qlog file TRACE shows: window, bytes in flight, round trips, throughput and losses over time."""
    from burstwire.cli.plot import SUFFIXES, PlotOptions
    from burstwire.cli.plot import plot as picture

    output = output or trace.with_suffix(SUFFIXES[0])
    if output.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--output takes a name that ends with {' or '.join(SUFFIXES)}")
    if output == trace:
        raise click.UsageError("the picture would replace the trace")
    return picture(PlotOptions(trace, output, as_json))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line: the exit code, and at most one line on stderr for what went wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A file's name may hold what the terminal's encoding lacks.
            stream.reconfigure(errors="replace")
    try:
        code = burstwire.main(
            args=None if arguments is None else list(arguments), prog_name="burstwire", standalone_mode=False
        )
        return int(code or ExitCode.OK)
    except Failure as failure:
        complain(failure.line)
        return failure.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return ExitCode.USAGE
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "burstwire"
        complain(f"{error.format_message().rstrip('.')} (see: {command} --help)".replace("\n", " "))
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:
        # Nothing foreseen: most likely, stdout cannot be written.
        discard_rest(sys.stdout)
        complain(str(error))
        return ExitCode.LOCAL


def _common(
    identity: Path | None, *, timeout: float, max_datagram_size: int | None, qlog: str | None, as_json: bool
) -> Any:
    from burstwire.cli.session import Common

    return Common(identity=identity, timeout=timeout, max_datagram_size=max_datagram_size, qlog=qlog, json=as_json)
