"""The end of a server: running invocations finish, and every client's cleanup hook runs."""

import pathlib
import unittest

from botocore.exceptions import ClientError, EndpointConnectionError

import serving
from test_api import Held


class Drain(unittest.TestCase):
    def setUp(self):
        self.server = serving.Server()
        self.addCleanup(self.server.stop)

    def test_the_cleanup_hook_of_every_client_runs(self):
        for client in serving.HANDLERS:
            variables = {"CLEANUP": str(self.server.root / f"{client}.cleaned")}
            self.server.function(client, variables=variables, shutdown_grace_ms=2000)
        self.server.start()
        pids = {}
        for client in serving.HANDLERS:
            told = self.server.invoke(client, {"do": "count"})
            pids[client] = told["Payload"]
        self.server.terminate()
        self.assertEqual(self.server.wait(), 0)
        for client, told in pids.items():
            with self.subTest(client=client):
                path = self.server.root / f"{client}.cleaned"
                self.assertTrue(path.exists(), "the hook did not run")
                self.assertIn(b'"pid":' + path.read_bytes().strip(), told.replace(b" ", b""))
                pid = int(path.read_text())
                self.assertFalse(pathlib.Path(f"/proc/{pid}").exists())

    def test_running_invocations_finish_and_new_ones_are_refused(self):
        self.server.function("python")
        self.server.start()
        with Held(self.server, "python") as held:
            self.server.terminate()

            def refused():
                try:
                    self.server.invoke("python", 1)
                except ClientError as error:
                    return error.response
                return None

            response = serving.eventually("new invocations are refused", refused)
            self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], 503)
            self.assertEqual(response["Error"]["Code"], "ServiceException")
            self.assertIsNone(self.server.process.poll())
            held.let_go()
            self.assertNotIn("FunctionError", held.reply)
            self.assertIn(b'"pid"', held.reply["Payload"])
        self.assertEqual(self.server.wait(), 0)
        with self.assertRaises(EndpointConnectionError):
            self.server.invoke("python", 1)
