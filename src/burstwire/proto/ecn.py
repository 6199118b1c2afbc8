"""Congestion marks of one path (RFC 9000 §13.4): whether packets are marked ECT(0), and whether the peer's counts are
right.

Some paths clear the marks, some change them, some drop what is marked. So a path is tested first (RFC 9000 §A.4): a few
packets are marked, and no more until the peer's counts show what became of them::

    TESTING ── enough are marked, or a PTO ──► WAITING ── marked ones arrived, and were counted ──► CAPABLE
       ▲                                        │   │                                                │  │
       └── others arrived ──────────────────────┘   └── marked ones were lost ──► FAILED ◄── counts ─┘  │
                                                ▲                                   are wrong           │
                                                └──────────────── three PTOs in a row ──────────────────┘

Marks are changed between flights only, never within a train. What the peer counts are sums over the whole connection.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from burstwire.proto.recovery import Acked, Lost

__all__ = ["ECT0", "Ecn", "EcnState"]

ECT0 = 2
"""The ECN codepoint ECT(0)."""

TESTED = 10
"""Packets that are marked before one of them is known to have arrived (RFC 9000 §A.4)."""

LOST_MARKED = 3
"""Marked packets that are lost while none arrives make a path that drops them. Chance may do that, and costs marks."""

SILENT_PTOS = 3
"""PTOs in a row after which a path that carried marks is tested again: it may have become another one."""

ENDLESS = 1 << 62
"""Above every packet number."""


class EcnState(IntEnum):
    """What is known of a path."""

    OFF = 0
    TESTING = 1
    WAITING = 2
    CAPABLE = 3
    FAILED = 4


class Ecn:
    """The marks of the path in use.

    Args:
        enabled: whether to mark at all.

    Attributes:
        state: what is known of the path.
        mark: the codepoint of the next flight.
        watching: whether `acknowledged` wants to know.
        ce: packets that arrived with the mark CE, as the peer reports.
    """

    __slots__ = (
        "_acked",
        "_base",
        "_lost",
        "_seen",
        "_sent",
        "_since",
        "_tested",
        "_until",
        "ce",
        "mark",
        "state",
        "watching",
    )

    def __init__(self, enabled: bool) -> None:
        self.ce = 0
        self._sent = 0
        """Packets ever marked."""
        self._seen = (0, 0)
        """What the peer has counted: ECT(0) and CE together, and ECT(1)."""
        self._base = (0, 0)
        """What it had counted when the test began."""
        self._since = 0
        self._until = ENDLESS
        """Numbers from `_since` to before `_until` are those of marked packets."""
        self._tested = 0
        """Packets marked in this test;"""
        self._acked = 0
        """how many of them arrived;"""
        self._lost = 0
        """how many were lost, while none arrived."""
        self.watching = enabled
        self.state = EcnState.TESTING if enabled else EcnState.OFF
        self.mark = ECT0 if enabled else 0

    # inputs

    def new_path(self, following: int) -> None:
        """The path is another one: it is tested anew. `following`: the next packet number."""
        if self.state is not EcnState.OFF:
            self.watching = True
            self._forget()
            self._test(following)

    def left(self, packets: int, following: int) -> None:
        """So many packets left with the mark."""
        self._sent += packets
        if self.state is EcnState.TESTING:
            self._tested += packets
            if self._tested >= TESTED:
                self._wait(following)

    def on_pto(self, count: int, following: int) -> None:
        """The PTO number `count` in a row expired: perhaps it is the marks that do not pass, so probes go without."""
        if self.state is EcnState.TESTING:
            if self._tested:
                self._wait(following)
        elif self.state is EcnState.CAPABLE and count >= SILENT_PTOS:
            self._forget()
            self._wait(following)

    def acknowledged(
        self, acked: Acked, lost: Lost, counts: tuple[int, int, int] | None, is_newer: bool, following: int
    ) -> int:
        """An ACK frame settled something; to be called while `watching`.

        Args:
            acked: what it newly acknowledged.
            lost: what it shows to be lost.
            counts: the peer's counts of ECT(0), ECT(1) and CE, if there are any.
            is_newer: whether the frame's largest packet is larger than that of any before: an older frame's counts
                prove nothing (RFC 9000 §13.4.2.1).
            following: the next packet number.

        Returns:
            how many more packets arrived with CE, if that is to be believed.
        """
        since, until = self._since, self._until
        others = False
        for record, pending, late in acked:
            if since <= record.first < until:
                self._acked += (pending | late).bit_count()
            elif record.first >= until:
                others = True
        if not self._acked:
            self.missed(lost)
            if others and self.state is EcnState.WAITING:
                self._test(following)
            return 0
        if not is_newer:
            return 0
        if counts is None:
            self._fail()
            return 0
        ect0, ect1, ce = counts
        total = ect0 + ce
        # RFC 9000 §13.4.2.1: everything marked that arrived was counted, and nothing that was not sent.
        self._seen = total, ect1
        if total - self._base[0] < self._acked or total > self._sent or ect1 > self._base[1]:
            self._fail()
            return 0
        if self.state is not EcnState.CAPABLE:
            if self._until < ENDLESS:
                # What is left of the test and arrives from now on is not counted here: that makes the check milder.
                self._since = following
                self._until = ENDLESS
            self.state = EcnState.CAPABLE
            self.mark = ECT0
        news = ce - self.ce
        self.ce = ce
        return news

    def missed(self, lost: Lost) -> None:
        """Packets were lost."""
        if self._acked or not self.watching:
            return
        for record, mask in lost:
            if self._since <= record.first < self._until:
                self._lost += mask.bit_count()
        if self._lost >= LOST_MARKED:
            self._fail()

    # inside

    def _forget(self) -> None:
        self._acked = self._lost = 0
        self._base = self._seen

    def _test(self, following: int) -> None:
        self.state = EcnState.TESTING
        self.mark = ECT0
        self._tested = 0
        self._since = following
        self._until = ENDLESS

    def _wait(self, following: int) -> None:
        self.state = EcnState.WAITING
        self.mark = 0
        self._until = following

    def _fail(self) -> None:
        self.state = EcnState.FAILED
        self.mark = 0
        self.watching = False
