"""`burstwire send`: files to one receiver, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import burstwire as bw
from burstwire.cli.exchange import Exchange, Refused, Stalled, TransferError, explain
from burstwire.cli.exits import ExitCode, Failure
from burstwire.cli.headers import HeaderError
from burstwire.cli.hosts import format_address
from burstwire.cli.output import Output, complain
from burstwire.cli.progress import choose_progress
from burstwire.cli.sender import Changed, Progress, Sent, Source, open_source, send_file
from burstwire.cli.session import Common, connected
from burstwire.cli.text import format_duration, format_rate, format_size, printable

__all__ = ["SendOptions", "send"]


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What the command line says.

    Attributes:
        paths: the files, at least one.
        rename: the name that the receiver shall use instead, for a single file.
        to, key: the receiver.
    """

    paths: Sequence[str]
    rename: str | None
    to: tuple[str, int]
    key: bw.PublicKey
    common: Common


async def send(options: SendOptions) -> ExitCode:
    """Send every file; files that fail alone do not stop the others. Raises `Failure`."""
    output = Output(options.common.json)
    progress = choose_progress(output)
    with ExitStack() as files:
        # All are opened before anything is sent: a typing error in the last name shows at once.
        sources = [files.enter_context(open_source(path, options.rename)) for path in options.paths]
        _refuse_equal_names(sources)
        worst = ExitCode.OK
        async with connected(options.to, options.key, options.common) as connection:
            for index, source in enumerate(sources):
                try:
                    sent = await _send_one(connection, source, progress, options.common.timeout)
                except Failure as failure:
                    complain(failure.line)
                    worst = max(worst, failure.code)
                except (bw.ConnectionLost, Stalled) as error:
                    # What follows would fare no better.
                    rest = len(sources) - index
                    raise Failure(ExitCode.TRANSFER, _lost(error, options, source, rest)) from None
                else:
                    _report(output, source, sent)
    return worst


async def _send_one(connection: bw.Connection, source: Source, progress: Progress, deadline: float) -> Sent:
    shown = printable(source.path)
    progress.begin(source.name, source.size)
    try:
        try:
            async with asyncio.timeout(deadline):
                stream = await connection.open_stream()
        except TimeoutError as error:
            if isinstance(error, bw.TransportError):
                raise
            raise Failure(ExitCode.TRANSFER, f"{shown}: the receiver takes no further file now") from None
        return await send_file(Exchange(stream, deadline), source, progress)
    except Changed as error:
        raise Failure(ExitCode.LOCAL, f"{shown}: {error}") from None
    except Stalled:
        raise
    except Refused as refused:
        hint = "; choose another with --as" if refused.code in ("name", "exists") else ""
        raise Failure(ExitCode.TRANSFER, f"{shown}: {printable(refused.reason)}{hint}") from None
    except bw.StreamError as error:
        raise Failure(ExitCode.TRANSFER, f"{shown}: {explain(error, 'receiver')}") from None
    except (TransferError, HeaderError) as error:
        raise Failure(ExitCode.TRANSFER, f"{shown}: {printable(str(error))}") from None
    finally:
        progress.end()


def _refuse_equal_names(sources: Sequence[Source]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        if source.name in seen:
            pair = f"{printable(seen[source.name])} and {printable(source.path)}"
            raise Failure(ExitCode.USAGE, f"{pair} have the same name for the receiver; send them one by one with --as")
        seen[source.name] = source.path


def _report(output: Output, source: Source, sent: Sent) -> None:
    size = format_size(source.size)
    if sent.identical:
        output.say(f"{printable(source.name)}: the receiver has it already ({size})")
    else:
        resumed = f", resumed after {format_size(sent.resumed_from)}" if sent.resumed_from else ""
        rate = format_rate(sent.sent, sent.seconds)
        output.say(f"{printable(source.name)}: sent {size} in {format_duration(sent.seconds)} ({rate}{resumed})")
    output.event(
        "sent",
        file=source.path,
        name=source.name,
        size=source.size,
        sent=sent.sent,
        resumed_from=sent.resumed_from,
        identical=sent.identical,
        seconds=round(sent.seconds, 6),
        sha256=sent.sha256,
    )


def _lost(error: bw.ConnectionLost | Stalled, options: SendOptions, source: Source, rest: int) -> str:
    where = printable(format_address(options.to))
    if isinstance(error, Stalled):
        cause = f"{where} made no progress for {options.common.timeout:g} s"
    elif isinstance(error, bw.IdleTimeout):
        cause = f"{where} fell silent for {options.common.timeout:g} s"
    elif isinstance(error, bw.PeerClosed):
        cause = f"{where} closed the connection{': ' + error.reason if error.reason else ''}"
    else:
        cause = f"lost the connection to {where}: {error}"
    hint = "not sent" if rest == 1 else f"and {rest - 1} more not sent"
    return f"{printable(source.path)}: {hint}; {printable(cause)}; the same command resumes"
