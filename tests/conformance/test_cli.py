"""The AWS CLI, as people type it."""

import base64
import json
import pathlib
import subprocess
import tempfile
import unittest

import serving

# How this version of the CLI ends on an error of the service.
SERVICE_ERROR = {254, 255}

server = None


def setUpModule():
    global server
    server = serving.Server()
    server.function("python")
    server.start()


def tearDownModule():
    server.stop()


class Cli(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        self.out = pathlib.Path(self.place.name) / "out.json"

    def aws(self, *arguments):
        return subprocess.run(
            ["aws", "lambda", "invoke", *arguments, str(self.out)],
            env=serving.environment(server.endpoint),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=serving.SOON,
        )

    def ok(self, *arguments):
        """A call that the CLI is content with; what it printed."""
        ran = self.aws(*arguments)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return json.loads(ran.stdout)

    def test_invokes_and_shows_the_log(self):
        event = '{"do":"say","text":"hello"}'
        call = ["--function-name", "python", "--payload", event, "--log-type", "Tail"]
        printed = self.ok(*call)
        log = base64.b64decode(printed.pop("LogResult")).decode().splitlines()
        self.assertEqual(log[-4:-2], ["hello out", "hello err"])
        self.assertRegex(log[-1], r"\AREPORT RequestId: .*\t\Z")
        self.assertEqual(printed, {"StatusCode": 200, "ExecutedVersion": "$LATEST"})
        self.assertEqual(self.out.read_bytes(), b"null")

    def test_a_function_error_is_told_in_the_output(self):
        event = '{"do":"fail","message":"no stock"}'
        printed = self.ok("--function-name", serving.arn("python"), "--payload", event)
        told = {"StatusCode": 200, "FunctionError": "Unhandled", "ExecutedVersion": "$LATEST"}
        self.assertEqual(printed, told)
        self.assertEqual(json.loads(self.out.read_bytes())["errorMessage"], "no stock")

    def test_a_payload_of_6_mebibytes_from_a_file(self):
        payload = b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'
        file = pathlib.Path(self.place.name) / "event.json"
        file.write_bytes(payload)
        self.ok("--function-name", "python", "--payload", f"fileb://{file}")
        self.assertTrue(self.out.read_bytes() == payload)

    def test_a_dry_run(self):
        printed = self.ok("--function-name", "python", "--invocation-type", "DryRun")
        self.assertEqual(printed, {"StatusCode": 204})

    def test_an_unknown_function_is_an_error_of_the_service(self):
        ran = self.aws("--function-name", "none")
        self.assertIn(ran.returncode, SERVICE_ERROR)
        said = (
            "An error occurred (ResourceNotFoundException) when calling the Invoke operation: "
            f"Function not found: {serving.arn('none')}:$LATEST"
        )
        self.assertIn(said, ran.stderr)
