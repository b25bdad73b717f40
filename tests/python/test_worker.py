"""A plain worker: the wire in pieces, its process, its paths, its end."""

import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import termios
import unittest

import host
from host import Event, Process

FUNCTIONS = os.path.join(host.HERE, "functions")
EVENT = Event(b"{}")


class Case(unittest.TestCase):
    def start(self, handler, variables=None, folder=FUNCTIONS):
        worker = Process(folder, handler, variables)
        self.assertEqual(worker.wire.expect_ready(), b"\1")
        return worker

    def ask(self, worker, event=EVENT, number=1):
        kind, payload = worker.wire.invoke(event, number)
        self.assertEqual(kind, "reply", payload)
        return json.loads(payload)

    def end(self, worker, status=0):
        self.assertEqual(worker.end(), status)
        return worker.log.read()


class Wire(Case):
    def test_in_pieces(self):
        """An event that comes byte by byte, and numbers of every length."""
        worker = self.start("plain.echo")
        for number in (0, 1, 127, 128, 300, 16384, 2**31, 2**32 - 1):
            event = Event(b'{"n": %d}' % number, trace="t" * 200)
            whole = host.invocation(event, number)
            for at in range(len(whole)):
                worker.wire.tell(whole[at : at + 1])
            answer = b"\2" + host.varint(number) + b'{"n": %d}' % number
            self.assertEqual(worker.wire.next(), answer)
            self.assertEqual(worker.wire.next(), b"\1")
        self.assertEqual(self.end(worker), b"")

    def test_large(self):
        """Both ways more than a socket holds."""
        worker = self.start("plain.echo")
        for size in (65_500, 65_536, 1_000_000, 6_291_000):
            payload = b'"' + b"x" * size + b'"'
            self.assertEqual(worker.wire.invoke(Event(payload), 5), ("reply", payload))
        self.assertEqual(self.end(worker), b"")

    def test_a_signal_in_the_middle_of_a_reply(self):
        worker = self.start("forking.large", {"DOING": "term-noted"})
        event = host.invocation(EVENT, 9)
        worker.wire.tell(event)
        held = bytearray(4)
        while int.from_bytes(held, sys.byteorder) < 50_000:
            # It has begun to write, and cannot end before we read.
            host.wait_for(worker.wire.socket)
            fcntl.ioctl(worker.wire.socket, termios.FIONREAD, held)
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(os.read(worker.log.end, 100), b"noted\n")
        self.assertEqual(worker.wire.next(), b'\2\x09"' + b"x" * 5_000_000 + b'"')
        self.assertEqual(worker.wire.next(), b"\1")
        self.assertEqual(self.end(worker), b"")

    def test_nonsense(self):
        good = b"\1" + host.varint(1 << 40) + host.text("") * 5 + b"{}"
        for data in (
            host.frame(b"\3" + good),
            host.frame(b""),
            host.frame(b"\0" + good[:5]),
            host.frame(b"\0" + good) * 2,
        ):
            worker = self.start("plain.echo")
            worker.wire.tell(data)
            self.assertIsNone(worker.wire.next())
            self.assertIn(b"Traceback", self.end(worker, status=1))

    def test_without_a_pipe(self):
        """Behind a program that closed it, events come by the socket."""
        worker = host.Process(FUNCTIONS, "plain.echo", events=False)
        self.assertEqual(worker.wire.expect_ready(), b"\1")
        for size in (10, 6_000_000):
            payload = b'"' + b"x" * size + b'"'
            self.assertEqual(worker.wire.invoke(Event(payload), 5), ("reply", payload))
        self.assertEqual(self.end(worker), b"")

    def test_trace_ids_take_no_memory(self):
        """glibc keeps what `setenv` was given: three megabytes here."""
        first = host.Process(FUNCTIONS, "plain.traced", zygote=True)
        self.assertEqual(first.wire.expect_ready(), b"\1")
        forked = host.Forked(first)
        started = host.Process(FUNCTIONS, "plain.traced")

        def invoke(worker, number, trace, **event):
            trace = trace or "Root=1-%08x-%024x;Parent=%016x" % (number, number, number)
            payload = json.dumps(dict(event, program=bool(event))).encode()
            reply = json.loads(worker.wire.invoke(Event(payload, trace=trace), number)[1])
            self.assertEqual(reply["python"], trace)
            self.assertEqual(reply.get("program", trace), trace)
            return reply["kib"]

        for worker in (forked, started):
            self.assertEqual(worker.wire.expect_ready(), b"\1")
            for number in range(1, 1100):
                invoke(worker, number, None)
            before = invoke(worker, 0, "short", look=True)
            for number in range(1, 20_000):
                invoke(worker, number, None)
            # Twice: whatever it does with it, the next invocation has its own.
            for event in ({"set": "mine"}, {"remove": True}, {"look": True}) * 2:
                invoke(worker, 1, "t" * 512, **event)
                invoke(worker, 1, "u" * 2000, **event)
                invoke(worker, 1, "v", **event)
            self.assertLess(invoke(worker, 1, None) - before, 1000)
            self.end(worker)
        self.assertEqual(first.end(), 0)

    def test_half_an_event(self):
        worker = self.start("plain.echo")
        worker.wire.tell(b"\xff\0\0\0\0\1")
        self.assertEqual(self.end(worker), b"")

    def test_text_that_is_no_utf8(self):
        worker = self.start("plain.surrogate", {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13"})
        kind, payload = worker.wire.invoke(EVENT, 1)
        error = json.loads(payload)
        self.assertEqual((kind, error["errorType"]), ("error", "Runtime.MarshalError"))
        self.assertIn("surrogates not allowed", error["errorMessage"])
        kind, payload = worker.wire.invoke(Event(b'"raise"'), 2)
        error = json.loads(payload)
        self.assertEqual((kind, error["errorMessage"]), ("error", "\ud800 bad"))
        self.assertIn(b"ValueError: \\ud800 bad", self.end(worker))


class Surroundings(Case):
    def test_process(self):
        worker = self.start("plain.handler", {"HOB_OPT": "/nowhere/opt"})
        seen = self.ask(worker)
        runtime = host.runtime()
        version = "python%d.%d" % sys.version_info[:2]
        self.assertEqual(seen["argv"], [os.path.join(runtime, "bootstrap.py")])
        self.assertEqual(
            seen["path"][:4],
            [
                FUNCTIONS,
                f"/nowhere/opt/python/lib/{version}/site-packages",
                "/nowhere/opt/python",
                runtime,
            ],
        )
        self.assertEqual(seen["path"].count(runtime), 1)
        self.assertEqual((seen["stdin"], seen["hob"], seen["cwd"]), ("", [], FUNCTIONS))
        # The wire and its events are those besides the log, and the listing's own.
        self.assertEqual(len(seen["descriptors"]), 6)
        # What costs more than Python's own start is not imported before somebody needs it.
        present = bare()
        for heavy in ("json", "logging", "traceback", "re", "ctypes", "socket", "_socket"):
            if heavy not in present:
                self.assertNotIn(heavy, seen["modules"])
        self.end(worker)

    def test_files_of_the_function_hide_no_module_that_aws_has_loaded(self):
        with tempfile.TemporaryDirectory() as folder:
            opt = os.path.join(folder, "opt", "python")
            os.makedirs(opt)
            os.makedirs(os.path.join(folder, "linked"))
            os.makedirs(os.path.join(folder, "awslambdaric"))
            for path, text in (
                ("json.py", "raise SystemExit('mine')"),
                ("logging.py", "raise SystemExit('mine')"),
                ("traceback.py", "raise SystemExit('mine')"),
                # As in a package that was made for a container image.
                ("awslambdaric/__init__.py", ""),
                ("awslambdaric/lambda_context.py", "raise SystemExit('mine')"),
                ("opt/python/layered.py", ""),
                ("linked/mine.py", ""),
                ("linked.pth", "linked\n"),
            ):
                with open(os.path.join(folder, path), "w") as file:
                    file.write(text)
            os.symlink(os.path.join(FUNCTIONS, "plain.py"), os.path.join(folder, "plain.py"))
            variables = {"HOB_OPT": os.path.join(folder, "opt")}
            worker = self.start("plain.shadowed", variables, folder)
            places = self.ask(worker)
            self.assertFalse(places[0].startswith(folder))
            self.assertFalse(places[1].startswith(folder))
            self.assertEqual(places[2:], [opt + "/layered.py", folder + "/linked/mine.py"])
            self.end(worker)
            zygote = Process(folder, "plain.shadowed", variables, zygote=True)
            self.assertEqual(zygote.wire.expect_ready(), b"\1")
            self.end(zygote)

    def test_names_of_aws(self):
        worker = self.start("plain.kinds")
        self.assertEqual(self.ask(worker), [True, True, True, "id", 0])
        self.end(worker)

    def test_hob_outside_of_hob(self):
        """A copy in a zip for AWS: the function is called at once."""
        path = os.path.join(host.SOURCE, "hob", "__init__.py")
        spec = importlib.util.spec_from_file_location("hob_copy", path)
        copy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        calls = []

        @copy.on_fork
        def function():
            calls.append(1)

        self.assertEqual(calls, [1])
        self.assertIsNotNone(function)


class Ends(Case):
    def test_term_while_it_waits(self):
        worker = self.start("plain.waits")
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(self.end(worker, status=-signal.SIGTERM), b"")
        worker = self.start("plain.waits")
        self.assertEqual(self.ask(worker), "set")
        os.kill(worker.pid, signal.SIGTERM)
        # The handler's words, while the wire stays silent and open.
        self.assertEqual(os.read(worker.log.end, 100), b"term\n")
        self.assertEqual(self.ask(worker, number=2), "set")
        self.assertEqual(self.end(worker), b"")

    def test_hooks_run_once_before_ready(self):
        worker = self.start("forking.handler")
        seen = self.ask(worker)
        self.assertEqual(seen["calls"], [["on_fork", worker.pid]])
        self.assertEqual(seen["environment"], {})
        self.end(worker)

    def test_hook_fails(self):
        worker = Process(FUNCTIONS, "forking.handler", {"DOING": "fork-fails exits"})
        message = worker.wire.expect_ready()
        error = json.loads(message[1:])
        self.assertEqual(list(error), ["errorMessage", "errorType", "requestId", "stackTrace"])
        self.assertEqual(error["errorMessage"], "no database")
        log = self.end(worker, status=1)
        self.assertIn(b"LAMBDA_WARNING", log)
        self.assertTrue(log.endswith(b"atexit %d\n" % worker.pid))

    def test_exit_of_the_stream_runs_what_is_registered(self):
        worker = self.start("forking.handler", {"DOING": "exits"})
        self.assertEqual(self.end(worker), b"atexit %d\n" % worker.pid)


def bare():
    """Modules that this Python has at its start, before anything of ours."""
    look = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return subprocess.run(look, capture_output=True, text=True).stdout.split()


if __name__ == "__main__":
    unittest.main()
