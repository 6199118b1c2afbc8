"""Tables of C structs that describe work for one C call: runs received, trains to send, runs to frame, to seal, to
open or to gather.

Rows are written with `Struct.pack_into` and read with `Struct.iter_unpack`, which costs a tenth of what
cffi's attribute access does. A table is made once and used again; it is for one thread at a time.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from struct import Struct
from typing import Any, NoReturn, TypeAlias

from burstwire.core._burstwire import ffi, lib
from burstwire.core._errno import describe
from burstwire.core.address import PATH_SIZE
from burstwire.core.ring import BufferRing
from burstwire.errors import CryptoError

__all__ = [
    "DATA",
    "FILL",
    "GATHER",
    "NO_GSO",
    "NO_PACKET",
    "PROTECT",
    "RUN",
    "SINGLE",
    "TRAIN",
    "FillTable",
    "GatherTable",
    "ProtectTable",
    "RunRecord",
    "RunTable",
    "TrainTable",
]

RUN = Struct("=QIIIHHHBB4x48s")
TRAIN = Struct("=IIIHBBIi48s")
FILL = Struct("=QQQQQIIIIIHHB3xi")
GATHER = Struct("=QQQQQQIIIHHHB5xQ")
PROTECT = Struct("=QQQIIHHH2xi4x")

DATA = 0x10
"""The type of a run of DATA packets."""

NO_GSO = 1
"""A train's flag: the kernel refused to segment it, so it left datagram by datagram."""

SINGLE = 8
"""A train's flag: it is not to be left to the kernel to segment."""

NO_PACKET = 0xFF
"""The type of a datagram that says DATA but is too short for it, or whose counter is not below 2^62."""

RunRecord: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, bytes]
"""(counter, cid, slot, start, size, last, count, type, ecn, path)"""

_TRAIN_RESULT = Struct("=Ii")
_TRAIN_RESULT_AT = 16
_TRAIN_TROUBLES = Struct("=15xB4xi48x")
_GATHER_RESULT = Struct("=B5xQ")
_GATHER_RESULT_AT = 66
_GATHER_RESULTS = Struct("=66xB5xQ")
_FILL_ERROR = Struct("=68xi")
_PROTECT_RESULTS = Struct("=16xQ16xi4x")


def _rows(kind: str, capacity: int) -> tuple[Any, memoryview]:
    if not 1 <= capacity <= 1 << 16:
        raise ValueError(f"a table holds from 1 to 65,536 rows, not {capacity:,}")
    rows = ffi.new(kind, capacity)
    return rows, memoryview(ffi.buffer(rows))


