"""Functions, versions, aliases and concurrency by boto3, every answer compared with its model."""

import base64
import collections
import hashlib
import io
import json
import socket
import stat
import threading
import unittest
import urllib.request
import zipfile

from botocore.exceptions import ClientError

import serving
import shapes
from serving import arn

ROLE = f"arn:aws:iam::{serving.ACCOUNT}:role/board"
# Waiters ask every second or every five; here nothing takes so long.
QUICK = {"Delay": 0.05, "MaxAttempts": 200}

server = client = None


def setUpModule():
    global server, client
    server = serving.Server()
    server.function("shell", "folder", reserved_concurrency=1)
    server.start("--slots", "8", "--queue-wait", "0")
    client = server.client
    shapes.watch(client)


def tearDownModule():
    server.stop()


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


class Functions(Case):
    def test_a_function_is_created_shown_updated_and_deleted(self):
        code = says(1)
        made = create(
            self.name,
            code,
            Description="d",
            Timeout=7,
            MemorySize=256,
            Environment={"Variables": {"TABLE": "orders"}},
            Tags={"team": "a"},
        )
        self.assertEqual((made["State"], made["StateReasonCode"]), ("Pending", "Creating"))
        self.assertNotIn("LastUpdateStatus", made)
        client.get_waiter("function_exists").wait(FunctionName=self.name, WaiterConfig=QUICK)
        client.get_waiter("function_active").wait(FunctionName=self.name, WaiterConfig=QUICK)
        client.get_waiter("function_active_v2").wait(FunctionName=self.name, WaiterConfig=QUICK)
        shown = client.get_function(FunctionName=arn(self.name))
        configuration = shown["Configuration"]
        expected = {
            "FunctionName": self.name,
            "FunctionArn": arn(self.name),
            "Role": ROLE,
            "Handler": "app.handler",
            "CodeSize": len(code),
            "CodeSha256": base64.b64encode(hashlib.sha256(code).digest()).decode(),
            "Description": "d",
            "Timeout": 7,
            "MemorySize": 256,
            "Version": "$LATEST",
            "Environment": {"Variables": {"TABLE": "orders"}},
            "PackageType": "Zip",
            "EphemeralStorage": {"Size": 512},
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.name}"},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "TracingConfig": {"Mode": "PassThrough"},
        }
        self.assertEqual({key: configuration[key] for key in expected}, expected)
        self.assertNotEqual(configuration["RevisionId"], made["RevisionId"])
        self.assertRegex(configuration["LastModified"], r"\A\d{4}-\d\d-\d\dT[\d:.]{12}\+0000\Z")
        self.assertEqual((shown["Tags"], shown["Code"]["RepositoryType"]), ({"team": "a"}, "S3"))
        with urllib.request.urlopen(shown["Code"]["Location"], timeout=serving.SOON) as reply:
            self.assertEqual(reply.read(), code)
        self.assertEqual(self.call()[:2], [1, "$LATEST"])

        updated = client.update_function_code(FunctionName=self.name, ZipFile=says(2))
        self.assertEqual((updated["State"], updated["LastUpdateStatus"]), ("Active", "InProgress"))
        client.get_waiter("function_updated").wait(FunctionName=self.name, WaiterConfig=QUICK)
        client.get_waiter("function_updated_v2").wait(FunctionName=self.name, WaiterConfig=QUICK)
        self.assertEqual(self.call()[0], 2)
        changed = client.update_function_configuration(
            FunctionName=self.name, Timeout=9, Environment={"Variables": {}}
        )
        self.assertEqual((changed["Timeout"], changed["MemorySize"]), (9, 256))
        latest = client.get_function_configuration(FunctionName=self.name, Qualifier="$LATEST")
        self.assertEqual(latest["FunctionArn"], arn(self.name) + ":$LATEST")
        self.assertEqual(latest["Environment"], {"Variables": {}})
        client.delete_function(FunctionName=self.name)
        message = f"Function not found: {arn(self.name)}"
        get = client.get_function
        self.refused(404, "ResourceNotFoundException", message, get, FunctionName=self.name)

    def test_a_dry_run_changes_nothing(self):
        create(self.name)
        before = client.get_function_configuration(FunctionName=self.name)
        new = says(2)
        dry = client.update_function_code(FunctionName=self.name, ZipFile=new, DryRun=True)
        self.assertEqual(dry["CodeSize"], len(new))
        self.assertNotEqual(dry["CodeSha256"], before["CodeSha256"])
        after = client.get_function_configuration(FunctionName=self.name)
        for shown in (before, after):
            shown.pop("ResponseMetadata")
        self.assertEqual(after, before)
        self.assertEqual(self.call()[0], 1)

    def test_changes_with_an_old_state_in_mind_are_refused(self):
        old = create(self.name)["RevisionId"]
        present = client.get_function_configuration(FunctionName=self.name)["RevisionId"]
        message = "The Revision Id provided does not match the latest Revision Id"
        for operation, more in [
            (client.update_function_code, {"ZipFile": says(2)}),
            (client.update_function_configuration, {"Timeout": 5}),
            (client.publish_version, {}),
        ]:
            more = {"FunctionName": self.name, **more}
            code = "PreconditionFailedException"
            self.refused(412, code, message, operation, RevisionId=old, **more)
        client.update_function_configuration(
            FunctionName=self.name, Timeout=5, RevisionId=present
        )

    def test_running_invocations_finish_on_the_old_code(self):
        # The invocation goes on as soon as the test answers on the port that it is told.
        wait = "import socket\n    socket.create_connection(('127.0.0.1', event)).recv(1)\n"
        create(self.name, python(wait + "    return 'old'"), Timeout=30)
        door = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(door.close)
        door.settimeout(serving.SOON)
        replies = []
        port = door.getsockname()[1]
        run = threading.Thread(target=lambda: replies.append(self.call(event=port)))
        run.start()
        inside, _ = door.accept()
        client.update_function_code(FunctionName=self.name, ZipFile=python("return 'new'"))
        self.assertEqual(self.call(), "new")
        inside.sendall(b"!")
        run.join()
        inside.close()
        self.assertEqual(replies, ["old"])

    def test_lists_have_pages(self):
        names = sorted(f"{self.name}-{n}" for n in range(5))
        for name in names:
            create(name)
            self.addCleanup(self.gone, name)
        pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
        listed = [[f["FunctionName"] for f in page["Functions"]] for page in pages]
        self.assertTrue(all(len(page) <= 2 for page in listed), listed)
        listed = sum(listed, [])
        self.assertEqual([name for name in listed if name in names], names)
        self.assertIn("folder", listed)
        client.publish_version(FunctionName=names[0])
        arns = [
            function["FunctionArn"]
            for page in client.get_paginator("list_functions").paginate(FunctionVersion="ALL")
            for function in page["Functions"]
        ]
        self.assertIn(arn(names[0]) + ":1", arns)
        self.assertIn(arn(names[0]) + ":$LATEST", arns)

    def test_code_comes_from_the_bucket_folder(self):
        place = server.root / "data" / "buckets" / "deploys" / "team"
        place.mkdir(parents=True, exist_ok=True)
        (place / "f.zip").write_bytes(says("s3"))
        create(self.name, Code={"S3Bucket": "deploys", "S3Key": "team/f.zip"})
        self.assertEqual(self.call()[0], "s3")
        update = client.update_function_code
        self.refused(
            400,
            "InvalidParameterValueException",
            "S3 Error Code: NoSuchKey.",
            update,
            FunctionName=self.name,
            S3Bucket="deploys",
            S3Key="team/none.zip",
        )

    def test_what_cannot_be_is_refused_and_changes_nothing(self):
        create(self.name)
        invalid, validation = "InvalidParameterValueException", "ValidationException"
        other = f"{self.name}-2"
        vpc = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
        for status, code, message, more in [
            (400, invalid, "Could not unzip uploaded file", {"Code": {"ZipFile": b"no zip"}}),
            (400, invalid, "Value cobol at 'runtime' failed", {"Runtime": "cobol"}),
            (400, validation, "less than or equal to 900", {"Timeout": 901}),
            (400, validation, "at 'memorySize' failed", {"MemorySize": 10241}),
            (400, invalid, "exceeded the 4KB limit", {"Environment": {"Variables": {"AB": "x" * 4096}}}),
            (400, invalid, "reserved keys", {"Environment": {"Variables": {"AWS_REGION": "x"}}}),
            (400, invalid, "cannot run here", {"Architectures": ["vax"]}),
            (400, invalid, "VpcConfig is not supported", {"VpcConfig": vpc}),
            (400, invalid, "SnapStart is not supported", {"SnapStart": {"ApplyOn": "PublishedVersions"}}),
            (400, invalid, "KMSKeyArn is not supported", {"KMSKeyArn": "arn:aws:kms:x:1:key/a"}),
            (400, invalid, "container images", {"Code": {"ImageUri": "x"}, "PackageType": "Image"}),
            (400, invalid, "X-Ray", {"TracingConfig": {"Mode": "Active"}}),
            (400, invalid, "length less than or equal to 64", {"FunctionName": "x" * 65}),
            (404, "ResourceNotFoundException", "not reachable in this region",
             {"FunctionName": f"arn:aws:lambda:us-west-2:{serving.ACCOUNT}:function:x"}),
        ]:
            with self.subTest(message):
                more = {"FunctionName": other, **more}
                name = more.pop("FunctionName")
                self.refused(status, code, message, create, name=name, **more)
        conflict = "ResourceConflictException"
        message = f"Function already exist: {self.name}"
        self.refused(409, conflict, message, create, name=self.name)
        listed = [f["FunctionName"] for f in client.list_functions()["Functions"]]
        self.assertNotIn(other, listed)
        self.assertEqual(self.call()[0], 1)

    def test_a_folder_is_changed_in_its_folder(self):
        for operation, more in [
            (client.update_function_code, {"ZipFile": says(2)}),
            (client.update_function_configuration, {"Timeout": 5}),
            (client.delete_function, {}),
            (client.put_function_concurrency, {"ReservedConcurrentExecutions": 1}),
        ]:
            with self.subTest(operation.__name__):
                conflict = "ResourceConflictException"
                message = "function folder is the folder"
                self.refused(409, conflict, message, operation, FunctionName="folder", **more)
        self.refused(409, "ResourceConflictException", "already exist", create, name="folder")
        shown = client.get_function(FunctionName="folder")
        self.assertEqual(shown["Configuration"]["Runtime"], "provided.al2023")
        self.assertEqual(shown["Concurrency"], {"ReservedConcurrentExecutions": 1})
        with urllib.request.urlopen(shown["Code"]["Location"], timeout=serving.SOON) as reply:
            names = zipfile.ZipFile(io.BytesIO(reply.read())).namelist()
        self.assertIn("bootstrap", names)
        version = client.publish_version(FunctionName="folder")["Version"]
        reply = server.invoke("folder", {"do": "echo"}, Qualifier=version)
        self.assertEqual(reply["ExecutedVersion"], version)

    def test_tags(self):
        create(self.name, Tags={"a": "1"})
        resource = arn(self.name)
        client.tag_resource(Resource=resource, Tags={"b": "2", "hob:idle_timeout_s": "5"})
        client.untag_resource(Resource=resource, TagKeys=["a"])
        tags = client.list_tags(Resource=resource)["Tags"]
        self.assertEqual(tags, {"b": "2", "hob:idle_timeout_s": "5"})
        invalid = "InvalidParameterValueException"
        bad = {"hob:idle_timeout_s": "soon"}
        tag = client.tag_resource
        self.refused(400, invalid, "allowed: 0..86400", tag, Resource=resource, Tags=bad)
        message = "Tags on function aliases and versions are not supported"
        self.refused(400, invalid, message, tag, Resource=resource + ":1", Tags={"a": "b"})


