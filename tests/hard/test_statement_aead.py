"""Statement 8, clause by clause, with figures: what packet protection guarantees.

No number twice in threads and across forks is tests/hard/test_nonces.py, rekeying under load
tests/hard/test_keys_updates.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from proto.pair import Pair

from burstwire import Config
from burstwire.core import COUNTER_LIMIT, BufferRing
from burstwire.core._burstwire import ffi
from burstwire.crypto.kdf import expand
from burstwire.errors import CryptoError
from burstwire.proto.events import StreamReadable
from burstwire.sim import Link, Simulation
from burstwire.wire import frames as f
from burstwire.wire.header import DATA, HEADER_SIZE, TAG

Outcome = Callable[[str, str, str], None]


def opens(key: AESGCM, packet: bytes) -> bool:
    try:
        key.decrypt(packet[1:13], packet[13:], packet[:13])
    except InvalidTag:
        return False
    return True


def test_each_direction_has_a_key_of_its_own(seed: int, outcome: Outcome) -> None:
    datagrams: list[bytes] = []
    with Simulation(seed, Link(delay=0.01)) as sim:
        sim.network.tap = lambda now, source, destination, sent: datagrams.extend(map(bytes, sent))
        config = Config(aeads=("aes-128-gcm",))
        left, right = sim.connect(*(sim.host(f"10.0.0.{n}", config=config) for n in (1, 2)))
        flows = [peer.open().send(200_000) for peer in (left, right)]
        sim.run(lambda: all(flow.stream and flow.stream.sending.all_acked for flow in flows))
        secrets = [peer.connection.keys._seal._secret for peer in (left, right)]
        keys = [AESGCM(expand(secret, b"burstwire 1 key\x00", 16)) for secret in secrets]
        cids = [peer.connection.remote_cid.to_bytes(4, "big") for peer in (left, right)]
    packets = [[d for d in datagrams if d[0] == DATA and d[1:5] == cid] for cid in cids]
    for own, other in ((0, 1), (1, 0)):
        assert len(packets[own]) > 50
        assert all(opens(keys[own], packet) for packet in packets[own])
        assert not any(opens(keys[other], packet) for packet in packets[own])
    outcome(
        "demands",
        "8: a key for each direction",
        f"of {len(packets[0])} and {len(packets[1])} packets recorded all open with their direction's key, "
        "0 with the other's",
    )


def test_the_last_number_is_sent_and_the_one_behind_it_is_refused(outcome: Outcome) -> None:
    pair = Pair(Config(key_update_interval=0.0))
    pair.settle()
    last = COUNTER_LIMIT >> 22
    for connection, attribute in ((pair.a.connection, "sealing"), (pair.b.connection, "opening")):
        setattr(connection.keys, attribute, last - 1)
    a = pair.a.connection
    a.next_counter = COUNTER_LIMIT - 3
    a.recovery.log.largest_acked = a.next_counter - 1
    a.counters.skip_to(a.counter_index, a.next_counter)
    a.outbound._next_skip = COUNTER_LIMIT
    sealed: list[bytes] = []

    def send() -> None:
        for _ in range(10):
            a.ask((f.PING,))
            sealed.extend(pair.a.datagrams(pair.now))

    with pytest.raises(CryptoError, match="used up: 2\\^62"):
        send()
    numbers = [int.from_bytes(datagram[5:13], "big") for datagram in sealed]
    assert numbers == [COUNTER_LIMIT - 3, COUNTER_LIMIT - 2, COUNTER_LIMIT - 1]
    pair.b.deliver(sealed, pair.now)
    assert pair.b.connection.acks.received.largest == COUNTER_LIMIT - 1
    outcome("demands", "8: no wrap", "2^62 - 3, - 2 and - 1 were sealed and opened; the next number was refused")


def test_what_does_not_authenticate_moves_no_window(seed: int, outcome: Outcome) -> None:
    rng = random.Random(seed)
    pair = Pair(Config(max_datagram_size=1200))
    forged = 0

    def forge(datagram: bytes) -> list[bytes]:
        """Before each packet one with its number and one far ahead, of its size, which do not verify."""
        nonlocal forged
        counter = int.from_bytes(datagram[5:13], "big")
        garbage = rng.randbytes(len(datagram) - HEADER_SIZE)
        forged += 2
        return [
            datagram[:13] + garbage,
            datagram[:5] + (counter + rng.randrange(1000, 100_000)).to_bytes(8, "big") + garbage,
            datagram,
        ]

    data = rng.randbytes(300_000)
    stream = pair.a.connection.open_stream()
    left, got = data, bytearray()
    while len(got) < len(data):
        left = left[stream.write(left) :]
        if not pair.step(forge, forge):
            pair.wait()
        for event in pair.b.take(StreamReadable):
            while piece := event.stream.read(1 << 16):
                got += piece
    assert got == data
    pair.settle(forge, forge)
    stats = [side.connection.stats() for side in (pair.a, pair.b)]
    assert sum(one["packets_invalid"] for one in stats) == forged
    # Had a forged number been noted, its genuine packet would be a duplicate, or below the window, and sent again.
    assert sum(one["packets_duplicate"] + one["packets_unopened"] + one["packets_lost"] for one in stats) == 0
    for sender, receiver in ((pair.a, pair.b), (pair.b, pair.a)):
        assert receiver.connection.acks.received.largest < sender.connection.next_counter
    outcome(
        "demands",
        "8: the replay window moves after authentication only",
        f"{forged:,} forged packets ahead of the genuine ones and with their numbers: "
        f"{len(data):,} bytes arrived, 0 packets lost, 0 taken for copies",
    )


def test_input_and_output_of_a_cipher_start_at_the_same_byte(outcome: Outcome) -> None:
    """An overlap at another offset cannot be asked for: slots are sealed in place, by views or, in C, one pointer."""
    ring = BufferRing(1)
    slot = ring.lease()
    count = 0
    for start, size in product((0, 1, 7, 64, 1200), (HEADER_SIZE + TAG, 100, 1200, 1452, 9000)):
        for nonce, header, plain, sealed in ring.packets(slot, start, size, min(6, (ring.slot_size - start) // size)):
            addresses = [int(ffi.cast("uintptr_t", ffi.from_buffer(view))) for view in (nonce, header, plain, sealed)]
            assert addresses[0] == addresses[1] + 1
            assert addresses[2] == addresses[3] == addresses[1] + HEADER_SIZE
            assert len(sealed) == len(plain) + TAG == size - HEADER_SIZE
            count += 1
    ring.release(slot)
    outcome("demands", "8: no overlap at an offset", f"{count} packets of 5 sizes at 5 offsets: all sealed in place")
