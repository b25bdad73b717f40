"""An external extension on lambda-extension, from a layer, beside functions on other clients."""

import time
import unittest

import serving
from serving import arn


class External(unittest.TestCase):
    def serve(self, client, **settings):
        """A server with this function, and what its extension hears."""
        server = serving.Server()
        self.addCleanup(server.stop)
        layers = [str(server.layer("observer"))]
        variables = {"HEARD": str(server.root / "heard")}
        server.function(client, variables=variables, layers=layers, **settings)
        return server.start()

    def heard(self, server, count):
        """So many events, once they were heard."""

        def lines():
            path = server.root / "heard"
            text = path.read_text() if path.exists() else ""
            lines = [line.split(" ") for line in text.splitlines()]
            return (lines,) if len(lines) >= count else None

        return serving.eventually(f"{count} events are heard", lines)[0]

    def test_it_hears_of_invocations_and_of_the_end(self):
        for client in serving.HANDLERS:
            with self.subTest(client=client):
                # With a slow client the next invocation would start another worker.
                server = self.serve(client, reserved_concurrency=1, queue_wait_ms=10_000)
                asked = time.time() * 1000
                requests = [server.invoke(client, {"n": n})["RequestId"] for n in range(3)]
                for request, line in zip(requests, self.heard(server, 3), strict=True):
                    self.assertEqual(line[:3], ["INVOKE", request, arn(client)])
                    self.assertTrue(asked + 19_000 < int(line[3]) < asked + 60_000, line)
                    self.assertRegex(line[4], r"\ARoot=1-[0-9a-f]{8}-[0-9a-f]{24}")
                server.terminate()
                self.assertEqual(server.wait(), 0)
                lines = self.heard(server, 4)
                self.assertEqual(lines[3][:2], ["SHUTDOWN", "spindown"])
                self.assertEqual(len(lines), 4)

    def test_it_is_told_why_the_worker_goes(self):
        server = self.serve("python", timeout_s=1)
        for event, error, reason in [
            ({"do": "sleep", "seconds": 30}, b"Sandbox.Timedout", "timeout"),
            ({"do": "exit", "status": 3}, b"Runtime.ExitError", "failure"),
        ]:
            before = len(self.heard(server, 0))
            self.assertIn(error, server.invoke("python", event)["Payload"])
            line = self.heard(server, before + 2)[before + 1]
            self.assertEqual(line[:2], ["SHUTDOWN", reason])
