"""What a zygote is asked about: the environment says what the import does."""

import atexit
import gc
import os
import random
import signal
import sys
import threading

import hob

if "logging" in os.environ.get("DOING", ""):
    import logging

doing = os.environ.get("DOING", "").split()
calls = []
kept = []
started = threading.Event()


@hob.on_fork
def forked():
    calls.append(("on_fork", os.getpid()))
    if "fork-fails" in doing:
        raise OSError("no database")


if "no-hook" in doing:
    hob._functions.clear()
if "thread" in doing:
    threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
if "file" in doing:
    kept.append(open(__file__))
if "socket" in doing:
    import socket

    kept.append(socket.socketpair())
if "pipe" in doing:
    kept.append(os.pipe())
if "epoll" in doing:
    import select

    kept.append(select.epoll())
if "random-device" in doing:
    kept.append(open("/dev/urandom", "rb"))
    kept.append(open("/dev/null"))
if "libffi" in doing:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        kept.append(open(os.path.join(folder, "libffi.so.8"), "wb"))
if "terminal" in doing:
    kept.append(os.openpty())
if "fails" in doing:
    raise ValueError("at import")
if "no-gc" in doing:
    gc.disable()
if "term" in doing:

    def on_term(number, frame):
        os.write(1, b"handled\n")
        sys.exit(7)

    signal.signal(signal.SIGTERM, on_term)
if "term-noted" in doing:
    signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"noted\n"))
if "ignores-term" in doing:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "snapshot" in doing:
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    @register_before_snapshot
    def first():
        calls.append(("before 1", os.getpid()))

    register_before_snapshot(calls.append, ("before 2", 0))

    def after(*arguments, **named):
        calls.append(("after", os.getpid(), arguments, named))

    register_after_restore(after, 1, two=2)
if "before-fails" in doing:
    from snapshot_restore_py import register_before_snapshot

    register_before_snapshot([].pop)
if "no-ctypes" in doing:
    sys.modules["ctypes"] = None
if "no-fork" in doing:
    from hob import _fork

    def refuse(*arguments):
        if refusals:
            raise BlockingIOError(refusals.pop(), "no room")
        return fork()

    fork, refusals = os.fork, [11]
    os.fork = refuse
    # A system call that there is not: the second way is taken instead, and for good.
    _fork._CLONE = {machine: (9999, *way[1:]) for machine, way in _fork._CLONE.items()}
forks = []
if "count-forks" in doing:
    # Python's own hook runs once in each process between us and the zygote.
    os.register_at_fork(after_in_child=lambda: forks.append(os.getpid()))
if "exits" in doing:
    atexit.register(lambda: os.write(1, b"atexit %d\n" % os.getpid()))

NAMES = ("NEW", "HOB", "OPENBLAS")
seeds = []
if "seeds" in doing:
    import types

    # What numeric programs and clients have loaded.
    sys.modules["numpy"] = types.ModuleType("numpy")
    sys.modules["numpy.random"] = types.SimpleNamespace(seed=lambda: seeds.append("numpy"))
    sys.modules["ssl"] = types.SimpleNamespace(RAND_add=lambda b, e: seeds.append(b.hex()))
if "numpy" in doing:
    try:
        from numpy.random import random as numpy_random
    except ImportError:
        numpy_random = random.random
    seeds.append(numpy_random())
imported = os.getpid()
first_number = random.random()


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return found


def cached_thread_id():
    """The main thread's id as the C library has it, which names that thread's clock by it."""
    import ctypes

    library = ctypes.PyDLL(None)
    library.pthread_self.restype = ctypes.c_void_p
    clock = ctypes.c_int(0)
    library.pthread_getcpuclockid(ctypes.c_void_p(library.pthread_self()), ctypes.byref(clock))
    return ~(clock.value >> 3)


def called(late=[]):
    """What a function that is registered now leaves at once."""
    hob.on_fork(lambda: late.append(1))
    return late


def handler(event, context):
    return {
        "pid": os.getpid(),
        "imported": imported,
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "thread": 0 if "no-ctypes" in doing else cached_thread_id(),
        "gc": gc.isenabled(),
        "random": random.random(),
        "calls": calls,
        "late": called(),
        "seeds": seeds + [numpy_random() for _ in range("numpy" in doing)],
        "fds": descriptors(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(NAMES)},
        "forks": len(forks),
    }


def failing(event, context):
    raise RuntimeError("in a fork")


def large(event, context):
    """A reply that the socket does not take at once."""
    return "x" * 5_000_000


def thread(event, context):
    """Threads of a worker run and log, and a fork of it knows that they are not its own."""

    def busy():
        # A name that is new takes the lock of all of logging, a message that of a handler.
        logging.getLogger("thread of %d" % os.getpid()).warning("here")
        with logging.getLogger().handlers[0].lock:
            started.set()
            ended.wait()

    if threading.main_thread().native_id != os.getpid():
        return "the main thread is %d" % threading.main_thread().native_id
    ended = threading.Event()
    thread = threading.Thread(target=busy)
    thread.start()
    if not started.wait(30):
        return "the thread hangs"
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        logging.warning("in the fork")
        os._exit(threading.active_count())
    status = os.waitpid(pid, 0)[1]
    ended.set()
    thread.join()
    return status >> 8 == 1 or "the fork ended with %d" % status


def child(event, context):
    """Programs that a handler starts get no socket of ours."""
    import subprocess

    look = (
        "import os\n"
        "for name in os.listdir('/proc/self/fd'):\n"
        "    if os.path.exists('/proc/self/fd/' + name):\n"
        "        print(os.readlink('/proc/self/fd/' + name))\n"
    )
    return subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout


def parents_death(event, context):
    import ctypes

    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)
    return number.value


def own_pages(event, context):
    """KiB of the process's own, before and after a collection; the first time is for practice."""
    sizes = []
    for collect in (False, False, True):
        if collect:
            gc.collect()
        with open("/proc/self/smaps_rollup", "rb") as file:
            lines = [line.split() for line in file]
        sizes += [int(words[1]) for words in lines if words[0] == b"Private_Dirty:"]
    return sizes[1:]
