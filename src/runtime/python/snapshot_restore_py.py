"""AWS's names for what is to run around a snapshot; hob's snapshot is the zygote.

With a zygote, functions registered for before the snapshot run in it before it forks, the last
registered first; those for after the restore run in each worker after its fork. A worker that is
started plainly runs neither, as on AWS Lambda without SnapStart.
"""

__version__ = "1.0.0"
__all__ = ["register_before_snapshot", "register_after_restore"]

_before_snapshot = []
_after_restore = []


def register_before_snapshot(func, *args, **kwargs):
    """Runs `func(*args, **kwargs)` before the snapshot; returns func, to serve as a decorator."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Runs `func(*args, **kwargs)` after the restore; returns func, to serve as a decorator."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """The list itself: (function, arguments, keyword arguments), as registered."""
    return _before_snapshot


def get_after_restore():
    """The list itself: (function, arguments, keyword arguments), as registered."""
    return _after_restore
