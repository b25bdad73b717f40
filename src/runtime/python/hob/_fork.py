"""Two ways to make a worker that is a child of the server, not of the zygote.

The first is one system call: a fork whose child has the same parent as the caller. It goes around
the C library's own `fork`, so it is taken only where that is known to do no harm: glibc, one
thread (`_zygote` has looked), and the thread's id corrected as glibc would. The second works
everywhere: the child of a child that ends at once is adopted by the server.

Every page that a process touches after a fork is copied, which costs more than anything that is
done with it; and what the zygote touches between two forks, each worker keeps the old copy of. So
the first way does next to nothing in the zygote, and what workers call was looked up beforehand,
arguments and all.
"""

import errno
import gc
import os
import sys

import _socket

from . import _worker

_SIGCHLD = 17
_SIGKILL = 9
_CLONE_PARENT = 0x00008000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
_PR_SET_PDEATHSIG = 1

# Bytes of the C library's record of a thread that are looked at: fewer than it has anywhere. The
# thread's id is at 104 to 720.
_RECORD = 1024

# Number of clone, and whether the last two of its five arguments are (child's tid, thread pointer)
# or the other way round.
_CLONE = {
    "x86_64": (56, True),
    "aarch64": (220, False),
    "riscv64": (220, False),
    "arm": (120, False),
    "i386": (120, False),
}

FORK = 1

# Descriptors of one request: the worker's wire, the end of its log, the pipe with its events.
GIFTS = 3
# Bytes of one read: more than a request has.
READ = 65536


class Library:
    """C functions with their arguments, converted once: `function(*arguments)` is the call.

    They keep the interpreter's lock, as a child has only this thread.
    """

    def __init__(self, ctypes):
        self.ctypes = ctypes
        self._quick = ctypes.PyDLL(None)
        self._telling = ctypes.PyDLL(None, use_errno=True)
        self._long = ctypes.c_long.from_param
        self._text = ctypes.c_char_p.from_param

    def call(self, name, *arguments):
        """A call of a function that returns a `long`, or what may be taken for one."""
        function = self._quick[name]
        function.restype = self.ctypes.c_long
        return function, tuple(map(self._convert, arguments))

    def _convert(self, value):
        if isinstance(value, int):
            return self._long(value)
        return self._text(value) if isinstance(value, bytes) else value

    def procedure(self, name):
        """A function without arguments and result."""
        function = self._quick[name]
        function.restype = None
        return function

    def again(self, name, arguments):
        """Calls once more what has failed: its result, and its error number."""
        function = self._telling[name]
        function.restype = self.ctypes.c_long
        result = function(*arguments)
        return result, self.ctypes.get_errno()


def library():
    """The C library, if Python knows a way there."""
    try:
        import ctypes
    except ImportError:
        return None
    return Library(ctypes)


def ties(library):
    """What a child does at once: a group of its own, and no life without the server."""
    if library is None:
        return [(os.setpgid, (0, 0))]
    return [
        library.call("setpgid", 0, 0),
        library.call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0),
    ]


def choose(library, child):
    """How this process makes workers: `serve(control)` returns in each of them, at its end."""
    double = _Double(child)
    if os.environ.pop("HOB_FORK", None) == "double" or library is None:
        return double
    return _Clone.possible(library, double) or double


def _machine(ctypes):
    """The architecture of this program, which may be narrower than the kernel's."""
    machine = os.uname().machine
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        return machine
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    return "i386" if machine in ("x86_64", "i386", "i486", "i586", "i686") else None


