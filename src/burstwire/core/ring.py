"""Memory that is allocated once: slots for trains, and the byte rings of streams.

`BufferRing` is the Python face of csrc/ring.c. Its slots are leased and returned, last returned first leased,
and the books (`leased`, `high_water`, `exhausted`) must balance: every lease has exactly one release.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from burstwire.core._burstwire import ffi, lib

__all__ = ["BufferRing", "PacketViews", "StreamRing"]

PacketViews: TypeAlias = tuple[memoryview, memoryview, memoryview, memoryview]
"""One packet: nonce (bytes 1 to 12), header (0 to 12), plaintext (13 up to the tag), plaintext and tag
together.

The nonce is the header as it lies: connection id, then counter."""

HEADER = 13
TAG = 16


class BufferRing:
    """`slots` equal pieces of one page-aligned, populated arena.

    Views and sockets keep the memory alive as long as they need it, so closing the ring is always safe.
    Leases and releases may come from any thread; `packets` is for one thread at a time.

    Attributes:
        views: one writable view a slot, made once.
        slots: how many there are.
        slot_size: bytes of each.
    """

    def __init__(self, slots: int = 16, slot_size: int = 65536) -> None:
        """Raises `ValueError` when a number is out of range (1 to 4,096 slots of 64 to 2^20 bytes), or
        `MemoryError`.
        """
        if not 1 <= slots <= 4096 or not 64 <= slot_size <= 1 << 20:
            raise ValueError(
                f"{slots:,} slots of {slot_size:,} bytes: possible are 1 to 4,096 of 64 to 1,048,576 bytes"
            )
        arena = lib.bw_arena_new(slots, slot_size)
        if arena == ffi.NULL:
            raise MemoryError(f"no memory for {slots:,} slots of {slot_size:,} bytes")
        # The owner of the memory: a view over it keeps it alive, not so one over
        # a pointer derived from it.
        self._arena = ffi.gc(arena, lib.bw_arena_free, slots * slot_size)
        self.handle: Any = lib.bw_arena_ring(self._arena)
        self._books = ffi.new("bw_ring_books *")
        self.slots = slots
        self.slot_size = slot_size
        whole = memoryview(ffi.buffer(self._arena, slots * slot_size))
        self.views = tuple(whole[i * slot_size : (i + 1) * slot_size] for i in range(slots))
        self._cached: dict[int, list[list[PacketViews]]] = {}

    def lease(self) -> int:
        """A slot, or -1 when all are leased (counted in `exhausted`)."""
        slot = lib.bw_ring_lease(self.handle)
        if slot >= 0:
            return slot
        self._open()
        return -1

    def release(self, slot: int) -> None:
        """Give a slot back. Raises `ValueError` when it is not leased or does not exist."""
        if slot < 0 or lib.bw_ring_release(self.handle, slot) != 0:
            self._open()
            known = 0 <= slot < self.slots
            raise ValueError(f"slot {slot} is not leased" if known else f"there is no slot {slot} among {self.slots}")

    @property
    def leased(self) -> int:
        """Slots handed out at this moment."""
        return int(self._read().leased)

    @property
    def high_water(self) -> int:
        """The most slots that were ever handed out at the same time."""
        return int(self._read().high_water)

    @property
    def leases(self) -> int:
        """Slots handed out since the start."""
        return int(self._read().leases)

    @property
    def exhausted(self) -> int:
        """How often a lease found nothing."""
        return int(self._read().exhausted)

    def packets(self, slot: int, start: int, size: int, count: int) -> list[PacketViews]:
        """Views of at least `count` packets of `size` bytes that lie side by side from `start` on.

        Kept only for runs of two or more at the start of a slot, and for the two sizes used last: those are
        the sizes of the path's MTU. A lone packet or an odd size is cut anew and does not push them out.
        """
        if start == 0:
            cached = self._cached.get(size)
            if cached is None and count > 1:
                while len(self._cached) >= 2:
                    del self._cached[next(iter(self._cached))]
                cached = self._cached[size] = [[] for _ in range(self.slots)]
            if cached is not None:
                known = cached[slot]
                if len(known) < count:
                    known += self._cut(slot, len(known) * size, size, count - len(known))
                return known
        return self._cut(slot, start, size, count)

    def _cut(self, slot: int, start: int, size: int, count: int) -> list[PacketViews]:
        if size < HEADER + TAG or start < 0 or start + size * count > self.slot_size:
            raise ValueError(
                f"{count} packets of {size} bytes from {start} on do not fit a slot of {self.slot_size} bytes"
            )
        view = self.views[slot]
        return [
            (
                view[at + 1 : at + HEADER],
                view[at : at + HEADER],
                view[at + HEADER : at + size - TAG],
                view[at + HEADER : at + size],
            )
            for at in range(start, start + size * count, size)
        ]

    def close(self) -> None:
        """Let go of the memory; it is freed when the last view is gone. Closing twice is fine."""
        self.handle = ffi.NULL
        self.views = ()
        self._cached = {}
        self._arena = None

    def _open(self) -> None:
        if self.handle == ffi.NULL:
            raise ValueError("the ring is closed")

    def _read(self) -> Any:
        if self.handle != ffi.NULL:
            lib.bw_ring_read_books(self.handle, self._books)
        return self._books


class StreamRing:
    """A byte ring of a power-of-two size, addressed by stream offset: byte `o` lies at `o & mask`.

    It knows neither what is valid nor what is free; its owner does. Memory is touched only where it is
    written.

    Attributes:
        size: bytes.
        mask: size - 1.
        address: where it lies, for `FillTable` and `GatherTable`; valid as long as this object lives.
        view: all of it, writable.
    """

    __slots__ = ("_memory", "address", "mask", "size", "view")

    def __init__(self, size: int) -> None:
        """Raises `ValueError` unless `size` is a power of two from 1 to 2^39."""
        if not 1 <= size < 1 << 40 or size & (size - 1):
            raise ValueError(f"the size of a stream ring is a power of two, not {size:,}")
        self._memory = ffi.new("uint8_t[]", size)  # calloc: pages come when they are touched
        self.size = size
        self.mask = size - 1
        self.address = int(ffi.cast("uintptr_t", self._memory))
        self.view = memoryview(ffi.buffer(self._memory))

    def write(self, offset: int, data: memoryview | bytes | bytearray) -> None:
        """Copy `data` (bytes, at most `size` of them) to stream offset `offset`."""
        n = len(data)
        at = offset & self.mask
        end = at + n
        if end <= self.size:
            self.view[at:end] = data
            return
        if n > self.size:
            raise ValueError(f"{n:,} bytes do not fit a ring of {self.size:,}")
        straight = self.size - at
        with memoryview(data) as source:
            self.view[at:] = source[:straight]
            self.view[: n - straight] = source[straight:]

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes from stream offset `offset` on."""
        at = offset & self.mask
        end = at + n
        if end <= self.size:
            return bytes(self.view[at:end])
        if n > self.size:
            raise ValueError(f"a ring of {self.size:,} bytes does not hold {n:,}")
        return b"".join((self.view[at:], self.view[: end - self.size]))

    def readinto(self, offset: int, target: memoryview) -> None:
        """Fill `target` (a view of bytes) from stream offset `offset` on."""
        n = len(target)
        at = offset & self.mask
        end = at + n
        if end <= self.size:
            target[:] = self.view[at:end]
            return
        if n > self.size:
            raise ValueError(f"a ring of {self.size:,} bytes does not hold {n:,}")
        straight = self.size - at
        target[:straight] = self.view[at:]
        target[straight:] = self.view[: n - straight]

    def grown(self, size: int, low: int, high: int) -> StreamRing:
        """A bigger ring that holds the same bytes for the offsets `low` to `high`."""
        if size < self.size or high - low > self.size:
            raise ValueError(
                f"a ring of {self.size:,} bytes cannot become one of {size:,} with {high - low:,} bytes in it"
            )
        other = StreamRing(size)
        while low < high:
            at = low & self.mask
            n = min(high - low, self.size - at)
            other.write(low, self.view[at : at + n])
            low += n
        return other
