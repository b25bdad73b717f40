"""Layers and permissions by boto3, every answer compared with its model."""

import base64
import hashlib
import io
import json
import subprocess
import urllib.request
import zipfile

import managing
import serving
from managing import zipped

SAYS_WORD = "import word\ndef handler(event, context):\n    return word.WORD\n"
MIB = 1024 * 1024

server = client = None


def setUpModule():
    global server, client
    server, client = managing.start()


def tearDownModule():
    server.stop()


def restart():
    global client
    client = managing.restart()


def layer_arn(name, version=None):
    whole = f"arn:aws:lambda:{serving.REGION}:{serving.ACCOUNT}:layer:{name}"
    return whole if version is None else f"{whole}:{version}"


def files(**contents):
    """A zip of files at paths that are no names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return out.getvalue()


def word(text):
    """A layer for Python whose word this is."""
    return files(**{"python/word.py": f"WORD = {text!r}\n"})


def publish(name, zip, **more):
    """A version of a layer; its ARN."""
    made = client.publish_layer_version(LayerName=name, Content={"ZipFile": zip}, **more)
    return made["LayerVersionArn"]


class Case(managing.Case):
    def create(self, code=None, layers=(), **more):
        name, code = more.pop("FunctionName", self.name), code or zipped(app__py=SAYS_WORD)
        return managing.create(name, code, Layers=list(layers), **more)

    def gone(self, name):
        # A folder goes with the server.
        if not (server.root / "functions" / name).exists():
            super().gone(name)


class Layers(Case):
    def test_a_layer_is_published_shown_listed_and_deleted(self):
        zip = word("a")
        made = client.publish_layer_version(
            LayerName=self.name,
            Content={"ZipFile": zip},
            Description="d",
            LicenseInfo="MIT",
            CompatibleRuntimes=["python3.12", "java21"],
            CompatibleArchitectures=["arm64"],
        )
        sha256 = base64.b64encode(hashlib.sha256(zip).digest()).decode()
        expected = {
            "LayerArn": layer_arn(self.name),
            "LayerVersionArn": layer_arn(self.name, 1),
            "Version": 1,
            "Description": "d",
            "LicenseInfo": "MIT",
            "CompatibleRuntimes": ["python3.12", "java21"],
            "CompatibleArchitectures": ["arm64"],
        }
        self.assertEqual({key: made[key] for key in expected}, expected)
        self.assertEqual(made["Content"]["CodeSha256"], sha256)
        self.assertEqual(made["Content"]["CodeSize"], len(zip))
        self.assertRegex(made["CreatedDate"], r"\A\d{4}-\d\d-\d\dT[\d:.]{12}\+0000\Z")
        with urllib.request.urlopen(made["Content"]["Location"]) as reply:
            self.assertEqual(reply.read(), zip)
        shown = client.get_layer_version(LayerName=layer_arn(self.name), VersionNumber=1)
        by_arn = client.get_layer_version_by_arn(Arn=layer_arn(self.name, 1))
        for answer in [made, shown, by_arn]:
            answer.pop("ResponseMetadata")
            self.assertEqual(answer, made)
        publish(self.name, word("b"))
        listed = client.list_layer_versions(LayerName=self.name)["LayerVersions"]
        self.assertEqual([version["Version"] for version in listed], [2, 1])
        listed = client.list_layer_versions(LayerName=self.name, CompatibleRuntime="java21")
        self.assertEqual([version["Version"] for version in listed["LayerVersions"]], [1])
        latest = lambda **only: {
            layer["LayerName"]: layer["LatestMatchingVersion"]["Version"]
            for page in client.get_paginator("list_layers").paginate(**only)
            for layer in page["Layers"]
        }.get(self.name)
        self.assertEqual(latest(), 2)
        self.assertEqual(latest(CompatibleArchitecture="arm64"), 1)
        self.assertIsNone(latest(CompatibleRuntime="python3.9"))
        for number in [1, 2, 2]:
            client.delete_layer_version(LayerName=self.name, VersionNumber=number)
        self.assertIsNone(latest())
        self.assertEqual(client.list_layer_versions(LayerName=self.name)["LayerVersions"], [])
        missing = "The resource you requested does not exist."
        code = "ResourceNotFoundException"
        name = {"LayerName": self.name, "VersionNumber": 1}
        self.refused(404, code, missing, client.get_layer_version, **name)
        arn = layer_arn(self.name, 1)
        self.refused(404, code, missing, client.get_layer_version_by_arn, Arn=arn)
        self.assertEqual(publish(self.name, word("c")), layer_arn(self.name, 3))

    def test_pages_of_versions(self):
        for n in range(5):
            publish(self.name, word(str(n)))
        pages = client.get_paginator("list_layer_versions").paginate(
            LayerName=self.name, PaginationConfig={"PageSize": 2}
        )
        numbers = [[one["Version"] for one in page["LayerVersions"]] for page in pages]
        self.assertEqual(numbers, [[5, 4], [3, 2], [1]])

    def test_what_is_no_layer_is_refused(self):
        invalid = "InvalidParameterValueException"
        publishes = client.publish_layer_version
        content = {"ZipFile": b"no zip"}
        call = {"LayerName": self.name, "Content": content}
        self.refused(400, invalid, "Could not unzip uploaded file.", publishes, **call)
        content = {"S3Bucket": "none", "S3Key": "k"}
        call = {"LayerName": self.name, "Content": content}
        self.refused(400, invalid, "NoSuchBucket", publishes, **call)
        call = {"LayerName": "a b", "Content": {"ZipFile": word("x")}}
        self.refused(400, "ValidationException", "at 'layerName'", publishes, **call)
        call = {"LayerName": self.name, "VersionNumber": 0}
        message = "Layer Version Cannot be less than 1"
        self.refused(400, invalid, message, client.get_layer_version, **call)
        self.refused(
            400, "ValidationException", "'arn'", client.get_layer_version_by_arn, Arn="deps"
        )
        self.assertEqual(publish(self.name, word("x")), layer_arn(self.name, 1))

    def test_content_from_a_bucket(self):
        place = server.root / "data/buckets/layers"
        place.mkdir(parents=True)
        (place / "word.zip").write_bytes(word("bucket"))
        content = {"S3Bucket": "layers", "S3Key": "word.zip"}
        made = client.publish_layer_version(LayerName=self.name, Content=content)
        self.create(layers=[made["LayerVersionArn"]])
        self.assertEqual(self.call(), "bucket")


class OfFunctions(Case):
    def test_python_imports_from_layers_and_the_later_one_wins(self):
        one, two = publish("py-one", word("one")), publish("py-two", word("two"))
        made = self.create(layers=[one, two])
        self.assertEqual([layer["Arn"] for layer in made["Layers"]], [one, two])
        self.assertEqual(made["Layers"][0]["CodeSize"], len(word("one")))
        self.assertEqual(self.call(), "two")
        client.update_function_configuration(FunctionName=self.name, Layers=[two, one])
        self.assertEqual(self.call(), "one")
        client.update_function_configuration(FunctionName=self.name, Timeout=9)
        shown = client.get_function_configuration(FunctionName=self.name)
        self.assertEqual([layer["Arn"] for layer in shown["Layers"]], [two, one])
        self.assertEqual(self.call(), "one")
        client.update_function_configuration(FunctionName=self.name, Layers=[])
        self.assertNotIn("Layers", client.get_function_configuration(FunctionName=self.name))
        self.assertIn("FunctionError", server.invoke(self.name, {}))

    def test_node_finds_modules(self):
        text = "exports.word = 'node'\n"
        layer = publish(self.name, files(**{"nodejs/node_modules/word/index.js": text}))
        code = zipped(index__js="exports.handler = async () => require('word').word\n")
        runtime = serving.BUNDLED["hob-node"]
        self.create(code, [layer], Runtime=runtime, Handler="index.handler", Timeout=20)
        self.assertEqual(self.call(), "node")

    def test_a_bootstrap_finds_files(self):
        layer = publish(self.name, files(word='"any"'))
        bootstrap = (
            "#!/bin/sh\n"
            'api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"\n'
            "while :; do\n"
            'id=$(curl -sS -D - -o /dev/null "$api/next" | tr -d "\\r" |'
            ' sed -n "s/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p")\n'
            'curl -sS "$api/$id/response" --data-binary "@${HOB_OPT:-/opt}/word" >/dev/null\n'
            "done\n"
        )
        self.create(zipped(bootstrap=bootstrap), [layer], Runtime="provided.al2023", Timeout=20)
        self.assertEqual(self.call(), "any")

    def test_layers_that_cannot_be_are_refused_in_lambdas_words(self):
        one, two = publish(self.name, word("1")), publish(self.name, word("2"))
        others = [publish(f"{self.name[:50]}-{n}", word("x")) for n in range(5)]
        invalid = "InvalidParameterValueException"
        for layers, status, code, message in [
            ([one, *others], 400, invalid, "Cannot reference more than 5 layers."),
            (
                [one, two],
                400,
                invalid,
                "Two different versions of the same layer are not allowed to be referenced in the "
                f"same function. {one} and {two} are versions of the same layer.",
            ),
            (
                [layer_arn("no", 1)],
                400,
                invalid,
                f"Layer version {layer_arn('no', 1)} does not exist.",
            ),
            (
                [one.replace(serving.REGION, "us-west-2")],
                400,
                invalid,
                f"Layers are expected to be in region {serving.REGION}.",
            ),
            (
                [one.replace(serving.ACCOUNT, "000000000000")],
                403,
                "AccessDeniedException",
                "is not authorized to perform: lambda:GetLayerVersion on resource: ",
            ),
            ([layer_arn(self.name)], 400, "ValidationException", "at 'layers'"),
        ]:
            with self.subTest(message=message):
                self.refused(status, code, message, self.create, layers=layers)
        self.create(layers=[one])
        large = files(**{"large": bytes(240 * MIB)})
        other = files(**{"other": bytes(20 * MIB)})
        layers = [publish("large", large), publish("other", other)]
        message = "Unzipped size must be smaller than 262144000 bytes"
        update = client.update_function_configuration
        self.refused(400, invalid, message, update, FunctionName=self.name, Layers=layers)
        update(FunctionName=self.name, Layers=layers[:1])
        update = client.update_function_code
        self.refused(400, invalid, message, update, FunctionName=self.name, ZipFile=other)
        small = zipped(app__py="def handler(event, context):\n    return 'small'\n")
        update(FunctionName=self.name, ZipFile=small)
        self.assertEqual(self.call(), "small")

    def test_a_deleted_layer_goes_on_working_where_it_is_used(self):
        layer = publish(self.name, word("kept"))
        self.create(layers=[layer], Publish=True)
        client.delete_layer_version(LayerName=self.name, VersionNumber=1)
        self.refused(
            400,
            "InvalidParameterValueException",
            "does not exist",
            self.create,
            layers=[layer],
            FunctionName=f"{self.name[:60]}-x",
        )
        code = zipped(app__py=SAYS_WORD.replace("word.WORD", "'new ' + word.WORD"))
        client.update_function_code(FunctionName=self.name, ZipFile=code)
        # Each change looks for what nothing names: now what the layer was alone is gone.
        publish(f"{self.name[:60]}-y", word("else"))
        self.assertEqual((self.call(), self.call("1")), ("new kept", "kept"))
        restart()
        self.assertEqual((self.call(), self.call("1")), ("new kept", "kept"))
        shown = client.get_function_configuration(FunctionName=self.name)
        self.assertEqual([layer["Arn"] for layer in shown["Layers"]], [layer])


class Files(Case):
    """Layers in a `function.toml`, and by the command line."""

    def hob(self, *arguments):
        command = [serving._hob, *arguments, "--socket", server.root / "hob.sock"]
        return subprocess.run(command, capture_output=True, text=True)

    def source(self, layers):
        """A folder whose function says its layers' word."""
        folder = server.root / "source" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.py").write_text(SAYS_WORD)
        (folder / "function.toml").write_text(
            f'runtime = "{serving.BUNDLED["hob-python"]}"\nhandler = "app.handler"\n'
            f"layers = {json.dumps(layers)}\n"
        )
        return folder

    def push_layer(self, name, text):
        folder = server.root / "source" / f"layer-{name}"
        (folder / "python").mkdir(parents=True, exist_ok=True)
        (folder / "python/word.py").write_text(f"WORD = {text!r}\n")
        return self.hob("push", "--layer", folder, "--name", name)

    def test_a_layer_is_pushed_and_a_folder_waits_for_it(self):
        wanted = f"{self.name}-{'x' * 70}"
        folder = self.source([f"{wanted}:1", "../word-folder"])
        layer = server.root / "functions/word-folder/python"
        layer.mkdir(parents=True)
        (layer / "other.py").write_text("")
        folder.rename(server.root / "functions" / self.name)
        complaint = f"function.toml: layers: {wanted}:1 is not published, allowed: folders, "
        serving.eventually("the function is refused", lambda: complaint in server.log())
        pushed = self.push_layer(wanted, "pushed")
        said = f"layer {wanted}:1 {layer_arn(wanted, 1)}\n"
        self.assertEqual((pushed.stdout, pushed.returncode), (said, 0), pushed.stderr)
        ready = lambda: f"function {self.name}: " in server.log().split(complaint)[-1]
        serving.eventually("the function is repaired", ready)
        self.assertEqual(self.call(), "pushed")
        shown = client.get_function_configuration(FunctionName=self.name)
        # A folder has no ARN.
        self.assertEqual([layer["Arn"] for layer in shown["Layers"]], [layer_arn(wanted, 1)])
        self.assertGreater(shown["Layers"][0]["CodeSize"], 0)
        client.publish_version(FunctionName=self.name)
        client.delete_layer_version(LayerName=wanted, VersionNumber=1)
        restart()
        self.assertEqual((self.call(), self.call("1")), ("pushed", "pushed"))

    def test_a_pushed_function_has_published_layers(self):
        folder = self.source([f"{self.name}:1"])
        refused = self.hob("push", folder)
        complaint = f"{self.name}/function.toml: layers: {self.name}:1 is not published, allowed: "
        self.assertEqual(refused.returncode, 3)
        self.assertIn(complaint, refused.stderr)
        self.assertEqual(self.push_layer(self.name, "one").returncode, 0)
        self.assertEqual(self.hob("push", folder).returncode, 0)
        self.assertEqual(self.call(), "one")
        second = self.push_layer(self.name, "two")
        self.assertEqual(second.stdout, f"layer {self.name}:2 {layer_arn(self.name, 2)}\n")
        self.source([f"{self.name}:2"])
        self.assertEqual(self.hob("push", folder).returncode, 0)
        self.assertEqual(self.call(), "two")
        # What it has it keeps, though the layer goes.
        client.delete_layer_version(LayerName=self.name, VersionNumber=2)
        (folder / "app.py").write_text(SAYS_WORD.replace("word.WORD", "'still ' + word.WORD"))
        self.assertEqual(self.hob("push", folder).returncode, 0)
        self.assertEqual(self.call(), "still two")
        none = server.root / "source/none"
        self.assertEqual(self.hob("push", "--layer", none).returncode, 1)


