"""The initiator's half of a `HandshakeDesk`: every `connect` until it is established or has failed.

INITIATE, resent with back-off → RESPOND → an `Established` in `results`; or a `Failed`. COOKIE makes the
next INITIATE prove our address; VERSIONS makes it offer another version. Invariants:

- Only a RESPOND that opened with this attempt's keys ends it, besides its deadline, `cancel` and the
  confirmation of the peer's crossing attempt. VERSIONS without a common version moves the deadline up.
- Every attempt ends in exactly one result, or in none if it was cancelled or became a confirmed
  connection of the responder's half (simultaneous open).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from burstwire.core.address import ANY_LOCAL
from burstwire.errors import HandshakeError, HandshakeTimeout, TransportError, VersionMismatch
from burstwire.proto import negotiation
from burstwire.proto.handshake import Established, Initiator, Opened
from burstwire.proto.handshake_context import HandshakeContext, remember, show_address

if TYPE_CHECKING:
    from burstwire.identity import PublicKey
    from burstwire.wire.packets import Cookie, Respond, Versions

__all__ = ["Attempt", "Attempts", "Failed"]

FIRST_BACKOFF: Final = 0.3
"""Seconds until an INITIATE is resent for the first time: above nearly every round trip on Earth, so that a
resend mostly means a loss, and yet a lost first packet costs a third of the second that RFC 9002 §6.2.2
would wait."""

MAX_BACKOFF: Final = 1.3
"""Doubling stops here: within the default timeout of 10 s a peer that comes up late is still met, 1,200 bytes in 1.3 s
harm no network, and a node under a flood that tells by its rhythm who waits (`load.Callers`) remembers us as long."""

JITTER: Final = 0.2
"""Each wait is varied by ± this share, so that nodes which lost the same peer do not return in step."""

RIVAL_PAUSE: Final = 1.0
"""Seconds for which an attempt that gave way (simultaneous open) stays quiet: three times the first
back-off, so that the other side resends before this one does. Then it goes on, should the other INITIATE
have been a replay or the other side be unable to hear us."""

NUDGE_INTERVAL: Final = 0.2
"""An INITIATE that crosses ours makes us resend ours at once, at most this often (seconds)."""

MAX_PROMPT_RESENDS: Final = 4
"""Resends at once upon a new cookie, for each attempt; a forger on the path must not make us a firehose."""

VERSIONS_GRACE: Final = 0.5
"""VERSIONS is not authenticated, so when it leaves no version to offer, a genuine answer still counts for this
long (seconds): above nearly every round trip. Whoever merely sees our packets cannot end an attempt."""

MAX_SUPERSEDED: Final = 1024
"""Attempts of peers that gave way to ours, remembered so that a late copy of theirs is known."""


@dataclass(slots=True)
class Failed:
    """An attempt that came to nothing.

    Attributes:
        attempt: the number that `connect` gave.
        error: why, ready to be raised.
    """

    attempt: int
    error: TransportError


@dataclass(slots=True, eq=False)
class Attempt:
    """One `connect`.

    Attributes:
        number: what `connect` returned.
        name: what names it on the wire (8 bytes).
        peer_key: who must answer.
        path: the path dialled (48 bytes).
        local_cid: where the answer goes.
        timeout: seconds granted.
        deadline: when they are over.
        initiators: its INITIATEs by version, the one being sent last. The others still take a RESPOND, so that
            a forged VERSIONS does no harm.
        doom: when to end and with which error, after VERSIONS that left no version to offer.
        wait: the next back-off.
        due: when its timer fires; other entries of the timer heap are stale.
        sent: INITIATEs sent.
        copies: those since the last change of version or cookie: with one there is no doubt which one a
            RESPOND answers.
        last_sent: when the last one went out.
        cookie: proof of our address, once we have one.
        cookies: COOKIEs received.
        prompts: resends at once upon cookies.
        unreadable: RESPONDs that did not open.
        gave_way: the peer's crossing INITIATE was answered instead (simultaneous open).
        quiet_until: until when it therefore neither resends nor takes a RESPOND.
        nudged: when the INITIATE was last resent because the peer's crossed it.
    """

    number: int
    name: bytes
    peer_key: PublicKey
    path: bytes
    local_cid: int
    timeout: float
    deadline: float
    initiators: list[Initiator]
    doom: tuple[float, TransportError] | None = None
    wait: float = FIRST_BACKOFF
    due: float = 0.0
    sent: int = 0
    copies: int = 0
    last_sent: float = 0.0
    cookie: bytes | None = None
    cookies: int = 0
    prompts: int = 0
    unreadable: int = 0
    gave_way: bool = False
    quiet_until: float = float("-inf")
    nudged: float = float("-inf")

    def open(self, packet: Respond) -> tuple[Initiator, Opened | None]:
        """What a RESPOND says to one of the INITIATEs; as `Initiator.open`."""
        for initiator in reversed(self.initiators):
            opened = initiator.open(packet, self)
            if opened is not None:
                return initiator, opened
        return self.initiators[-1], None

    def __str__(self) -> str:
        """The peer in words: key and address."""
        return f"{self.peer_key} at {show_address(self.path[:24])}"


class Attempts:
    """All attempts of one endpoint; `results` holds what came of them until the caller takes it out."""

    def __init__(self, context: HandshakeContext) -> None:
        self.results: deque[Established | Failed] = deque()
        self._context = context
        self._last_number = 0
        self._by_number: dict[int, Attempt] = {}
        self._by_cid: dict[int, Attempt] = {}
        self._by_peer: dict[bytes, list[Attempt]] = {}
        self._timers: list[tuple[float, int]] = []  # a heap of (due, number), with stale entries
        self._superseded: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()

    # --- getters --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_number)

    def owns(self, cid: int) -> bool:
        """Whether an attempt uses this connection ID."""
        return cid in self._by_cid

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called next."""
        while self._timers and self._is_stale(*self._timers[0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def to(self, peer_key: PublicKey) -> Attempt | None:
        """An attempt to reach this peer, one that did not give way yet if there is one."""
        attempts = self._by_peer.get(bytes(peer_key), [])
        return next((a for a in attempts if not a.gave_way), attempts[0] if attempts else None)

    def superseded(self, peer_key: PublicKey, name: bytes) -> bool:
        """Whether the peer told us that it gave this attempt up for one of ours."""
        return (bytes(peer_key), name) in self._superseded

    # --- mutators -------------------------------------------------------------------------------

    def connect(self, remote: bytes, peer_key: PublicKey, now: float, timeout: float) -> int:
        """See `HandshakeDesk.connect`."""
        if len(self._by_number) >= self._context.config.max_connections:
            raise HandshakeError(
                f"{len(self._by_number):,} attempts to connect are under way, as many as max_connections allows"
            )
        name = self._context.random(8)
        local_cid = self._context.new_cid()
        version = max(self._context.versions)
        initiator = self._make_initiator(peer_key, remote, local_cid, version, name)
        self._last_number += 1
        attempt = Attempt(
            number=self._last_number,
            name=name,
            peer_key=peer_key,
            path=remote + ANY_LOCAL,
            local_cid=local_cid,
            timeout=timeout,
            deadline=now + timeout,
            initiators=[initiator],
        )
        self._by_number[attempt.number] = attempt
        self._by_cid[local_cid] = attempt
        self._by_peer.setdefault(bytes(peer_key), []).append(attempt)
        self._context.count("attempts_started")
        self._send(attempt, now)
        return attempt.number

    def take(self, number: int | None) -> Attempt | None:
        """Forget an attempt, without a result; return it."""
        attempt = self._by_number.pop(number, None) if number is not None else None
        if attempt is not None:
            del self._by_cid[attempt.local_cid]
            same = self._by_peer[bytes(attempt.peer_key)]
            same.remove(attempt)
            if not same:
                del self._by_peer[bytes(attempt.peer_key)]
        return attempt

    def give_way(self, attempt: Attempt, now: float) -> None:
        """The peer's crossing INITIATE is answered: keep quiet for a while.

        Once only: replays of the peer's old INITIATEs must not keep this attempt quiet for good.
        """
        if not attempt.gave_way:
            attempt.gave_way = True
            attempt.quiet_until = now + RIVAL_PAUSE
            self._arm(attempt, max(attempt.due, attempt.quiet_until))

    def nudge(self, attempt: Attempt, now: float) -> None:
        """We stay initiator. The peer's INITIATE opened the NATs between us, so send ours again."""
        if now - attempt.nudged >= NUDGE_INTERVAL and now < attempt.deadline:
            attempt.nudged = now
            self._emit(attempt, now)

    def clear(self) -> None:
        """Forget everything."""
        self._by_number.clear()
        self._by_cid.clear()
        self._by_peer.clear()
        self._timers.clear()
        self._superseded.clear()
        self.results.clear()

    # --- inputs ---------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Resend or give up what is due."""
        while self._timers and self._timers[0][0] <= now:
            due, number = heappop(self._timers)
            if self._is_stale(due, number):
                continue
            attempt = self._by_number[number]
            if attempt.doom is not None and now >= attempt.doom[0]:
                self._fail(attempt, attempt.doom[1])
            elif now >= attempt.deadline:
                self._fail(attempt, HandshakeTimeout(self._why_nothing(attempt)))
            else:
                self._send(attempt, now)

    def on_respond(self, packet: Respond, path: bytes, now: float) -> None:
        """RESPOND arrived; costs two X25519 if its connection ID is that of an attempt."""
        attempt = self._by_cid.get(packet.dst_cid)
        if attempt is None:
            self._context.count("responds_unmatched")
            return
        if now < attempt.quiet_until:
            # Both sides answered each other: wait whether the peer's attempt succeeds, or there are two.
            self._context.count("responds_postponed")
            return
        try:
            initiator, opened = attempt.open(packet)
            if opened is None:
                attempt.unreadable += 1
                self._context.count("responds_invalid")
                return
            aead = negotiation.check_answer(initiator.offered, opened.answered, initiator.version, attempt)
        except HandshakeError as error:
            self._fail(attempt, error)
            return
        self.take(attempt.number)
        self._context.count("attempts_established")
        if opened.answered.attempt is not None:
            # The peer gave its own attempt up for ours; a copy of it may still be on its way.
            superseded = bytes(attempt.peer_key), opened.answered.attempt
            remember(self._superseded, superseded, MAX_SUPERSEDED)
        # A RESPOND from elsewhere is genuine, but perhaps somebody's copy: keep to the address dialled.
        expected = path[:24] == attempt.path[:24]
        self.results.append(
            Established(
                is_initiator=True,
                local_cid=attempt.local_cid,
                remote_cid=packet.src_cid,
                path=path if expected else attempt.path,
                send_secret=opened.send_secret,
                receive_secret=opened.receive_secret,
                aead=aead,
                peer_key=attempt.peer_key,
                local_parameters=initiator.offered,
                peer_parameters=opened.answered,
                attempt=attempt.number,
                handshake_rtt=now - attempt.last_sent if attempt.copies == 1 else None,
                now=now,
            )
        )

    def on_cookie(self, packet: Cookie, now: float) -> None:
        """COOKIE arrived: prove our address from now on."""
        attempt = self._by_cid.get(packet.dst_cid)
        proof = None if attempt is None else attempt.initiators[-1].open_cookie(packet)
        if attempt is None or proof is None:
            self._context.count("cookies_invalid")
            return
        self._context.count("cookies_received")
        attempt.cookies += 1
        if proof == attempt.cookie:
            return
        attempt.cookie = proof
        attempt.copies = 0
        if attempt.prompts < MAX_PROMPT_RESENDS and now < attempt.deadline:
            attempt.prompts += 1
            self._send(attempt, now)

    def on_versions(self, packet: Versions, now: float) -> None:
        """VERSIONS arrived: offer the best version in common that was not offered yet, or give up."""
        attempt = self._by_cid.get(packet.dst_cid)
        if attempt is None or not attempt.initiators[-1].believes(packet):
            self._context.count("versions_ignored")
            return
        self._context.count("versions_received")
        versions = self._context.versions
        tried = [initiator.version for initiator in attempt.initiators]
        version = negotiation.best_version(versions, packet.versions, without=tried)
        if version is None:
            message = (
                f"no protocol version in common with {attempt}: it speaks "
                f"{negotiation.listed(packet.versions)}, this side {negotiation.listed(versions)}; "
                f"one of the two must be upgraded"
            )
            if attempt.doom is None:
                attempt.doom = now + VERSIONS_GRACE, VersionMismatch(packet.versions, message)
                self._arm(attempt, attempt.due)
            return
        attempt.doom = None
        # The prologue differs, so a new ephemeral key: the old one would seal two texts under one nonce.
        attempt.initiators.append(
            self._make_initiator(attempt.peer_key, attempt.path[:24], attempt.local_cid, version, attempt.name)
        )
        attempt.copies = 0
        self._send(attempt, now)

    # --- within ---------------------------------------------------------------------------------

    def _make_initiator(
        self, peer_key: PublicKey, remote: bytes, local_cid: int, version: int, name: bytes
    ) -> Initiator:
        context = self._context
        token = context.reset_token(local_cid)
        return Initiator(
            context.static,
            peer_key,
            negotiation.offer(context.config, context.versions, token, context.receive_buffer, remote, name),
            version=version,
            local_cid=local_cid,
            preshared_key=context.config.preshared_key,
            random=context.random,
        )

    def _send(self, attempt: Attempt, now: float) -> None:
        """Send the INITIATE as it is now and arm the timer; the wait after the next one is twice as long."""
        self._emit(attempt, now)
        spread = 1 - JITTER + 2 * JITTER * int.from_bytes(self._context.random(2)) / 0xFFFF
        self._arm(attempt, now + attempt.wait * spread)
        attempt.wait = min(2 * attempt.wait, MAX_BACKOFF)

    def _emit(self, attempt: Attempt, now: float) -> None:
        attempt.sent += 1
        attempt.copies += 1
        attempt.last_sent = now
        self._context.count("initiates_sent")
        self._context.emit(attempt.path, attempt.initiators[-1].datagram(attempt.cookie))

    def _arm(self, attempt: Attempt, due: float) -> None:
        end = attempt.deadline if attempt.doom is None else min(attempt.doom[0], attempt.deadline)
        attempt.due = min(due, end)
        heappush(self._timers, (attempt.due, attempt.number))
        if len(self._timers) > 64 + 2 * len(self._by_number):
            # Cancelled attempts and moved timers leave stale entries behind; do not let them pile up.
            self._timers = [(a.due, a.number) for a in self._by_number.values()]
            heapify(self._timers)

    def _is_stale(self, due: float, number: int) -> bool:
        attempt = self._by_number.get(number)
        return attempt is None or attempt.due != due

    def _fail(self, attempt: Attempt, error: TransportError) -> None:
        self.take(attempt.number)
        self._context.count("attempts_failed")
        self.results.append(Failed(attempt.number, error))

    def _why_nothing(self, attempt: Attempt) -> str:
        """The words of a `HandshakeTimeout`: what was seen, and what to check."""
        text = f"no connection with {attempt} within {attempt.timeout:g} s"
        if attempt.unreadable:
            return (
                f"{text}: {attempt.unreadable} answers came that cannot be opened; check that both sides have "
                f"the same preshared key, and whether somebody on the way forges packets"
            )
        if attempt.gave_way:
            return (
                f"{text}: both sides dialled each other and the peer's INITIATE was answered, but never "
                f"confirmed; check that datagrams pass in both directions"
            )
        if attempt.cookies:
            return (
                f"{text}: the peer is there, but under load: it asked {attempt.cookies} times for a proof of our "
                f"address (COOKIE) and went no further; try again later"
            )
        secret = (
            "that it demands no preshared key"
            if self._context.config.preshared_key is None
            else "that it has the same preshared key as this side"
        )
        return (
            f"{text}: nothing came back for {attempt.sent} packets; check the address and the port, that the "
            f"peer is running and firewalls let UDP through, that its public key is the one given here (a peer "
            f"does not answer whoever does not know its key), and {secret}"
        )
