"""A peer that handshakes truly, and then seals whatever it likes: floods of one kind each, as a program of its own.

    python tests/hard/hostile_peer.py --port 4433 --key PUBLIC --flood acks

It says "ready" once connected. A line "flood 0.5" has it flood for half a second, a line "mute 0.5" be as busy and
send nothing: what an honest peer beside has then is what floods are compared with. It answers with what it sent, as
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle

from burstwire import Config, KeyPair, PublicKey
from burstwire.core.address import pack_address
from burstwire.core.ring import BufferRing
from burstwire.core.run import RunTable
from burstwire.core.socket import UdpSocket
from burstwire.crypto.cookie import mac, mac1_key
from burstwire.crypto.keys import GENERATION_BITS
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.events import ConnectFailed, ConnectionEnded, ConnectionEstablished
from burstwire.proto.outbox import Outbox
from burstwire.wire import frames as f
from burstwire.wire import varint
from burstwire.wire.header import VERSION
from burstwire.wire.packets import Initiate, initiate_header

__all__ = ["FLOODS", "STRANGERS", "Flood", "HostilePeer", "Refused"]

ROOM = 1350
"""Bytes of frames in a packet of a flood: as much as the Internet carries."""

BATCH = 64
"""Packets that are sealed and sent together: the receiving kernel gives them to the node as one train."""

FORGED_RATE = 50_000
"""INITIATEs that are made up, per second: what a node is to withstand. Here it is about how many there are in sum."""

PATIENCE = 10.0
"""Seconds to wait for the node at most."""

SPECULATIVE_STREAMS = 128
"""Streams that a node allows by default; floods of stream frames go to these."""


class Refused(Exception):
    """The node does not, or no longer, talk to us."""


class HostilePeer:
    """A socket, a genuine connection, and the power to send any frames on it.

    Args:
        port: of the node, on the loopback interface.
        key: the node's.
        config: what to say in the handshake.

    Attributes:
        connection: the genuine one; it answers by itself what `listen` takes in.
        packets: sent by `inject`.
        streams: opened by the flood of that name.
        tries: handshakes begun by the flood of that name, of which `connected` led to a connection.
    """

    def __init__(
        self, port: int, key: PublicKey, config: Config | None = None, identity: KeyPair | None = None
    ) -> None:
        config = config or Config(idle_timeout=0, keep_alive=0, pacing=False)
        self.socket = UdpSocket(("127.0.0.1", 0), receive_buffer=config.socket_receive_buffer)
        self.endpoint = Endpoint(
            identity or KeyPair.generate(),
            config,
            now=time.monotonic(),
            random=os.urandom,
            receive_buffer=self.socket.receive_buffer,
        )
        self._ring, self._table = BufferRing(16), RunTable()
        self._outbox = Outbox(16, BATCH)
        self.packets = 0
        self.streams = 0
        self.tries = 0
        self.connected = 0
        self.ended = False
        remote = pack_address("127.0.0.1", port)
        self.endpoint.connect(remote, key, time.monotonic(), PATIENCE)
        until = time.monotonic() + PATIENCE
        while not self.endpoint.connections:
            self.listen()
            if self.ended or time.monotonic() > until:
                self.close()
                raise Refused
            time.sleep(0.0002)
        (self.connection,) = self.endpoint.connections.values()
        # Floods name streams that our own side has not opened: what the node says about them is to be no surprise.
        self.connection.streams._opened_here = SPECULATIVE_STREAMS
        while not self.connection.confirmed and time.monotonic() < until:
            self.listen()
            time.sleep(0.0002)

    def listen(self, answer: bool = True) -> None:
        """Takes in what the node has sent, and answers as an honest peer does."""
        endpoint, now = self.endpoint, time.monotonic()
        while self.socket.recv(self._ring, self._table, 12):
            endpoint.receive(self._ring, self._table, now)
            self._table.release(self._ring)
        self._table.release(self._ring)
        for event in endpoint.events():
            self.ended |= isinstance(event, ConnectFailed | ConnectionEnded)
            if isinstance(event, ConnectionEstablished):
                event.connection.user = self
        when = endpoint.next_timeout()
        if when is not None and when <= now:
            endpoint.handle_timeout(now)
        while answer and (flight := endpoint.transmit(now)) is not None:
            self.socket.send(flight)
            endpoint.sent(now)

    def inject(self, payloads: list[bytes]) -> None:
        """Sends packets with these frames, at most `BATCH`."""
        connection, outbox = self.connection, self._outbox
        if connection.error is not None:
            raise Refused
        n = len(payloads)
        first = connection.counters.reserve(connection.counter_index, n)
        connection.next_counter = first + n
        aead = connection.keys.sealer(first >> GENERATION_BITS)
        for number, payload in enumerate(payloads, first):
            outbox.packet(connection.path, 0, aead, connection.remote_cid, number, payload)
        self._flush()
        self.packets += n

    def throw(self, datagrams: list[bytes]) -> None:
        """Sends datagrams as they are, at most `BATCH`: a stranger's."""
        for datagram in datagrams:
            self._outbox.datagram(self.connection.path, datagram)
        self._flush()
        self.packets += len(datagrams)

    def _flush(self) -> None:
        flight = self._outbox.finish()
        done = 0
        while done < flight.count:  # a busy loop: what else should somebody hostile do
            done += self.socket.send(flight, done)
        self._outbox.clear()

    def close(self) -> None:
        """Leaves without a word."""
        self.endpoint.destroy()
        self._ring.close()
        self._outbox.close()
        self.socket.close()