class RunTable:
    """What one wake-up brought: runs in the order of arrival, and the slots that they lie in.

    The table holds those slots until `release`; it refuses to be filled by a socket before.
    """

    def __init__(self, capacity: int = 1024, held: int = 64) -> None:
        """Room for `capacity` runs in at most `held` slots."""
        self._runs, self._view = _rows("bw_run[]", capacity)
        self._held, _ = _rows("uint32_t[]", held)
        self.handle: Any = ffi.new("bw_batch *")
        self.handle.runs = self._runs
        self.handle.held = self._held
        self.handle.capacity = capacity
        self.handle.held_capacity = held
        self.capacity = capacity

    @property
    def count(self) -> int:
        """Runs in the table."""
        return int(self.handle.count)

    @property
    def overflow(self) -> int:
        """Packets that were dropped because the table was full, since it was made."""
        return int(self.handle.overflow)

    @property
    def held(self) -> list[int]:
        """The slots that the table holds."""
        return list(self._held[0 : self.handle.held_count])

    def records(self) -> Iterator[RunRecord]:
        """(counter, cid, slot, start, size, last, count, type, ecn, path) of each run.

        counter is the first packet's (0 unless DATA), cid the bytes 1 to 4 (0 where there are none), start a
        byte offset in the slot, size the bytes of each packet and last those of the last one, type the first
        byte or `NO_PACKET`.
        """
        return RUN.iter_unpack(self._view[: self.handle.count * RUN.size])

    def parse(
        self, ring: BufferRing, slot: int, length: int, segment: int, path: bytes, ecn: int, start: int = 0
    ) -> int:
        """Append the runs of one train that lies in a leased slot, as if a socket had received it; the table
        holds the slot now.

        segment is the bytes of each datagram (the last may be shorter), 0 for a single one. Returns how many
        runs were added. Raises `ValueError` when the train does not lie in a leased slot, or the table holds
        too many slots already.
        """
        before = self.handle.count
        if len(path) != PATH_SIZE:
            raise ValueError(f"a path has {PATH_SIZE} bytes, not {len(path)}")
        if not (length >= 0 and start >= 0 and slot >= 0 and 0 <= segment <= 65535 and 0 <= ecn <= 3):
            raise ValueError(f"not a train: slot {slot}, start {start}, length {length}, segment {segment}, ecn {ecn}")
        count = lib.bw_parse(ring.handle, self.handle, slot, start, length, segment, ecn, path)
        if count < 0:
            raise ValueError(f"{length} bytes from {start} on in slot {slot} cannot be parsed: {describe(count)}")
        return count - int(before)

    def clear(self) -> None:
        """Forget the runs. Slots that are held stay held."""
        self.handle.count = 0

    def release(self, ring: BufferRing) -> None:
        """Give back every slot that the table holds, and forget the runs."""
        n = self.handle.held_count
        self.handle.count = 0
        self.handle.held_count = 0
        if n and lib.bw_ring_release_all(ring.handle, self._held, n) != 0:
            raise ValueError("a slot of the batch was given back before, or belongs to another ring")


class TrainTable:
    """Trains to send, all in slots of one ring.

    Attributes:
        ring: where the trains lie.
        capacity: rows.
        count: rows in use.
    """

    def __init__(self, ring: BufferRing, capacity: int = 64) -> None:
        self.ring = ring
        self.capacity = capacity
        self.count = 0
        self.rows, self._view = _rows("bw_train[]", capacity)

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0

    def append(self, slot: int, start: int, length: int, segment: int, ecn: int, path: bytes, flags: int = 0) -> int:
        """Add a train of `length` bytes, cut into datagrams of `segment` bytes (0: one datagram). Returns its
        row.

        flags is 0, or `SINGLE` where GSO is known to fail. Raises `IndexError` when the table is full.
        """
        row = self.count
        if row >= self.capacity:
            raise IndexError(f"the table holds {self.capacity} trains and is full")
        TRAIN.pack_into(self._view, row * TRAIN.size, slot, start, length, segment, ecn, flags, 0, 0, path)
        self.count = row + 1
        return row

    def results(self, row: int) -> tuple[int, int]:
        """(bytes that the kernel took, 0 or the negative errno for which the rest was given up)."""
        return _TRAIN_RESULT.unpack_from(self._view, row * TRAIN.size + _TRAIN_RESULT_AT)

    def any_trouble(self) -> bool:
        """Whether the rest of any train was given up, or the kernel would not segment one."""
        rows = self._view[: self.count * TRAIN.size]
        return any(error or flags & NO_GSO for flags, error in _TRAIN_TROUBLES.iter_unpack(rows))

    def settle(self, row: int, sent: int, error: int = 0) -> None:
        """Write the results of a row: what a virtual network does in place of the kernel."""
        _TRAIN_RESULT.pack_into(self._view, row * TRAIN.size + _TRAIN_RESULT_AT, sent, error)

    def records(self) -> Iterator[tuple[int, int, int, int, int, int, int, int, bytes]]:
        """(slot, start, length, segment, ecn, flags, sent, error, path) of each row."""
        return TRAIN.iter_unpack(self._view[: self.count * TRAIN.size])


