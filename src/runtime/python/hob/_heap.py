"""Closes the gaps in the C library's heap, so that what is made afterwards lies together.

What workers use is made last, but would go into gaps among what the import has left, all over the
heap, and each of those pages is copied by each worker. Python's own small objects are not worth it:
to close their gaps saves workers as much, and takes half a MiB more.
"""

import os

# Of what a gap is filled with: bytes of one piece, and of all of them.
_SIZES = (*range(4032, 1032, -64), *range(1032, 8, -16))
_MOST = 1 << 20
# Larger than any gap that matters, smaller than what glibc would bring from elsewhere.
_MARK = 100_000


def close_gaps():
    """Takes what is free below the heap's end, for ever."""
    try:
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            return
        import ctypes
    except (ImportError, OSError, ValueError):
        # Another C library, or no way there.
        return
    python = ctypes.PyDLL(None)
    allocate, free = python.malloc, python.free
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = (ctypes.c_size_t,)
    free.argtypes = (ctypes.c_void_p,)
    mark = allocate(_MARK)
    left = _MOST
    for size in _SIZES:
        while mark and left > 0:
            piece = allocate(size)
            left -= size
            if piece is None or piece > mark:
                # From the end of the heap: there are no more gaps for it.
                free(piece)
                break
    free(mark)
