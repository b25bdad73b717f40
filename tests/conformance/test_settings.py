"""What may be set beside functions: asynchronous invocation, function URLs, recursion; and what a
board does not have. By boto3, every answer compared with its model."""

import hashlib
import http.client
import json
import subprocess
import unittest
import urllib.error
import urllib.parse
import urllib.request

import managing
import serving
from managing import Case, create, python
from serving import arn

NOT_FOUND = "ResourceNotFoundException"
INVALID = "InvalidParameterValueException"
VALIDATION = "ValidationException"
CONFLICT = "ResourceConflictException"

TOML = """
[async]
retries = 1
on_failure = "mqtt:alerts/orders"
[url]
auth = "none"
"""

server = client = None


def setUpModule():
    global server, client
    server, client = managing.start(TOML, recursive_loop="allow")


def tearDownModule():
    server.stop()


def ask(url, path="", host=None):
    """What a function URL answers: the status, and what it says."""
    request = urllib.request.Request(url + path, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=serving.SOON) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


TELLS = python("return [event['rawPath'], context.function_version, context.invoked_function_arn]")


class EventInvoke(Case):
    def test_settings_are_put_merged_and_deleted(self):
        create(self.name)
        other = f"{self.name}-2"
        self.addCleanup(self.gone, other)
        create(other)
        of = {"FunctionName": self.name}
        missing = f"The function {arn(self.name)}:$LATEST doesn't have an EventInvokeConfig"
        get = client.get_function_event_invoke_config
        update = client.update_function_event_invoke_config
        delete = client.delete_function_event_invoke_config
        self.refused(404, NOT_FOUND, missing, get, **of)
        self.refused(404, NOT_FOUND, missing, update, MaximumRetryAttempts=1, **of)
        self.refused(404, NOT_FOUND, missing, delete, **of)
        put = client.put_function_event_invoke_config(MaximumRetryAttempts=0, **of)
        expected = {"FunctionArn": f"{arn(self.name)}:$LATEST", "MaximumRetryAttempts": 0}
        self.assertEqual(told(put), expected)
        self.assertEqual(told(get(Qualifier="$LATEST", **of)), expected)
        success = {"OnSuccess": {"Destination": arn(other)}}
        merged = update(MaximumEventAgeInSeconds=60, DestinationConfig=success, **of)
        expected["MaximumEventAgeInSeconds"] = 60
        expected["DestinationConfig"] = {**success, "OnFailure": {}}
        self.assertEqual(told(merged), expected)
        replaced = client.put_function_event_invoke_config(DestinationConfig={}, **of)
        self.assertEqual(replaced["DestinationConfig"], {"OnSuccess": {}, "OnFailure": {}})
        self.assertNotIn("MaximumRetryAttempts", replaced)
        delete(**of)
        self.refused(404, NOT_FOUND, missing, get, **of)

    def test_versions_and_aliases_have_their_own(self):
        create(self.name, Publish=True)
        of = {"FunctionName": self.name}
        client.create_alias(Name="live", FunctionVersion="1", **of)
        put = client.put_function_event_invoke_config
        for qualifier, retries in [("$LATEST", 0), ("1", 1), ("live", 2)]:
            put(Qualifier=qualifier, MaximumRetryAttempts=retries, **of)
        pages = client.get_paginator("list_function_event_invoke_configs")
        pages = pages.paginate(PaginationConfig={"PageSize": 2}, **of)
        listed = [config for page in pages for config in page["FunctionEventInvokeConfigs"]]
        found = {config["FunctionArn"]: config["MaximumRetryAttempts"] for config in listed}
        self.assertEqual(found, {f"{arn(self.name)}:{q}": n for q, n in [("$LATEST", 0), ("1", 1), ("live", 2)]})
        client.delete_alias(Name="live", **of)
        client.delete_function(Qualifier="1", **of)
        listed = client.list_function_event_invoke_configs(**of)["FunctionEventInvokeConfigs"]
        self.assertEqual(len(listed), 1, "what belongs to them goes with them")
        for qualifier in ["2", "other"]:
            message = "The function doesn't exist."
            more = {"Qualifier": qualifier, "MaximumRetryAttempts": 1, **of}
            self.refused(404, NOT_FOUND, message, put, **more)

    def test_what_lambda_refuses(self):
        create(self.name)

        def to(destination, of="OnFailure"):
            return {"DestinationConfig": {of: {"Destination": destination}}}

        own = "You can't specify the function as a destination for itself."
        queue = f"arn:aws:sqs:{serving.REGION}:{serving.ACCOUNT}:q"
        for status, code, message, more in [
            (400, INVALID, "You must specify at least one of error handling or destination", {}),
            (400, INVALID, own, to(arn(self.name))),
            (400, INVALID, own, to(f"function:{self.name}")),
            (400, INVALID, f"The destination ARN {arn('nobody')} is invalid.", to(arn("nobody"))),
            (400, INVALID, "The destination ARN nowhere is invalid.", to("nowhere")),
            (400, INVALID, "The destination ARN arn:aws:s3:::b is inv", to("arn:aws:s3:::b", "OnSuccess")),
            (400, VALIDATION, "less than or equal to 2", {"MaximumRetryAttempts": 3}),
            (400, VALIDATION, "less than or equal to 21600", {"MaximumEventAgeInSeconds": 21601}),
            (404, NOT_FOUND, "The function doesn't exist.", {"FunctionName": "nobody", **to(queue)}),
        ]:
            with self.subTest(message):
                more = {"FunctionName": self.name, **more}
                operation = lenient().put_function_event_invoke_config
                self.refused(status, code, message, operation, **more)
        for destination in [queue, "arn:aws:s3:::b", "mqtt:alerts/a", "https://example.com/x"]:
            put = client.put_function_event_invoke_config(FunctionName=self.name, **to(destination))
            self.assertEqual(put["DestinationConfig"]["OnFailure"], {"Destination": destination})

    def test_a_folder_says_it_itself(self):
        shown = client.get_function_event_invoke_config(FunctionName="folder")
        expected = {
            "FunctionArn": f"{arn('folder')}:$LATEST",
            "MaximumRetryAttempts": 1,
            "MaximumEventAgeInSeconds": 21600,
            "DestinationConfig": {
                "OnSuccess": {},
                "OnFailure": {"Destination": "mqtt:alerts/orders"},
            },
        }
        self.assertEqual(told(shown), expected)
        listed = client.list_function_event_invoke_configs(FunctionName="folder")
        self.assertEqual([told(c) for c in listed["FunctionEventInvokeConfigs"]], [expected])
        for operation, more in [
            (client.put_function_event_invoke_config, {"MaximumRetryAttempts": 0}),
            (client.update_function_event_invoke_config, {"MaximumRetryAttempts": 0}),
            (client.delete_function_event_invoke_config, {}),
        ]:
            message = "set [async] in its function.toml"
            self.refused(409, CONFLICT, message, operation, FunctionName="folder", **more)


