"""From Python's start to the first event: paths, descriptors, the handler; then the worker's talk.

The zygote's part is `_zygote`, which nobody else imports.
"""

import os
import stat
import sys

# Now, while the path has nothing of the function's, which may bring a copy of AWS's client.
import awslambdaric.lambda_context
import hob

from . import _handler, _logs

# The descriptor that a worker which is not forked has its events on.
_EVENTS = 3


def main(home):
    zygote = os.environ.pop("HOB_ZYGOTE", None) is not None
    tmp = os.environ.pop("HOB_TMP", "")
    sys.argv[1:] = []
    sys.argv[0] = os.path.join(home, "bootstrap.py")
    _set_path(home)
    wire = _move_wire()
    hob._functions = []
    if zygote:
        from . import _zygote

        return _zygote.run(wire, tmp)
    from . import _worker

    events = _find_events()
    handler = load(wire)
    get_ready(wire, _worker.HELLO_ALONE if events is None else _worker.HELLO)
    _worker.serve(wire, wire if events is None else events, handler)


def _set_path(home):
    """Puts the function's code first, then layers, then hob's own, then what Python has."""
    standard = [place for place in sys.path if place != home]
    _logs.prepare(standard)
    root = os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd()
    layers = os.path.join(os.environ.pop("HOB_OPT", None) or "/opt", "python")
    version = "python%d.%d" % sys.version_info[:2]
    packages = os.path.join(layers, "lib", version, "site-packages")
    sys.path[:] = [root, packages, layers, home, *standard]
    for place in (root, packages, layers):
        _add_sites(place)


def _add_sites(place):
    """Obeys `.pth` files, which packages of several parts need."""
    try:
        names = os.listdir(place)
    except OSError:
        return
    if any(name.endswith(".pth") for name in names):
        import site

        site.addsitedir(place, set(sys.path))


def _move_wire():
    """Takes the socket off descriptor 0, so that programs which a handler starts do not get it."""
    wire = os.dup(0)
    while wire < 3:
        # Somebody closed the log: its numbers stay taken, so that nothing else becomes it.
        wire = os.dup(0)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return wire


def _find_events():
    """The pipe with the events; None if it is not there, as behind a wrapper that closes what it
    does not know."""
    try:
        if not stat.S_ISFIFO(os.fstat(_EVENTS).st_mode):
            return None
        os.set_inheritable(_EVENTS, False)
    except OSError:
        return None
    return _EVENTS


def load(wire):
    """The handler; what goes wrong is the worker's end."""
    try:
        return _handler.load(os.environ.get("_HANDLER", ""))
    except Exception:
        fail(wire)


def fail(wire):
    """Ends the process with the exception being handled as its init error."""
    from . import _errors, _worker

    payload = _errors.report_init()
    _worker.send(wire, _worker.HELLO, _worker.frame(_worker.INIT_ERROR, payload))
    sys.exit(1)


def get_ready(wire, hello, restored=()):
    """Runs what is to run once in each worker, then says hello and asks for work."""
    functions = hob._functions
    # From here on `on_fork` calls at once.
    hob._functions = None
    try:
        for function, arguments, named in restored:
            function(*arguments, **named)
        for function in functions:
            function()
    except Exception:
        fail(wire)
    from . import _worker

    _worker.send(wire, hello + _worker.READY)
