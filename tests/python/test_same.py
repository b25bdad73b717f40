"""The same function on the same events, by our bootstrap and by AWS's runtime client."""

import json
import os
import re
import time
import unittest

import host
import reference
from functions import values
from host import Event

FUNCTIONS = os.path.join(host.HERE, "functions")
WAYS = ("plain", "clone", "double")

FAILURES = (
    "boom empty odd deep chained library sourceless call repeated multi logged wrong_number".split()
)
TIME = "%Y-%m-%dT%H:%M:%S"
CLIENT = {
    "custom": {"k": "é"},
    "env": {"locale": "de"},
    "client": {"installation_id": "i", "app_title": "t", "extra": 1},
    "w3c": {"traceparent": "00-1", "tracestate": 5, "baggage": "b", "other": "o"},
}
IDENTITY = {"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"}


def named(names):
    """An event for each name, which is its payload."""
    return [Event(json.dumps(name).encode()) for name in names]


def ours(way, handler, events, variables):
    """What our bootstrap does, in the form of `reference.run`."""
    forks = way != "plain"
    first = host.Process(FUNCTIONS, handler, dict(variables, HOB_FORK=way), forks)
    worker, init, outcomes = first, first.wire.expect_ready(), []
    if forks and init == b"\1":
        worker = host.Forked(first)
        init = worker.wire.expect_ready()
    if init == b"\1":
        for number, event in enumerate(events, 120):
            outcome = worker.wire.invoke(event, number)
            if outcome is None:
                break
            outcomes.append(outcome)
        init = None
        ended = len(outcomes) < len(events)
    else:
        init = init and init[1:]
        ended = True
    status = worker.end()
    if not ended:
        assert status == 0
        status = None
    log = b""
    if first is not worker:
        assert first.end() == 0
        log = first.log.read()
    return init, outcomes, log + worker.log.read(), status


def comparable(log):
    """A log without what differs from run to run, and from client to client."""
    log = log.decode()
    log = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", "TIME", log)
    # The trace of what ends a process begins in the client itself.
    return re.sub(r"(?s)(Traceback \(most recent call last\):\n).*?(Keyboard)", r"\1\2", log)


@unittest.skipUnless(reference.site_packages(), "CLIENTS names no AWS client")
class Same(unittest.TestCase):
    maxDiff = None

    def compare(self, handler, events=(), variables=None):
        variables = variables or {}
        theirs = reference.run(FUNCTIONS, handler, events, variables)
        for way in WAYS:
            with self.subTest(handler=handler, way=way, variables=variables):
                got = ours(way, handler, events, variables)
                self.assertEqual(got[0], theirs[0])
                self.assertEqual(len(got[1]), len(theirs[1]))
                for event, mine, other in zip(events, got[1], theirs[1]):
                    self.assertEqual(mine, other, event.payload[:100])
                self.assertEqual(comparable(got[2]), comparable(theirs[2]))
                self.assertEqual(got[3], theirs[3])
        return theirs

    def test_results(self):
        for runtime in ("AWS_Lambda_python3.11", "AWS_Lambda_python3.14"):
            events = named(values.VALUES)
            outcomes = self.compare("values.handler", events, {"AWS_EXECUTION_ENV": runtime})[1]
            self.assertEqual(len(outcomes), len(events))
            self.assertEqual({kind for kind, _ in outcomes}, {"reply", "error"})

    def test_events(self):
        payloads = [
            b"{}",
            b' {"a" : [ ] }\n',
            b'"\\ud83d\\ude00 \xc3\xa9 \\u2028"',
            b"[1, -0, 0.1, 1e5, 123456789012345678901234567890]",
            b'{"a":{"a":{"a":[[[null,true,false]]]}}}',
            b'{"k":1,"k":2}',
            b'"' + b"x" * 3_000_000 + b'"',
            b"1" * 5000,
        ]
        self.compare("values.echo", [Event(payload) for payload in payloads])

    def test_failures(self):
        for variables in ({}, {"AWS_LAMBDA_LOG_FORMAT": "JSON"}, {"AWS_LAMBDA_LOG_LEVEL": "error"}):
            self.compare("failing.handler", named(FAILURES), variables)

    def test_ends(self):
        for name in ("leave", "leave_well", "leave_with_words"):
            status = self.compare("failing.handler", named([name]))[3]
            self.assertIsNotNone(status)

    def test_logs(self):
        for variables in (
            {},
            {"AWS_LAMBDA_LOG_LEVEL": "TRACE"},
            {"AWS_LAMBDA_LOG_LEVEL": "nothing"},
            {"AWS_LAMBDA_LOG_FORMAT": "json", "AWS_LAMBDA_LOG_LEVEL": "INFO"},
            {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"},
        ):
            log = self.compare("talking.handler", named(["one", "args"]), variables)[2]
            self.assertIn(b"by context", log)

    def test_times_are_utc(self):
        for variables in ({}, {"AWS_LAMBDA_LOG_FORMAT": "JSON"}):
            variables = dict(variables, TZ="XXX-5:30")
            before = time.strftime(TIME, time.gmtime(time.time() - 1))
            log = ours("plain", "talking.handler", named(["one"]), variables)[2].decode()
            after = time.strftime(TIME, time.gmtime(time.time() + 1))
            times = re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", log)
            self.assertEqual(len(times), 5, log)
            for found in times:
                self.assertTrue(before <= found <= after, (before, found, after))

    def test_context(self):
        self.compare(
            "talking.context",
            [
                Event(b"{}"),
                Event(b"{}", trace="Root=1-a;Sampled=0", context=json.dumps(CLIENT)),
                Event(b"{}", request_id="other", identity=json.dumps(IDENTITY)),
                Event(b"{}", context="{}", identity="{}"),
                Event(b"{}", context="null"),
                Event(b"{}", context='{"client": {}, "w3c": 1}'),
                Event(b"{}", context="{"),
                Event(b"{}", identity="nonsense"),
            ],
        )

    def test_handler_names(self):
        for handler in ("folder/inside.handler", "folder.inside.handler"):
            self.assertEqual(self.compare(handler, named(["x"]))[1][0][1], b'"folder.inside"')
        for handler in (
            "values",
            "values.missing",
            "missing.handler",
            "folder/missing.handler",
            "sys.exit",
            "sys.path.exit",
            ".handler",
            "values.",
            "/values.handler",
            "init/syntax.handler",
            "init/indented.handler",
            "init/missing.handler",
            "init/missing_name.handler",
            "init/raising.handler",
            "init/outer.handler",
        ):
            for variables in ({}, {"AWS_LAMBDA_LOG_FORMAT": "JSON"}):
                init, outcomes, _, status = self.compare(handler, named(["x"]), variables)
                self.assertEqual((outcomes, status), ([], 1), handler)
                self.assertIn(b"errorType", init)

    def test_ends_at_import(self):
        for handler, status in (
            ("init.leaving.handler", 4),
            ("init.leaving_well.handler", 0),
            ("init.interrupted.handler", -2),
        ):
            self.assertEqual(self.compare(handler, named(["x"]))[3], status)