class FillTable:
    """Ranges of send rings to be framed as runs, and to be sealed if a C cipher is named, in one C call.

    Rows name ciphers by address, as those of a `ProtectTable` do.
    """

    def __init__(self, capacity: int = 256) -> None:
        self.capacity = capacity
        self.count = 0
        self._rows, self._view = _rows("bw_fill[]", capacity)

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0

    def append(
        self,
        counter: int,
        offset: int,
        src: int,
        src_mask: int,
        cid: int,
        stream: int,
        slot: int,
        start: int,
        length: int,
        size: int,
        count: int,
        fin: int,
        cipher: int = 0,
    ) -> int:
        """`length` bytes from stream offset `offset` on become `count` packets of `size` bytes (42 of them
        overhead).

        src and src_mask are the `address` and `mask` of a `StreamRing`, which must live until `run`. The last
        packet is as short as its data. cipher is the `handle` of an `Aead`; 0 leaves the packets unsealed. Returns
        the row; raises `IndexError` when the table is full.
        """
        row = self.count
        if row >= self.capacity:
            raise IndexError(f"the table holds {self.capacity} runs and is full")
        FILL.pack_into(
            self._view,
            row * FILL.size,
            counter,
            offset,
            src,
            src_mask,
            cipher,
            cid,
            stream,
            slot,
            start,
            length,
            size,
            count,
            fin,
            0,
        )
        self.count = row + 1
        return row

    def run(self, ring: BufferRing) -> None:
        """Write all packets; those without a cipher but for their tags.

        Raises `ValueError` naming the first row that breaks a rule (the rows before it were written), or `CryptoError`
        when a library failed to seal. Then nothing of the table may be sent, and the counters of all its rows are used
        up.
        """
        done = lib.bw_fill_runs(ring.handle, self._rows, self.count)
        if done == self.count:
            return
        if done >= 0:
            error = _FILL_ERROR.unpack_from(self._view, done * FILL.size)[0]
            if error != -errno.EINVAL:
                raise CryptoError(f"fill row {done} was not sealed: {describe(error)}")
            # Without addresses, which tell nobody anything.
            _, offset, *_, stream, slot, start, length, size, count, fin, _ = FILL.unpack_from(
                self._view, done * FILL.size
            )
            raise ValueError(
                f"fill row {done} breaks a rule: {length} bytes of stream {stream} from {offset} on as {count} "
                f"packets of {size} bytes, fin {fin}, at {start} in slot {slot}"
            )
        raise ValueError(_refusal("fill", ring, done, FILL, self._view))


class GatherTable:
    """Opened runs whose stream bytes go to receive rings, in one C call."""

    def __init__(self, capacity: int = 1024) -> None:
        self.capacity = capacity
        self.count = 0
        self._rows, self._view = _rows("bw_gather[]", capacity)

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0

    def append(
        self,
        mask: int,
        offset: int,
        dst: int,
        dst_mask: int,
        low: int,
        high: int,
        stream: int,
        slot: int,
        start: int,
        size: int,
        last: int,
        count: int,
    ) -> int:
        """The packets in `mask` of a run, whose packet 0 has (or would have) the stream offset `offset`.

        dst and dst_mask are the `address` and `mask` of a `StreamRing`, which must live until `run`. Nothing
        below `low` or from `high` on is written. Returns the row; raises `IndexError` when the table is full.
        """
        row = self.count
        if row >= self.capacity:
            raise IndexError(f"the table holds {self.capacity} runs and is full")
        GATHER.pack_into(
            self._view,
            row * GATHER.size,
            mask,
            offset,
            dst,
            dst_mask,
            low,
            high,
            stream,
            slot,
            start,
            size,
            last,
            count,
            0,
            0,
        )
        self.count = row + 1
        return row

    def run(self, ring: BufferRing) -> None:
        """Copy what can be copied; `result` tells what was.

        Raises `ValueError` naming the first row that breaks a rule; the rows before it were done.
        """
        done = lib.bw_gather_runs(ring.handle, self._rows, self.count)
        if done != self.count:
            raise ValueError(_refusal("gather", ring, done, GATHER, self._view))

    def result(self, row: int) -> tuple[int, int]:
        """(mask of the packets taken, 1 when the last packet was taken and carries FIN).

        A packet is taken when its plaintext is one STREAM frame of this stream at the expected offset, below
        `high`.
        """
        fin, taken = _GATHER_RESULT.unpack_from(self._view, row * GATHER.size + _GATHER_RESULT_AT)
        return taken, fin

    def results(self) -> Iterator[tuple[int, int]]:
        """(1 when the last packet was taken and carries FIN, mask of the packets taken) of each row."""
        return _GATHER_RESULTS.iter_unpack(self._view[: self.count * GATHER.size])


