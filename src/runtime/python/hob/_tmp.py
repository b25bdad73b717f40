"""A `/tmp` of each worker's own, in a mount namespace of its own inside the zygote's.

The host says how it is made, step by step, as it made the zygote's. Paths of the machine that are
in sight of the zygote stay in sight.
"""

import os
import stat

_MS_RDONLY = 0x0001
_MS_NOSUID = 0x0002
_MS_NODEV = 0x0004
_MS_REMOUNT = 0x0020
_MS_BIND = 0x1000
_MS_MOVE = 0x2000
_CLONE_NEWNS = 0x20000

_STEP = "\x1e"
_FIELD = "\x1f"
_TMP = "/tmp"


class Tmp:
    """What the host has said, and what it takes to do it."""

    def __init__(self, text):
        self._steps = [step.split(_FIELD) for step in text.split(_STEP)] if text else []
        self._mount = self._unshare = self._errno = None

    def unfit(self):
        """Why a worker that is forked would not find `/tmp` as a plain one does; None if it would."""
        if not self._steps:
            return None
        left = sorted(set(os.listdir(_TMP)) - set(self._kept()))
        if left:
            return f"the import left files in /tmp: {', '.join(left[:5])}"
        try:
            import ctypes
        except ImportError:
            return "without ctypes no worker can have a /tmp of its own"
        library = ctypes.PyDLL(None, use_errno=True)
        self._mount, self._unshare, self._errno = library.mount, library.unshare, ctypes.get_errno
        text = ctypes.c_char_p
        self._mount.argtypes = (text, text, text, ctypes.c_ulong, text)
        return None

    def _kept(self):
        """First names below `/tmp` of what stays in sight."""
        for kind, *fields in self._steps:
            if kind == "keep":
                # Made at /var/task, where the code is, and moved from there.
                yield fields[1].split("/")[3]

    def renew(self):
        """In a worker that was just forked."""
        if not self._steps:
            return
        self._check(self._unshare(_CLONE_NEWNS))
        for kind, *fields in self._steps:
            getattr(self, "_" + kind)(*fields)

    def _check(self, result):
        if result != 0:
            error = self._errno()
            raise OSError(error, "give the worker a /tmp of its own: " + os.strerror(error))

    def _do(self, source, target, kind, flags, options=None):
        encode = os.fsencode
        given = [encode(text) if text is not None else None for text in (source, target, kind)]
        self._check(self._mount(*given, flags, encode(options) if options else None))

    def _memory(self, target, options):
        self._do("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, options)

    def _directory(self, target):
        os.mkdir(target)
        os.chmod(target, 0o755)

    def _keep(self, source, target, flags):
        try:
            mode = os.stat(source).st_mode
        except OSError:
            return
        try:
            if stat.S_ISDIR(mode):
                os.mkdir(target)
            else:
                os.mknod(target)
        except FileExistsError:
            pass
        self._do(source, target, None, _MS_BIND)
        if flags:
            self._do(None, target, None, int(flags) | _MS_REMOUNT | _MS_BIND | _MS_RDONLY)

    def _move(self, source, target):
        self._do(source, target, None, _MS_MOVE)
