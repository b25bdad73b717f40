"""The host's side of the wire, for tests: starts workers and zygotes, and talks to them."""

import atexit
import ctypes
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..", "src", "runtime", "python")
LIMIT_S = 30

# Orphans come to us, as they come to the server.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def runtime():
    """The runtime directory, as the server writes it: a copy."""
    global _runtime
    if _runtime is None:
        _runtime = tempfile.TemporaryDirectory()
        atexit.register(_runtime.cleanup)
        shutil.copytree(
            SOURCE,
            os.path.join(_runtime.name, "R"),
            ignore=shutil.ignore_patterns("__pycache__", "*.md"),
        )
    return os.path.join(_runtime.name, "R")


_runtime = None


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes((number & 127 | 128,))
        number >>= 7
    return encoded + bytes((number,))


def text(value):
    value = value.encode()
    return varint(len(value)) + value


def frame(data):
    return len(data).to_bytes(4, "little") + data


def environment(more=None):
    """What every worker of a test sees; nothing of the tester's own."""
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_LAMBDA_FUNCTION_NAME": "tested",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tested",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/24/[$LATEST]0",
    }
    environment.update(more or {})
    return environment


class Event:
    """One event and what goes with it."""

    def __init__(self, payload, request_id="7e1-a", trace="", context="", identity=""):
        self.payload = payload
        self.request_id = request_id
        self.trace = trace
        self.context = context
        self.identity = identity
        self.deadline_ms = int(time.time() * 1000) + 60_000
        self.arn = "arn:aws:lambda:eu-central-1:000000000000:function:tested"


def invocation(event, number):
    """The frame of an event."""
    parts = [event.request_id, event.arn, event.trace, event.context, event.identity]
    head = b"\0" + varint(number) + varint(event.deadline_ms) + b"".join(map(text, parts))
    return frame(head + event.payload)


def wait_for(readable):
    """Waits until there is something to read."""
    assert select.select([readable], [], [], LIMIT_S)[0], "nothing came"


class Stream:
    """Our end of a wire."""

    def __init__(self, ours):
        self.socket = ours
        self.socket.settimeout(LIMIT_S)
        self.data = b""

    def next(self):
        """A message without its length; None at the end of the stream."""
        while len(self.data) < 4 or len(self.data) - 4 < self._length():
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                assert not self.data, f"half a frame: {self.data[:80]!r}"
                return None
            self.data += more
        length = self._length()
        message, self.data = self.data[4 : 4 + length], self.data[4 + length :]
        return message

    def _length(self):
        return int.from_bytes(self.data[:4], "little")

    def expect_ready(self):
        """Takes Hello, gives the Ready behind it or an init error; None if it ended instead."""
        message = self.next()
        if message is None:
            return None
        assert message == b"\0\2", message
        message = self.next()
        assert message is None or message == b"\1" or message[:1] == b"\4", message
        return message

    def invoke(self, event, number):
        """("reply" or "error", the payload), or None if the worker ends."""
        self.socket.sendall(invocation(event, number))
        message = self.next()
        if message is None:
            return None
        kind = {b"\2": "reply", b"\3": "error"}[message[:1]]
        head = message[:1] + varint(number)
        assert message.startswith(head), (message[:8], number)
        assert self.next() == b"\1"
        return kind, message[len(head) :]


class Log:
    """The reading end of a log."""

    def __init__(self):
        self.end, self.given = os.pipe()

    def read(self):
        """All of it, when its writers are gone."""
        whole = b""
        while True:
            ready, _, _ = select.select([self.end], [], [], LIMIT_S)
            assert ready, f"the log has no end: {whole!r}"
            more = os.read(self.end, 65536)
            if not more:
                os.close(self.end)
                return whole
            whole += more


class Process:
    """A worker or a zygote that was started by us."""

    def __init__(self, folder, handler, variables=None, zygote=False):
        self.log = Log()
        ours, theirs = socket.socketpair()
        self.wire = Stream(ours)
        variables = dict(variables or {}, _HANDLER=handler, LAMBDA_TASK_ROOT=folder)
        if zygote:
            variables["HOB_ZYGOTE"] = "1"
        entry = os.path.join(runtime(), "bootstrap.py")
        self.process = subprocess.Popen(
            [sys.executable, "-u", entry],
            stdin=theirs,
            stdout=self.log.given,
            stderr=self.log.given,
            cwd=folder,
            env=environment(variables),
            start_new_session=True,
        )
        self.pid = self.process.pid
        theirs.close()
        os.close(self.log.given)

    def end(self):
        """Ends the stream; the exit status."""
        self.wire.socket.close()
        return self.wait()

    def wait(self):
        return self.process.wait(LIMIT_S)


class Forked:
    """A worker that a zygote made."""

    _next = 0

    def __init__(self, zygote, variables=""):
        self.log = Log()
        ours, theirs = socket.socketpair()
        self.wire = Stream(ours)
        Forked._next += 100
        self.number = Forked._next
        head = b"\1" + varint(self.number) + text(variables)
        given = [theirs.fileno(), self.log.given]
        socket.send_fds(zygote.wire.socket, [frame(head)], given)
        theirs.close()
        os.close(self.log.given)
        answer = zygote.wire.next()
        head = b"\5" + varint(self.number)
        assert answer.startswith(head), answer
        self.pid = 0
        for at, byte in enumerate(answer[len(head) :]):
            self.pid |= (byte & 127) << 7 * at

    def end(self):
        self.wire.socket.close()
        return self.wait()

    def wait(self):
        """The exit status as subprocess has it. It is our child: that is what is tested."""
        descriptor = os.pidfd_open(self.pid)
        wait_for(descriptor)
        os.close(descriptor)
        status = os.waitpid(self.pid, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