class Permissions(Case):
    def statements(self, **of):
        answer = client.get_policy(FunctionName=self.name, **of)
        policy = json.loads(answer["Policy"])
        self.assertEqual((policy["Version"], policy["Id"]), ("2012-10-17", "default"))
        return policy["Statement"], answer["RevisionId"]

    def test_permissions_of_functions_and_qualifiers(self):
        self.create(Publish=True)
        client.create_alias(FunctionName=self.name, Name="live", FunctionVersion="1")
        missing = "ResourceNotFoundException"
        message = "The resource you requested does not exist."
        self.refused(404, missing, message, client.get_policy, FunctionName=self.name)
        revision = client.get_function_configuration(FunctionName=self.name)["RevisionId"]
        said = {
            "FunctionName": self.name,
            "StatementId": "s3",
            "Action": "lambda:InvokeFunction",
            "Principal": "s3.amazonaws.com",
            "SourceArn": "arn:aws:s3:::bucket",
            "SourceAccount": serving.ACCOUNT,
        }
        added = client.add_permission(**said, RevisionId=revision)
        expected = {
            "Sid": "s3",
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "lambda:InvokeFunction",
            "Resource": serving.arn(self.name),
            "Condition": {
                "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"},
                "StringEquals": {"AWS:SourceAccount": serving.ACCOUNT},
            },
        }
        self.assertEqual(json.loads(added["Statement"]), expected)
        self.assertEqual(self.statements()[0], [expected])
        message = "The statement id (s3) provided already exists."
        self.refused(409, "ResourceConflictException", message, client.add_permission, **said)
        url = {
            "FunctionName": self.name,
            "StatementId": "url",
            "Action": "lambda:InvokeFunctionUrl",
            "Principal": "*",
            "FunctionUrlAuthType": "NONE",
        }
        for qualifier in ["live", "1"]:
            client.add_permission(**url, Qualifier=qualifier)
            statements, _ = self.statements(Qualifier=qualifier)
            self.assertEqual(statements[0]["Resource"], f"{serving.arn(self.name)}:{qualifier}")
        invalid = "InvalidParameterValueException"
        message = "We currently do not support adding policies for $LATEST."
        add = client.add_permission
        self.refused(400, invalid, message, add, **url, Qualifier="$LATEST")
        self.refused(404, missing, "Function not found", add, **url, Qualifier="7")
        statements, revision = self.statements()
        self.assertEqual(len(statements), 1)
        remove = client.remove_permission
        at = {"FunctionName": self.name, "StatementId": "s3"}
        stale = "PreconditionFailedException"
        self.refused(412, stale, "latest Revision Id", remove, **at, RevisionId="stale")
        restart()
        client.remove_permission(**at, RevisionId=revision)
        remove = client.remove_permission
        self.refused(404, missing, "No policy is associated", remove, **at)
        at["Qualifier"] = "live"
        self.refused(404, missing, "Statement s3 is not found in resource policy.", remove, **at)
        long = {**url, "StatementId": "long", "Principal": f"arn:aws:iam::{'x' * 2000}"}
        for n in range(8):
            client.add_permission(**{**long, "StatementId": f"long{n}"})
        message = "is bigger than the limit (20480)."
        add = client.add_permission
        self.refused(400, "PolicyLengthExceededException", message, add, **long)

    def test_permissions_of_layers(self):
        publish(self.name, word("x"))
        at = {"LayerName": self.name, "VersionNumber": 1}
        missing = "ResourceNotFoundException"
        message = "No policy is associated with the given resource."
        self.refused(404, missing, message, client.get_layer_version_policy, **at)
        said = {
            **at,
            "StatementId": "all",
            "Action": "lambda:GetLayerVersion",
            "Principal": "*",
            "OrganizationId": "o-1234567890",
        }
        added = client.add_layer_version_permission(**said)
        expected = {
            "Sid": "all",
            "Effect": "Allow",
            "Principal": "*",
            "Action": "lambda:GetLayerVersion",
            "Resource": layer_arn(self.name, 1),
            "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}},
        }
        self.assertEqual(json.loads(added["Statement"]), expected)
        shown = client.get_layer_version_policy(**at)
        self.assertEqual(json.loads(shown["Policy"])["Statement"], [expected])
        self.assertEqual(shown["RevisionId"], added["RevisionId"])
        add = client.add_layer_version_permission
        self.refused(409, "ResourceConflictException", "(all) provided already exists", add, **said)
        remove = client.remove_layer_version_permission
        message = "Statement none is not found in resource policy."
        self.refused(404, missing, message, remove, **at, StatementId="none")
        remove(**at, StatementId="all", RevisionId=shown["RevisionId"])
        message = f"Layer version {layer_arn(self.name, 9)} does not exist."
        said["VersionNumber"] = 9
        self.refused(404, missing, message, add, **said)
