"""A cipher for C that fails when a test wants it to."""

from __future__ import annotations

import ctypes
import errno
from typing import Self


class FailingCipher:
    """What C takes for a cipher: it counts its packets, and refuses one of them as a library would."""

    def __init__(self, refused: int) -> None:
        self.sealed = 0
        pointer, u32 = ctypes.c_void_p, ctypes.c_uint32

        @ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, u32, pointer, u32, pointer)
        def seal(*_: object) -> int:
            if self.sealed == refused:
                return -errno.EIO
            self.sealed += 1
            return 0

        self._seal = seal
        self._calls = (pointer * 3)(ctypes.cast(seal, pointer).value, 0, 0)
        self._cipher = (pointer * 1)(ctypes.addressof(self._calls))
        self.handle = ctypes.addressof(self._cipher)

    def for_size(self, size: int) -> Self:
        """Itself: so it does for an `Aead` that only a table of runs uses."""
        return self
