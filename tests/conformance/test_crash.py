"""The server is killed at random instants of updates: what is on the disk is what was there before
the one it was killed in, or what is there after it.

Instants follow from a seed, which is printed and can be given: SEED=7 tests/conformance/run ...
"""

import base64
import hashlib
import json
import os
import random
import threading
import unittest
import urllib.request

import botocore.exceptions

import serving
from managing import ROLE, says

ROUNDS = 40
# Longer than three changes take, so that kills fall into every part of them.
LONGEST_S = 0.12

GONE = (
    botocore.exceptions.EndpointConnectionError,
    botocore.exceptions.ConnectionClosedError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.HTTPClientError,
)


class Writer(threading.Thread):
    """Changes a function again and again, until the server is gone."""

    def __init__(self, client, n):
        super().__init__()
        self.client = client
        # What the server has confirmed, and what it was asked for last.
        self.confirmed = self.asked = n
        self.trouble = None

    def run(self):
        try:
            while True:
                self.asked = self.confirmed + 1
                self.change(self.asked)
                self.confirmed = self.asked
        except GONE:
            pass
        except Exception as error:
            self.trouble = error

    def change(self, n):
        """Code and configuration that belong together, a version of both, and an alias to that."""
        function = {"FunctionName": "f"}
        # Both come with a number: one update is of the code, the other of the variable.
        self.client.update_function_configuration(
            Environment={"Variables": {"NUMBER": str(n)}}, **function
        )
        self.client.update_function_code(ZipFile=says(n), **function)
        version = self.client.publish_version(**function)["Version"]
        self.client.update_alias(Name="live", FunctionVersion=version, **function)


class Crash(unittest.TestCase):
    def setUp(self):
        self.server = serving.Server()
        self.addCleanup(self.server.stop)

    def start(self):
        self.server.start("--slots", "8")
        return self.server.client

    def test_a_killed_server_has_the_state_before_or_after(self):
        seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
        print(f"SEED={seed}", end=" ", flush=True)
        instants = random.Random(seed)
        client = self.start()
        client.create_function(
            FunctionName="f",
            Runtime=serving.BUNDLED["hob-python"],
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": says(0)},
            Environment={"Variables": {"NUMBER": "0"}},
            Publish=True,
        )
        client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
        n, killed_within = 0, 0
        for _ in range(ROUNDS):
            writer = Writer(client, n)
            writer.start()
            # The instant of the kill is the test's input, and nothing is waited for here.
            threading.Event().wait(instants.uniform(0, LONGEST_S))
            self.server.process.kill()
            self.server.process.wait(serving.SOON)
            writer.join()
            self.assertIsNone(writer.trouble)
            killed_within += writer.asked != writer.confirmed
            client = self.start()
            n = self.check(client, writer)
        self.assertGreater(killed_within, ROUNDS // 2, "kills fell between updates")

    def check(self, client, writer):
        """Everything that is there is whole; returns the number from which changes go on."""
        shown = client.get_function(FunctionName="f")
        configuration = shown["Configuration"]
        number = int(configuration["Environment"]["Variables"]["NUMBER"])
        self.assertIn(number, {writer.confirmed, writer.asked})
        code = self.code(client, shown)
        # The configuration is changed first.
        self.assertIn(code, {writer.confirmed, number})
        pages = client.get_paginator("list_versions_by_function").paginate(FunctionName="f")
        versions = [version for page in pages for version in page["Versions"]][1:]
        self.assertEqual(
            [version["Version"] for version in versions],
            [str(version) for version in range(1, len(versions) + 1)],
        )
        alias = client.get_alias(FunctionName="f", Name="live")["FunctionVersion"]
        self.assertIn(int(alias), range(1, len(versions) + 1))
        for qualifier in {alias, versions[-1]["Version"], "live"}:
            reply = self.server.invoke("f", Qualifier=qualifier)
            self.assertNotIn("FunctionError", reply, reply["Payload"])
        incoming = self.server.root / "data" / "incoming"
        self.assertEqual(list(incoming.iterdir()), [], "what came halfway is gone")
        return max(code, number) if code == number else writer.confirmed

    def code(self, client, shown):
        """The number that the code says, which is the code of the configuration's digest."""
        with urllib.request.urlopen(shown["Code"]["Location"], timeout=serving.SOON) as reply:
            digest = hashlib.sha256(reply.read()).digest()
        self.assertEqual(
            base64.b64encode(digest).decode(), shown["Configuration"]["CodeSha256"]
        )
        reply = self.server.invoke("f")
        self.assertNotIn("FunctionError", reply, reply["Payload"])
        return json.loads(reply["Payload"])[0]
