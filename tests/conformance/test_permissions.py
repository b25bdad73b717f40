"""Policies that count: keys and function URLs on a server with `[auth] strict = true`."""

import json
import unittest
import urllib.error
import urllib.request

from botocore.exceptions import ClientError

import managing
import serving

ADMIN = ("AKIDEXAMPLE", "secret")
OTHER = ("AKIDOTHER", "another")

CONFIG = f"""
[auth]
strict = true
keys = [
    {{ id = "{ADMIN[0]}", secret = "{ADMIN[1]}" }},
    {{ id = "{OTHER[0]}", secret = "{OTHER[1]}", scope = "invoke", functions = ["none"] }},
]
"""

server = client = None


def setUpModule():
    global server, client
    server = serving.Server()
    (server.root / "hob.toml").write_text(CONFIG)
    server.start("--config", server.root / "hob.toml")
    client = server.client
    client.create_function(
        FunctionName="made",
        Runtime=serving.BUNDLED["hob-python"],
        Role=managing.ROLE,
        Handler="app.handler",
        Code={"ZipFile": managing.says(1)},
        Publish=True,
    )
    client.create_alias(FunctionName="made", Name="live", FunctionVersion="1")


def tearDownModule():
    server.stop()


class Strict(unittest.TestCase):
    def may(self, qualifier=None):
        """Whether the other key may invoke."""
        more = {"Qualifier": qualifier} if qualifier else {}
        try:
            server.boto(key=OTHER).invoke(FunctionName="made", **more)["Payload"].read()
        except ClientError as error:
            self.assertEqual(error.response["Error"]["Code"], "AccessDeniedException")
            return False
        return True

    def test_a_statement_lets_a_user_invoke(self):
        self.assertFalse(self.may())
        user = f"arn:aws:iam::{serving.ACCOUNT}:user/{OTHER[0]}"
        said = {"FunctionName": "made", "Action": "lambda:InvokeFunction", "Principal": user}
        client.add_permission(StatementId="a", **said)
        self.assertTrue(self.may())
        self.assertFalse(self.may("live"), "an alias has its own")
        client.add_permission(StatementId="a", Qualifier="live", **said)
        self.assertTrue(self.may("live"))
        with self.assertRaises(ClientError):
            server.boto(key=OTHER).delete_function(FunctionName="made")
        client.remove_permission(FunctionName="made", StatementId="a")
        self.assertFalse(self.may())
        self.assertTrue(self.may("live"))

    def test_an_open_url_takes_a_statement(self):
        url = client.create_function_url_config(FunctionName="made", AuthType="NONE")["FunctionUrl"]
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(url, timeout=serving.SOON)
        self.assertEqual(raised.exception.code, 403)
        self.assertIn("Forbidden. For troubleshooting", json.load(raised.exception)["Message"])
        client.add_permission(
            FunctionName="made",
            StatementId="url",
            Action="lambda:InvokeFunctionUrl",
            Principal="*",
            FunctionUrlAuthType="NONE",
        )
        with urllib.request.urlopen(url, timeout=serving.SOON) as reply:
            self.assertEqual(json.load(reply)[0], 1)
