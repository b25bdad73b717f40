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
    """Our ends of a wire: the socket, and with `events` the pipe for what we tell. `given` are the
    worker's ends."""

    def __init__(self, events=True):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(LIMIT_S)
        self.given = [theirs.detach()]
        self.way = self.socket.fileno()
        if events:
            end, self.way = os.pipe()
            self.given.append(end)
        self.hello = b"\0\5" if events else b"\0\4"
        self.data = b""

    def give(self):
        """They have theirs."""
        for end in self.given:
            os.close(end)

    def tell(self, data):
        """Sends all of it, the way that events go."""
        os.set_blocking(self.way, False)
        while data:
            assert select.select([], [self.way], [], LIMIT_S)[1], "nobody reads"
            data = data[os.write(self.way, data) :]
        os.set_blocking(self.way, True)

    def close(self):
        if self.way != self.socket.fileno():
            os.close(self.way)
        self.socket.close()

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
        assert message == self.hello, message
        message = self.next()
        assert message is None or message == b"\1" or message[:1] == b"\4", message
        return message

    def invoke(self, event, number):
        """("reply" or "error", the payload), or None if the worker ends."""
        self.tell(invocation(event, number))
        message = self.next()
        if message is None:
            return None
        kind = {b"\2": "reply", b"\3": "error"}[message[:1]]
        head = message[:1] + varint(number)
        assert message.startswith(head), (message[:8], number)
        assert self.next() == b"\1"
        return kind, message[len(head) :]


def place(given):
    """In a new process: the pipe with the events to where a worker finds it, and nothing else."""
    for name in os.listdir("/proc/self/fd"):
        try:
            os.set_inheritable(int(name), int(name) < EVENTS)
        except OSError:
            pass  # The listing's own.
    if len(given) > 1:
        os.dup2(given[1], EVENTS)
        os.set_inheritable(EVENTS, True)


# A worker's descriptor for its events. In this process it is taken, so that it is none of those that
# a new process is made with.
EVENTS = 3
try:
    os.fstat(EVENTS)
except OSError:
    # The lowest that is free.
    os.open("/dev/null", os.O_RDONLY)


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

    def __init__(self, folder, handler, variables=None, zygote=False, events=True):
        self.log = Log()
        self.wire = Stream(events and not zygote)
        # A zygote's conversation is on its socket, but it knows of pipes.
        self.wire.hello = b"\0\5" if zygote else self.wire.hello
        variables = dict(variables or {}, _HANDLER=handler, LAMBDA_TASK_ROOT=folder)
        if zygote:
            variables["HOB_ZYGOTE"] = "1"
        entry = os.path.join(runtime(), "bootstrap.py")
        self.process = subprocess.Popen(
            [sys.executable, "-u", entry],
            stdin=self.wire.given[0],
            stdout=self.log.given,
            stderr=self.log.given,
            cwd=folder,
            env=environment(variables),
            start_new_session=True,
            # `place` sees to the rest.
            close_fds=False,
            preexec_fn=lambda: place(self.wire.given),
        )
        self.pid = self.process.pid
        self.wire.give()
        os.close(self.log.given)

    def end(self):
        """Ends the stream; the exit status."""
        self.wire.close()
        return self.wait()

    def wait(self):
        return self.process.wait(LIMIT_S)


class Forked:
    """A worker that a zygote made."""

    _next = 0

    def __init__(self, zygote, variables=""):
        self.log = Log()
        self.wire = Stream()
        Forked._next += 100
        self.number = Forked._next
        head = b"\1" + varint(self.number) + text(variables)
        theirs, events = self.wire.given
        given = [theirs, self.log.given, events]
        socket.send_fds(zygote.wire.socket, [frame(head)], given)
        self.wire.give()
        os.close(self.log.given)
        answer = zygote.wire.next()
        head = b"\5" + varint(self.number)
        assert answer.startswith(head), answer
        self.pid = 0
        for at, byte in enumerate(answer[len(head) :]):
            self.pid |= (byte & 127) << 7 * at

    def end(self):
        self.wire.close()
        return self.wait()

    def wait(self):
        """The exit status as subprocess has it. It is our child: that is what is tested."""
        descriptor = os.pidfd_open(self.pid)
        wait_for(descriptor)
        os.close(descriptor)
        status = os.waitpid(self.pid, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