class _Clone:
    """By `clone(CLONE_PARENT)`, between what Python does around its own fork."""

    @classmethod
    def possible(cls, library, double):
        machine = _machine(library.ctypes)
        try:
            if machine not in _CLONE or not os.confstr("CS_GNU_LIBC_VERSION"):
                return None
        except (OSError, ValueError):
            return None
        place = _place_of_id(library.ctypes)
        return cls(library, double, place, *_CLONE[machine]) if place else None

    def __init__(self, library, double, place, number, tid_first):
        self._library = library
        self._double = double
        self._prepared = double.prepared
        self._before, self._parent, self._child = map(
            library.procedure, ("PyOS_BeforeFork", "PyOS_AfterFork_Parent", "PyOS_AfterFork_Child")
        )
        flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | _SIGCHLD
        last = (place, 0) if tid_first else (0, place)
        self._clone, self._arguments = library.call("syscall", number, flags, 0, 0, *last)

    def serve(self, control):
        """Forks for each request. Python's hooks before a fork run once, for all of them."""
        _warm_keys(self._library.ctypes)
        post = _Post(self._library, control)
        data, words, length, beside, gifts = post.views
        room, whole = post.room, post.whole
        receive, message = post.receive
        clone, arguments = self._clone, self._arguments
        settle, say, live = self._prepared.settle, self._prepared.say, self._prepared.live
        child, read, close = self._child, control.read, os.close
        self._before()
        # All that was made until now: a collection in a worker leaves it alone.
        gc.freeze()
        while True:
            words[5] = room
            # What came with the request before is no gift of this one.
            beside[0] = 0
            got = receive(*message)
            if got != length[0] + 4 or beside[0] != whole:
                break
            pid = clone(*arguments)
            if pid == 0:
                settle()
                number, environment = read(data[:got].tobytes())
                # Before Python's hooks: whoever hangs in one must be known to the server.
                say(number)
                child()
                return live(environment, gifts[0], gifts[1], gifts[2])
            if pid < 0:
                break
            close(gifts[0])
            close(gifts[1])
            close(gifts[2])
        # Not one whole request, or no fork: that is seen to at leisure, and so is what follows it.
        control.take(*post.content(got))
        self._parent()
        return _serve(control, self.fork, self._prepared)

    def fork(self):
        """0 in the child, its id in the zygote, or None."""
        self._before()
        pid, error = self._library.again("syscall", self._arguments)
        if pid == 0:
            self._child()
            self._prepared.settle()
            return 0
        self._parent()
        if pid > 0:
            return pid
        if error in (errno.EAGAIN, errno.ENOMEM):
            return None
        # Refused here for good: by an emulator, or in the first process of a container.
        self.fork = self._double.fork
        return self.fork()


