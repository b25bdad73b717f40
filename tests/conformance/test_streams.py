"""Replies that are streamed: by boto3 and by function URLs, on every client that can stream."""

import base64
import concurrent.futures
import http.client
import json
import pathlib
import subprocess
import tempfile
import unittest

import serving
from serving import compact

LENGTH = 20_000_000
# What lambda_runtime puts in front of every stream.
RUST_HEAD = (
    b'{"statusCode":200,"headers":{"content-type":"application/octet-stream"},"cookies":[]}'
    + bytes(8)
)

server = None


def setUpModule():
    global server
    server = serving.Server()
    for client, handler in [
        ("node", "app.stream"),
        ("hob-node", "app.stream"),
        ("rust", "stream"),
        ("shell", "any"),
    ]:
        server.function(client, handler=handler)
        url = server.root / "functions" / client / "function.toml"
        url.write_text(url.read_text() + '[url]\nauth = "none"\ninvoke_mode = "response_stream"\n')
    server.function("python")
    server.start()


def tearDownModule():
    server.stop()


def begin(name, event, **more):
    """The events of a streaming invocation, one by one."""
    reply = server.client.invoke_with_response_stream(
        FunctionName=name, Payload=compact(event), **more
    )
    assert reply["StatusCode"] == 200 and reply["ExecutedVersion"] == "$LATEST", reply
    return iter(reply["EventStream"])


def rest(events):
    """What is left of the payload, and what the last event says."""
    payload = b""
    for event in events:
        if "InvokeComplete" in event:
            assert next(events, None) is None, "nothing comes behind it"
            return payload, event["InvokeComplete"]
        payload += event["PayloadChunk"]["Payload"]
    raise AssertionError("the stream has no end")


class EveryStream:
    """Mixed into one TestCase for each client that streams."""

    client = ""
    head = b""

    def setUp(self):
        self.place = tempfile.TemporaryDirectory(dir=server.root)
        self.addCleanup(self.place.cleanup)
        self.gate = pathlib.Path(self.place.name) / "gate"

    def event(self, **more):
        return {"do": "stream", "parts": ["one"], "gate": "", "size": 0, **more}

    def first(self, events):
        """Reads until the first part is there, and what came before it."""
        payload = b""
        while len(payload) < len(self.head) + 3:
            payload += next(events)["PayloadChunk"]["Payload"]
        self.assertEqual(payload, self.head + b"one")

    def test_a_part_arrives_before_the_handler_ends(self):
        event = self.event(gate=str(self.gate), size=1000)
        events = begin(self.client, event, LogType="Tail")
        self.first(events)
        # Only now may the handler go on.
        self.gate.touch()
        payload, end = rest(events)
        self.assertEqual(payload, b"x" * 1000)
        self.assertIn("REPORT", base64.b64decode(end.pop("LogResult")).decode())
        self.assertEqual(end, {})

    def test_a_large_stream_takes_no_memory(self):
        self.assertEqual(rest(begin(self.client, self.event()))[0], self.head + b"one")
        # The peak until now was others'.
        pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        before = memory("VmRSS")
        payload, end = rest(begin(self.client, self.event(size=LENGTH)))
        self.assertEqual((len(payload), end), (len(self.head) + 3 + LENGTH, {}))
        self.assertLess(memory("VmHWM") - before, 3000, "KiB")

    def test_invoke_gets_all_of_it(self):
        reply = server.invoke(self.client, self.event(size=100_000))
        self.assertNotIn("FunctionError", reply)
        self.assertEqual(reply["Payload"], self.head + b"one" + b"x" * 100_000)
        reply = server.invoke(self.client, self.event(size=7_000_000))
        self.assertEqual(reply["FunctionError"], "Unhandled")
        error = json.loads(reply["Payload"])["errorType"]
        self.assertEqual(error, "Function.ResponseSizeTooLarge")

    def test_who_leaves_halfway_stops_nobody(self):
        event = self.event(gate=str(self.gate), size=1_000_000)
        reply = server.client.invoke_with_response_stream(
            FunctionName=self.client, Payload=compact(event)
        )
        self.first(iter(reply["EventStream"]))
        reply["EventStream"].close()
        self.gate.touch()
        self.assertEqual(rest(begin(self.client, self.event()))[0], self.head + b"one")

    def test_a_slow_client_gets_all_of_it(self):
        events = begin(self.client, self.event(size=LENGTH))
        self.first_of_many(events)
        # Meanwhile others are served.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for reply in pool.map(lambda n: server.invoke("python", n), range(40)):
                self.assertNotIn("FunctionError", reply)
        payload, end = rest(events)
        self.assertEqual((len(payload) + self.seen, end), (len(self.head) + 3 + LENGTH, {}))

    def first_of_many(self, events):
        self.seen = len(next(events)["PayloadChunk"]["Payload"])


