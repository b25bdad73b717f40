"""Reserved and provisioned concurrency by boto3, every answer compared with its model."""

import base64
import json
import socket
import threading

from botocore.exceptions import ClientError

import managing
import serving
from managing import Case, create, python, ready, zipped
from serving import arn

server = client = None


def setUpModule():
    global server, client
    server, client = managing.start()


def tearDownModule():
    server.stop()


class Concurrency(Case):
    def test_reserved_concurrency_is_guarantee_and_ceiling(self):
        create(self.name)
        put = client.put_function_concurrency
        put(FunctionName=self.name, ReservedConcurrentExecutions=0)
        with self.assertRaises(ClientError) as caught:
            self.call()
        error = caught.exception.response
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 429)
        self.assertEqual(error["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded")
        put(FunctionName=self.name, ReservedConcurrentExecutions=2)
        self.assertEqual(self.call()[0], 1)
        shown = client.get_function_concurrency(FunctionName=self.name)
        self.assertEqual(shown["ReservedConcurrentExecutions"], 2)
        limits = client.get_account_settings()
        self.assertEqual(limits["AccountLimit"]["ConcurrentExecutions"], 8)
        # The folder has one, too.
        self.assertEqual(limits["AccountLimit"]["UnreservedConcurrentExecutions"], 5)
        invalid = "InvalidParameterValueException"
        message = "UnreservedConcurrentExecution below its minimum value of [1]."
        more = {"FunctionName": self.name, "ReservedConcurrentExecutions": 7}
        self.refused(400, invalid, message, put, **more)
        message = "This operation is permitted on Lambda functions only."
        more = {"FunctionName": f"{self.name}:1", "ReservedConcurrentExecutions": 1}
        self.refused(400, invalid, message, put, **more)
        client.delete_function_concurrency(FunctionName=self.name)
        shown = client.get_function_concurrency(FunctionName=self.name)
        self.assertNotIn("ReservedConcurrentExecutions", shown)

    def test_provisioned_workers_are_ready_before_they_are_called(self):
        create(self.name, python("return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']"),
               Publish=True)
        client.create_alias(FunctionName=self.name, Name="live", FunctionVersion="1")
        put = client.put_provisioned_concurrency_config
        answer = put(FunctionName=self.name, Qualifier="live", ProvisionedConcurrentExecutions=2)
        self.assertEqual(answer["Status"], "IN_PROGRESS")
        serving.eventually("both are ready", lambda: ready(client, self.name))
        reply = server.invoke(self.name, Qualifier="live", LogType="Tail")
        self.assertEqual(json.loads(reply["Payload"]), "provisioned-concurrency")
        self.assertNotIn("Init Duration", base64.b64decode(reply["LogResult"]).decode())
        self.assertEqual(self.call("$LATEST"), "on-demand")
        listed = client.list_provisioned_concurrency_configs(FunctionName=self.name)
        [config] = listed["ProvisionedConcurrencyConfigs"]
        self.assertEqual(config["FunctionArn"], arn(self.name) + ":live")
        self.assertEqual(config["AvailableProvisionedConcurrentExecutions"], 2)
        conflict, invalid = "ResourceConflictException", "InvalidParameterValueException"
        function = {"FunctionName": self.name, "ProvisionedConcurrentExecutions": 1}
        message = "Version is pointed by a Provisioned Concurrency alias"
        self.refused(409, conflict, message, put, Qualifier="1", **function)
        message = "cannot be applied to unpublished function versions."
        self.refused(400, invalid, message, put, Qualifier="$LATEST", **function)
        message = "should not be lower than function's total provisioned concurrency [2]."
        more = {"FunctionName": self.name, "ReservedConcurrentExecutions": 1}
        self.refused(400, invalid, message, client.put_function_concurrency, **more)
        # The alias moves on, and its workers with it.
        client.update_function_code(
            FunctionName=self.name, ZipFile=python("return 'two'"), Publish=True
        )
        client.update_alias(FunctionName=self.name, Name="live", FunctionVersion="2")
        serving.eventually("those of version 2", lambda: ready(client, self.name))
        self.assertEqual(self.call("live"), "two")
        client.delete_provisioned_concurrency_config(FunctionName=self.name, Qualifier="live")
        missing = "ProvisionedConcurrencyConfigNotFoundException"
        message = "No Provisioned Concurrency Config found for this function"
        get = client.get_provisioned_concurrency_config
        self.refused(404, missing, message, get, FunctionName=self.name, Qualifier="live")

    def test_what_provisioned_workers_cannot_take_spills_over(self):
        # Each invocation goes on as soon as the test lets it, at the port that it is told.
        wait = "import socket\n    socket.create_connection(('127.0.0.1', event)).recv(1)\n"
        kind = "    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']"
        create(self.name, python(wait + kind), Publish=True, Timeout=30)
        client.put_provisioned_concurrency_config(
            FunctionName=self.name, Qualifier="1", ProvisionedConcurrentExecutions=1
        )
        serving.eventually("it is ready", lambda: ready(client, self.name, "1"))
        door = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(door.close)
        door.settimeout(serving.SOON)
        port = door.getsockname()[1]
        kinds = []
        runs = [
            threading.Thread(target=lambda: kinds.append(self.call("1", port))) for _ in range(2)
        ]
        inside = []
        for run in runs:
            run.start()
            inside.append(door.accept()[0])
        # All that is reserved is provisioned, and in use: the function's others are refused.
        for connection in inside[1:]:
            connection.sendall(b"!")
        runs[1].join()
        client.put_function_concurrency(FunctionName=self.name, ReservedConcurrentExecutions=1)
        with self.assertRaises(ClientError) as caught:
            self.call(event=port)
        reason = caught.exception.response["Reason"]
        self.assertEqual(reason, "ReservedFunctionConcurrentInvocationLimitExceeded")
        inside[0].sendall(b"!")
        runs[0].join()
        for connection in inside:
            connection.close()
        self.assertEqual(kinds, ["on-demand", "provisioned-concurrency"])

    def test_provisioned_workers_that_cannot_start_are_told(self):
        create(self.name, zipped(app__py="raise RuntimeError('broken')\n"), Publish=True)
        client.put_provisioned_concurrency_config(
            FunctionName=self.name, Qualifier="1", ProvisionedConcurrentExecutions=1
        )

        def failed():
            config = client.get_provisioned_concurrency_config(
                FunctionName=self.name, Qualifier="1"
            )
            return config["Status"] == "FAILED" and config

        config = serving.eventually("it fails", failed)
        self.assertEqual(config["StatusReason"], "FUNCTION_ERROR_INIT_FAILURE")
        self.assertEqual(config["AllocatedProvisionedConcurrentExecutions"], 0)