def told(answer):
    answer = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    modified = answer.pop("LastModified")
    assert modified.microsecond % 1000 == 0, modified
    return answer


def lenient():
    """A client that sends what the model forbids."""
    return server.boto(parameter_validation=False)


class Urls(Case):
    def test_a_url_is_made_called_changed_and_deleted(self):
        create(self.name, TELLS)
        of = {"FunctionName": self.name}
        get = client.get_function_url_config
        missing = "The resource you requested does not exist."
        self.refused(404, NOT_FOUND, missing, get, **of)
        self.assertEqual(ask(f"{server.endpoint}/fn/{self.name}/")[0], 404, "no URL yet")
        made = client.create_function_url_config(AuthType="NONE", **of)
        self.assertEqual(made["FunctionArn"], arn(self.name))
        self.assertEqual((made["AuthType"], made["InvokeMode"]), ("NONE", "BUFFERED"))
        url = made["FunctionUrl"]
        self.assertTrue(url.startswith(f"{server.endpoint}/_url/") and url.endswith("/"), url)
        reply = [["/a/b", "$LATEST", arn(self.name)]]
        self.assertEqual(ask(url, "a/b?c=d"), (200, *reply))
        self.assertEqual(ask(f"{server.endpoint}/fn/{self.name}/a/b"), (200, *reply))
        self.assertEqual(ask(f"{server.endpoint}/fn/{self.name}:$LATEST/")[0], 404)
        host = f"{url.split('/')[-2]}.lambda-url.{serving.REGION}.on.aws"
        self.assertEqual(ask(server.endpoint, "/a/b", host), (200, *reply))
        message = (
            f"Failed to create function url config for [functionArn = {arn(self.name)}]. Error "
            "message:  FunctionUrlConfig exists for this Lambda function"
        )
        create_url = client.create_function_url_config
        self.refused(409, CONFLICT, message, create_url, AuthType="NONE", **of)
        cors = {"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET"], "MaxAge": 5}
        changed = client.update_function_url_config(AuthType="AWS_IAM", Cors=cors, **of)
        self.assertEqual((changed["AuthType"], changed["Cors"]), ("AWS_IAM", cors))
        self.assertEqual(changed["FunctionUrl"], url)
        self.assertEqual(ask(url)[0], 403, "nobody has signed this")
        origin = {"Origin": "https://a.example"}
        request = urllib.request.Request(url, headers=origin, method="OPTIONS")
        with urllib.request.urlopen(request, timeout=serving.SOON) as reply:
            told = [reply.headers[f"Access-Control-{name}"] for name in ["Allow-Origin", "Max-Age"]]
        self.assertEqual(told, ["https://a.example", "5"])
        changed = client.update_function_url_config(Cors={}, InvokeMode="RESPONSE_STREAM", **of)
        self.assertNotIn("Cors", changed)
        shown = get(**of)
        for answer in (shown, changed):
            answer.pop("ResponseMetadata")
        self.assertEqual(shown, changed)
        self.assertEqual(shown["InvokeMode"], "RESPONSE_STREAM")
        client.delete_function_url_config(**of)
        for operation in [get, client.delete_function_url_config, client.update_function_url_config]:
            self.refused(404, NOT_FOUND, missing, operation, **of)
        self.assertEqual(ask(url)[0], 404)

    def test_aliases_have_urls_of_their_own(self):
        create(self.name, TELLS, Publish=True)
        of = {"FunctionName": self.name}
        client.create_alias(Name="live", FunctionVersion="1", **of)
        made = client.create_function_url_config(Qualifier="live", AuthType="NONE", **of)
        live = f"{arn(self.name)}:live"
        self.assertEqual(made["FunctionArn"], live)
        self.assertEqual(ask(made["FunctionUrl"], "x"), (200, ["/x", "1", live]))
        named = f"{server.endpoint}/fn/{self.name}:live/y"
        self.assertEqual(ask(named), (200, ["/y", "1", live]))
        self.assertEqual(ask(f"{server.endpoint}/fn/{self.name}")[0], 404, "the alias has one")
        client.create_function_url_config(AuthType="NONE", **of)
        listed = client.list_function_url_configs(**of)["FunctionUrlConfigs"]
        self.assertEqual([url["FunctionArn"] for url in listed], [arn(self.name), live])
        self.assertEqual(len({url["FunctionUrl"] for url in listed}), 2)
        client.delete_alias(Name="live", **of)
        self.assertEqual(ask(made["FunctionUrl"])[0], 404)

    def test_urls_are_there_after_a_restart(self):
        own = serving.Server()
        self.addCleanup(own.stop)
        own.start()
        own.client.create_function(
            FunctionName=self.name,
            Runtime=serving.BUNDLED["hob-python"],
            Role=managing.ROLE,
            Handler="app.handler",
            Code={"ZipFile": TELLS},
        )
        url = own.client.create_function_url_config(FunctionName=self.name, AuthType="NONE")
        path = urllib.parse.urlsplit(url["FunctionUrl"]).path
        own.terminate()
        own.wait()
        own.start()
        self.assertEqual(ask(own.endpoint, path)[0], 200)

    def test_what_lambda_refuses(self):
        create(self.name, Publish=True)

        def cors(**more):
            return {"AuthType": "NONE", "Cors": more}

        nobody = {"FunctionName": "nobody", "AuthType": "NONE"}
        for status, code, message, more in [
            (404, NOT_FOUND, "Function does not exist", nobody),
            (404, NOT_FOUND, "Function does not exist", {"AuthType": "NONE", "Qualifier": "live"}),
            (400, VALIDATION, "'$LATEST' at 'qualifier'", {"AuthType": "NONE", "Qualifier": "$LATEST"}),
            (400, VALIDATION, "'1' at 'qualifier'", {"AuthType": "NONE", "Qualifier": "1"}),
            (400, VALIDATION, "at 'authType' failed", {}),
            (400, VALIDATION, "enum value set: [NONE, AWS_IAM]", {"AuthType": "OPEN"}),
            (400, VALIDATION, "'[OPTIONS]' at 'cors.allowMethods'", cors(AllowMethods=["OPTIONS"])),
            (400, VALIDATION, "at 'cors.maxAge' failed", cors(MaxAge=86401)),
            (400, VALIDATION, "at 'cors.allowOrigins' failed", cors(AllowOrigins=["a"] * 101)),
        ]:
            with self.subTest(message):
                more = {"FunctionName": self.name, **more}
                operation = lenient().create_function_url_config
                self.refused(status, code, message, operation, **more)

    def test_a_folder_says_it_itself(self):
        shown = client.get_function_url_config(FunctionName="folder")
        self.assertEqual((shown["AuthType"], shown["FunctionArn"]), ("NONE", arn("folder")))
        self.assertEqual(ask(shown["FunctionUrl"])[0], 200)
        listed = client.list_function_url_configs(FunctionName="folder")["FunctionUrlConfigs"]
        self.assertEqual([url["FunctionUrl"] for url in listed], [shown["FunctionUrl"]])
        for operation, more in [
            (client.create_function_url_config, {"AuthType": "AWS_IAM"}),
            (client.update_function_url_config, {"AuthType": "AWS_IAM"}),
            (client.delete_function_url_config, {}),
        ]:
            message = "set [url] in its function.toml"
            self.refused(409, CONFLICT, message, operation, FunctionName="folder", **more)


