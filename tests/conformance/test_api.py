"""The Invoke operation by boto3: names, kinds of invocation, limits and errors."""

import base64
import json
import pathlib
import tempfile
import threading
import unittest

import botocore
from botocore.exceptions import ClientError

import serving
from serving import arn

MIB = 1024 * 1024

server = small = None


def setUpModule():
    global server, small
    server = serving.Server()
    server.function("python")
    server.function("shell")
    server.function("python", "one", reserved_concurrency=1, queue_wait_ms=0)
    server.function("python", "off", reserved_concurrency=0)
    server.function("shell", "verbose")
    server.start()
    small = serving.Server()
    small.function("shell", queue_wait_ms=0)
    small.start("--slots", "1")


def tearDownModule():
    server.stop()
    small.stop()


class Held:
    """An invocation that runs until it is let go."""

    def __init__(self, server, name):
        self.place = tempfile.TemporaryDirectory(dir=server.root)
        event = {"do": "meet", "place": self.place.name, "count": 2}
        self.reply = None

        def run():
            self.reply = server.accepted(name, event)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        path = pathlib.Path(self.place.name)
        serving.eventually("the invocation runs", lambda: list(path.iterdir()))

    def __enter__(self):
        return self

    def let_go(self):
        (pathlib.Path(self.place.name) / "go").touch()
        self.thread.join(serving.SOON)

    def __exit__(self, *_):
        self.let_go()
        self.place.cleanup()


class Invoke(unittest.TestCase):
    def refused(self, status, name, message, **call):
        """An invocation that is not taken; the error as botocore raises it."""
        call.setdefault("FunctionName", "shell")
        with self.assertRaises(ClientError) as raised:
            call.pop("server", server).client.invoke(**call)
        response = raised.exception.response
        self.assertEqual(response["Error"]["Code"], name)
        self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], status)
        self.assertRegex(response["Error"]["Message"], rf"\A({message})\Z")
        self.assertRegex(response["ResponseMetadata"]["RequestId"], "[0-9a-f]{8}(-[0-9a-f]{4}){3}")
        self.assertIsInstance(
            raised.exception, getattr(server.client.exceptions, name, ClientError)
        )
        return response

    def throttled(self, server, name, reason):
        response = self.refused(
            429, "TooManyRequestsException", "Rate Exceeded.", server=server, FunctionName=name
        )
        self.assertEqual(response["Reason"], reason)
        self.assertEqual(response["Type"], "User")

    def test_every_way_to_write_a_name(self):
        full = arn("shell")
        for name, qualifier, invoked in [
            ("shell", None, full),
            ("shell:$LATEST", None, f"{full}:$LATEST"),
            (f"{serving.ACCOUNT}:function:shell", None, full),
            (full, None, full),
            (f"{full}:$LATEST", "$LATEST", f"{full}:$LATEST"),
        ]:
            with self.subTest(name=name):
                more = {"Qualifier": qualifier} if qualifier else {}
                reply = server.invoke(name, {"do": "context"}, **more)
                self.assertEqual(json.loads(reply["Payload"])["arn"], invoked)

    def test_no_payload_is_an_empty_object(self):
        for name in ["python", "shell"]:
            self.assertEqual(server.invoke(name)["Payload"], b"{}")

    def test_dry_run_runs_nothing(self):
        reply = server.invoke("shell", {"do": "exit", "status": 1}, InvocationType="DryRun")
        self.assertEqual(reply["StatusCode"], 204)
        self.assertEqual(reply["Payload"], b"")
        self.assertNotIn("ExecutedVersion", reply)
        message = f"Function not found: {arn('none')}:\\$LATEST"
        call = {"FunctionName": "none", "InvocationType": "DryRun"}
        self.refused(404, "ResourceNotFoundException", message, **call)

    def test_no_log_without_the_wish(self):
        self.assertNotIn("LogResult", server.invoke("shell", {"do": "nothing"}))

    def test_the_log_tail_is_the_last_4_kilobytes(self):
        event = {"do": "say", "text": "much " * 700}
        reply = server.invoke("verbose", event, LogType="Tail")
        log = base64.b64decode(reply["LogResult"])
        self.assertTrue(3 * 1024 < len(log) <= 4 * 1024, len(log))
        self.assertNotIn(b"START RequestId", log)
        self.assertRegex(log, b"much  err\nEND RequestId: .*\nREPORT RequestId: .*\t\n\\Z")

    def test_unknown_functions(self):
        missing = "ResourceNotFoundException"
        message = f"Function not found: {arn('none')}:\\$LATEST"
        response = self.refused(404, missing, message, FunctionName="none", Payload=b"{}")
        self.assertEqual(response["Type"], "User")
        message = f"Function not found: {arn('shell')}:live"
        self.refused(404, missing, message, Qualifier="live")
        other = arn("shell").replace(serving.REGION, "us-west-2")
        message = (
            f"Functions from 'us-west-2' are not reachable in this region \\('{serving.REGION}'\\)"
        )
        self.refused(404, missing, message, FunctionName=other)
        message = (
            "The derived qualifier from the function name does not match the specified qualifier."
        )
        call = {"FunctionName": "shell:live", "Qualifier": "$LATEST"}
        self.refused(400, "InvalidParameterValueException", message, **call)

    def test_payloads_that_are_not_json(self):
        message = "Could not parse request body into json: .+"
        for payload in [b"{", b"{} {}", b"nul", b"{'a':1}", b'"\xff"', b'"\x01"', b"[1,]"]:
            with self.subTest(payload=payload):
                self.refused(400, "InvalidRequestContentException", message, Payload=payload)

    def test_a_payload_over_6_mebibytes(self):
        payload = b'"' + b"x" * (6 * MIB - 1) + b'"'
        message = "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
        self.refused(413, "RequestTooLargeException", message, Payload=payload)
        self.assertEqual(server.invoke("shell", {"n": 1})["Payload"], b'{"n":1}')

    def test_a_function_at_its_reservation_throttles(self):
        reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
        with Held(server, "one") as held:
            self.throttled(server, "one", reason)
            held.let_go()
            self.assertNotIn("FunctionError", held.reply)
        self.assertEqual(server.accepted("one", {"n": 1})["StatusCode"], 200)
        self.throttled(server, "off", reason)

    def test_a_full_server_throttles(self):
        with Held(small, "shell"):
            self.throttled(small, "shell", "ConcurrentInvocationLimitExceeded")
        self.assertEqual(small.accepted("shell", {"n": 1})["StatusCode"], 200)

    def test_a_client_that_tries_again_gets_through(self):
        client = small.boto(retries=9)
        tries = []

        def at_the_second(**_):
            tries.append(1)
            if len(tries) == 2:
                held.let_go()

        client.meta.events.register("before-send.lambda.Invoke", at_the_second)
        with Held(small, "shell") as held:
            reply = client.invoke(FunctionName="shell", Payload=b"7")
        self.assertEqual(reply["Payload"].read(), b"7")
        self.assertGreaterEqual(reply["ResponseMetadata"]["RetryAttempts"], 1)

    def test_an_unsigned_client_is_served(self):
        client = server.boto(signature_version=botocore.UNSIGNED)
        reply = client.invoke(FunctionName="shell", Payload=b"[]")
        self.assertEqual(reply["Payload"].read(), b"[]")
