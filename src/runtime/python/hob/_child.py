"""What a worker does between its fork and its first event.

Whatever it touches is copied: an attribute, and the name that finds it, and what it lets go. So
everything was looked up before the fork and is a local name here, and no function that is at work
returns before the worker ends.
"""

import os

import hob
from awslambdaric import lambda_context

from . import _environment, _main, _worker

# Among the variables of a worker that is made before it is wanted.
_SPARE = b"HOB_SPARE"
_CGROUP = b"HOB_CGROUP"


class Child:
    """The steps, prepared in the zygote for each of its workers."""

    def __init__(self, control, server, work, steps=((), (), ()), warm=None):
        """`control` is the zygote's conversation, `work` the rest of a worker's life. `steps` are
        functions with their arguments, by when they are due: at once; for a `/tmp` of its own, and
        what to do if they fail; before anything of the function's runs. `warm` is what a worker
        does that nobody waits for."""
        ties, mounts, restores = steps
        getpid, getppid, leave = os.getpid, os.getppid, os._exit
        write, dup2, close, text = os.write, os.dup2, os.close, os.fsdecode
        frame, varint = _worker.frame, _worker.varint
        facts, places = lambda_context.read_facts(), lambda_context.FACTS
        put, values = _environment.ways()
        # The C library looks a function up when it is first called.
        getpid(), getppid()

        def settle():
            for function, arguments in ties:
                function(*arguments)
            if getppid() != server:
                leave(0)

        def say(number, pid=None):
            pid = getpid() if pid is None else pid
            write(control, frame(b"\x05" + number + varint(pid)))

        def live(environment, wire, log, events):
            for function, arguments, fail in mounts:
                if function(*arguments):
                    fail(*arguments)
            close(control)
            dup2(log, 1)
            dup2(log, 2)
            close(log)
            is_spare = False
            for pair in environment.split(b"\0"):
                name, found, value = pair.partition(b"=")
                if name == _SPARE:
                    is_spare = True
                elif name == _CGROUP:
                    _enter(value)
                elif found:
                    put(name, value)
                    values[name] = value
                    if name in places:
                        facts[places[name]] = text(value)
            for function, arguments in restores:
                function(*arguments)
            if is_spare and warm:
                warm()
            work(wire, events)

        self.settle, self.say, self.live = settle, say, live


def worker(handler, restored):
    """The rest of a worker's life, as a function of its wire and its events."""
    serve, prepared, write = _worker.serve, _worker.prepare(True), os.write
    ready = _worker.HELLO + _worker.READY

    def work(wire, events):
        write(wire, ready)
        serve(wire, events, handler, prepared)

    def work_with_hooks(wire, events):
        _main.get_ready(wire, _worker.HELLO, restored)
        serve(wire, events, handler)

    if hob._functions or restored:
        return work_with_hooks
    # From here on `on_fork` calls at once.
    hob._functions = None
    return work


def _enter(door):
    """Enters a control group. Who is not in it is frozen by other means."""
    try:
        file = os.open(door, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(file, b"0")
    except OSError:
        pass
    finally:
        os.close(file)