class Failing(EveryStream):
    """For clients that can tell an error halfway."""

    def test_an_error_halfway_ends_the_stream(self):
        payload, end = rest(begin(self.client, self.event(fail="halfway")))
        self.assertEqual(payload, b"one")
        self.assertEqual(end["ErrorCode"], "TypeError")
        details = json.loads(end["ErrorDetails"])
        self.assertEqual((details["errorType"], details["errorMessage"]), ("TypeError", "halfway"))
        reply = server.invoke(self.client, self.event(fail="halfway"))
        self.assertEqual(reply["FunctionError"], "Unhandled")
        self.assertEqual(json.loads(reply["Payload"])["errorMessage"], "halfway")

    def url(self, event):
        """The answer to a request to the function's URL, by curl, and how curl ended."""
        command = ["curl", "-sS", "-i", "-N", f"{server.endpoint}/fn/{self.client}/x"]
        data = ["--data-binary", compact(event).decode()]
        return subprocess.Popen([*command, *data], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_the_prelude_is_the_head_of_the_response(self):
        head = {"statusCode": 201, "headers": {"X-A": "b"}, "cookies": ["c=1", "d=2"]}
        event = self.event(head=head, gate=str(self.gate), size=10)
        curl = self.url(event)
        said = b""
        while not said.endswith(b"one"):
            said += curl.stdout.read1()
        self.gate.touch()
        body, errors = curl.communicate(timeout=serving.SOON)
        self.assertEqual((body, errors, curl.returncode), (b"x" * 10, b"", 0))
        lines = said.decode().split("\r\n\r\n")[0].split("\r\n")
        self.assertTrue(lines[0].startswith("HTTP/1.1 201"), lines)
        for line in ["X-A: b", "Set-Cookie: c=1", "Set-Cookie: d=2", "Transfer-Encoding: chunked"]:
            self.assertIn(line, lines)

    def test_an_error_halfway_cuts_the_response_off(self):
        curl = self.url(self.event(fail="halfway"))
        out, _ = curl.communicate(timeout=serving.SOON)
        self.assertIn(b"Content-Type: application/octet-stream\r\n", out)
        self.assertTrue(out.endswith(b"\r\n\r\none"), out)
        # 18: a partial file, 56: nothing more came.
        self.assertIn(curl.returncode, (18, 56))


class Node(Failing, unittest.TestCase):
    client = "node"


class HobNode(Failing, unittest.TestCase):
    client = "hob-node"


class Rust(EveryStream, unittest.TestCase):
    client = "rust"
    head = RUST_HEAD

    def test_an_error_halfway_is_what_its_client_makes_of_it(self):
        # It writes its trailers into the body, as text, and ends well.
        payload, end = rest(begin("rust", self.event(fail="halfway")))
        self.assertTrue(payload.startswith(RUST_HEAD + b"one"), payload)
        self.assertIn(b"Lambda-Runtime-Function-Error-Type: Runtime.StreamError", payload)
        self.assertEqual(end, {})

    def test_the_url_takes_its_prelude_off(self):
        connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"))
        self.addCleanup(connection.close)
        connection.request("GET", "/fn/rust")
        reply = connection.getresponse()
        self.assertEqual((reply.status, reply.read()), (200, b""))
        self.assertEqual(reply.getheader("Content-Type"), "application/octet-stream")


class Shell(EveryStream, unittest.TestCase):
    client = "shell"


class Others(unittest.TestCase):
    def test_whole_replies_and_errors_come_as_streams_too(self):
        payload, end = rest(begin("python", {"n": 1}))
        self.assertEqual((json.loads(payload), end), ({"n": 1}, {}))
        payload, end = rest(begin("python", {"do": "fail", "message": "boom"}))
        self.assertEqual(payload, b"")
        self.assertEqual(json.loads(end["ErrorDetails"])["errorMessage"], "boom")

    def test_a_dry_run_runs_nothing(self):
        reply = server.client.invoke_with_response_stream(
            FunctionName="python", InvocationType="DryRun"
        )
        self.assertEqual(reply["StatusCode"], 204)

    def test_a_function_that_is_not_there(self):
        missing = server.client.exceptions.ResourceNotFoundException
        with self.assertRaises(missing):
            server.client.invoke_with_response_stream(FunctionName="nobody")


def memory(key):
    """What the server has, in KiB."""
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0])