# --- floods: each gives batches of payloads, for ever ----------------------------------------------------------

Flood = Callable[[HostilePeer], Iterator[list[bytes]]]


def _fill(frame: bytes) -> bytes:
    """A packet full of one frame, over and over."""
    return frame * min(ROOM // len(frame), f.MAX_FRAMES)


def _same(payload: bytes) -> Flood:
    def flood(peer: HostilePeer) -> Iterator[list[bytes]]:
        batch = [payload] * BATCH
        while True:
            yield batch

    return flood


def _ack(peer: HostilePeer, ranges: list[tuple[int, int]]) -> bytes:
    """ACK with any number of ranges (the encoder of the library writes at most 64)."""
    low, high = ranges[0]
    parts = [b"\x02", varint.encode(high), b"\0", varint.encode(len(ranges) - 1), varint.encode(high - low)]
    for below, above in ranges[1:]:
        parts += (varint.encode(low - above - 2), varint.encode(above - below))
        low = below
    return b"".join(parts)


def _known(peer: HostilePeer) -> int:
    """The highest packet number that the node has certainly sent."""
    return max(0, peer.connection.acks.received.largest)


def _acks(peer: HostilePeer) -> Iterator[list[bytes]]:
    """ACK frames that say nothing new, hundreds to a packet."""
    while True:
        yield [_fill(_ack(peer, [(0, _known(peer))]))] * BATCH


def _ranges(peer: HostilePeer) -> Iterator[list[bytes]]:
    """ACK frames with as many ranges as there is room for: what they name was never sent, or long ago."""
    while True:
        top = _known(peer)
        ranges = [(n, n) for n in range(top, max(-1, top - 2 * (ROOM // 2 - 10)), -2)]
        yield [_ack(peer, ranges)] * BATCH


def _shatter(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Every other packet of the node is acknowledged, never the ones between."""
    while True:
        peer.listen(answer=False)
        received = peer.connection.acks.received
        odd = [(n, n) for n in range(received.largest, max(-1, received.largest - 1200), -1) if n % 2]
        yield [_ack(peer, odd) if odd else b"\x01"] * BATCH


def _overlapping(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Two-byte STREAM frames over the same hundreds of bytes, backwards, with a hole before them."""
    frames = [f.encode_stream(4, 1 + n, b"xy") for n in range(2000, 0, -1)]
    packets = [b"".join(frames[n : n + 200]) for n in range(0, 2000, 200)]
    for start in cycle(range(len(packets))):
        yield [packets[(start + n) % len(packets)] for n in range(BATCH)]


def _fragments(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Every other byte of a stream, from the last to the first, as many pieces as are allowed; then again."""
    frames = [f.encode_stream(4, n, b"x") for n in range(1800, 0, -2)]
    packets = [b"".join(frames[n : n + 180]) for n in range(0, len(frames), 180)]
    for start in cycle(range(len(packets))):
        yield [packets[(start + n) % len(packets)] for n in range(BATCH)]


def _empty_streams(peer: HostilePeer) -> Iterator[list[bytes]]:
    """STREAM frames without a byte, for all streams in turn."""
    frames = [f.encode_stream(4 * n, 0, b"") for n in range(1, SPECULATIVE_STREAMS)]
    whole = b"".join(frames)
    while True:
        yield [_fill(whole)] * BATCH


def _streams(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Streams are opened and given up at once, as many as the node allows."""
    opened = 0
    table = peer.connection.streams
    while True:
        peer.listen()
        frames = []
        before = opened
        while opened < table.peer_limit and len(frames) < 100 * BATCH:
            opened += 1
            table._opened_here = max(opened, SPECULATIVE_STREAMS)
            stream = 4 * opened
            frames += [f.encode_stop_sending(stream, 1), f.encode_reset_stream(stream, 1, 0)]
        packets = [b"".join(frames[n : n + 100]) for n in range(0, len(frames), 100)][:BATCH]
        peer.streams += opened - before
        yield packets or [b"\x01"]


def _opens(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Every stream that is allowed is open, with a byte in it that nobody reads, and said to be so again and again."""
    frames = [f.encode_stream(4 * n, 0, b"x") for n in range(1, SPECULATIVE_STREAMS)]
    while True:
        yield [b"".join(frames)] * BATCH


def _resets(peer: HostilePeer) -> Iterator[list[bytes]]:
    """RESET_STREAM for the same streams, over and over."""
    frames = [f.encode_reset_stream(4 * n, 7, 0) for n in range(1, SPECULATIVE_STREAMS)]
    payload = b"".join(frames) * 2
    while True:
        yield [payload] * BATCH


def _stops(peer: HostilePeer) -> Iterator[list[bytes]]:
    """STOP_SENDING for the same streams, over and over."""
    frames = [f.encode_stop_sending(4 * n, 7) for n in range(1, SPECULATIVE_STREAMS)]
    payload = b"".join(frames) * 2
    while True:
        yield [payload] * BATCH


def _challenges(peer: HostilePeer) -> Iterator[list[bytes]]:
    """PATH_CHALLENGE, each with data of its own."""
    for n in count():
        yield [b"".join(f.encode_path_challenge((n * 200 + i).to_bytes(8, "big")) for i in range(150))] * BATCH


def _responses(peer: HostilePeer) -> Iterator[list[bytes]]:
    """PATH_RESPONSE that nobody asked for."""
    while True:
        yield [_fill(f.encode_path_response(bytes(8)))] * BATCH


def _credit(peer: HostilePeer) -> Iterator[list[bytes]]:
    """MAX_DATA, ever more."""
    for n in count(1 << 30):
        yield [b"".join(f.encode_max_data(n * 1000 + i) for i in range(150))] * BATCH


def _stream_credit(peer: HostilePeer) -> Iterator[list[bytes]]:
    """MAX_STREAM_DATA, ever more, for streams that it opens."""
    for n in count(1 << 22):
        yield [b"".join(f.encode_max_stream_data(4 * i, n * 100 + i) for i in range(1, SPECULATIVE_STREAMS))] * BATCH


def _blocked(peer: HostilePeer) -> Iterator[list[bytes]]:
    """DATA_BLOCKED and STREAM_DATA_BLOCKED: each asks for an answer."""
    frames = [f.encode_data_blocked(1)] + [f.encode_stream_data_blocked(4 * n, 1) for n in range(SPECULATIVE_STREAMS)]
    payload = b"".join(frames) * 2
    while True:
        yield [payload] * BATCH


def _messages(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Empty messages, one byte each, as fast as the window lets them: the node's application takes them."""
    at = 0
    limit = peer.connection.streams.messages.sending
    while True:
        peer.listen()
        batch = []
        while len(batch) < BATCH and at + 1200 <= min(limit.max_data, peer.connection.flow.peer_limit):
            batch.append(f.encode_stream(0, at, bytes(1200)))
            at += 1200
        yield batch or [b"\x01"]


def _message_heads(peer: HostilePeer) -> Iterator[list[bytes]]:
    """A single message of which a byte comes with each frame, all in one packet again and again."""
    at = 0
    half = peer.connection.streams.messages.sending
    peer.inject([f.encode_stream(0, 0, varint.encode(8 << 20))])
    at = len(varint.encode(8 << 20))
    while True:
        peer.listen()
        batch = []
        while len(batch) < BATCH and at + 200 <= min(half.max_data, peer.connection.flow.peer_limit, 8 << 20):
            batch.append(b"".join(f.encode_stream(0, at + n, b"x") for n in range(200)))
            at += 200
        yield batch or [b"\x01"]


def _datagrams(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Datagrams that nobody reads, hundreds to a packet."""
    while True:
        yield [_fill(b"\x31\x01x")] * BATCH


def _large_datagrams(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Datagrams that nobody reads, as large as may be."""
    while True:
        yield [f.encode_datagram(bytes(ROOM - 4))] * BATCH


def _frequency(peer: HostilePeer) -> Iterator[list[bytes]]:
    """ACK_FREQUENCY: an ACK for every packet, at once, ever anew."""
    for n in count():
        yield [b"".join(f.encode_ack_frequency(n * 200 + i, 0, 1, 1) for i in range(100))] * BATCH


def _gaps(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Every other packet number: each packet shows a gap, which is reported at once."""
    connection = peer.connection
    while True:
        for _ in range(16):
            peer.inject([b"\x01"])
            skipped = connection.counters.reserve(connection.counter_index, 1)
            connection.next_counter = skipped + 1
        yield [b"\x01"]


def _deaf(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Asks for data on every stream, with all the credit in the world, and neither reads nor acknowledges anything."""
    yield [f.encode_stream(4 * n, 0, b"more") for n in range(1, SPECULATIVE_STREAMS // 2)]
    while True:
        yield [f.encode_max_data(1 << 40)] * BATCH


def _forged(peer: HostilePeer) -> Iterator[list[bytes]]:
    """INITIATEs that are made up, each with the right mac1 and another ephemeral key."""
    public = bytes(peer.connection.peer_key)
    key = mac1_key(public)
    message = os.urandom(1200 - Initiate.OVERHEAD - 32)
    due = time.monotonic()
    while True:
        due = max(due + BATCH / 2 / FORGED_RATE, time.monotonic() - 0.01)
        while time.monotonic() < due:  # busy, as everybody here
            pass
        batch = []
        for _ in range(BATCH // 2):
            body = initiate_header(VERSION, random.getrandbits(32) or 1, 0) + random.randbytes(32) + message
            batch.append(body + mac(key, body) + bytes(16))
        peer.throw(batch)
        yield []


def _tries(peer: HostilePeer) -> Iterator[list[bytes]]:
    """Genuine handshakes with a fresh key, as many as there is time for; what comes of them is closed at once."""
    node = PublicKey(bytes(peer.connection.peer_key))
    remote = peer.connection.path[:24]
    config = Config(idle_timeout=5, keep_alive=0, max_connections=1000)
    endpoint = Endpoint(KeyPair.generate(), config, now=time.monotonic(), random=os.urandom)
    socket = UdpSocket(("127.0.0.1", 0))
    ring, table = BufferRing(16), RunTable()
    try:
        while True:
            now = time.monotonic()
            if endpoint.desk.stats()["attempts"] < 900:
                for _ in range(16):
                    endpoint.connect(remote, node, now, 0.2)
                    peer.tries += 1
            while socket.recv(ring, table, 12):
                endpoint.receive(ring, table, now)
                table.release(ring)
            table.release(ring)
            for event in endpoint.events():
                if isinstance(event, ConnectionEstablished):
                    peer.connected += 1
                    event.connection.close(now)
            when = endpoint.next_timeout()
            if when is not None and when <= now:
                endpoint.handle_timeout(now)
            while (flight := endpoint.transmit(now)) is not None:
                socket.send(flight)
                endpoint.sent(now)
            yield []
    finally:
        endpoint.destroy()
        socket.close()


def _mute(peer: HostilePeer) -> Iterator[list[bytes]]:
    """As busy as any, and silent: makes packets and sends none."""
    while True:
        yield []


FLOODS: dict[str, Flood] = {
    "acks": _acks,
    "ack-ranges": _ranges,
    "ack-shatter": _shatter,
    "overlapping": _overlapping,
    "fragments": _fragments,
    "padding": _same(bytes(ROOM)),
    "padding-and-pings": _same(_fill(b"\x01\x00")),
    "pings": _same(_fill(b"\x01")),
    "tiny-packets": _same(b"\x01"),
    "streams-opened-and-reset": _streams,
    "streams-left-open": _opens,
    "empty-stream-frames": _empty_streams,
    "stream-resets": _resets,
    "stops": _stops,
    "challenges": _challenges,
    "responses": _responses,
    "credit": _credit,
    "stream-credit": _stream_credit,
    "blocked": _blocked,
    "messages": _messages,
    "message-by-bytes": _message_heads,
    "datagrams": _datagrams,
    "large-datagrams": _large_datagrams,
    "unknown-frames": _same(_fill(b"\x40\x7f\x00")),
    "ack-frequency": _frequency,
    "number-gaps": _gaps,
    "deaf": _deaf,
    "forged-handshakes": _forged,
    "handshakes": _tries,
    "mute": _mute,
}
"""By name; what each does is what its function says of itself."""

STRANGERS = ("forged-handshakes", "handshakes")
"""Those that need no connection."""


def _turn(peer: HostilePeer, flood: Iterator[list[bytes]], seconds: float) -> None:
    """Floods for so long; raises `Refused` when the node has ended the connection."""
    until = time.monotonic() + seconds
    for batches in count():
        if time.monotonic() > until:
            return
        batch = next(flood)
        if batch:
            peer.inject(batch)
            if batches % 16 == 0:  # whether the node has had enough
                peer.listen(answer=False)


def main() -> int:
    """`python hostile_peer.py`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--flood", choices=FLOODS, required=True)
    options = parser.parse_args()
    identity, node = KeyPair.generate(), PublicKey.parse(options.key)
    peer = HostilePeer(options.port, node, identity=identity)
    flood = FLOODS[options.flood](peer)
    print("ready", flush=True)
    for line in sys.stdin:
        what, seconds = line.split()
        until = time.monotonic() + float(seconds)
        sent, closed = -peer.packets, 0
        while (left := until - time.monotonic()) > 0:
            try:
                _turn(peer, flood if what == "flood" else _mute(peer), left)
            except Refused:  # once more, as often as it lets us in
                closed += 1
                sent += peer.packets
                peer.close()
                peer = HostilePeer(options.port, node, identity=identity)
                flood = FLOODS[options.flood](peer)
        print(
            json.dumps(
                {
                    "packets": sent + peer.packets,
                    "closed": closed,
                    "streams": peer.streams,
                    "tries": peer.tries,
                    "connected": peer.connected,
                }
            ),
            flush=True,
        )
    peer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
