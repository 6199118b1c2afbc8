"""An endpoint, and a connection to one receiver, with every failure in words and with its exit code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import burstwire as bw
from burstwire.cli.exits import ExitCode, Failure, describe_os_error
from burstwire.cli.headers import APPLICATION_PROTOCOL
from burstwire.cli.hosts import format_address
from burstwire.cli.identity import load_identity
from burstwire.cli.text import printable

__all__ = ["Common", "connected", "make_config", "opened"]


@dataclass(frozen=True, slots=True)
class Common:
    """Options that every command on the network has.

    Attributes:
        identity: the key file, None for the default one.
        timeout: seconds without an answer or progress after which to give up.
        max_datagram_size: UDP payload in bytes, None to discover it.
        qlog: the folder for traces, None for what the environment says.
        json: results as JSON lines on stdout instead of text.
    """

    identity: Path | None
    timeout: float
    max_datagram_size: int | None
    qlog: str | None
    json: bool


def make_config(common: Common, **settings: object) -> bw.Config:
    """The endpoint's settings; raises `Failure` (exit code 2)."""
    try:
        return bw.Config(
            application_protocol=APPLICATION_PROTOCOL,
            max_datagram_size=common.max_datagram_size,
            qlog_dir=common.qlog,
            handshake_timeout=common.timeout,
            idle_timeout=common.timeout,
            # Three tries before a silent peer is given up.
            keep_alive=common.timeout / 4,
        ).replace(**settings)
    except bw.ConfigError as error:
        raise Failure(ExitCode.USAGE, str(error)) from error


@asynccontextmanager
async def opened(address: tuple[str, int], key: bw.KeyPair, config: bw.Config) -> AsyncIterator[bw.Endpoint]:
    """An endpoint at `address`, closed in the end; raises `Failure` (exit code 4)."""
    try:
        endpoint = await bw.bind(address, key, config=config)
    except (bw.AddressError, OSError) as error:
        cause = str(error) if isinstance(error, bw.AddressError) else describe_os_error(error)
        raise Failure(ExitCode.LOCAL, f"cannot listen on {format_address(address)}: {printable(cause)}") from error
    async with endpoint:
        yield endpoint


@asynccontextmanager
async def connected(to: tuple[str, int], peer: bw.PublicKey, common: Common) -> AsyncIterator[bw.Connection]:
    """A connection to the receiver, closed in the end; raises `Failure` (exit codes 2 to 4)."""
    key = load_identity(common.identity)
    where = printable(format_address(to))
    async with opened(("", 0), key, make_config(common)) as endpoint:
        try:
            connection = await endpoint.connect(to, peer, timeout=common.timeout)
        except bw.HandshakeTimeout:
            line = f"no answer from {where} in {common.timeout:g} s: wrong address or key, or UDP is blocked"
            raise Failure(ExitCode.PEER, line) from None
        except bw.HandshakeRefused as error:
            line = (
                f"{where} refused: {printable(error.reason) or f'code {error.code}'}; this side's key is {key.public}"
            )
            raise Failure(ExitCode.PEER, line) from None
        except (bw.TransportError, OSError) as error:
            raise Failure(ExitCode.PEER, f"cannot connect to {where}: {printable(str(error))}") from error
        async with connection:
            yield connection
