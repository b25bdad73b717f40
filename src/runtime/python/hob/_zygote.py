"""The zygote: a process that has imported the handler and forks workers that need not.

It runs no event. Its control socket, on which the host asks for workers, is its standard input;
each worker gets a wire and a log of its own with the request for it. Whatever makes the process
unfit to be forked (a second thread, a connection) makes it the one worker instead.
"""

import gc
import os
import stat
import sys

import _signal
import _socket

import hob

from . import _fork, _logs, _main, _tmp, _worker

FORK = 1
FORKED = b"\x05"
UNFORKABLE = b"\x06"

_TRACE = "_X_AMZN_TRACE_ID"

# Descriptors of one request: the worker's wire, the end of its log.
_GIFTS = 2
# Of one read: a request with its environment.
_READ = 65536
# Characters of a refusal: a line for people.
_REASON = 500


class _Control:
    """The host's requests. Descriptors arrive with a frame's first byte and are kept in order."""

    def __init__(self, descriptor):
        self._socket = _socket.socket(fileno=descriptor)
        self._data = b""
        self._gifts = []

    def next(self):
        """A worker's number, environment, wire and log; None at the end of the stream."""
        while not self._complete():
            if not self._receive():
                return None
        size = 4 + int.from_bytes(self._data[:4], "little")
        frame, self._data = self._data[:size], self._data[size:]
        if frame[4] != FORK:
            raise _worker.Broken(f"message {frame[4]} for a zygote")
        if len(self._gifts) < _GIFTS:
            raise _worker.Broken("a request without its descriptors")
        (wire, log), self._gifts = self._gifts[:_GIFTS], self._gifts[_GIFTS:]
        number, at = _worker.read_varint(frame, 5)
        length, at = _worker.read_varint(frame, at)
        return number, frame[at : at + length], wire, log

    def _complete(self):
        data = self._data
        return len(data) >= 4 and len(data) - 4 >= int.from_bytes(data[:4], "little")

    def _receive(self):
        room = _socket.CMSG_SPACE(4 * 4 * _GIFTS)
        data, extra, flags, _ = self._socket.recvmsg(_READ, room, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, gifts in extra:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(gifts) - 3, 4):
                    self._gifts.append(int.from_bytes(gifts[at : at + 4], sys.byteorder))
        if flags & _socket.MSG_CTRUNC:
            raise _worker.Broken("descriptors did not arrive")
        self._data += data
        return bool(data)

    def say(self, *parts):
        _worker.send(self._socket.fileno(), *parts)

    def close(self):
        """In a worker: nothing of the zygote's conversation stays open."""
        self._socket.close()
        for gift in self._gifts:
            os.close(gift)


def run(descriptor, how_tmp=""):
    """Serves requests for workers. Returns only in a worker: its wire, and the handler."""
    tmp = _tmp.Tmp(how_tmp)
    server = os.getppid()
    # A thread pool that nobody asked for would make every numeric program unfit.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    ours = _descriptors()
    handler = _main.load(descriptor)
    before, after = _hooks()
    try:
        while before:
            function, arguments, named = before.pop()
            function(*arguments, **named)
    except Exception:
        _main.fail(descriptor)
    own_descriptors = hob._functions or after
    reason = unfit(None if own_descriptors else ours) or tmp.unfit()
    control = _Control(descriptor)
    if reason:
        line = " ".join(reason.split())[:_REASON].encode("utf-8", "replace")
        control.say(_worker.HELLO, _worker.frame(UNFORKABLE, line))
        request = control.next()
        if request is None:
            _leave()
        number, environment, wire, log = request
        control.say(_forked(number, os.getpid()))
    else:
        wire, log, environment = _serve(control, server, tmp)
    control.close()
    _become(wire, log, environment)
    _main.get_ready(wire, after)
    return wire, handler