class Others(Case):
    def test_recursion(self):
        create(self.name)
        of = {"FunctionName": self.name}
        get = client.get_function_recursion_config
        self.assertEqual(get(**of)["RecursiveLoop"], "Terminate")
        put = client.put_function_recursion_config
        self.assertEqual(put(RecursiveLoop="Allow", **of)["RecursiveLoop"], "Allow")
        self.assertEqual(get(**of)["RecursiveLoop"], "Allow")
        message = "enum value set: [Allow, Terminate]"
        self.refused(400, VALIDATION, message, put, RecursiveLoop="Stop", **of)
        put(RecursiveLoop="Terminate", **of)
        self.assertEqual(get(**of)["RecursiveLoop"], "Terminate")
        self.assertEqual(get(FunctionName="folder")["RecursiveLoop"], "Allow")
        message = "set recursive_loop in its function.toml"
        more = {"FunctionName": "folder", "RecursiveLoop": "Terminate"}
        self.refused(409, CONFLICT, message, put, **more)
        missing = f"Function not found: {arn('nobody')}"
        self.refused(404, NOT_FOUND, missing, get, FunctionName="nobody")

    def test_who_goes_round_in_circles_is_stopped_unless_it_may(self):
        create(self.name)
        of = {"FunctionName": self.name}
        # A chain of invocations that has passed the function 16 times.
        own = hashlib.sha256(arn(self.name).encode()).hexdigest()[:8]
        trace = f"Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={own}:16"
        url = f"{server.endpoint}/2015-03-31/functions/{self.name}/invocations"

        def status():
            request = urllib.request.Request(url, b"{}", {"X-Amzn-Trace-Id": trace})
            try:
                with urllib.request.urlopen(request, timeout=serving.SOON) as reply:
                    return reply.status
            except urllib.error.HTTPError as error:
                with error:
                    return error.headers["x-amzn-ErrorType"]

        stopped = "RecursiveInvocationException"
        put = client.put_function_recursion_config
        self.assertEqual(status(), stopped)
        put(RecursiveLoop="Allow", **of)
        self.assertEqual(status(), 200)
        put(RecursiveLoop="Terminate", **of)
        self.assertEqual(status(), stopped)

    def test_event_sources_are_triggers_here(self):
        create(self.name)
        make = client.create_event_source_mapping
        queue = f"arn:aws:sqs:{serving.REGION}:{serving.ACCOUNT}:q"
        missing = f"Function not found: {arn('nobody')}"
        more = {"EventSourceArn": queue}
        self.refused(404, NOT_FOUND, missing, make, FunctionName="nobody", **more)
        message = "There is no SQS queue on this server: let [[trigger]] in its function.toml"
        self.refused(400, INVALID, message, make, FunctionName=self.name, **more)
        unknown = {"UUID": "00000000-0000-0000-0000-000000000000"}
        message = "The resource you requested does not exist."
        self.refused(404, NOT_FOUND, message, client.get_event_source_mapping, **unknown)
        self.refused(404, NOT_FOUND, message, client.delete_event_source_mapping, **unknown)
        update = client.update_event_source_mapping
        self.refused(404, NOT_FOUND, message, update, BatchSize=1, **unknown)
        list_them = client.list_event_source_mappings
        for more in [{}, {"FunctionName": self.name}, {"EventSourceArn": queue, "MaxItems": 1}]:
            self.assertEqual(list_them(**more)["EventSourceMappings"], [])
        self.refused(404, NOT_FOUND, missing, list_them, FunctionName="nobody")
        self.refused(400, VALIDATION, "at 'eventSourceArn'", list_them, EventSourceArn="q")
        self.refused(400, VALIDATION, "at 'maxItems'", list_them, MaxItems=10001)

    def test_code_is_not_signed(self):
        create(self.name)
        of = {"FunctionName": self.name}
        shown = client.get_function_code_signing_config(**of)
        self.assertEqual(shown["FunctionName"], self.name)
        self.assertNotIn("CodeSigningConfigArn", shown)
        config = f"arn:aws:lambda:{serving.REGION}:{serving.ACCOUNT}:code-signing-config:csc-0"
        put = client.put_function_code_signing_config
        missing = "CodeSigningConfigNotFoundException"
        self.refused(404, missing, config, put, CodeSigningConfigArn=config, **of)
        client.delete_function_code_signing_config(**of)
        get = client.get_function_code_signing_config
        self.refused(404, NOT_FOUND, "Function not found", get, FunctionName="nobody")

    def test_runtimes_are_updated_with_the_system(self):
        create(self.name, Publish=True)
        of = {"FunctionName": self.name}
        get, put = client.get_runtime_management_config, client.put_runtime_management_config
        shown = get(**of)
        self.assertEqual((shown["UpdateRuntimeOn"], shown["FunctionArn"]), ("Auto", arn(self.name)))
        set_it = put(UpdateRuntimeOn="Auto", Qualifier="1", **of)
        self.assertEqual(set_it["FunctionArn"], f"{arn(self.name)}:1")
        for wanted in ["Manual", "FunctionUpdate"]:
            message = f"{wanted} is not supported: runtimes are the interpreters"
            self.refused(400, INVALID, message, put, UpdateRuntimeOn=wanted, **of)
        self.refused(404, NOT_FOUND, "Function not found", get, Qualifier="2", **of)


