"""Published versions and aliases by boto3, every answer compared with its model."""

import collections
import json

import managing
import serving
from managing import QUICK, ROLE, Case, create, ready, says
from serving import arn

server = client = None


def setUpModule():
    global server, client
    server, client = managing.start()


def tearDownModule():
    server.stop()


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
        shown = client.get_alias(FunctionName=self.name, Name="live")
        self.assertEqual(shown["RevisionId"], made["RevisionId"])
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