def _serve(control, server, tmp):
    """Forks whenever the host asks; returns in the new worker."""
    terminated = _signal.getsignal(_signal.SIGTERM)
    # None: an action that is not Python's, which could not be restored.
    if terminated not in (_signal.SIG_DFL, None):
        # It ends the zygote; the function's own action is for the workers.
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    fork = _fork.choose()
    collects = gc.isenabled()
    _warm()
    gc.collect()
    gc.disable()
    gc.freeze()
    control.say(_worker.HELLO + _worker.READY)
    while True:
        request = control.next()
        if request is None:
            _leave()
        number, environment, wire, log = request
        pid = fork(server)
        if pid == 0:
            _renew(tmp)
            break
        os.close(wire)
        os.close(log)
        control.say(_forked(number, pid or 0))
    if terminated not in (_signal.SIG_DFL, None):
        _signal.signal(_signal.SIGTERM, terminated)
    if collects:
        gc.enable()
    _reseed()
    return wire, log, environment


def _renew(tmp):
    try:
        tmp.renew()
    except OSError as error:
        # Into the log of the zygote, which is of the same function. No hooks: they are a worker's.
        os.write(2, f"{error.strerror}\n".encode())
        os._exit(1)


def _forked(number, pid):
    return _worker.frame(FORKED + _worker.varint(number) + _worker.varint(pid))


def _leave():
    """Ends the zygote. What the function wants done at its end is the workers' to do."""
    os._exit(0)


def _hooks():
    """What the function has registered around the snapshot, by whichever copy of AWS's module."""
    module = sys.modules.get("snapshot_restore_py")
    if module is None:
        return [], []
    return module.get_before_snapshot(), module.get_after_restore()


def _warm():
    """Goes through what every invocation goes through, but for the handler: workers share it."""
    # One frame is one read.
    host, wire = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    text = bytes((1,)) + b"x"
    head = bytes((0, 1)) + b"\x80" * 5 + b"\1" + text * 3 + b"\0\0"
    trace, request = os.environ.get(_TRACE), _logs.REQUEST
    for _ in range(2):
        host.send(_worker.frame(head, b'{"a": [1.5, "b"]}'))
    host.shutdown(_socket.SHUT_WR)
    _worker.serve(wire.fileno(), lambda event, context: event)
    host.close()
    wire.close()
    _logs.REQUEST = request
    if trace is None:
        os.environ.pop(_TRACE, None)
    else:
        os.environ[_TRACE] = trace
    _worker.lambda_context._facts = None


def _become(wire, log, environment):
    """Makes the process the worker that the host asked for."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for pair in environment.split(b"\0"):
        name, found, value = pair.partition(b"=")
        if found:
            os.environb[name] = value


def _reseed():
    """Generators of random numbers that the function has made must differ between workers.

    `random` sees to itself, by a hook of its own.
    """
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)


def _descriptors():
    """Numbers of the open descriptors, without that of the listing itself."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.add(int(name))
    return found


def unfit(ours):
    """Why the process must not be forked, in one line; None if it may.

    `ours` are the descriptors that are no concern; None if none is.
    """
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        return _name_threads(threads)
    if ours is None:
        return None
    for descriptor in sorted(_descriptors() - ours):
        what = _name_descriptor(descriptor)
        if what:
            return f"the import left {what} open"
    return None


def _name_threads(threads):
    threading = sys.modules.get("threading")
    known = {}
    if threading is not None:
        known = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    names = []
    for thread in threads:
        if thread == str(os.getpid()):
            continue
        name = known.get(thread)
        if name is None:
            try:
                with open(f"/proc/self/task/{thread}/comm", "rb") as comm:
                    name = comm.read().decode("utf-8", "replace").strip()
            except OSError:
                continue
        names.append(name)
    return "the import left threads running: " + ", ".join(sorted(names))


def _name_descriptor(descriptor):
    """What an open descriptor is; None if sharing it harms nobody."""
    try:
        status = os.fstat(descriptor)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        # Closed meanwhile.
        return None
    kind = status.st_mode
    # Major number 1: null, zero, full, random, urandom.
    if stat.S_ISCHR(kind):
        return None if os.major(status.st_rdev) == 1 else f"a device ({name})"
    if stat.S_ISSOCK(kind):
        return "a socket"
    if stat.S_ISFIFO(kind):
        return "a pipe"
    if stat.S_ISREG(kind):
        return f"a file ({name})"
    if stat.S_ISDIR(kind):
        return f"a directory ({name})"
    return name.replace("anon_inode:", "an ").replace("[", "").replace("]", "")