def _place_of_id(ctypes):
    """Where glibc keeps this thread's id, which only its own `fork` would put right in a child.

    The kernel knows a place too, but not if it was built without `CHECKPOINT_RESTORE`, and since
    glibc 2.43 it is another one. So the record of the thread is looked through, and the place is
    the one that `pthread_getcpuclockid` goes by. None if there is no such.
    """
    python = ctypes.PyDLL(None)
    python.pthread_self.restype = ctypes.c_void_p
    record = python.pthread_self()
    size = ctypes.sizeof(ctypes.c_int)
    words = (ctypes.c_int * (_RECORD // size)).from_address(record)
    clock = ctypes.c_int()
    clock_of_thread = python.pthread_getcpuclockid
    arguments = ctypes.c_void_p(record), ctypes.byref(clock)
    own = os.getpid()
    for at, word in enumerate(words):
        if word != own:
            continue
        words[at] = own + 1
        clock_of_thread(*arguments)
        words[at] = own
        # The kernel has the id of a thread in its clock's, from the fourth bit on, inverted.
        if ~(clock.value >> 3) == own + 1:
            return record + at * size
    return None


def _warm_keys(ctypes):
    """Has the C library looked up what Python's hook in the child calls."""
    key = (ctypes.c_int * 4)()
    python = ctypes.PyDLL(None)
    if python.PyThread_tss_create(ctypes.byref(key)) == 0:
        python.PyThread_tss_delete(ctypes.byref(key))


class _Post:
    """Where requests arrive: memory that is the same for all of them."""

    def __init__(self, library, control):
        ctypes = library.ctypes
        word = ctypes.sizeof(ctypes.c_size_t)
        self.whole = _socket.CMSG_LEN(4 * GIFTS)
        self.room = _socket.CMSG_SPACE(4 * 4 * GIFTS)
        data = ctypes.create_string_buffer(READ)
        beside = ctypes.create_string_buffer(self.room)
        address = ctypes.addressof
        # `iovec`, and glibc's `msghdr`: a name and its length, the former and how many, what comes
        # beside and its length, flags; each as wide as a pointer, or padded to it.
        vector = (ctypes.c_size_t * 2)(address(data), READ)
        message = (ctypes.c_size_t * 7)(0, 0, address(vector), 1, address(beside), self.room, 0)
        self._kept = vector
        view = memoryview(data).cast("B")
        at = self.whole - 4 * GIFTS
        extra = memoryview(beside).cast("B")
        # The data, the words of the message, the length of a frame, that of what came beside, and
        # the descriptors there.
        self.views = (
            view,
            memoryview(message).cast("B").cast("N"),
            view[:4].cast("I"),
            extra[:word].cast("N"),
            extra[at:].cast("i"),
        )
        descriptor = control.fileno()
        flags = _socket.MSG_CMSG_CLOEXEC
        self.receive = library.call("recvmsg", descriptor, ctypes.byref(message), flags)

    def content(self, got):
        """What has come: bytes, and descriptors."""
        if got <= 0:
            return b"", ()
        data, words, _, beside, gifts = self.views
        # Nothing else than descriptors comes beside a message here.
        count = (beside[0] - self.whole) // 4 + GIFTS if words[5] else 0
        return data[:got].tobytes(), gifts[:count].tolist()


class Control:
    """The host's requests. Descriptors arrive with a frame's first byte and are kept in order."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._data = b""
        self._gifts = []

    def fileno(self):
        return self._descriptor

    def next(self):
        """A worker's number as it came, environment and descriptors; ends with the stream."""
        while not self._complete():
            if not self._receive():
                # What the function wants done at its end is the workers' to do.
                os._exit(0)
        size = 4 + int.from_bytes(self._data[:4], "little")
        frame, self._data = self._data[:size], self._data[size:]
        if len(self._gifts) < GIFTS:
            raise _worker.Broken("a request without its descriptors")
        gifts, self._gifts = self._gifts[:GIFTS], self._gifts[GIFTS:]
        return *self.read(frame), *gifts

    @staticmethod
    def read(frame):
        """The number of a request as it came, and the environment."""
        if frame[4] != FORK:
            raise _worker.Broken(f"message {frame[4]} for a zygote")
        at = 5
        while frame[at] > 127:
            at += 1
        at += 1
        number = frame[5:at]
        length = frame[at]
        if length > 127:
            length, at = _worker.read_varint(frame, at)
        else:
            at += 1
        return number, frame[at : at + length]

    def _complete(self):
        data = self._data
        return len(data) >= 4 and len(data) - 4 >= int.from_bytes(data[:4], "little")

    def _receive(self):
        room = _socket.CMSG_SPACE(4 * 4 * GIFTS)
        socket = _socket.socket(fileno=self._descriptor)
        try:
            data, extra, flags, _ = socket.recvmsg(READ, room, _socket.MSG_CMSG_CLOEXEC)
        finally:
            socket.detach()
        for level, kind, gifts in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(gifts) - 3, 4):
                    self._gifts.append(int.from_bytes(gifts[at : at + 4], sys.byteorder))
        if flags & _socket.MSG_CTRUNC:
            raise _worker.Broken("descriptors did not arrive")
        self._data += data
        return bool(data)

    def take(self, data, gifts):
        """What was received elsewhere."""
        self._data += data
        self._gifts += gifts

    def forget(self):
        """In a worker: what came for others."""
        for gift in self._gifts:
            os.close(gift)


class _Double:
    """By forking twice."""

    def __init__(self, prepared):
        self.prepared = prepared

    def serve(self, control):
        return _serve(control, self.fork, self.prepared)

    def fork(self):
        """0 in the child, its id in the zygote, or None."""
        go, hold = os.pipe()
        try:
            between = os.fork()
        except OSError:
            between = None
        if between == 0:
            self._between(go, hold)
            return 0
        os.close(go)
        status = os.waitpid(between, 0)[1] if between else 1
        # Only now is the worker the server's: it waits for this.
        os.close(hold)
        return None if status else between

    def _between(self, go, hold):
        """In the child: forks and ends. Returns in the child's child."""
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid:
            os._exit(0)
        os.close(hold)
        os.read(go, 1)
        os.close(go)
        self.prepared.settle()


def _serve(control, fork, prepared):
    """Forks for each request, one step after the other."""
    gc.freeze()
    while True:
        number, environment, *gifts = control.next()
        pid = fork()
        if pid == 0:
            control.forget()
            prepared.say(number)
            return prepared.live(environment, *gifts)
        for gift in gifts:
            os.close(gift)
        if pid is None:
            prepared.say(number, 0)