class Versions(Case):
    def test_versions_stay_what_they_were(self):
        create(self.name)
        first = client.publish_version(FunctionName=self.name, Description="one")
        self.assertEqual((first["Version"], first["State"]), ("1", "Active"))
        self.assertEqual(first["FunctionArn"], arn(self.name) + ":1")
        again = client.publish_version(FunctionName=self.name)
        self.assertEqual((again["Version"], again["Description"]), ("1", "one"))
        updated = client.update_function_code(
            FunctionName=self.name, ZipFile=says(2), Publish=True
        )
        self.assertEqual((updated["Version"], updated["FunctionArn"]), ("2", arn(self.name)))
        client.update_function_code(FunctionName=self.name, ZipFile=says(3))
        client.get_waiter("published_version_active").wait(
            FunctionName=self.name, Qualifier="2", WaiterConfig=QUICK
        )
        self.assertEqual(self.call("1"), [1, "1", arn(self.name) + ":1"])
        self.assertEqual(self.call("2")[:2], [2, "2"])
        self.assertEqual(self.call()[0], 3)
        listed = client.list_versions_by_function(FunctionName=self.name)["Versions"]
        self.assertEqual([version["Version"] for version in listed], ["$LATEST", "1", "2"])
        self.assertEqual(listed[0]["FunctionArn"], arn(self.name) + ":$LATEST")
        client.delete_function(FunctionName=self.name, Qualifier="2")
        message = f"Function not found: {arn(self.name)}:2"
        with self.assertRaises(client.exceptions.ResourceNotFoundException) as caught:
            self.call("2")
        self.assertIn(message, str(caught.exception))
        self.assertEqual(client.publish_version(FunctionName=self.name)["Version"], "3")

    def test_what_a_publisher_has_in_mind_is_checked(self):
        made = create(self.name, Publish=True)
        self.assertEqual((made["Version"], made["FunctionArn"]), ("1", arn(self.name)))
        invalid = "InvalidParameterValueException"
        message = "CodeSHA256 (x) is different from current CodeSHA256 in $LATEST ("
        publish = client.publish_version
        self.refused(400, invalid, message, publish, FunctionName=self.name, CodeSha256="x")
        message = "$LATEST version cannot be deleted without deleting the function."
        delete = client.delete_function
        self.refused(400, invalid, message, delete, FunctionName=self.name, Qualifier="$LATEST")
        message = "The derived qualifier from the function name does not match"
        self.refused(
            400, invalid, message, client.invoke, FunctionName=f"{self.name}:1", Qualifier="2"
        )

    def test_aliases_move_and_split(self):
        create(self.name, Publish=True)
        client.update_function_code(FunctionName=self.name, ZipFile=says(2), Publish=True)
        made = client.create_alias(FunctionName=self.name, Name="live", FunctionVersion="1")
        self.assertEqual(made["AliasArn"], arn(self.name) + ":live")
        self.assertEqual(self.call("live"), [1, "1", arn(self.name) + ":live"])
        client.update_alias(
            FunctionName=self.name,
            Name="live",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.2}},
        )
        versions = collections.Counter(
            server.invoke(self.name, Qualifier="live")["ExecutedVersion"] for _ in range(500)
        )
        # Five standard deviations either way.
        self.assertTrue(55 <= versions["2"] <= 145, versions)
        self.assertEqual(versions["1"] + versions["2"], 500)
        moved = client.update_alias(
            FunctionName=self.name, Name="live", FunctionVersion="2", RoutingConfig={}
        )
        self.assertNotIn("RoutingConfig", moved)
        self.assertEqual(self.call("live")[0], 2)
        client.create_alias(FunctionName=self.name, Name="old", FunctionVersion="1")
        listed = client.list_aliases(FunctionName=self.name)["Aliases"]
        self.assertEqual([alias["Name"] for alias in listed], ["live", "old"])
        of_one = client.list_aliases(FunctionName=self.name, FunctionVersion="1")["Aliases"]
        self.assertEqual([alias["Name"] for alias in of_one], ["old"])
        delete = client.delete_function
        conflict = "ResourceConflictException"
        self.refused(409, conflict, "is pointed to", delete, FunctionName=self.name, Qualifier="1")
        client.delete_alias(FunctionName=self.name, Name="old")
        client.delete_alias(FunctionName=self.name, Name="old")
        client.delete_function(FunctionName=self.name, Qualifier="1")
        get = client.get_alias
        message = f"Cannot find alias arn: {arn(self.name)}:old"
        code = "ResourceNotFoundException"
        self.refused(404, code, message, get, FunctionName=self.name, Name="old")

    def test_aliases_that_lambda_refuses(self):
        create(self.name, Publish=True)
        make = client.create_alias
        client.create_alias(FunctionName=self.name, Name="a", FunctionVersion="1")
        invalid = "InvalidParameterValueException"
        weights = lambda **weights: {"AdditionalVersionWeights": weights}
        for status, code, message, more in [
            (409, "ResourceConflictException", f"Alias already exists: {arn(self.name)}:a",
             {"Name": "a"}),
            (404, "ResourceNotFoundException", f"Function not found: {arn(self.name)}:7",
             {"FunctionVersion": "7"}),
            (400, invalid, "already included in routing", {"RoutingConfig": weights(**{"1": 0.5})}),
            (400, invalid, "cannot be greater than 1",
             {"RoutingConfig": weights(**{"1": 0.5, "2": 0.1})}),
            (400, invalid, "$LATEST is not supported for an alias pointing to more than 1 version",
             {"FunctionVersion": "$LATEST", "RoutingConfig": weights(**{"1": 0.5})}),
            (400, "ValidationException", "regular expression", {"Name": "12"}),
        ]:
            with self.subTest(message):
                more = {"FunctionName": self.name, "Name": "b", "FunctionVersion": "1", **more}
                self.refused(status, code, message, make, **more)

    def test_everything_is_there_after_a_restart(self):
        own = serving.Server()
        self.addCleanup(own.stop)
        own.start()
        own.client.create_function(
            FunctionName=self.name,
            Runtime=serving.BUNDLED["hob-python"],
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": says(1)},
            Publish=True,
            Tags={"a": "b"},
        )
        own.client.update_function_code(FunctionName=self.name, ZipFile=says(2))
        own.client.create_alias(FunctionName=self.name, Name="live", FunctionVersion="1")
        own.client.put_function_concurrency(
            FunctionName=self.name, ReservedConcurrentExecutions=3
        )
        own.client.put_provisioned_concurrency_config(
            FunctionName=self.name, Qualifier="live", ProvisionedConcurrentExecutions=1
        )
        before = own.client.get_function(FunctionName=self.name)
        own.terminate()
        own.wait()
        own.start()
        after = own.client.get_function(FunctionName=self.name)
        for shown in (before, after):
            shown.pop("ResponseMetadata")
            shown.pop("Code")
        self.assertEqual(after, before)
        replies = [own.invoke(self.name), own.invoke(self.name, Qualifier="live")]
        self.assertEqual([json.loads(reply["Payload"])[0] for reply in replies], [2, 1])
        serving.eventually("the provisioned worker is back", lambda: ready(own.client, self.name))


def ready(client, name, qualifier="live"):
    config = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
    return config["Status"] == "READY"


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