class Unknown(unittest.TestCase):
    """Operations of Lambda's API that are none here, as the CLI calls them."""

    def test_the_cli_hears_that_there_is_no_such_operation(self):
        signing = f"arn:aws:lambda:{serving.REGION}:{serving.ACCOUNT}:code-signing-config:csc-{17 * 'a'}"
        for command in [
            ["list-code-signing-configs"],
            ["list-functions-by-code-signing-config", "--code-signing-config-arn", signing],
            ["list-capacity-providers"],
            ["list-durable-executions-by-function", "--function-name", "folder"],
        ]:
            with self.subTest(command[0]):
                ran = subprocess.run(
                    ["aws", "lambda", *command],
                    env=serving.environment(server.endpoint),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=serving.SOON,
                )
                self.assertNotEqual(ran.returncode, 0)
                self.assertIn("An error occurred (UnknownOperationException)", ran.stderr)

    def test_the_answer_is_json(self):
        address = urllib.parse.urlsplit(server.endpoint)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=serving.SOON)
        self.addCleanup(connection.close)
        for method, path in [
            ("GET", "/2020-04-22/code-signing-configs/"),
            ("POST", "/2025-11-30/capacity-providers"),
        ]:
            connection.request(method, path)
            reply = connection.getresponse()
            self.assertEqual(reply.status, 404)
            self.assertEqual(reply.headers["x-amzn-ErrorType"], "UnknownOperationException")
            self.assertEqual(reply.headers["Content-Type"], "application/json")
            self.assertIsInstance(json.load(reply), dict)
