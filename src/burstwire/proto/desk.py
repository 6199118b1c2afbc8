"""Every handshake of an endpoint, in both roles; sans-IO. DESIGN "Handshake" in docs/protocol.md.

`attempts.py` is what this side starts, `answers.py` what it answers, `handshake.py` the cryptographic state
of a single one. This file is the face to `endpoint.py`.

The order for a driver: `receive`, `handle_timeout` and mutators as they come; then drain `outgoing` and
`results`; then `next_timeout`. Time never runs backwards; a timer that fires early does no harm.

Whatever arrives, nothing raises: it is counted in `stats`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from burstwire.crypto.noise import StaticKey
from burstwire.proto.answers import Admit, Answers, Arrived
from burstwire.proto.attempts import Attempts, Failed
from burstwire.proto.handshake import Established
from burstwire.proto.handshake_context import HandshakeContext
from burstwire.wire.errors import WireError
from burstwire.wire.header import COOKIE, INITIATE, RESPOND, VERSION, VERSIONS
from burstwire.wire.packets import Cookie, Respond, Versions

if TYPE_CHECKING:
    from burstwire.config import Config
    from burstwire.identity import KeyPair, PublicKey

__all__ = ["Admit", "Established", "Failed", "HandshakeDesk"]


class HandshakeDesk:
    """All attempts and half-open handshakes of one endpoint.

    Attributes:
        outgoing: (path of 48 bytes, datagram) to be sent, oldest first; the caller takes them out.
        results: what came of this side's attempts; the caller takes them out.

    Args:
        key: this endpoint's identity.
        config: its limits.
        random: gives so many random bytes, fit for keys.
        now: seconds of a clock that never runs backwards.
        new_cid: gives a random connection ID that nobody uses (`owns` tells of those in use here).
        receive_buffer: bytes of socket buffer that the kernel granted; advertised.
        reset_token: gives the stateless reset token (16 bytes) of a local connection ID.
        admit: asked before an initiator is answered with yes.
        versions: the protocol versions spoken.
    """

    def __init__(
        self,
        key: KeyPair,
        config: Config,
        random: Callable[[int], bytes],
        now: float,
        *,
        new_cid: Callable[[], int],
        receive_buffer: int,
        reset_token: Callable[[int], bytes],
        admit: Admit | None = None,
        versions: tuple[int, ...] = (VERSION,),
    ) -> None:
        self._context = HandshakeContext(
            key.public, StaticKey(key.private_key), config, random, new_cid, receive_buffer, reset_token, versions
        )
        self._attempts = Attempts(self._context)
        self._answers = Answers(self._context, self._attempts, admit, now)
        self.outgoing: deque[tuple[bytes, bytes]] = self._context.outgoing
        self.results: deque[Established | Failed] = self._attempts.results

    # --- getters --------------------------------------------------------------------------------

    def owns(self, cid: int) -> bool:
        """Whether a connection ID is in use by an attempt or a half-open handshake."""
        return self._attempts.owns(cid) or self._answers.owns(cid)

    def half_open(self, local_cid: int) -> Established | None:
        """The secrets to try the first DATA for `local_cid` with; None if nothing is half open there."""
        return self._answers.half_open(local_cid)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many attempts and half-open handshakes there are now."""
        return {**self._context.counts, "attempts": len(self._attempts), "half_open": len(self._answers)}

    # --- inputs ---------------------------------------------------------------------------------

    def receive_all(self, arrived: Arrived, now: float) -> None:
        """Handshake packets that arrived at one time, each with its path (48 bytes); a packet may be a view of memory
        that is used again afterwards."""
        if self._answers.strain:
            arrived = self._answers.sift(arrived, now)
        for datagram, path in arrived:
            self._read(bytes(datagram), path, now)

    def receive(self, datagram: bytes, path: bytes, now: float) -> None:
        """A single one."""
        self.receive_all(((datagram, path),), now)

    def _read(self, datagram: bytes, path: bytes, now: float) -> None:
        """A packet of type 0x01 to 0x04; others are counted as malformed."""
        kind = datagram[0] if datagram else 0
        try:
            if kind == INITIATE:
                self._answers.on_initiate(datagram, path, now)
            elif kind == RESPOND:
                self._attempts.on_respond(Respond.parse(datagram), path, now)
            elif kind == COOKIE:
                self._attempts.on_cookie(Cookie.parse(datagram), now)
            elif kind == VERSIONS:
                self._attempts.on_versions(Versions.parse(datagram), now)
            else:
                self._context.count("malformed")
        except WireError:  # of `parse`: the handlers deal with their own
            self._context.count("malformed")

    def handle_timeout(self, now: float) -> None:
        """Resend, give up and forget what is due."""
        self._answers.handle_timeout(now)
        self._attempts.handle_timeout(now)

    # --- mutators -------------------------------------------------------------------------------

    def strained(self, strain: int) -> None:
        """How dear handshakes are at the moment (`Toll.strain`), for what is received next."""
        self._answers.strain = strain

    def spent_work(self) -> int:
        """Units of work that answering took since the last call, for `Toll.handshaken`."""
        return self._answers.spent_work()

    def connect(self, remote: bytes, peer_key: PublicKey, now: float, timeout: float) -> int:
        """Start an attempt. It ends in one of `results` or, after simultaneous open, in `confirm`.

        Args:
            remote: the peer's address (24 bytes).
            peer_key: who must answer there.
            now: the time.
            timeout: seconds until the attempt fails with `HandshakeTimeout`.

        Returns:
            The number of the attempt, from 1 upwards.

        Raises:
            HandshakeError: as many attempts as `Config.max_connections` are under way.
        """
        return self._attempts.connect(remote, peer_key, now, timeout)

    def cancel(self, attempt: int) -> None:
        """Forget an attempt without a result; unknown numbers are ignored."""
        self._attempts.take(attempt)

    def confirm(self, local_cid: int, now: float) -> Established | None:
        """DATA opened with the secrets of `half_open(local_cid)`: the handshake is complete.

        Returns what `half_open` gave, with `attempt` (simultaneous open) and `handshake_rtt` filled in; None
        if nothing is half open there. The entry is gone, its RESPOND is sent no more, and its INITIATE is
        known as used up.
        """
        return self._answers.confirm(local_cid, now)

    def close(self) -> None:
        """Forget everything, and send nothing more."""
        self._attempts.clear()
        self._answers.clear()
        self.outgoing.clear()

    # --- outputs --------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called next; None: no need."""
        attempts, answers = self._attempts.next_timeout(), self._answers.next_timeout()
        if attempts is None or answers is None:
            return attempts if answers is None else answers
        return min(attempts, answers)
