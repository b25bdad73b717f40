"""Functions that are made over the API: what the tests of the control plane have in common."""

import io
import json
import stat
import unittest
import zipfile

from botocore.exceptions import ClientError

import serving
import shapes

ROLE = f"arn:aws:iam::{serving.ACCOUNT}:role/board"
# Waiters ask every second or every five; here nothing takes so long.
QUICK = {"Delay": 0.05, "MaxAttempts": 200}

server = client = None


def start(toml="", **settings):
    """A server with a folder, whose function.toml has these settings and sections too, and no
    patience with those who wait."""
    global server
    server = serving.Server()
    server.function("shell", "folder", reserved_concurrency=1, **settings)
    with open(server.root / "functions/folder/function.toml", "a") as file:
        file.write(toml)
    return server, _begin()


def restart():
    """The same server once more; its client."""
    server.terminate()
    server.wait()
    return _begin()


def _begin():
    global client
    server.start("--slots", "8", "--queue-wait", "0")
    client = server.client
    shapes.watch(client)
    return client


def zipped(**files):
    """A zip of these files; dots in names are written as two underscores."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name.replace("__", "."))
            entry.external_attr = (stat.S_IFREG | 0o755) << 16
            archive.writestr(entry, text)
    return out.getvalue()


def python(text):
    return zipped(app__py=f"import os\ndef handler(event, context):\n    {text}\n")


def says(n):
    return python(f"return [{n!r}, context.function_version, context.invoked_function_arn]")


def create(name, code=None, **more):
    settings = {
        "Runtime": serving.BUNDLED["hob-python"],
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": code or says(1)},
    }
    return client.create_function(FunctionName=name, **{**settings, **more})


class Case(unittest.TestCase):
    def setUp(self):
        """A name of its own for each test; what is left of it goes at the end."""
        self.name = self.id().rsplit(".", 1)[-1][:64]
        self.addCleanup(self.gone, self.name)

    def gone(self, name):
        try:
            client.delete_function(FunctionName=name)
        except client.exceptions.ResourceNotFoundException:
            pass

    def call(self, qualifier=None, event=None):
        more = {"Qualifier": qualifier} if qualifier else {}
        reply = server.invoke(self.name, event, **more)
        self.assertNotIn("FunctionError", reply, reply["Payload"])
        return json.loads(reply["Payload"])

    def refused(self, status, code, message, operation, **parameters):
        with self.assertRaises(ClientError) as caught:
            operation(**parameters)
        response = caught.exception.response
        self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], status, response)
        self.assertEqual(response["Error"]["Code"], code, response)
        self.assertIn(message, response["Error"]["Message"])
        return response


def ready(client, name, qualifier="live"):
    config = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
    return config["Status"] == "READY"
