"""The zygote: whose children its workers are, what they share, when it refuses."""

import json
import os
import signal
import unittest

import host
from host import Event, Forked, Process

FUNCTIONS = os.path.join(host.HERE, "functions")
EVENT = Event(b"{}")
WAYS = ("clone", "double")


def zygote(doing="", way="clone", handler="forking.handler", variables=None):
    variables = dict(variables or {}, DOING=doing, HOB_FORK=way)
    return Process(FUNCTIONS, handler, variables, zygote=True)


def glibc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        return None


class Case(unittest.TestCase):
    def fit(self, *arguments, **named):
        first = zygote(*arguments, **named)
        self.assertEqual(first.wire.expect_ready(), b"\1")
        return first

    def worker(self, first, variables=""):
        worker = Forked(first, variables)
        self.assertEqual(worker.wire.expect_ready(), b"\1")
        return worker

    def ask(self, worker, number=1):
        kind, payload = worker.wire.invoke(EVENT, number)
        self.assertEqual(kind, "reply", payload)
        return json.loads(payload)

    def end(self, *processes, status=0):
        for process in processes:
            self.assertEqual(process.end(), status)

    def unfit(self, doing, handler="forking.handler"):
        """The zygote that refuses, and why."""
        first = zygote(doing, handler=handler)
        self.assertEqual(first.wire.next(), b"\0\5")
        message = first.wire.next()
        self.assertEqual(message[:1], b"\6", message)
        return first, message[1:].decode()