class ProtectTable:
    """Runs to be sealed, or runs to be opened, in one C call; each row with a cipher of its own.

    Rows name ciphers by address (`Aead.handle`), so whoever fills the table keeps the objects alive until `seal` or
    `open` returned.
    """

    def __init__(self, capacity: int = 256) -> None:
        self.capacity = capacity
        self.count = 0
        self._rows, self._view = _rows("bw_protect[]", capacity)

    def clear(self) -> None:
        """Forget all rows."""
        self.count = 0

    def append(
        self, cipher: int, slot: int, start: int, size: int, last: int, count: int, mask: int = 0xFFFF_FFFF_FFFF_FFFF
    ) -> int:
        """`count` packets of `size` bytes, the last of `last` bytes, from byte `start` of a slot on.

        cipher is the `handle` of an `Aead`, and not 0. mask says which packets are to be opened; sealing does not
        look at it. Returns the row; raises `IndexError` when the table is full.
        """
        row = self.count
        if row >= self.capacity:
            raise IndexError(f"the table holds {self.capacity} runs and is full")
        PROTECT.pack_into(self._view, row * PROTECT.size, cipher, mask, 0, slot, start, size, last, count, 0)
        self.count = row + 1
        return row

    def seal(self, ring: BufferRing) -> None:
        """Seal every row in place, in their order.

        Raises `ValueError` naming the first row that breaks a rule, or `CryptoError` when a library failed. Then
        nothing of the table may be sent, and the counters of all its rows are used up.
        """
        done = lib.bw_seal_runs(ring.handle, self._rows, self.count)
        if done != self.count:
            self._refuse("seal", ring, done)

    def open(self, ring: BufferRing) -> None:
        """Open every row in place; `opened` and `results` tell which packets verified.

        Raises `ValueError` naming the first row that breaks a rule; all others were opened. Where a library had no
        memory for a cipher, nothing of that row verified, and `results` says so.
        """
        good = lib.bw_open_runs(ring.handle, self._rows, self.count)
        if good == self.count:
            return
        if good < 0:
            self._refuse("open", ring, good)
        for row, (_, error) in enumerate(self.results()):
            if error == -errno.EINVAL:
                self._refuse("open", ring, row)

    def opened(self, row: int) -> int:
        """The mask of those packets of one row that verified."""
        opened: int = _PROTECT_RESULTS.unpack_from(self._view, row * PROTECT.size)[0]
        return opened

    def results(self) -> Iterator[tuple[int, int]]:
        """(mask of the packets that verified, 0 or a negative errno) of each row."""
        return _PROTECT_RESULTS.iter_unpack(self._view[: self.count * PROTECT.size])

    def _refuse(self, name: str, ring: BufferRing, done: int) -> NoReturn:
        if done < 0:
            raise ValueError(_refusal(name, ring, done, PROTECT, self._view))
        # Without the cipher's address, which tells nobody anything.
        _, _, _, slot, start, size, last, count, error = PROTECT.unpack_from(self._view, done * PROTECT.size)
        if error != -errno.EINVAL:
            raise CryptoError(f"{name} row {done} failed: {describe(error)}")
        raise ValueError(
            f"{name} row {done} breaks a rule: slot {slot}, start {start}, {count} packets of {size} bytes, "
            f"the last of {last}"
        )


def _refusal(name: str, ring: BufferRing, done: int, layout: Struct, view: memoryview) -> str:
    if done < 0:
        return f"{name}: {'the ring is closed' if ring.handle == ffi.NULL else describe(done)}"
    return f"{name} row {done} breaks a rule: {layout.unpack_from(view, done * layout.size)}"
