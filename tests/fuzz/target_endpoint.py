"""Targets: a whole `Endpoint`.

`datagrams` feeds recorded traffic, changed before its protection is taken off: as somebody on the path can.
`peer` seals frames of the input's choice with the connection's keys: as a hostile peer can. In between the application
does what applications do, and time passes.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

import recorded
from reader import Reader
from target_wire import FRAMES
from world import ATTACKER, CONFIG, KEYS, SIDE, Node, World

from burstwire.core.address import pack_address
from burstwire.core.ring import BufferRing
from burstwire.crypto.keys import GENERATION_BITS
from burstwire.errors import CryptoError, RemoteProtocolError, TransportError
from burstwire.proto.connection import Connection
from burstwire.proto.endpoint import Endpoint
from burstwire.proto.ranges import RangeSet
from burstwire.wire import frames as f
from burstwire.wire.errors import TransportCode
from burstwire.wire.header import DATA, HEADER, HEADER_SIZE, RUN_OVERHEAD, TAG

__all__ = ["datagrams", "datagrams_seeds", "peer", "peer_seeds"]

ELSEWHERE = pack_address("10.0.0.99", 99)
STEPS = (0.0, 0.001, 0.01, 0.1, 0.4, 1.0, 3.0, 31.0)
"""Seconds."""
MOST_OPERATIONS = 64
HONEST_ACK = 6
CONTROLLERS = ("cubic", "bbr", "ledbat", "fixed")
GENERATION = 1 << GENERATION_BITS
"""Packet numbers of one key."""


# --- before protection is taken off ----------------------------------------------------------------------------


def datagrams(data: bytes) -> None:
    """The first byte says which end of the recorded conversation is attacked; operations on its datagrams follow."""
    reader = Reader(data)
    shape = reader.number()
    initiator = bool(shape & 1)
    endpoint, start = recorded.restarted(initiator)
    there = pack_address(recorded.SERVER, 1)
    world = World(endpoint, start, befriend=False, dialled=[there] if initiator else [])
    try:
        local = pack_address(recorded.CLIENT if initiator else recorded.SERVER, 1)
        bound = pack_address(recorded.CLIENT if initiator else recorded.SERVER, 0)
        arriving = [one for one in recorded.conversation() if one[2] == local]
        world.settle()  # an initiator says the same INITIATE again
        following = 0
        for _ in range(MOST_OPERATIONS):
            if not reader:
                break
            op = reader.number()
            path = arriving[0][1] + bound
            if op & 7 <= 3:  # the next ones, as they were
                count = 1 + (op >> 3)
                for when, _, _, datagram in arriving[following : following + count]:
                    if when > world.now and op & 1:
                        world.pass_time(when - world.now)
                    world.attack([([datagram], path)], op & 3)
                following += count
            elif op & 7 == 4:  # one of them, changed
                number = reader.number()
                changed = bytearray(arriving[(following + (number & 63) - 32) % len(arriving)][3])
                for _ in range(1 + number // 64):
                    at = reader.number(2) % (len(changed) + 1)
                    if op >> 3 & 3 == 0:
                        del changed[at:]
                    elif op >> 3 & 3 == 1:
                        changed[at:at] = reader.block(64)
                    else:
                        piece = reader.block(32)
                        changed[at : at + len(piece)] = piece
                if changed:
                    world.attack([([bytes(changed)], path if op & 32 else ELSEWHERE + bound)])
            elif op & 7 == 5:  # any of them again, from anywhere, as a train
                again = arriving[reader.number() % len(arriving)][3]
                world.attack([([again] * (1 + (op >> 3 & 3)), path if op & 32 else ELSEWHERE + bound)], op >> 6)
            elif op & 7 == 6:
                block = reader.block()
                if block:
                    world.attack([([block], path)])
            else:
                world.pass_time(STEPS[op >> 3 & 7])
                if op & 64:
                    world.befriend()
    except BaseException:
        world.release()
        raise
    world.finish()


def datagrams_seeds() -> list[bytes]:
    """All of it at both ends, with changes, repeats, gaps and silence."""
    everything = b"\xfb\x01" * 6
    changed = b"\x23\x34\x20\x00\x10\x00\x04abcd\x0b\x24\x21\x00\x40\x2c\x20\x00\x08\x00\x08abcdefgh"
    seeds = []
    for side in (b"\0", b"\1"):
        seeds += [
            side + everything,
            side + b"\x01\x01\x09" + changed + everything,
            side + b"\x01\x09\x15\x00\x15\x01\x35\x02" + b"\x1f\x5f" + b"\x21\x26\x00\x20" + bytes(32),
            side + b"\x01\x26\x00\x15\x05" + b"\0\0\0\1" + bytes(16) + b"\x2f\x01\x37",
        ]
    return seeds


# --- with the keys ---------------------------------------------------------------------------------------------


class Hostile:
    """A peer that completed its handshake and now sends what the input says."""

    def __init__(self) -> None:
        rng = Random(4)
        self.world = World(Endpoint(KEYS[1], CONFIG, now=0.0, random=rng.randbytes))
        self.path = ATTACKER + SIDE
        self._received = RangeSet()
        node = self._node = Node(Endpoint(KEYS[3], CONFIG, now=0.0, random=rng.randbytes), ATTACKER)
        try:
            node.endpoint.connect(SIDE, KEYS[1].public, 0.0)
            self.world.attack([([datagram], self.path) for _, datagram in node.turn(0.0)])
            node.take([([datagram], SIDE + ATTACKER) for _, datagram in self.world.strangers], 0.0)
            node.turn(0.0)
            (self.keys,) = node.connections
            self._slots = BufferRing(1, 4096)
            self._slots.lease()
            self.counter = 0
            self.world.attack([([self.packet(f.encode_ping())], self.path)])
        except BaseException:
            self.release()
            raise
        self.target: Connection = next(c for c in self.world.side.connections if c.peer_key == KEYS[3].public)

    def acknowledgement(self) -> bytes:
        """An ACK of every packet that came, as an honest peer says it."""
        for _, datagram in self.world.strangers:
            if datagram[0] == DATA:
                number = HEADER.unpack_from(datagram)[2]
                self._received.add(number, number + 1)
        self.world.strangers.clear()
        ranges = [(low, high - 1) for low, high in self._received][-f.MAX_ACK_RANGES :]
        return f.encode_ack(ranges[::-1], 0) if ranges else f.encode_ping()

    def release(self) -> None:
        """The end of its keys."""
        self._node.release()

    def packet(self, frames: bytes, counter: int | None = None) -> bytes:
        """A sealed packet."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        frames = frames[:2000]
        end = HEADER_SIZE + len(frames) + TAG
        view = self._slots.views[0]
        HEADER.pack_into(view, 0, DATA, self.keys.remote_cid, counter)
        view[HEADER_SIZE : end - TAG] = frames
        try:
            sealer = self.keys.keys.sealer(counter >> 22)
        except CryptoError:  # a generation that there are no keys of: then with some others
            sealer = self.keys.keys.sealer(self.keys.keys.sealing)
        sealer.seal_run(self._slots, 0, 0, end, 1, end)
        return bytes(view[:end])


