"""`burstwire ping`: round trips of a small message to a receiver."""

from __future__ import annotations

import asyncio
import statistics
import struct
import time
from dataclasses import dataclass

import burstwire as bw
from burstwire.cli.exits import ExitCode, Failure
from burstwire.cli.headers import PING, PONG
from burstwire.cli.hosts import format_address
from burstwire.cli.output import Output
from burstwire.cli.session import Common, connected
from burstwire.cli.text import format_duration, printable

__all__ = ["PingOptions", "ping", "summarise"]

_NUMBER = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class PingOptions:
    """What the command line says.

    Attributes:
        to, key: the receiver.
        count: round trips.
        interval: seconds from one ping to the next.
        size: bytes of data in each.
    """

    to: tuple[str, int]
    key: bw.PublicKey
    count: int
    interval: float
    size: int
    common: Common


async def ping(options: PingOptions) -> ExitCode:
    """Ping `count` times and sum up; raises `Failure` when an answer does not come (messages are reliable)."""
    output = Output(options.common.json)
    where = printable(format_address(options.to))
    started = time.perf_counter()
    async with connected(options.to, options.key, options.common) as connection:
        handshake = time.perf_counter() - started
        output.say(f"connected to {where} in {format_duration(handshake)}")
        times: list[float] = []
        try:
            for number in range(1, options.count + 1):
                if times:
                    await asyncio.sleep(options.interval)
                seconds = await _round_trip(connection, number, options)
                times.append(seconds)
                output.say(f"{number}: {format_duration(seconds)}")
        except TimeoutError:
            raise Failure(ExitCode.TRANSFER, f"{where}: {_missing(options, len(times))}") from None
        except bw.ConnectionLost as error:
            raise Failure(ExitCode.TRANSFER, f"{where}: {printable(str(error))}") from None
        summary = summarise(times)
        output.say(
            f"{len(times)} answers: shortest {format_duration(summary['min'])}, "
            f"median {format_duration(summary['median'])}, longest {format_duration(summary['max'])}"
        )
        output.event(
            "ping",
            address=format_address(options.to),
            count=len(times),
            handshake=round(handshake, 6),
            seconds=[round(value, 6) for value in times],
            **{name: round(value, 6) for name, value in summary.items()},
        )
    return ExitCode.OK


def summarise(times: list[float]) -> dict[str, float]:
    """Shortest, mean, median and longest, in seconds."""
    return {
        "min": min(times),
        "mean": statistics.fmean(times),
        "median": statistics.median(times),
        "max": max(times),
    }


async def _round_trip(connection: bw.Connection, number: int, options: PingOptions) -> float:
    body = _NUMBER.pack(number) + bytes(options.size)
    started = time.perf_counter()
    async with asyncio.timeout(options.common.timeout):
        await connection.send(PING + body)
        while await connection.recv() != PONG + body:
            pass
    return time.perf_counter() - started


def _missing(options: PingOptions, answered: int) -> str:
    return f"no answer to ping {answered + 1} of {options.count} in {options.common.timeout:g} s"
