"""`burstwire doctor`: what this machine supports, how fast each layer is, and what would make it faster."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import asdict

import burstwire as bw
from burstwire.cli.examine import PACKET, AeadSpeed, Loopback, SocketSpeed, aead_speed, loopback, socket_speed
from burstwire.cli.exits import ExitCode
from burstwire.cli.output import Output, complain
from burstwire.cli.text import format_duration, format_rate, printable
from burstwire.config import AEADS
from burstwire.core import UdpSocket, capabilities
from burstwire.crypto import aead_ipsecmb
from burstwire.crypto.aead import LARGE, check_backend, fastest, versions

__all__ = ["advice", "doctor"]

WANTED = (
    ("mmsg", "many datagrams in one system call (sendmmsg, recvmmsg)"),
    ("gso", "the kernel cuts trains into datagrams (UDP GSO)"),
    ("gro", "the kernel joins datagrams into trains (UDP GRO)"),
    ("pktinfo", "answers leave from the address that was asked"),
    ("ecn", "congestion marks (ECN)"),
    ("kernel_drops", "the kernel counts what it drops"),
    ("ipv6", "IPv6"),
    ("dual_stack", "IPv4 and IPv6 on one socket"),
    ("wipe_on_fork", "the kernel wipes keys' counters in a forked child"),
)

BUFFER_ASKED = 4 << 20
"""Bytes of socket buffer that `Config` asks for by default."""


async def doctor(output: Output) -> ExitCode:
    """Print the findings; exit code 1 when packets do not get through on loopback."""
    found = capabilities()
    _say_platform(output, found)
    granted = _granted_buffers()
    output.say(f"\nSocket buffers granted: receive {granted[0]:,}, send {granted[1]:,} bytes")
    aeads = await asyncio.to_thread(aead_speed)
    _say_aeads(output, aeads)
    sockets = await asyncio.to_thread(socket_speed)
    _say_sockets(output, sockets)
    try:
        result = await loopback()
    except (bw.TransportError, OSError) as error:
        complain(f"packets do not get through on 127.0.0.1: {printable(str(error)) or type(error).__name__}")
        result = None
    if result is not None:
        _say_loopback(output, result)
        if not result.intact:
            complain("what arrived on 127.0.0.1 is not what was sent")
    hints = [*advice(found, granted[0]), *aead_advice()]
    if hints:
        output.say("\nAdvice")
        for hint in hints:
            output.say(f"  - {hint}")
    output.event(
        "doctor",
        capabilities=found,
        receive_buffer=granted[0],
        send_buffer=granted[1],
        aeads=[asdict(speed) for speed in aeads],
        aead_libraries=versions(),
        aead_chosen={name: _chosen(name) for name in AEADS},
        sockets=[asdict(speed) for speed in sockets],
        loopback=None if result is None else asdict(result),
        advice=hints,
    )
    return ExitCode.OK if result is not None and result.intact else ExitCode.TRANSFER


def advice(found: dict[str, object], receive_buffer: int) -> list[str]:
    """What the user could change, most valuable first."""
    hints = []
    if receive_buffer < BUFFER_ASKED:
        hints.append(
            f"the kernel grants {receive_buffer:,} bytes to receive and drops what comes beyond; "
            f"more is possible with: sysctl -w net.core.rmem_max={BUFFER_ASKED} net.core.wmem_max={BUFFER_ASKED}"
        )
    off = found.get("switched_off")
    if isinstance(off, list) and off:
        hints.append(f"switched off in the environment: {', '.join(map(str, off))}")
    elif not (found.get("gso") and found.get("gro")):
        hints.append("without GSO and GRO every datagram costs a full trip through the kernel; Linux 5.0 has both")
    elif found.get("gso_spoils_equal"):
        hints.append(
            "this kernel spoils GSO sends of equal datagrams on some devices, so few are made; Linux 7.1.5 is repaired"
        )
    return hints


def aead_advice() -> list[str]:
    """How to get the fastest packet protection, if this machine can have it and has not."""
    if platform.machine() not in ("x86_64", "AMD64") or "ipsec-mb" in versions():
        return []
    how = (
        "apt install libipsec-mb1"
        if aead_ipsecmb.candidates()
        else "apt install libipsec-mb-dev, and then burstwire built anew"
    )
    return [f"Intel's multi-buffer library protects packets several times as fast; Debian has it: {how}"]


def _chosen(name: str) -> list[str]:
    """Who does packets below `LARGE` bytes, and from there on."""
    named = check_backend(None)
    return [named, named] if named else list(fastest(name))


def _granted_buffers() -> tuple[int, int]:
    socket = UdpSocket(("127.0.0.1", 0), receive_buffer=BUFFER_ASKED, send_buffer=BUFFER_ASKED)
    try:
        return socket.receive_buffer, socket.send_buffer
    finally:
        socket.close()


def _say_platform(output: Output, found: dict[str, object]) -> None:
    output.say(f"{found['platform']}, {found['python']}, {os.cpu_count()} cores\n")
    output.say("This machine has")
    for name, meaning in WANTED:
        output.say(f"  {'yes' if found[name] else 'NO ':3}  {meaning}")


def _say_aeads(output: Output, speeds: list[AeadSpeed]) -> None:
    output.say(f"\nPacket protection, ns for a packet of {PACKET:,} bytes    seal    open")
    for speed in speeds:
        output.say(f"  {speed.aead:<20} {speed.backend:<28} {speed.seal:>6,.0f}  {speed.open:>6,.0f}")
    for name, version in versions().items():
        output.say(f"  {name} is {printable(version)}")
    for name in AEADS:
        small, large = _chosen(name)
        who = small if small == large else f"{small} below {LARGE:,} bytes, {large} from there on"
        output.say(f"  {name} is done by {who}")


def _say_sockets(output: Output, speeds: list[SocketSpeed]) -> None:
    output.say(f"\nSocket to socket, ns for a packet of {PACKET:,} bytes")
    for speed in speeds:
        means = " + ".join(["GSO"] * speed.gso + ["GRO"] * speed.gro) or "one by one"
        lost = "" if speed.delivered >= 1 else f"   ({1 - speed.delivered:.1%} dropped by the kernel)"
        output.say(f"  {speed.backend:<20} {means:<28} {speed.nanoseconds:>6,.0f}{lost}")


def _say_loopback(output: Output, result: Loopback) -> None:
    output.say("\nThe whole transport over 127.0.0.1, both ends in this process")
    output.say(f"  {'handshake':<20} {format_duration(result.handshake)}")
    output.say(f"  {'echo of 100 bytes':<20} {format_duration(result.echo)}")
    output.say(f"  {'bulk':<20} {format_rate(int(result.rate), 1)}")