class Forking(Case):
    def test_workers_are_children_of_the_server(self):
        for way in WAYS:
            first = self.fit(way=way)
            workers = [self.worker(first, f"NEW=n{n}\0NEW_EMPTY=\0NEW_É=ü=v") for n in range(3)]
            numbers = set()
            for n, worker in enumerate(workers):
                seen = self.ask(worker)
                self.assertEqual(seen["pid"], worker.pid)
                self.assertEqual(seen["imported"], first.pid)
                self.assertEqual(seen["parent"], os.getpid())
                self.assertEqual(seen["group"], worker.pid)
                self.assertEqual(seen["thread"], worker.pid)
                self.assertTrue(seen["gc"])
                self.assertEqual(seen["calls"], [["on_fork", worker.pid]])
                self.assertEqual(seen["late"], [1])
                given = {"NEW": f"n{n}", "NEW_EMPTY": "", "NEW_É": "ü=v"}
                self.assertEqual(seen["environment"], {**given, "OPENBLAS_NUM_THREADS": "1"})
                numbers.add(seen["random"])
                log = os.readlink(f"/proc/self/fd/{worker.log.end}")
                fds = seen["fds"]
                self.assertEqual((fds["0"], fds["1"], fds["2"]), ("/dev/null", log, log))
                sockets = [what for what in fds.values() if what.startswith("socket")]
                self.assertEqual(len(sockets), 1, fds)
            self.assertEqual(len(numbers), 3)
            self.end(*workers, first)

    def test_spare(self):
        """What a spare does beforehand shows in nothing."""
        for way in WAYS:
            first = self.fit(way=way)
            worker = self.worker(first, "HOB_SPARE=1\0NEW=1")
            seen = self.ask(worker)
            self.assertEqual(seen["environment"], {"NEW": "1", "OPENBLAS_NUM_THREADS": "1"})
            self.assertEqual(seen["calls"], [["on_fork", worker.pid]])
            sockets = [what for what in seen["fds"].values() if what.startswith("socket")]
            self.assertEqual(len(sockets), 1, seen["fds"])
            self.end(worker, first)
            self.assertEqual(worker.log.read(), b"")

    def test_what_is_shared_is_no_garbage(self):
        """What the zygote has made is no garbage of its workers': it stays shared."""
        for way in WAYS:
            first = self.fit("no-hook", way=way, handler="forking.own_pages")
            worker = self.worker(first)
            before, after = self.ask(worker)
            # 40 to 64 KiB by the longer way; 1,600 without `gc.freeze`.
            self.assertLess(after - before, 128)
            self.end(worker, first)

    def test_way(self):
        """The one system call is really taken where it can be: the zygote has no children then."""
        for way in WAYS:
            first = self.fit("count-forks", way=way)
            worker = self.worker(first)
            forks = self.ask(worker)["forks"]
            self.assertEqual(forks, 1 if way == "clone" and glibc() else 2)
            self.end(worker, first)

    def test_failures_look_as_in_a_plain_worker(self):
        plain = Process(FUNCTIONS, "forking.failing")
        self.assertEqual(plain.wire.expect_ready(), b"\1")
        expected = plain.wire.invoke(EVENT, 5)
        self.assertIn(b'line ', expected[1])
        self.assertNotIn(b"_worker.py", expected[1])
        self.end(plain)
        for way in WAYS:
            first = self.fit(way=way, handler="forking.failing")
            worker = self.worker(first)
            self.assertEqual(worker.wire.invoke(EVENT, 5), expected)
            self.end(worker, first)

    def test_threads_and_programs_of_workers(self):
        for way in WAYS:
            for handler, check in (
                ("thread", lambda value: self.assertIs(value, True)),
                ("child", lambda value: self.assertNotIn("socket", value)),
                ("parents_death", lambda value: self.assertEqual(value, signal.SIGKILL)),
            ):
                first = self.fit("logging", way=way, handler="forking." + handler)
                worker = self.worker(first)
                check(self.ask(worker))
                self.end(worker, first)

    def test_random_numbers_of_others(self):
        for way in WAYS:
            first = self.fit("seeds", way=way)
            workers = [self.worker(first) for _ in range(2)]
            seeds = [self.ask(worker)["seeds"] for worker in workers]
            self.assertEqual([kind for kind, _ in seeds], ["numpy", "numpy"])
            self.assertNotEqual(seeds[0][1], seeds[1][1])
            self.end(*workers, first)

    def test_random_numbers_of_numpy(self):
        first = self.fit("numpy")
        workers = [self.worker(first) for _ in range(2)]
        (imported, one), (_, other) = [self.ask(worker)["seeds"] for worker in workers]
        self.assertEqual(len({imported, one, other}), 3)
        self.end(*workers, first)

    def test_collection(self):
        first = self.fit("no-gc")
        worker = self.worker(first)
        self.assertFalse(self.ask(worker)["gc"])
        self.end(worker, first)

    def test_many_requests_at_once(self):
        for way in WAYS:
            first = self.fit(way=way)
            asked = []
            for number in range(5):
                log = host.Log()
                wire = host.Stream()
                head = host.frame(b"\1" + host.varint(number) + host.text("NEW=%d" % number))
                host.socket.send_fds(first.wire.socket, [head], [wire.given[0], log.given, wire.given[1]])
                wire.give()
                os.close(log.given)
                asked.append((wire, log))
            # Each worker answers for itself.
            answers = {first.wire.next()[:2] for _ in range(5)}
            self.assertEqual(answers, {bytes((5, number)) for number in range(5)})
            for number, (wire, log) in enumerate(asked):
                self.assertEqual(wire.expect_ready(), b"\1")
                reply = json.loads(wire.invoke(EVENT, 9)[1])
                self.assertEqual(reply["environment"]["NEW"], str(number))
                wire.close()
                os.waitpid(reply["pid"], 0)
                self.assertEqual(log.read(), b"")
            self.end(first)

    def test_requests_in_parts(self):
        for way in WAYS:
            first = self.fit(way=way)
            for _ in range(2):
                log = host.Log()
                wire = host.Stream()
                frame = host.frame(b"\1\7" + host.text("NEW=1"))
                given = [wire.given[0], log.given, wire.given[1]]
                host.socket.send_fds(first.wire.socket, [frame[:1]], given)
                first.wire.socket.send(frame[1:3])
                first.wire.socket.send(frame[3:])
                wire.give()
                os.close(log.given)
                self.assertEqual(first.wire.next()[:2], b"\5\7")
                self.assertEqual(wire.expect_ready(), b"\1")
                reply = json.loads(wire.invoke(EVENT, 9)[1])
                self.assertEqual(reply["environment"]["NEW"], "1")
                wire.close()
                os.waitpid(reply["pid"], 0)
                self.assertEqual(log.read(), b"")
            self.end(first)

    def test_a_request_without_descriptors(self):
        """Not even those of the request before."""
        for way in WAYS:
            first = self.fit(way=way)
            worker = self.worker(first)
            first.wire.socket.send(host.frame(b"\1\7" + host.text("NEW=1")))
            self.assertEqual(first.wait(), 1)
            self.assertIn(b"a request without its descriptors", first.log.read())
            self.ask(worker)
            first.wire.close()
            self.end(worker)

    def test_without_ctypes(self):
        """A Python without it forks twice, and its workers live by the wire alone."""
        first = self.fit("no-ctypes count-forks")
        worker = self.worker(first)
        seen = self.ask(worker)
        self.assertEqual((seen["parent"], seen["forks"]), (os.getpid(), 2))
        self.end(worker, first)

    def test_no_room_for_a_process(self):
        """A fork that fails is told, and the next one is tried."""
        for way in WAYS:
            first = self.fit("no-fork count-forks", way=way)
            refused = Forked(first)
            self.assertEqual(refused.pid, 0)
            self.assertIsNone(refused.wire.next())
            self.assertEqual(refused.log.read(), b"")
            worker = self.worker(first)
            self.assertEqual(self.ask(worker)["forks"], 2)
            refused.wire.close()
            self.end(worker, first)


