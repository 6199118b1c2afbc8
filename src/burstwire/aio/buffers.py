"""Any object with the buffer protocol (bytes, bytearray, memoryview, array, ndarray …), seen as plain bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["byte_view", "writable_view"]


def byte_view(data: ReadableBuffer) -> memoryview:
    """`data` as a one-dimensional view of bytes; copied only if it does not lie in one piece.

    Raises TypeError for what is not a buffer, such as str.
    """
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"a bytes-like object is needed, not {type(data).__name__}") from None
    if view.ndim == 1 and view.format == "B" and view.c_contiguous:
        return view
    if not view.nbytes:
        return memoryview(b"")  # cast() refuses views with a zero in their shape
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def writable_view(buffer: WriteableBuffer) -> memoryview:
    """`buffer` as a one-dimensional writable view of bytes.

    Raises TypeError for what is no buffer or read-only, ValueError for one that does not lie in one piece.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"a writable bytes-like object is needed, not {type(buffer).__name__}") from None
    if view.readonly:
        raise TypeError(f"the buffer ({type(buffer).__name__}) is read-only")
    if not view.c_contiguous:
        raise ValueError("the buffer does not lie in one piece")
    if view.ndim == 1 and view.format == "B":
        return view
    return view.cast("B") if view.nbytes else memoryview(bytearray())
