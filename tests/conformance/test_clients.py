"""What must hold on every runtime client: the same events, the answers that AWS documents."""

import base64
import concurrent.futures
import json
import re
import tempfile
import time
import unittest

import serving
from serving import arn, compact

MIB = 1024 * 1024
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STREAM = re.compile(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
# A reply may be a little longer than an event.
REPLY_MAX = 6 * MIB + 100

server = None


def setUpModule():
    global server
    server = serving.Server()
    for client, (_, broken) in serving.HANDLERS.items():
        layers = {"layers": server.boto_layer()} if client == "hob-python" else {}
        server.function(client, variables={"OWN": "of the function"}, **layers)
        # With a slow client the next invocation may find its worker not back yet, and start
        # another: these may have one only.
        alone = {"reserved_concurrency": 1, "queue_wait_ms": 10_000}
        for purpose in ["cold", "crash", "warm"]:
            server.function(client, f"{client}-{purpose}", **alone)
        server.function(client, f"{client}-brief", timeout_s=1, **alone)
        server.function(client, f"{client}-broken", handler=broken)
        if client.endswith("node"):
            server.function(client, f"{client}-stream", handler="app.stream")
    server.start("--slots", "32")


def tearDownModule():
    server.stop()


def tail(reply):
    """The log of an invocation that asked for it."""
    return base64.b64decode(reply["LogResult"]).decode()


def memory(reply):
    """What the log says that its worker used, in MB."""
    return int(re.search(r"\tMax Memory Used: (\d+) MB\t", tail(reply))[1])


class EveryClient:
    """Mixed into one TestCase for each client."""

    client = ""
    # AWS sets it for managed runtimes only.
    missing_variables = ["AWS_EXECUTION_ENV"]

    def own_variables(self):
        """Variables of this kind of runtime, as patterns."""
        return {
            "AWS_LAMBDA_RUNTIME_API": r"127\.\d+\.\d+\.\d+:\d+",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
        }

    def ok(self, name, event, **more):
        """An invocation that succeeds; what it returned."""
        reply = server.invoke(name, event, **more)
        self.assertNotIn("FunctionError", reply, reply["Payload"])
        self.assertEqual(reply["StatusCode"], 200)
        self.assertEqual(reply["ExecutedVersion"], "$LATEST")
        return json.loads(reply["Payload"])

    def fails(self, name, event, **more):
        """An invocation that fails; the whole reply, with its payload as JSON."""
        reply = server.invoke(name, event, **more)
        self.assertEqual(reply["StatusCode"], 200)
        self.assertEqual(reply.get("FunctionError"), "Unhandled", reply["Payload"][:200])
        self.assertEqual(reply["ExecutedVersion"], "$LATEST")
        reply["Bytes"] = reply["Payload"]
        reply["Payload"] = json.loads(reply["Payload"])
        return reply

    def ends(self, name, event, error, message):
        """An invocation whose worker does not answer; AWS words the error."""
        reply = self.fails(name, event)
        message = f"RequestId: {reply['RequestId']} Error: {message}"
        self.assertEqual(reply["Payload"], {"errorType": error, "errorMessage": message})

    # Replies

    def test_replies_with_the_bytes_that_the_client_sent(self):
        reply = server.invoke(self.client, {"n": 1, "list": [True, None, 2.5]})
        self.assertEqual(reply["Payload"], self.echoed)
        self.assertEqual(server.invoke(self.client, {"do": "nothing"})["Payload"].strip(), b"null")

    def test_text_of_all_languages_goes_both_ways(self):
        event = {"é": "Grüße, 世界, 🚀, \u0001\u001f\\\"/", "deep": [{"ключ": ["שלום"]}]}
        self.assertEqual(self.ok(self.client, event), event)

    def test_six_mebibytes_go_both_ways(self):
        text = "x" * (6 * MIB - 2)
        payload = compact(text)
        self.assertEqual(len(payload), 6 * MIB)
        reply = server.invoke(self.client, text)
        self.assertNotIn("FunctionError", reply)
        self.assertTrue(reply["Payload"] == payload, f"{len(reply['Payload'])} bytes")

    def test_a_reply_has_a_limit(self):
        longest = server.invoke(self.client, {"do": "big", "size": REPLY_MAX - 2})
        self.assertNotIn("FunctionError", longest)
        self.assertEqual(len(longest["Payload"]), REPLY_MAX)
        reply = self.fails(self.client, {"do": "big", "size": REPLY_MAX - 1})
        said = f"Response payload size exceeded maximum allowed payload size ({REPLY_MAX} bytes)."
        error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": said}
        self.assertEqual(reply["Payload"], error)
        self.assertEqual(self.ok(self.client, {"n": 2}), {"n": 2})

    # What the handler is told

    def test_the_context_is_this_invocation(self):
        client = {
            "client": {
                "installation_id": "i-1",
                "app_title": "orders",
                "app_version_name": "1.2",
                "app_version_code": "3",
                "app_package_name": "com.example",
            },
            "custom": {"order": "42"},
            "env": {"locale": "en"},
        }
        encoded = base64.b64encode(json.dumps(client).encode()).decode()
        reply = server.invoke(self.client, {"do": "context"}, ClientContext=encoded)
        told = json.loads(reply["Payload"])
        self.assertRegex(told["request"], UUID)
        self.assertTrue(0 < told.pop("remaining") <= 20_000)
        self.assertRegex(told.pop("stream"), STREAM)
        expected = {
            "request": reply["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"],
            "function": self.client,
            "version": "$LATEST",
            "memory": "256",
            "arn": arn(self.client),
            "group": f"/aws/lambda/{self.client}",
            "identity": None,
            "client": {"installation": "i-1", "custom": {"order": "42"}},
        }
        self.assertEqual(told, expected)
        self.assertEqual(told["request"], reply["RequestId"])

    def test_without_a_client_context_there_is_none(self):
        told = self.ok(self.client, {"do": "context"}, Qualifier="$LATEST")
        self.assertIsNone(told["client"])
        self.assertEqual(told["arn"], arn(self.client) + ":$LATEST")

    def test_the_environment_is_lambdas(self):
        told = self.ok(self.client, {"do": "environment"})
        variables = told["variables"]
        expected = {
            "AWS_ACCESS_KEY_ID": r".+",
            "AWS_SECRET_ACCESS_KEY": r".+",
            "AWS_SESSION_TOKEN": r".+",
            "AWS_REGION": serving.REGION,
            "AWS_DEFAULT_REGION": serving.REGION,
            "AWS_LAMBDA_FUNCTION_NAME": self.client,
            "AWS_LAMBDA_FUNCTION_VERSION": r"\$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.client}",
            "AWS_LAMBDA_LOG_STREAM_NAME": STREAM.pattern,
            "AWS_ENDPOINT_URL_LAMBDA": re.escape(server.endpoint),
            "LAMBDA_TASK_ROOT": re.escape(told["directory"]),
            "_HANDLER": re.escape(serving.HANDLERS[self.client][0]),
            "TZ": ":UTC",
            "LANG": r".+\.UTF-8",
            "OWN": "of the function",
            **self.own_variables(),
        }
        for name, pattern in expected.items():
            with self.subTest(variable=name):
                self.assertRegex(variables.get(name, "(not set)"), rf"\A({pattern})\Z")
        places = {place.rstrip("/") for place in variables["PATH"].split(":")}
        self.assertLessEqual({"/usr/local/bin", "/usr/bin", "/bin", "/opt/bin"}, places)
        # The first makes clients start more workers.
        for name in ["AWS_LAMBDA_MAX_CONCURRENCY", "OF_THE_SERVER", *self.missing_variables]:
            self.assertNotIn(name, variables)
        if server.has_paths():
            self.assertEqual(told["directory"], "/var/task")

    # Warm, cold, many

    def test_a_worker_is_used_again(self):
        told = [self.ok(f"{self.client}-warm", {"do": "count"}) for _ in range(3)]
        self.assertEqual([one["count"] for one in told], [1, 2, 3])
        self.assertEqual(len({one["pid"] for one in told}), 1)

    def test_invocations_at_one_time_have_a_worker_each(self):
        # Each waits for all of them: one after another would never end.
        with tempfile.TemporaryDirectory(dir=server.root) as place:
            event = {"do": "meet", "place": place, "count": 4}
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                calls = [threads.submit(self.ok, self.client, event) for _ in range(4)]
                told = [call.result() for call in calls]
        self.assertEqual(len({one["pid"] for one in told}), 4)

    def test_the_log_tail_has_start_output_end_and_report(self):
        name = f"{self.client}-cold"
        for cold in [True, False]:
            reply = server.invoke(name, {"do": "say", "text": "hello"}, LogType="Tail")
            text = tail(reply)
            request = reply["RequestId"]
            lines = text.split("\n")
            start = lines.index(f"START RequestId: {request} Version: $LATEST")
            end = lines.index(f"END RequestId: {request}")
            said = [line for line in lines[start + 1 : end] if line]
            # Some clients put a time and the request in front.
            self.assertEqual([line.split("\t")[-1] for line in said], ["hello out", "hello err"])
            report = re.fullmatch(
                rf"REPORT RequestId: {request}\tDuration: (\d+\.\d\d) ms\t"
                r"Billed Duration: (\d+) ms\tMemory Size: 256 MB\t"
                r"Max Memory Used: (\d+) MB\t(Init Duration: (\d+\.\d\d) ms\t)?",
                lines[end + 1],
            )
            self.assertIsNotNone(report, lines[end + 1])
            self.assertEqual(lines[end + 2 :], [""])
            duration, billed, memory, init, init_duration = report.groups()
            self.assertEqual(int(billed), -int(-float(duration) // 1))
            self.assertGreater(int(memory), 0)
            self.assertEqual(init is not None, cold)
            if cold:
                self.assertGreater(float(init_duration), 0)

    # Errors

    def test_an_error_of_the_handler_is_the_clients_own(self):
        message = "no such order: é 世界"
        reply = self.fails(self.client, {"do": "fail", "message": message})
        self.check_failure(reply, message)

    def test_an_error_of_the_handler_leaves_the_worker_warm(self):
        name = f"{self.client}-crash"
        before = self.ok(name, {"do": "count"})
        self.fails(name, {"do": "fail", "message": "but alive"})
        after = self.ok(name, {"do": "count"})
        self.assertEqual((after["pid"], after["count"]), (before["pid"], before["count"] + 1))

    def test_an_error_of_the_start_is_the_clients_own(self):
        reply = self.fails(f"{self.client}-broken", {}, LogType="Tail")
        self.check_broken(reply)
        # The log names Lambda's own types only.
        known = r"\tStatus: error\tError Type: Runtime\.[A-Z][A-Za-z]+\t\n\Z"
        self.assertRegex(tail(reply), known)

    def test_the_log_says_how_the_process_ended(self):
        name = f"{self.client}-crash"
        reply = self.fails(name, {"do": "exit", "status": 4}, LogType="Tail")
        text = tail(reply)
        said = f"RequestId: {reply['RequestId']} Error: Runtime exited with error: exit status 4\n"
        self.assertIn(said + "Runtime.ExitError\n", text)
        self.assertRegex(text, rf"REPORT RequestId: {reply['RequestId']}\tDuration: ")

    def test_the_log_says_that_the_time_was_up(self):
        reply = self.fails(f"{self.client}-brief", {"do": "sleep", "seconds": 30}, LogType="Tail")
        text = tail(reply)
        said = rf"{TIME} {reply['RequestId']} Task timed out after 1\.00 seconds\n"
        self.assertRegex(text, said)
        self.assertRegex(text, rf"REPORT RequestId: {reply['RequestId']}\tDuration: 1\d\d\d\.")

    def test_the_end_of_the_process_is_an_error(self):
        name = f"{self.client}-crash"
        said = "Runtime exited with error: exit status 3"
        self.ends(name, {"do": "exit", "status": 3}, "Runtime.ExitError", said)
        self.assertEqual(self.ok(name, {"do": "count"})["count"], 1)
        said = "Runtime exited without providing a reason"
        self.ends(name, {"do": "exit", "status": 0}, "Runtime.ExitError", said)
        self.assertEqual(self.ok(name, {"do": "count"})["count"], 1)
        said = "Runtime exited with error: signal: killed"
        self.ends(name, {"do": "kill"}, "Runtime.ExitError", said)
        self.assertEqual(self.ok(name, {"do": "count"})["count"], 1)

    def test_a_timeout_ends_the_worker_and_not_the_function(self):
        name = f"{self.client}-brief"
        before = self.ok(name, {"do": "count"})
        begun = time.monotonic()
        said = "Task timed out after 1.00 seconds"
        self.ends(name, {"do": "sleep", "seconds": 30}, "Sandbox.Timedout", said)
        self.assertTrue(1 <= time.monotonic() - begun < 5)
        after = self.ok(name, {"do": "count"})
        self.assertEqual(after["count"], 1)
        self.assertNotEqual(after["pid"], before["pid"])


class Python(EveryClient, unittest.TestCase):
    client = "python"
    echoed = b'{"n": 1, "list": [true, null, 2.5]}'

    def check_failure(self, reply, message):
        error = reply["Payload"]
        (place,) = [line for line in error.pop("stackTrace") if "in fail" in line]
        self.assertRegex(place, r'\A  File ".*/app\.py", line \d+, in fail\n    raise ValueError')
        request = reply["RequestId"]
        told = {"errorType": "ValueError", "errorMessage": message, "requestId": request}
        self.assertEqual(error, told)

    def check_broken(self, reply):
        told = {
            "errorType": "Runtime.ImportModuleError",
            "errorMessage": "Unable to import module 'broken': No module named 'does_not_exist'",
            "requestId": "",
            "stackTrace": [],
        }
        self.assertEqual(reply["Payload"], told)

    def test_a_traceback_in_the_log_has_lines(self):
        # The client sends it as one record, with carriage returns between its lines.
        event = {"do": "fail", "message": "told"}
        lines = tail(self.fails(self.client, event, LogType="Tail")).split("\n")
        self.assertIn("[ERROR] ValueError: told", lines)
        self.assertIn("Traceback (most recent call last):", lines)

    def test_a_handler_invokes_another_function(self):
        event = {"do": "chain", "function": "shell", "event": {"do": "context"}}
        told = self.ok(self.client, event)
        self.assertEqual(told["reply"]["function"], "shell")
        self.assertEqual(told["reply"]["request"], told["request"])

    def test_a_trace_goes_from_function_to_function(self):
        inner = {"do": "chain", "function": "shell", "event": {"n": 1}}
        told = self.ok(self.client, {"do": "chain", "function": self.client, "event": inner})
        roots = [
            re.fullmatch(r"Root=(1-[0-9a-f]{8}-[0-9a-f]{24});Parent=[0-9a-f]{16};.+", trace)[1]
            for trace in [told["trace"], told["reply"]["trace"]]
        ]
        self.assertEqual(roots[0], roots[1])


class Node(EveryClient, unittest.TestCase):
    client = "node"
    echoed = b'{"n":1,"list":[true,null,2.5]}'

    def check_failure(self, reply, message):
        error = reply["Payload"]
        trace = error.pop("trace")
        self.assertEqual(trace[0], f"TypeError: {message}")
        self.assertRegex(trace[1], r"app\.mjs:\d+:\d+")
        self.assertEqual(error, {"errorType": "TypeError", "errorMessage": message})

    def check_broken(self, reply):
        error = reply["Payload"]
        self.assertRegex("\n".join(error.pop("trace", [])), r"broken\.mjs:\d+")
        told = {"errorType": "RangeError", "errorMessage": "broken by intention"}
        self.assertEqual(error, told)

    def test_a_streamed_reply_comes_whole(self):
        reply = server.invoke(f"{self.client}-stream", {"parts": ["one ", "two"]})
        self.assertNotIn("FunctionError", reply)
        self.assertEqual(reply["Payload"], b"one two")


class Rust(EveryClient, unittest.TestCase):
    client = "rust"
    # serde_json sorts the keys of a Value.
    echoed = b'{"list":[true,null,2.5],"n":1}'

    def check_failure(self, reply, message):
        error = reply["Payload"]
        self.assertRegex(error.pop("errorType"), r"\A&alloc::boxed::Box<dyn core::error::Error")
        self.assertEqual(error, {"errorMessage": message})

    def check_broken(self, reply):
        said = f"RequestId: {reply['RequestId']} Error: Runtime exited with error: exit status 1"
        self.assertEqual(reply["Payload"], {"errorType": "Runtime.ExitError", "errorMessage": said})

    def test_the_memory_of_a_worker_that_ended_is_its_own(self):
        # The server itself must have been larger than the worker.
        self.ok("rust", "x" * (6 * MIB - 2))
        before = memory(server.invoke("rust-crash", {"do": "nothing"}, LogType="Tail"))
        after = memory(self.fails("rust-crash", {"do": "exit", "status": 1}, LogType="Tail"))
        self.assertLessEqual(after - before, 2)


class Shell(EveryClient, unittest.TestCase):
    client = "shell"
    echoed = b'{"n":1,"list":[true,null,2.5]}'

    def check_failure(self, reply, message):
        sent = f'{{ "errorType":"Shell.Failure",  "errorMessage" : "{message}" }}'
        self.assertEqual(reply["Bytes"].decode(), sent)

    def check_broken(self, reply):
        sent = b'{ "errorType":"Shell.Broken",  "errorMessage" : "broken by intention" }'
        self.assertEqual(reply["Bytes"], sent)


class Bundled:
    """Mixed into the case of a client whose functions run on hob's own runtime here."""

    # On the wire there is no Runtime API.
    missing_variables = ["AWS_LAMBDA_RUNTIME_API"]

    def own_variables(self):
        data, kind = re.escape(str(server.root / "data")), self.client.removeprefix("hob-")
        return {
            "AWS_EXECUTION_ENV": re.escape(f"AWS_Lambda_{serving.BUNDLED[self.client]}"),
            "LAMBDA_RUNTIME_DIR": rf"{data}/runtime/[0-9a-f]+/{kind}",
        }


class HobPython(Bundled, Python):
    client = "hob-python"


class HobNode(Bundled, Node):
    client = "hob-node"
