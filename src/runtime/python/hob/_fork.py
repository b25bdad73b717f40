"""Two ways to make a worker that is a child of the server, not of the zygote.

The first is one system call: a fork whose child has the same parent as the caller. It goes around
the C library's own `fork`, so it is taken only where that is known to do no harm: glibc, one
thread (`_zygote` has looked), and the thread's id corrected as glibc would. The second works
everywhere: the child of a child that ends at once is adopted by the server. Measured on a PC:
1.6 ms to Ready by the first, 2.3 by the second, which also keeps the zygote twice as long.
"""

import errno
import os

_SIGCHLD = 17
_SIGKILL = 9
_CLONE_PARENT = 0x00008000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
_PR_SET_PDEATHSIG = 1
_PR_GET_TID_ADDRESS = 40

# Number of clone, and whether the last two of its five arguments are (child's tid, thread pointer)
# or the other way round.
_CLONE = {
    "x86_64": (56, True),
    "aarch64": (220, False),
    "riscv64": (220, False),
    "arm": (120, False),
    "i386": (120, False),
}


def choose():
    """The fork of this process: `fork(server)` is 0 in the child, its id in the zygote, or None."""
    forced = os.environ.pop("HOB_FORK", None)
    try:
        import ctypes
    except ImportError:
        return _Double(None).fork
    double = _Double(ctypes)
    if forced == "double":
        return double.fork
    clone = _Clone.possible(ctypes, double)
    return clone.fork if clone else double.fork


def _machine(ctypes):
    """The architecture of this program, which may be narrower than the kernel's."""
    machine = os.uname().machine
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        return machine
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    return "i386" if machine in ("x86_64", "i386", "i486", "i586", "i686") else None


class _Settle:
    """In the child: a group of its own, and no life without the server.

    What it calls is looked up beforehand: each look-up in a child would be memory of its own.
    """

    def __init__(self, ctypes):
        self._prctl = None
        if ctypes is not None:
            self._prctl = ctypes.PyDLL(None).prctl
            self._prctl.restype = ctypes.c_int
            self._prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4

    def __call__(self, server):
        os.setpgid(0, 0)
        if self._prctl is not None:
            self._prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            os._exit(0)


class _Clone:
    """By `clone(CLONE_PARENT)`, between what Python does around its own fork."""

    @classmethod
    def possible(cls, ctypes, double):
        machine = _machine(ctypes)
        try:
            if machine not in _CLONE or not os.confstr("CS_GNU_LIBC_VERSION"):
                return None
        except (OSError, ValueError):
            return None
        return cls(ctypes, double, *_CLONE[machine])

    def __init__(self, ctypes, double, number, tid_first):
        self._ctypes = ctypes
        self._double = double
        self._settle = _Settle(ctypes)
        # Functions that keep the interpreter's lock, as the child has only this thread.
        python = ctypes.PyDLL(None, use_errno=True)
        self._before = python.PyOS_BeforeFork
        self._parent = python.PyOS_AfterFork_Parent
        self._child = python.PyOS_AfterFork_Child
        for function in (self._before, self._parent, self._child):
            function.restype = None
            function.argtypes = ()
        self._call = python.syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = (ctypes.c_long,) * 6
        flags = _CLONE_PARENT | _SIGCHLD
        # Where the C library keeps the thread's id. The kernel writes an address of its own width.
        place = ctypes.c_uint64(0)
        python.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0)
        if place.value:
            flags |= _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID
        last = (place.value, 0) if tid_first else (0, place.value)
        self._arguments = (number, flags, 0, 0, *last)

    def fork(self, server):
        self._before()
        pid = self._call(*self._arguments)
        if pid == 0:
            self._child()
            self._settle(server)
            return 0
        self._parent()
        if pid > 0:
            return pid
        if self._ctypes.get_errno() in (errno.EAGAIN, errno.ENOMEM):
            return None
        # Refused here for good: by an emulator, or in the first process of a container.
        self.fork = self._double.fork
        return self._double.fork(server)


class _Double:
    """By forking twice."""

    def __init__(self, ctypes):
        self._settle = _Settle(ctypes)

    def fork(self, server):
        said, tell = os.pipe()
        go, hold = os.pipe()
        try:
            between = os.fork()
        except OSError:
            between = None
        if between == 0:
            self._between(said, tell, go, hold, server)
            return 0
        os.close(tell)
        os.close(go)
        pid = b""
        if between is not None:
            pid = os.read(said, 16)
            os.waitpid(between, 0)
        os.close(said)
        # Only now is the worker the server's: it waits for this.
        os.close(hold)
        return int(pid) if pid else None

    def _between(self, said, tell, go, hold, server):
        """In the child: forks and ends. Returns in the child's child."""
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid:
            os.write(tell, b"%d" % pid)
            os._exit(0)
        os.close(hold)
        os.close(said)
        os.close(tell)
        os.read(go, 1)
        os.close(go)
        self._settle(server)