def peer(data: bytes) -> None:
    """Packets with the input's frames, wake-ups, what the application does, and time."""
    reader = Reader(data)
    hostile = Hostile()
    world = hostile.world
    try:
        waiting: list[tuple[list[bytes], bytes]] = []
        for _ in range(MOST_OPERATIONS):
            if not reader:
                break
            op = reader.number()
            what = op & 15
            if what <= 5:  # a packet; two of three times with those before it in one wake-up
                frames = reader.block()
                waiting.append(([hostile.packet(frames)], hostile.path))
                if what >= 4 or len(waiting) >= 16:
                    world.attack(waiting, op >> 4 & 3)
                    waiting = []
            elif what <= 7:  # a run of bulk data, with one packet that is something else
                stream, offset = reader.number(), reader.number(2)
                size, count = RUN_OVERHEAD + 1 + reader.number(), 1 + (op >> 4)
                strange = reader.number()
                run = []
                for i in range(count):
                    body = bytes([i]) * (size - RUN_OVERHEAD)
                    at = offset + i * len(body)
                    frame = f.encode_run_stream(stream, at, body, what == 7 and i == count - 1)
                    if strange % 16 == i:
                        frame = reader.block(size - HEADER_SIZE - TAG).ljust(len(frame), b"\0")
                    run.append(hostile.packet(frame))
                waiting.append((run, hostile.path))
            elif what == 8 and op & 16:
                world.attack(waiting)
                waiting = []
                if op >> 5 == HONEST_ACK:
                    world.attack([([hostile.packet(hostile.acknowledgement())], hostile.path)])
                else:
                    _acknowledge_unsent(hostile, op >> 5)
            elif what == 8:
                to_next = GENERATION - hostile.counter % GENERATION
                hostile.counter += (1, 2, 64, 513, GENERATION, to_next, 3, 5)[op >> 5]
            elif what == 9:
                hostile.counter = max(0, hostile.counter - (op >> 4) - 1)
            elif what == 10:
                hostile.path = (ELSEWHERE if op & 16 else ATTACKER) + SIDE
            elif what <= 12:
                world.attack(waiting)
                waiting = []
                world.pass_time(STEPS[op >> 4 & 7])
            else:
                world.attack(waiting)
                waiting = []
                _application(world, hostile.target, op >> 4 | (what - 13) << 4)
                world.settle()
        world.attack(waiting)
    except BaseException:
        world.release()
        raise
    finally:
        hostile.release()
    world.finish()


