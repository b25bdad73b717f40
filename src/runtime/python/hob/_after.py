"""What Python's own modules do after a fork, cut to what a process with one thread needs.

The hooks of `threading` and `logging` see to threads that are gone and to locks that those may have
held. A zygote has no other thread: they would write what is there already, on some ninety pages
that had to be copied for it, a quarter of a worker's start.
"""

import sys
from types import FunctionType


def cut():
    """Cuts them. Returns the steps that make them whole in a worker, where threads may be and forks."""
    steps = []
    threading = sys.modules.get("threading")
    if threading is None or not _main_only(threading):
        return steps
    _replace(steps, threading, "_after_fork", _nothing)
    # The one thing that a fork changes. Python itself has not always seen to it.
    renumber = getattr(threading.main_thread(), "_set_native_id", None)
    if renumber is not None:
        steps.append((renumber, ()))
    logging = sys.modules.get("logging")
    if logging is not None:
        _replace(steps, logging, "_after_at_fork_child_reinit_locks", _unlock)
    return steps


def _main_only(threading):
    try:
        main = threading.main_thread()
        alone = list(threading._active.values()) == [main] and not threading._limbo
        return alone and main.ident == threading.get_ident()
    except Exception:
        return False


def _replace(steps, module, name, lean):
    """A hook can be taken from nobody's list, but be given other code."""
    hook = getattr(module, name, None)
    if type(hook) is not FunctionType or hook.__module__ != module.__name__:
        return
    full = hook.__code__
    if full.co_freevars or full.co_argcount:
        return
    hook.__code__ = lean.__code__
    steps.append((setattr, (hook, "__code__", full)))


def _nothing():
    pass


def _unlock():
    # The names are those of `logging`, whose hook this is. Its hook before the fork took the lock.
    _lock._at_fork_reinit()
