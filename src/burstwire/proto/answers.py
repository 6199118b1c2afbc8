"""The responder's half of a `HandshakeDesk`: whom it answers, in which order, and at what cost.

Each step protects the dearer one after it:

1. mac1, or mac2 where there is one: whoever does not know our public key hears nothing.
2. An unknown version is answered with VERSIONS (at a bounded rate), another suite with silence.
3. An INITIATE known at this address is answered from the half-open table, now and then; one that led to a
   connection is dropped, wherever it comes from; one that was opened before must prove its address.
4. Under load the address must be proven (mac2), else COOKIE; proven addresses have a rate each.
5. Noise message 1 is opened (two X25519, one for a peer met lately). Simultaneous open is settled here.
6. Version list, application protocol, AEAD, then the endpoint's `admit`: a no is a sealed refusal.
7. RESPOND (a key generation and two X25519), and an entry in the half-open table.

What arrives at one time is one wake-up; each has a bound on the INITIATEs that it opens, and each second one on the
COOKIEs that are sent, so that a flood delays what connections have to do by milliseconds only. What is dropped comes
again, since initiators repeat themselves; and who does so is told from a flood by just that (`load.Callers`).

All of this is counted as work (`spent_work`); the endpoint has it charged (`toll.Toll`). When it took more than its
share of the node's time, `strain` says so before the next ones come: then nothing is looked at but what an initiator
sends who was here a moment ago, a repeat or a proof; nobody without a proof is worth X25519, and an address with one
only now and then. When even that is too much, few of these are: dropping the others may alone take more than the share,
and without them nobody would get in any more.

Message 1 may be a replay, so nothing before the first DATA that opens (`confirm`) touches anything but the
half-open table; and an attempt of our own that gives way only pauses until then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from burstwire.crypto import cookie
from burstwire.errors import HandshakeError
from burstwire.proto import negotiation
from burstwire.proto.halfopen import HalfOpen, HalfOpenTable
from burstwire.proto.handshake import Established, Responder, suite_for
from burstwire.proto.handshake_context import HandshakeContext, remember
from burstwire.proto.load import AddressLimiter, Callers, TokenBucket
from burstwire.proto.negotiation import Refusal, Refused
from burstwire.wire.errors import WireError
from burstwire.wire.header import INITIATE, MIN_INITIATE_SIZE
from burstwire.wire.packets import MAC, Cookie, Initiate, Versions, read_initiate_header

if TYPE_CHECKING:
    from burstwire.identity import PublicKey
    from burstwire.proto.attempts import Attempts

__all__ = ["Admit", "Answers", "Arrived"]

Arrived = Sequence[tuple[bytes | memoryview, bytes]]
"""Datagrams and the path (48 bytes) of each."""

LOAD_BURST: Final = 0.25
"""Seconds' worth of `Config.cookie_threshold` that may come at once: 250 handshakes are about 75 ms of work."""

MIN_PROVEN_RATE: Final = 20
"""INITIATEs a second that a proven address may make us work for, however low `cookie_threshold` is."""

MAX_LIMITED_ADDRESSES: Final = 4096
"""Proven addresses whose rate is kept: about 1 MB."""

OPENS_A_WAKEUP: Final = 64
"""INITIATEs without a proof that are opened in one wake-up, and as many with one: forged ones take 4 ms, genuine ones
20 ms, which their rate allows only now and then."""

FORGERY: Final = 10
"""So many honest INITIATEs does a forged one count for: where forgeries come, honest peers are asked for proof sooner,
and forgers have X25519 computed at a tenth of `Config.cookie_threshold`."""

STALE_RATE: Final = 100
"""INITIATEs a second whose mac2 proves nothing and that are looked at nevertheless: with a cookie from before this side
was started anew, or before the initiator's address changed."""

STRAINED_BURST: Final = 5
"""INITIATEs with a proof that an address may send at once under strain: each counts as a fifth of what it may
otherwise, so that there are 20 a second, whatever `Config.cookie_threshold` is."""

LAST_REPEATS, LAST_PROOFS = 500, 100
"""Repeats and proofs a second that are looked at however far handshakes are beyond their share: at worst, if all of
them are genuine, 4 % of a processor."""

LAST_BURST: Final = 0.05
"""Seconds' worth of these that may come at once."""

