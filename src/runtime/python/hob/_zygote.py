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

from . import _logs, _main, _tmp

UNFORKABLE = b"\x06"

_TRACE = "_X_AMZN_TRACE_ID"

# Invocations until Python has fitted its bytecode to what it finds, which is written into the code.
_ROUNDS = 20

# Characters of a refusal: a line for people.
_REASON = 500


def run(descriptor, how_tmp=""):
    """Serves requests for workers, and is each of them in turn. Returns at a worker's end."""
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
    if not reason:
        from . import _heap

        _heap.close_gaps()
    from . import _child, _fork, _worker

    if not reason:
        return _serve(descriptor, server, tmp, _child.worker(handler, after))
    line = " ".join(reason.split())[:_REASON].encode("utf-8", "replace")
    _worker.send(descriptor, _worker.HELLO, _worker.frame(UNFORKABLE, line))
    number, *given = _fork.Control(descriptor).next()
    child = _child.Child(descriptor, server, _child.worker(handler, after))
    child.say(number)
    child.live(*given)


def _serve(descriptor, server, tmp, work):
    """Forks whenever the host asks; returns in each worker, at its end."""
    from . import _after, _child, _fork, _worker

    terminated = _signal.getsignal(_signal.SIGTERM)
    restores = _seeds() + _after.cut()
    # None: an action that is not Python's, which could not be restored.
    if terminated not in (_signal.SIG_DFL, None):
        # It ends the zygote; the function's own action is for the workers.
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        restores.append((_signal.signal, (_signal.SIGTERM, terminated)))
    if gc.isenabled():
        restores.append((gc.enable, ()))
    library = _fork.library()
    steps = (_fork.ties(library), tmp.steps(library), restores)
    way = _fork.choose(library, _child.Child(descriptor, server, work, steps, _warm))
    _warm()
    gc.collect()
    gc.disable()
    _worker.send(descriptor, _worker.HELLO + _worker.READY)
    way.serve(_fork.Control(descriptor))


def _hooks():
    """What the function has registered around the snapshot, by whichever copy of AWS's module."""
    module = sys.modules.get("snapshot_restore_py")
    if module is None:
        return [], []
    return module.get_before_snapshot(), module.get_after_restore()


def _warm():
    """Goes through what every invocation goes through, but for the handler: workers share it."""
    from . import _worker

    # One frame is one read.
    host, wire = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    text = bytes((1,)) + b"x"
    head = bytes((0, 1)) + b"\x80" * 5 + b"\1" + text * 3 + b"\0\0"
    trace, request = os.environ.get(_TRACE), _logs.REQUEST
    for _ in range(_ROUNDS):
        host.send(_worker.frame(head, b'{"a": [1.5, "b"]}'))
    host.shutdown(_socket.SHUT_WR)
    _worker.serve(wire.fileno(), wire.fileno(), lambda event, context: event, _worker.prepare())
    host.close()
    wire.close()
    _logs.REQUEST = request
    if trace is None:
        os.environ.pop(_TRACE, None)
    else:
        os.environ[_TRACE] = trace


def _seeds():
    """Generators of random numbers that the function has made must differ between workers.

    `random` sees to itself, by a hook of its own.
    """
    steps = []
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        steps.append(_seed_numpy(numpy))
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        steps.append((lambda: ssl.RAND_add(os.urandom(32), 32.0), ()))
    return steps


def _seed_numpy(numpy):
    """Seeds numpy's common generator: chance is written where its state is, since numpy's own ways
    there have more pages copied than the rest of a worker's start."""
    try:
        name, key, position, *_ = numpy.get_state()
        generator = numpy.mtrand._rand._bit_generator
        words, at = _state(generator.ctypes.state_address, len(key))
        known = name == "MT19937" and bytes(words) == key.tobytes() and at.value == position
    except Exception:
        known = False
    if not known:
        return numpy.seed, ()
    # All words are used up, and there is no number left of a pair.
    numpy.set_state((name, key, len(key), 0, 0.0))
    size, urandom = len(words), os.urandom

    # Whose words they are stays as long as this does.
    def seed(generator=generator):
        words[:] = urandom(size)

    return seed, ()


def _state(address, count):
    """The words at the address, as bytes, and the position behind them, which is a number of C's."""
    import ctypes

    words = (ctypes.c_uint32 * count).from_address(address)
    position = ctypes.c_int.from_address(address + ctypes.sizeof(words))
    return memoryview(words).cast("B"), position


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
        # What `ctypes` calls with keeps its own file open, to map it for callbacks: never read.
        is_libffi = os.path.basename(name).startswith("libffi.so")
        return None if is_libffi else f"a file ({name})"
    if stat.S_ISDIR(kind):
        return f"a directory ({name})"
    return name.replace("anon_inode:", "an ").replace("[", "").replace("]", "")
