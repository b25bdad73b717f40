"""What changes in the environment from worker to worker, and from one invocation to the next.

`os.environ` goes through several functions for each variable, and glibc keeps every value that
`setenv` was ever given: with the trace id that is 140 bytes an invocation, for as long as a worker
lives. So the trace id stands in memory of ours, where it is written over.
"""

import os

TRACE = b"_X_AMZN_TRACE_ID"

_HEAD = len(TRACE) + 1
# The host sends none of more than 512 bytes.
_ROOM = 1024
# `ctypes` is not worth its import to a worker with fewer invocations.
_MANY = 1000


def ways():
    """What sets a variable for C and for programs, and where Python's own ones are: what setting
    one in `os.environb` comes to, by fewer steps."""
    values = getattr(os.environb, "_data", None)
    if type(values) is dict and values is getattr(os.environ, "_data", None):
        return os.putenv, values
    return _nothing, os.environb


def _nothing(name, value):
    pass


def tracer(at_once=False):
    """A function that sets the trace id, text; `at_once` without the first thousand times."""
    put, values = ways()
    if put is _nothing:
        return lambda text: values.__setitem__(TRACE, text.encode())
    place = _place() if at_once else None
    left = _MANY
    last = None

    def trace(text):
        nonlocal place, left, last
        value = text.encode()
        end = _HEAD + len(value)
        if place is not None and end < _ROOM:
            view, attach = place
            view[_HEAD : end + 1] = value + b"\0"
            if last is None or values.get(TRACE) is not last:
                # The first, or the function has set it, or taken it out.
                attach()
            values[TRACE] = last = value
            return
        put(TRACE, value)
        values[TRACE] = value
        last = None
        left -= 1
        if left == 0:
            place = _place()

    return trace


def _place():
    """Memory for the trace id, and what makes that the variable; None without `ctypes`."""
    try:
        import ctypes

        library = ctypes.CDLL(None)
        putenv, malloc = library.putenv, library.malloc
    except (ImportError, OSError, AttributeError):
        return None
    # Not Python's: the variable is there until the process is gone.
    malloc.restype = ctypes.c_void_p
    address = malloc(ctypes.c_size_t(_ROOM))
    if address is None:
        return None
    view = memoryview((ctypes.c_char * _ROOM).from_address(address)).cast("B")
    view[:_HEAD] = TRACE + b"="
    variable = ctypes.c_void_p(address)
    return view, lambda: putenv(variable)