LOOK, OPEN, ANSWER, ASK = 5, 80, 220, 20
"""Units of work, a microsecond or so each: to look at an INITIATE; to open it; to answer it; to ask for a proof."""

REPEAT_INTERVAL: Final = 0.1
"""A RESPOND is sent again after this time at the earliest (seconds): no initiator repeats itself sooner than twice of
it, and whoever replays its INITIATE makes us send little."""

VERSIONS_RATE: Final = 100
"""VERSIONS packets a second: old peers learn of it soon, and nobody is flooded."""

Admit = Callable[["PublicKey", bytes], "tuple[int, str] | None"]
"""Asked with the initiator's key and its address (24 bytes); gives a refusal (code, reason) or None."""


class Answers:
    """The half-open handshakes of one endpoint and all that stands before them."""

    def __init__(self, context: HandshakeContext, attempts: Attempts, admit: Admit | None, now: float) -> None:
        config = context.config
        self._context = context
        self._attempts = attempts
        self._admit = admit
        self._suite = suite_for(config.preshared_key)
        self._half_open = HalfOpenTable(config.max_half_open, config.handshake_timeout)
        self._spent: OrderedDict[bytes, None] = OrderedDict()  # mac1 of INITIATEs that became connections
        self._opened: OrderedDict[bytes, None] = OrderedDict()  # mac1 of INITIATEs that were opened
        self._mac1_key = cookie.mac1_key(bytes(context.public))
        self._jar = cookie.CookieJar(context.random, now)
        rate = config.cookie_threshold
        self._unproven_rate = TokenBucket(rate, max(1.0, rate * LOAD_BURST), now)
        rate = max(rate, MIN_PROVEN_RATE)
        self._proven_rate = AddressLimiter(rate, max(1.0, rate * LOAD_BURST), MAX_LIMITED_ADDRESSES)
        self._proven_events = max(1.0, rate * LOAD_BURST / STRAINED_BURST)
        self._versions_rate = TokenBucket(VERSIONS_RATE, VERSIONS_RATE, now)
        self._stale_rate = TokenBucket(STALE_RATE, STALE_RATE, now)
        self._last_repeats = TokenBucket(LAST_REPEATS, LAST_REPEATS * LAST_BURST, now)
        self._last_proofs = TokenBucket(LAST_PROOFS, LAST_PROOFS * LAST_BURST, now)
        self._woken = now
        self._unproven_left = self._proven_left = OPENS_A_WAKEUP
        self._callers = Callers(now)
        self._work = 0
        self.strain = 0
        """`Toll.strain`, set before a wake-up's packets are given."""

    # --- getters --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._half_open)

    def owns(self, cid: int) -> bool:
        """Whether a half-open handshake uses this connection ID."""
        return cid in self._half_open

    def half_open(self, local_cid: int) -> Established | None:
        """See `HandshakeDesk.half_open`."""
        entry = self._half_open.get(local_cid)
        return None if entry is None else entry.established

    def next_timeout(self) -> float | None:
        """When `handle_timeout` should be called next."""
        return self._half_open.next_expiry

    # --- mutators -------------------------------------------------------------------------------

    def spent_work(self) -> int:
        """The units of work since the last call."""
        work, self._work = self._work, 0
        return work

    def confirm(self, local_cid: int, now: float) -> Established | None:
        """See `HandshakeDesk.confirm`."""
        entry = self._half_open.remove(local_cid)
        if entry is None:
            return None
        self._context.count("confirmed")
        remember(self._spent, entry.mac1, self._context.config.max_known_initiates)
        established = entry.established
        if entry.answered == 1:
            established.handshake_rtt = now - established.now
        attempt = self._attempts.take(entry.rival)
        if attempt is not None:
            self._context.count("attempts_established")
            established.attempt = attempt.number
        return established

    def clear(self) -> None:
        """Forget everything."""
        self._half_open.clear()
        self._spent.clear()
        self._opened.clear()

    # --- inputs ---------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Forget what is too old."""
        self._context.count("half_open_expired", self._half_open.expire(now))

    def sift(self, arrived: Arrived, now: float) -> Arrived:
        """Under strain: what of a wake-up's datagrams is looked at. The others are left where they lie, for a flood
        consists of them."""
        meet = self._callers.meet
        sifted = []
        postponed = 0
        for each in arrived:
            datagram, path = each
            if len(datagram) >= MIN_INITIATE_SIZE and datagram[0] == INITIATE:
                macs = bytes(datagram[-2 * MAC :])
                proof = macs[MAC:] != cookie.NO_MAC
                if meet(path[:24] + macs[:MAC], now) < (0 if proof else Callers.TOO_SOON) or (
                    self.strain > 1 and not (self._last_proofs if proof else self._last_repeats).take(now)
                ):
                    postponed += 1
                    continue
            sifted.append(each)
        self._context.count("initiates_received", postponed)
        self._context.count("initiates_postponed", postponed)
        self._work += postponed
        return sifted

    def on_initiate(self, datagram: bytes, path: bytes, now: float) -> None:
        """INITIATE arrived: steps 1 to 5."""
        context = self._context
        if len(datagram) < MIN_INITIATE_SIZE:
            context.count("malformed")
            return
        context.count("initiates_received")
        mac1, mac2 = datagram[-2 * MAC : -MAC], datagram[-MAC:]
        self._work += LOOK
        proven = mac2 != cookie.NO_MAC and self._jar.verify(path[:24], datagram[:-MAC], mac2, now)
        if not proven:  # a cookie is readable only for who knows our key, so one hash does for those who have one
            if mac2 != cookie.NO_MAC and not self._stale_rate.take(now):
                context.count("initiates_limited")
                return
            if not cookie.verify(self._mac1_key, datagram[: -2 * MAC], mac1):
                context.count("initiates_bad_mac1")
                return
        version, src_cid, suite = read_initiate_header(datagram)
        if version not in context.versions:
            self._send_versions(Initiate.parse(datagram), path, now)
            return
        if suite != self._suite:
            # No refusal: a message 2 of the other suite would need a key that this side does not have.
            context.count("initiates_other_suite")
            return
        if self._repeat(src_cid, mac1, path, now, proven=proven):
            return
        if not self._afford(src_cid, mac1, path, now, proven=proven):
            return
        packet = Initiate.parse(datagram)
        self._work += OPEN
        try:
            responder = Responder(context.static, packet, context.config.preshared_key, context.random)
        except HandshakeError:
            context.count("initiates_invalid")
            if not proven:
                self._unproven_rate.fine(FORGERY - 1)
            return
        remember(self._opened, mac1, context.config.max_known_initiates)
        self._consider(responder, packet, path, now, proven=proven)

    # --- within ---------------------------------------------------------------------------------

    def _send_versions(self, packet: Initiate, path: bytes, now: float) -> None:
        if self._versions_rate.take(now):
            self._context.count("versions_sent")
            versions = Versions(packet.src_cid, packet.ephemeral[:16], self._context.versions)
            self._context.emit(path, versions.encode())

    def _repeat(self, src_cid: int, mac1: bytes, path: bytes, now: float, *, proven: bool) -> bool:
        """Step 3: whether this INITIATE is known, and so dealt with.

        Each address gets a RESPOND of its own. One sent to two would let whoever reads it at one of them claim
        the other, since the first DATA proves an address by having read what was sent there; and one sent to
        the first address only would let whoever copies an INITIATE faster than the network stop a handshake.
        But a second one costs X25519 again, which is for those who prove their address: so replays cost none.
        """
        if mac1 in self._spent:
            self._context.count("initiates_replayed")
            return True
        entry = self._half_open.find(mac1, path[:24])
        if entry is not None:
            if proven:
                self._half_open.prove(entry, now)
            if now - entry.answered_at < REPEAT_INTERVAL:
                self._context.count("responds_withheld")
                return True
            entry.answered += 1
            entry.answered_at = now
            self._context.count("responds_repeated")
            self._context.emit(path, entry.respond)
            return True
        if not proven and mac1 in self._opened:
            self._context.count("initiates_replayed")
            self._demand_proof(src_cid, mac1, path, now)
            return True
        return False

    def _afford(self, src_cid: int, mac1: bytes, path: bytes, now: float, *, proven: bool) -> bool:
        """Step 4: whether this INITIATE is worth four X25519 now; if not, it is answered or dropped."""
        if self._context.congested:
            self._context.count("outgoing_dropped")
            return False
        if now != self._woken:
            self._woken = now
            self._unproven_left = self._proven_left = OPENS_A_WAKEUP
        if proven:
            if self._proven_left and self._proven_rate.take(path[:24], now, self._proven_events if self.strain else 1):
                self._proven_left -= 1
                return True
            self._context.count("initiates_limited")
            return False
        if self.strain or not self._unproven_left or self._half_open.crowded or not self._unproven_rate.take(now):
            self._demand_proof(src_cid, mac1, path, now)
            return False
        self._unproven_left -= 1
        return True

    def _demand_proof(self, src_cid: int, mac1: bytes, path: bytes, now: float) -> None:
        """COOKIE, if it is this INITIATE's turn: no state is kept for it and no X25519 computed."""
        context = self._context
        if not (self._callers.answers(now) if self.strain else self._callers.admit(path[:24] + mac1, now)):
            context.count("initiates_limited")
            return
        self._work += ASK
        salt = context.random(cookie.SALT_SIZE)
        proof = self._jar.cookie(path[:24], now)
        sealed = cookie.seal_cookie(bytes(context.public), salt, mac1, proof)
        context.count("cookies_sent")
        context.emit(path, Cookie(src_cid, salt, sealed).encode())

    def _consider(self, responder: Responder, packet: Initiate, path: bytes, now: float, *, proven: bool) -> None:
        """Steps 5 to 7: message 1 is authentic, although perhaps a replay."""
        try:
            offered = responder.read_offer()
        except WireError as error:
            self._refuse(responder, packet, path, Refused(Refusal.PARAMETERS, error.reason))
            return
        context = self._context
        peer = responder.peer_key
        if offered.attempt is not None and self._attempts.superseded(peer, offered.attempt):
            context.count("initiates_superseded")
            return
        # Simultaneous open: the lower key stays initiator, if it dials where the peer's INITIATE comes from.
        # If not, its own may never arrive, and only the peer's path is known to work: then answer as well, and
        # whichever comes first counts. (An endpoint that dials itself has to answer itself.)
        rival = None if peer == context.public else self._attempts.to(peer)
        first = rival is not None and bytes(context.public) < bytes(peer)
        if rival is not None and first and rival.path[:24] == path[:24]:
            context.count("initiates_crossed")
            self._attempts.nudge(rival, now)
            return
        verdict = negotiation.judge(offered, context.config, packet.version, context.versions)
        if not isinstance(verdict, Refused) and self._admit is not None:
            refused = self._admit(peer, path[:24])
            if refused is not None:
                verdict = Refused(*refused)
        if isinstance(verdict, Refused):
            self._refuse(responder, packet, path, verdict)
            return
        self._work += ANSWER
        local_cid = context.new_cid()
        answered = negotiation.answer(
            context.config,
            context.versions,
            context.reset_token(local_cid),
            context.receive_buffer,
            path[:24],
            verdict,
            (packet.src_cid, local_cid),
            None if rival is None else rival.name,
        )
        datagram = responder.respond(packet.src_cid, local_cid, answered)
        send_secret, receive_secret = responder.secrets()
        established = Established(
            is_initiator=False,
            local_cid=local_cid,
            remote_cid=packet.src_cid,
            path=path,
            send_secret=send_secret,
            receive_secret=receive_secret,
            aead=verdict,
            peer_key=peer,
            local_parameters=answered,
            peer_parameters=offered,
            attempt=None,
            handshake_rtt=None,
            now=now,
        )
        entry = HalfOpen(packet.mac1, datagram, established, None if rival is None else rival.number, proven, now)
        context.count("half_open_evicted", self._half_open.add(entry, now))
        context.count("responds_sent")
        context.emit(path, datagram)
        if rival is not None and not first:
            self._attempts.give_way(rival, now)

    def _refuse(self, responder: Responder, packet: Initiate, path: bytes, refused: Refused) -> None:
        """Decline; nothing is kept, so the connection ID means nothing."""
        self._work += ANSWER
        cid = self._context.new_cid()
        payload = negotiation.refusal(refused, self._context.versions, (packet.src_cid, cid))
        self._context.count("refused")
        self._context.emit(path, responder.respond(packet.src_cid, cid, payload))