class Ends(Case):
    def test_end_of_stream(self):
        """The zygote goes without the function's own ends; workers run them."""
        for way in WAYS:
            first = self.fit("exits", way=way)
            worker = self.worker(first)
            pid = worker.pid
            self.end(first, worker)
            self.assertEqual(first.log.read(), b"")
            self.assertEqual(worker.log.read(), b"atexit %d\n" % pid)

    def test_term(self):
        for way in WAYS:
            for doing in ("", "term", "ignores-term"):
                first = self.fit(doing, way=way)
                worker = self.worker(first)
                self.ask(worker)
                os.kill(first.pid, signal.SIGTERM)
                self.assertEqual(first.wait(), -signal.SIGTERM)
                self.assertEqual(first.log.read(), b"")
                # Workers are the server's: the zygote's end is none of theirs.
                self.ask(worker, 2)
                os.kill(worker.pid, signal.SIGTERM)
                if doing == "ignores-term":
                    self.ask(worker, 3)
                    self.end(worker)
                else:
                    self.assertEqual(worker.wait(), 7 if doing else -signal.SIGTERM)
                    self.assertEqual(worker.log.read(), b"handled\n" if doing else b"")
                    worker.wire.close()
                first.wire.close()

    def test_init_errors(self):
        for doing in ("fails", "before-fails"):
            first = zygote(doing)
            message = first.wire.expect_ready()
            self.assertEqual(message[:1], b"\4")
            error = json.loads(message[1:])
            kind = {"fails": "ValueError", "before-fails": "IndexError"}[doing]
            self.assertEqual((error["errorType"], error["requestId"]), (kind, ""))
            self.end(first, status=1)
            self.assertIn(f"[ERROR] {kind}".encode(), first.log.read())

    def test_hook_fails(self):
        for way in WAYS:
            first = self.fit("fork-fails", way=way)
            for _ in range(2):
                worker = Forked(first)
                message = worker.wire.expect_ready()
                error = json.loads(message[1:])
                self.assertEqual(error["errorMessage"], "no database")
                self.assertTrue(error["stackTrace"][0].startswith('  File "' + FUNCTIONS))
                self.end(worker, status=1)
                self.assertIn(b"[ERROR] OSError: no database", worker.log.read())
            self.end(first)


class Refusing(Case):
    def test_threads(self):
        first, why = self.unfit("thread")
        self.assertEqual(why, "the import left threads running: poller")
        self.end(first)

    def test_descriptors(self):
        path = os.path.join(FUNCTIONS, "forking.py")
        for what, name in (
            ("file", f"a file ({path})"),
            ("socket", "a socket"),
            ("pipe", "a pipe"),
            ("epoll", "an eventpoll"),
            ("terminal", "a device (/dev/ptmx)"),
        ):
            first, why = self.unfit("no-hook " + what)
            self.assertTrue(why.startswith("the import left " + name[:9]), why)
            if what != "terminal":
                self.assertEqual(why, f"the import left {name} open")
            self.end(first)

    def test_descriptors_that_harm_nobody(self):
        for doing in ("no-hook random-device", "no-hook libffi", "file socket", "no-hook snapshot file"):
            first = self.fit(doing)
            self.end(self.worker(first), first)

    def test_it_becomes_the_worker(self):
        first, _ = self.unfit("thread exits term")
        worker = Forked(first, "NEW=1")
        self.assertEqual(worker.pid, first.pid)
        self.assertEqual(worker.wire.expect_ready(), b"\1")
        self.assertIsNone(first.wire.next())
        seen = self.ask(worker)
        self.assertEqual((seen["imported"], seen["pid"]), (first.pid, first.pid))
        self.assertEqual(seen["calls"], [["on_fork", first.pid]])
        self.assertEqual(seen["environment"]["NEW"], "1")
        self.assertTrue(seen["gc"])
        os.kill(worker.pid, signal.SIGTERM)
        self.assertEqual(first.wait(), 7)
        self.assertEqual(worker.log.read(), b"handled\natexit %d\n" % first.pid)
        self.assertEqual(first.log.read(), b"")
        first.wire.close()
        worker.wire.close()

    def test_snapshot_hooks(self):
        expected_before = [["before 2", 0]]
        for way in WAYS:
            first = self.fit("snapshot", way=way)
            for _ in range(2):
                worker = self.worker(first)
                calls = self.ask(worker)["calls"]
                before = expected_before + [["before 1", first.pid]]
                after = [["after", worker.pid, [1], {"two": 2}], ["on_fork", worker.pid]]
                self.assertEqual(calls, before + after)
                self.end(worker)
            self.end(first)
        plain = Process(FUNCTIONS, "forking.handler", {"DOING": "snapshot"})
        self.assertEqual(plain.wire.expect_ready(), b"\1")
        self.assertEqual(self.ask(plain)["calls"], [["on_fork", plain.pid]])
        self.end(plain)


if __name__ == "__main__":
    unittest.main()