def _acknowledge_unsent(hostile: Hostile, which: int) -> None:
    """An ACK of a number that was skipped, or is still to come: if it opens, it must end the connection."""
    target = hostile.target
    number = target.next_counter + (0, 1, 2, 64, 1 << 20, 1 << 40, HONEST_ACK, 0)[which]
    if which == 7 and target.recovery.log.skipped:
        number = target.recovery.log.skipped[-1]
    counter = hostile.counter
    believable = target.listening and counter not in target.acks.received
    hostile.world.attack([([hostile.packet(f.encode_ack([(number, number)], 0))], hostile.path)])
    if believable and counter in target.acks.received:
        assert isinstance(target.error, RemoteProtocolError), "an ACK of what was never sent was believed"
        assert target.error.code == TransportCode.PROTOCOL_VIOLATION


def _application(world: World, connection: Connection, action: int) -> None:
    """One thing that an application may do; what it may be told is a `TransportError`."""
    streams = list(connection.streams.open.values())[1:]
    stream = streams[-1] if streams else None
    now = world.now
    with suppress(TransportError):
        match action % 20:
            case 0:
                connection.next_messages(10)
            case 1:
                while connection.next_message() is not None:
                    pass
            case 2:
                for one in streams:
                    with suppress(TransportError):
                        one.read(1 << 20)
            case 3 if stream:
                stream.read(100)
            case 4 if stream:
                stream.write(memoryview(bytes(5000)))
            case 5 if stream:
                stream.finish()
            case 6 if stream:
                stream.reset(7)
            case 7 if stream:
                stream.stop(8)
            case 8:
                connection.open_stream()
            case 9 if connection.message_room():
                connection.send_message(bytes(3000))
            case 10:
                connection.send_datagram(bytes(100))
            case 11:
                connection.next_datagram()
            case 12:
                connection.update_keys()
            case 13:
                connection.close(now, 1, "closing")
            case 14:
                connection.abort(now, 2, "aborting")
            case 15 if stream:
                stream.readinto(memoryview(bytearray(1000)))
            case 16:
                connection.send_messages([b"one", b"two", bytes(20000)])
            case 17:
                connection.add_message(b"small")
            case 18:
                for one in streams:
                    with suppress(TransportError):
                        one.write(memoryview(bytes(300)))
                        one.finish()
            case _:
                name = connection.recovery.controller_name
                connection.set_congestion(CONTROLLERS[(CONTROLLERS.index(name) + 1) % len(CONTROLLERS)], now)


def peer_seeds() -> list[bytes]:
    """Every frame, recorded packets, runs of bulk data, and applications that answer."""

    def packet(frames: bytes, op: int = 4) -> bytes:
        return bytes([op]) + len(frames).to_bytes(2) + frames

    read, write, open_, messages = b"\x2d", b"\x4d", b"\x8d", b"\x1d"
    every = [packet(frame) for frame in FRAMES]
    seeds = [b"".join(every[at : at + 6]) + read + b"\x4b" for at in range(0, len(every), 4)]
    seeds += [packet(payload) + messages for payload in recorded.payloads(300)[:24]]
    acked = packet(f.encode_ack([(0, 4)], 0))
    run = b"\x77\x04\x00\x00\x40\xff"
    honest = bytes([0x18 | HONEST_ACK << 5])
    controller = b"\x3e"
    for changes in range(len(CONTROLLERS)):  # an honest receiver of bulk data, with each controller, and silence in it
        bulk = (write + b"\xbd" + honest + b"\x1b") * 9 + b"\x4b" + (write + honest) * 4
        seeds.append(packet(f.encode_stream(4, 0, b"ask") + f.encode_max_data(1 << 20)) + controller * changes + bulk)
    seeds += [bytes([0x18 | which << 5]) + read + b"\x4b" for which in range(8)]  # ACKs of what was never sent
    seeds += [
        run + b"\x0b" + read + b"\x5d\x3b",
        run + b"\xf6\x04\x02\x08\x40\x02\x00\x05" + FRAMES[3][:5] + b"\x0b" + read,
        packet(f.encode_stream(4, 0, b"ask", True)) + write + b"\x5d" + read + acked + b"\x3b",
        packet(f.encode_stream(0, 0, b"\x05hello")) + messages + b"\x9d" + acked + b"\xdd\x5b",
        packet(f.encode_datagram(b"one of many") * 9) + b"\xbd" + packet(f.encode_ack([(1000, 1000)], 0)),
        open_ + packet(f.encode_stop_sending(1, 3)) + packet(f.encode_reset_stream(1, 3, 0)) + b"\x3b",
        b"\x1a" + packet(f.encode_ping()) + b"\x2b" + packet(f.encode_path_response(bytes(8))) + b"\x0a" + b"\x4b",
        b"\x88" + packet(f.encode_ping()) + b"\xcd" + b"\xa8" + packet(f.encode_ping()) + b"\x19" + b"\x4b",
    ]
    return seeds
