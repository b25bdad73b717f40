"""Functions by boto3, every answer compared with its model."""

import base64
import hashlib
import io
import socket
import threading
import urllib.request
import zipfile

import managing
import serving
from managing import QUICK, ROLE, Case, create, python, says
from serving import arn

server = client = None


def setUpModule():
    global server, client
    server, client = managing.start()


def tearDownModule():
    server.stop()


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
            LoggingConfig={"LogFormat": "JSON", "LogGroup": "/shop/orders"},
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
            "LoggingConfig": {
                "LogFormat": "JSON",
                "LogGroup": "/shop/orders",
                "ApplicationLogLevel": "INFO",
                "SystemLogLevel": "INFO",
            },
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
        tells = python("return [context.log_group_name, os.environ['AWS_LAMBDA_LOG_FORMAT']]")
        client.update_function_code(FunctionName=self.name, ZipFile=tells)
        self.assertEqual(self.call(), ["/shop/orders", "JSON"])

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
