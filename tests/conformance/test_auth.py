"""Keys: what boto3 and the AWS CLI sign, with right keys and wrong ones, from outside and inside."""

import datetime
import io
import json
import subprocess
import unittest
import unittest.mock
import urllib.error
import urllib.request

import botocore
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import urllib3
from botocore.exceptions import ClientError

import managing
import serving
from serving import arn

ADMIN = ("AKIDEXAMPLE", "secret")
INVOKE = ("AKIDINVOKE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")

CONFIG = f"""
[auth]
keys = [
    {{ id = "{ADMIN[0]}", secret = "{ADMIN[1]}" }},
    {{ id = "{INVOKE[0]}", secret = "{INVOKE[1]}", scope = "invoke", functions = ["she*"] }},
]
"""

server = None


def setUpModule():
    global server
    server = serving.Server()
    server.function("python")
    server.function("shell")
    server.function("shell", "closed", url="iam")
    server.function(
        "hob-python", "loop", layers=server.boto_layer(), timeout_s=60, zygote="auto"
    )
    (server.root / "hob.toml").write_text(CONFIG)
    server.start("--config", server.root / "hob.toml", "--slots", "32")


def tearDownModule():
    server.stop()


class Boto(unittest.TestCase):
    def refused(self, name, message, status=403, call=None, **settings):
        with self.assertRaises(ClientError) as raised:
            server.boto(**settings).invoke(**{"FunctionName": "shell", **(call or {})})
        response = raised.exception.response
        self.assertEqual(response["Error"]["Code"], name)
        self.assertEqual(response["ResponseMetadata"]["HTTPStatusCode"], status)
        self.assertRegex(response["Error"]["Message"], message)

    def test_every_kind_of_request_that_is_signed_rightly(self):
        for name, more in [
            ("shell", {}),
            ("shell", {"Payload": b'{"n":1}'}),
            ("shell", {"Payload": '{"n":"\u00e9"}'.encode(), "LogType": "Tail"}),
            ("shell", {"Qualifier": "$LATEST", "InvocationType": "RequestResponse"}),
            (arn("shell"), {"Qualifier": "$LATEST"}),
            (f"{arn('shell')}:$LATEST", {"Payload": b"[]"}),
            ("shell", {"Payload": b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'}),
            ("shell", {"ClientContext": "eyJjdXN0b20iOnsiayI6InYifX0="}),
        ]:
            for key in [ADMIN, INVOKE]:
                with self.subTest(name=name, key=key[0]):
                    reply = server.boto(key=key).invoke(FunctionName=name, **more)
                    expected = more.get("Payload", b"{}")
                    self.assertTrue(reply["Payload"].read() == expected)

    def test_wrong_and_missing_keys(self):
        calculated = "^The request signature we calculated does not match the signature you prov"
        self.refused("InvalidSignatureException", calculated, key=(ADMIN[0], "Secret"))
        included = "^The security token included in the request is invalid\\.$"
        self.refused("UnrecognizedClientException", included, key=("AKIDOTHER", "secret"))
        missing = "^Missing Authentication Token$"
        unsigned = {"signature_version": botocore.UNSIGNED}
        self.refused("MissingAuthenticationTokenException", missing, **unsigned)
        region = (
            "^Credential should be scoped to a valid region, not 'us-west-2': "
            f"this is '{serving.REGION}'\\.$"
        )
        self.refused("InvalidSignatureException", region, region="us-west-2")

    def test_a_clock_that_is_wrong(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        time = r"\d{8}T\d{6}Z"
        for minutes, message in [
            (-6, rf"^Signature expired: {time} is now earlier than {time} \({time} - 5 min\.\)$"),
            (6, rf"^Signature not yet current: {time} is still later than {time} \({time} \+ 5 min"),
        ]:
            then = now + datetime.timedelta(minutes=minutes)
            with unittest.mock.patch("botocore.auth.get_current_datetime", lambda: then):
                self.refused("InvalidSignatureException", message)

    def test_a_key_that_may_not(self):
        may_not = (
            f"^User: arn:aws:iam::{serving.ACCOUNT}:user/{INVOKE[0]} is not authorized to perform: "
            f"lambda:InvokeFunction on resource: {arn('python')} because "
        )
        call = {"FunctionName": "python"}
        self.refused("AccessDeniedException", may_not, key=INVOKE, call=call)

    def test_functions_are_managed_by_those_who_may(self):
        made = {
            "FunctionName": "made",
            "Runtime": serving.BUNDLED["hob-python"],
            "Role": managing.ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": managing.says(1)},
        }
        small = server.boto(key=INVOKE)
        for action, call in [
            ("CreateFunction", lambda: small.create_function(**made)),
            ("CreateFunction", lambda: small.create_function(**{**made, "FunctionName": "she"})),
            ("DeleteFunction", lambda: small.delete_function(FunctionName="shell")),
            ("ListFunctions", small.list_functions),
            ("GetAccountSettings", small.get_account_settings),
        ]:
            with self.subTest(action), self.assertRaises(ClientError) as raised:
                call()
            error = raised.exception.response["Error"]
            self.assertEqual(error["Code"], "AccessDeniedException")
            self.assertIn(f"perform: lambda:{action} on", error["Message"])
        wrong = server.boto(key=(ADMIN[0], "Secret"))
        with self.assertRaises(ClientError) as raised:
            wrong.create_function(**made)
        self.assertEqual(raised.exception.response["Error"]["Code"], "InvalidSignatureException")
        admin = server.boto(key=ADMIN)
        admin.create_function(**made)
        location = admin.get_function(FunctionName="made")["Code"]["Location"]
        with urllib.request.urlopen(location, timeout=serving.SOON) as reply:
            self.assertEqual(reply.read(), managing.says(1), "as on AWS, the address is enough")
        admin.update_function_code(FunctionName="made", ZipFile=managing.says(2))
        admin.delete_function(FunctionName="made")

    def test_a_second_try_has_the_same_signature(self):
        signed = []
        client = server.boto(retries=3)

        def broken(request, **_):
            signed.append(request.headers["Authorization"])
            if len(signed) == 1:
                nothing = urllib3.HTTPResponse(io.BytesIO(), preload_content=False)
                return botocore.awsrequest.AWSResponse(request.url, 500, {}, nothing)

        client.meta.events.register("before-send.lambda.Invoke", broken)
        now = datetime.datetime.now(datetime.timezone.utc)
        with unittest.mock.patch("botocore.auth.get_current_datetime", lambda: now):
            for _ in range(2):
                reply = client.invoke(FunctionName="shell", Payload=b"1")
                self.assertEqual(reply["Payload"].read(), b"1")
        self.assertEqual(len(set(signed)), 1)


class Inside(unittest.TestCase):
    def test_a_handler_calls_others_with_plain_boto3(self):
        event = {"do": "chain", "function": "shell", "event": {"n": 1}}
        reply = json.loads(server.invoke("python", event)["Payload"])
        self.assertEqual(reply["reply"], {"n": 1})

    def test_a_handler_that_calls_itself_for_ever_is_stopped(self):
        event = {}
        for _ in range(20):
            event = {"do": "chain", "function": "loop", "event": event}
        reply = json.loads(server.invoke("loop", event)["Payload"])
        passes = 0
        while "reply" in reply:
            reply = reply["reply"]
            passes += 1
        self.assertEqual(reply["errorType"], "RecursiveInvocationException")
        self.assertRegex(
            reply["errorMessage"],
            r"^An error occurred \(RecursiveInvocationException\) when calling the Invoke "
            "operation: Lambda has detected your function loop being invoked in a recursive loop",
        )
        self.assertEqual(passes, 15, "the 16th is what failed")


class Url(unittest.TestCase):
    def call(self, key, target, body=None):
        """One request to the function URL, signed by botocore; its status and what came back."""
        url = f"{server.endpoint}/fn/closed{target}"
        request = botocore.awsrequest.AWSRequest("POST", url, data=body)
        if key:
            credentials = botocore.credentials.Credentials(*key, token="TOKEN/+=")
            botocore.auth.SigV4Auth(credentials, "lambda", serving.REGION).add_auth(request)
        sent = urllib.request.Request(url, body or b"", dict(request.headers), method="POST")
        try:
            with urllib.request.urlopen(sent, timeout=serving.SOON) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def test_a_signed_request_tells_who_called(self):
        for target in ["", "/", "/a/b?x=1&y=%2F%20&x=0", "/a%20b/%C3%A9", "//a/./b/../c/"]:
            with self.subTest(target=target):
                status, event = self.call(ADMIN, target, b'{"n":1}')
                self.assertEqual(status, 200)
                iam = event["requestContext"]["authorizer"]["iam"]
                self.assertEqual(iam["accessKey"], ADMIN[0])
                self.assertEqual(iam["userArn"], f"arn:aws:iam::{serving.ACCOUNT}:user/{ADMIN[0]}")

    def test_who_may_not_is_told_in_the_words_of_aws(self):
        for key in [None, INVOKE]:
            status, told = self.call(key, "/")
            self.assertEqual(status, 403)
            self.assertRegex(told["Message"], "^Forbidden. For troubleshooting Function URL auth")
        status, told = self.call((ADMIN[0], "wrong"), "/")
        self.assertEqual(status, 403)
        self.assertRegex(told["message"], "^The request signature we calculated does not match")


class Cli(unittest.TestCase):
    def aws(self, key, *arguments):
        return subprocess.run(
            ["aws", "lambda", "invoke", "--function-name", *arguments, "/dev/stdout"],
            env=serving.environment(server.endpoint, key),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=serving.SOON,
        )

    def test_right_keys(self):
        for key in [ADMIN, INVOKE]:
            for call in [
                ["shell", "--payload", '{"n":1}'],
                [arn("shell"), "--payload", '{"n":1}', "--qualifier", "$LATEST"],
            ]:
                ran = self.aws(key, *call)
                self.assertEqual((ran.returncode, ran.stderr), (0, ""))
                self.assertIn('{"n":1}', ran.stdout)

    def test_wrong_and_missing_keys(self):
        for key, arguments, said in [
            ((ADMIN[0], "Secret"), ["shell"], "(InvalidSignatureException)"),
            (("AKIDOTHER", "secret"), ["shell"], "(UnrecognizedClientException)"),
            (ADMIN, ["shell", "--no-sign-request"], "(MissingAuthenticationTokenException)"),
            (INVOKE, ["python"], "(AccessDeniedException)"),
        ]:
            ran = self.aws(key, *arguments)
            self.assertNotEqual(ran.returncode, 0)
            self.assertIn(f"An error occurred {said} when calling the Invoke operation", ran.stderr)
