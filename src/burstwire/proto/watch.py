"""A receiver that asks when what was coming stops.

Who only receives sends nothing but ACKs, and nobody acknowledges those: no probe timeout of its own tells it that it
cannot be reached any more. When a NAT in front of it has forgotten its binding, the sender's packets and probes go to
an address that nobody has, and only a packet from inside makes a new binding. The next one of its own would be the
keep-alive, which may be half a minute away.

So while data come, their coming is watched. If nothing was heard for a probe timeout (RFC 9002 §6.2.1), for four times
as long as from one packet to the next, and for `LEAST_SILENCE`, although more is due, a PING asks. It is in flight like
any other packet: if nobody answers, probe timeouts repeat it, each twice as long after the one before. The peer sees
from where it came.

More is due when a stream has a hole, or has begun, not ended, and has credit. Whether the peer has more to send cannot
be known. If it answers and sends nothing, nothing is asked again before as much has come as at first, and the silence
that means something is twice as long from then on, up to a limit: so somebody who sends now and then is soon not asked
any more.

It costs one comparison a wake-up that brought something, and a look once in such a time while data come. An idle
connection has no timer, and one that never received `WORTH_WATCHING` bytes not even this object.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from burstwire.wire.frames import PING

if TYPE_CHECKING:
    from burstwire.proto.connection import Connection

__all__ = ["NOT_BEFORE", "WORTH_WATCHING", "Watch"]

WORTH_WATCHING = 32 * 1024
"""Bytes of streams that came, from which on it means something when no more do: small messages are not watched."""

NOT_BEFORE = 1 << 62
"""More bytes than ever arrive: what is being watched need not be noticed again."""

GAPS = 4
"""Times that it takes from one packet to the next that are a silence, where that is longer than a probe timeout."""

LEAST_SILENCE = 0.05
"""Seconds that are a silence at least: probe timeouts of short paths are a few milliseconds, and looking that often
costs a wake-up each time."""

MOST_PATIENCE = 64
"""The factor that answers without data put on the silence, at most: some seconds on most paths."""

ANSWER_PTOS = 3
"""Probe timeouts in which data must come again after a question: their sender may have to validate a new path first."""


class Watch:
    """Looks whether a connection's data keep coming.

    Attributes:
        deadline: when to look again, in seconds; infinite while nothing is watched.
        probes: how often it asked.
    """

    __slots__ = ("_asked", "_gap", "_looked", "_packets", "_patience", "_received", "deadline", "probes")

    def __init__(self) -> None:
        self.deadline = inf
        self.probes = 0
        self._patience = 1
        self._gap = 0.0
        """Seconds from one packet to the next, as of the latest look that saw any."""
        self._asked = -inf
        """When a PING was asked for that has not been judged yet."""
        # As of the latest look:
        self._looked = 0.0
        self._received = 0
        self._packets = 0

    # inputs

    def begin(self, connection: Connection, now: float) -> None:
        """Data came that are worth it: they are watched from now on."""
        connection.inbound.watch_from = NOT_BEFORE
        self._note(connection, now)
        self.deadline = now + self._silence(connection)

    def look(self, connection: Connection, heard: float, now: float) -> None:
        """The deadline has come; `heard` is when the latest packet came. Has a PING sent if that was too long ago."""
        came = connection.flow.received > self._received
        if came:
            packets = connection.inbound.packets - self._packets
            self._gap = (now - self._looked) / packets
        if self._asked > -inf:
            if not came:
                if heard < self._asked:  # nobody answered: probe timeouts repeat the question, so only wait
                    self.deadline = now + (now - self._asked)
                else:
                    self._patience = min(2 * self._patience, MOST_PATIENCE)
                    self._end(connection)
                return
            self._patience = max(1, self._patience // 2)
            self._asked = -inf
        silence = self._silence(connection)
        if heard + silence > now:
            if came:
                self._note(connection, now)
            self.deadline = heard + silence
            return
        if connection.recovery.log.in_flight:  # a probe timeout of our own is about to ask
            self.deadline = now + silence
            return
        if not _more_is_due(connection):
            self._end(connection)
            return
        self._note(connection, now)
        self._asked = now
        self.deadline = now + ANSWER_PTOS * connection.recovery.pto()
        self.probes += 1
        connection.ask((PING,))

    # inside

    def _silence(self, connection: Connection) -> float:
        """Seconds without a packet that mean something."""
        return self._patience * max(connection.recovery.pto(), GAPS * self._gap, LEAST_SILENCE)

    def _note(self, connection: Connection, now: float) -> None:
        self._looked = now
        self._received = connection.flow.received
        self._packets = connection.inbound.packets

    def _end(self, connection: Connection) -> None:
        """Nothing is watched until as much has come again as at first."""
        self.deadline = inf
        self._asked = -inf
        connection.inbound.watch_from = connection.flow.received + WORTH_WATCHING


def _more_is_due(connection: Connection) -> bool:
    """Whether any stream has a hole, or has begun, not ended, and may go on."""
    has_credit = connection.flow.received < connection.flow.local_limit
    for stream in connection.streams.open.values():
        half = stream.receiving
        begun = half.highest and not half.complete and half.stop_code is None
        if begun and (half.ready < half.highest or (has_credit and half.highest < half.max_data)):
            return True
    return False
