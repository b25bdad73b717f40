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
        self._library = None

    def unfit(self):
        """Why a worker that is forked would not find `/tmp` as a plain one does; None if it would."""
        if not self._steps:
            return None
        left = sorted(set(os.listdir(_TMP)) - set(self._kept()))
        if left:
            return f"the import left files in /tmp: {', '.join(left[:5])}"
        try:
            import ctypes  # noqa: F401
        except ImportError:
            return "without ctypes no worker can have a /tmp of its own"
        return None

    def _kept(self):
        """First names below `/tmp` of what stays in sight."""
        for kind, *fields in self._steps:
            if kind == "keep":
                # Made at /var/task, where the code is, and moved from there.
                yield fields[1].split("/")[3]

    def steps(self, library):
        """For a worker that was just forked: functions with their arguments, and what to do if they
        say that they failed."""
        self._library = library
        steps = [self._call("unshare", _CLONE_NEWNS)] if self._steps else []
        for kind, *fields in self._steps:
            steps.append(getattr(self, "_" + kind)(*fields))
        return steps

    def _call(self, name, *arguments):
        def fail(*arguments):
            result, error = self._library.again(name, arguments)
            if result:
                # In the log of the zygote, which is of the same function. No hooks: they are a
                # worker's.
                text = f"give the worker a /tmp of its own: {os.strerror(error)}\n"
                os.write(2, text.encode())
                os._exit(1)

        return *self._library.call(name, *arguments), fail

    def _mount(self, source, target, kind, flags, options=None):
        encode = os.fsencode
        given = [encode(text) if text is not None else None for text in (source, target, kind)]
        options = encode(options) if options else None
        return self._call("mount", *given, flags, options)

    def _memory(self, target, options):
        return self._mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, options)

    def _move(self, source, target):
        return self._mount(source, target, None, _MS_MOVE)

    def _directory(self, target):
        def make():
            os.mkdir(target)
            os.chmod(target, 0o755)

        return make, (), None

    def _keep(self, source, target, flags):
        def keep():
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
            for function, arguments, fail in mounts:
                if function(*arguments):
                    fail(*arguments)

        mounts = [self._mount(source, target, None, _MS_BIND)]
        if flags:
            flags = int(flags) | _MS_REMOUNT | _MS_BIND | _MS_RDONLY
            mounts.append(self._mount(None, target, None, flags))
        return keep, (), None
