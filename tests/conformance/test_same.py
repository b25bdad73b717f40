"""The bundled runtimes beside AWS's clients, on one server: the same functions get the same events,
and give the same payloads and logs, but for the differences that `cases` lists with their reasons.
"""

import base64
import concurrent.futures
import difflib
import json
import os
import re
import shutil
import sys
import unittest

import cases
import serving
from serving import compact

# Where hob looks for interpreters, and in this order; then the server's own PATH.
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"

server = None
rows = []


class Family:
    """A runtime of hob's and AWS's client for it."""

    def __init__(self, name, runtime, bundled, bootstrap, all_cases):
        self.name, self.runtime, self.bundled = name, runtime, bundled
        self.bootstrap, self.cases = bootstrap, all_cases
        self.is_python = runtime.startswith("python")
        # As differences are listed by.
        self.listed = "python" if self.is_python else runtime
        # Names of one length: where a log is cut off must not depend on them.
        self.ways = {**bundled, "reference": None}

    def function(self, way, number):
        return f"{self.name}-{number:02}-{list(self.ways).index(way)}"


def python(name, all_cases):
    return Family(
        name,
        serving.BUNDLED["hob-python"],
        {"zygote": {"zygote": "auto"}, "plain": {"zygote": "off"}},
        """#!/bin/sh
export AWS_EXECUTION_ENV="$SAME_AS"
exec "$PROGRAM" -m awslambdaric "$_HANDLER"
""",
        all_cases,
    )


# In two, since a server has room for so many functions.
PYTHON = python("py", cases.PYTHON)
PYTHON_STARTS = python("ps", cases.PYTHON_STARTS)


def node(name, runtime, client, all_cases):
    bootstrap = f"""#!/bin/sh
export AWS_EXECUTION_ENV="$SAME_AS"
exec "$CLIENTS/node/bin/node" {client}
"""
    return Family(name, runtime, {"bundled": {}}, bootstrap, all_cases)


MODERN = '"$CLIENTS/node/node_modules/aws-lambda-ric/index.mjs"'
# Its own program says more than AWS's bootstrap does.
CLASSIC = """--input-type=module \\
  -e 'const { run } = await import(process.argv[1]); await run(...process.argv.slice(2));' \\
  "$CLIENTS/node/node_modules/aws-lambda-ric-3/dist/index.mjs" "$LAMBDA_TASK_ROOT" "$_HANDLER"
"""
NODE_24 = node("n24", "nodejs24.x", MODERN, cases.NODE + cases.MODERN)
NODE_22 = node("n22", "nodejs22.x", CLASSIC, cases.NODE)
NODE_22_CALLBACKS = node("ncb", "nodejs22.x", CLASSIC, cases.CLASSIC)
FAMILIES = [PYTHON, PYTHON_STARTS, NODE_24, NODE_22, NODE_22_CALLBACKS]


def python_program():
    """The Python that hob runs: scripts such as pyenv's are none."""
    for place in f"{SYSTEM}:{server.interpreters}:{os.environ['PATH']}".split(":"):
        program = os.path.join(place, PYTHON.runtime)
        if os.access(program, os.X_OK):
            with open(program, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return program
    raise RuntimeError(f"no {PYTHON.runtime}")


# What the functions of a family do not need.
WITHOUT = {
    "py": ["forking.py", "plain.py", "init", "folder"],
    "ps": ["forking.py", "plain.py", "failing.py", "talking.py"],
}


def source(family):
    """The code of all functions of a family, in one folder."""
    kind = "python" if family.is_python else "node"
    place = server.root / family.name
    # Each function is copied when it is loaded, file by file.
    without = shutil.ignore_patterns("__pycache__", *WITHOUT.get(family.name, []))
    shutil.copytree(cases.TESTS / kind / "functions", place, ignore=without)
    (place / "bootstrap").write_text(family.bootstrap)
    (place / "bootstrap").chmod(0o755)
    for file in (cases.TESTS / "conformance/functions/same").iterdir():
        if (file.suffix == ".py") == family.is_python:
            shutil.copy(file, place)
    if not family.is_python:
        for name, text in cases.BROKEN.items():
            (place / name).write_text(text)
    return place


def start(family):
    """A server with the functions of a family."""
    global server
    server = serving.Server()
    server.function("hob-python", "echo")
    place = source(family)
    for number, case in enumerate(family.cases):
        variables = {"SAME_AS": f"AWS_Lambda_{family.runtime}", **case.variables}
        if family.is_python:
            # For boto3, which AWS has in its runtimes; as a layer, test_clients has it.
            packages = serving.site_packages()
            variables |= {"PROGRAM": python_program(), "PYTHONPATH": packages}
        for way, more in family.ways.items():
            server.function(
                family.name,
                family.function(way, number),
                handler=case.handler,
                variables=variables,
                source=place,
                runtime=family.runtime if way != "reference" else "provided.al2023",
                reserved_concurrency=1,
                queue_wait_ms=10_000,
                **case.settings,
                **(more or {}),
            )
    server.start("--slots", "32")


def tearDownModule():
    width = max((len(name) for _, name, _ in rows), default=0)
    print("\n--- the bundled runtimes beside AWS's clients: same payloads, errors and logs")
    for family, name, told in sorted(rows, key=lambda row: FAMILIES.index(row[0])):
        print(f"{family.runtime:<11} {name:<{width}}  {told}")


def comparable(text, name, request):
    """Text without what differs from call to call."""
    text = text.replace(request, "REQUEST").replace(name, "FUNCTION")
    text = re.sub(rf"{re.escape(str(server.root))}/data/code/[0-9a-f]+", "/var/task", text)
    for pattern, word in [
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?Z?", "TIME"),
        (r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", "STREAM"),
        (r"Root=1-[0-9a-f]+-[0-9a-f]+;Parent=[0-9a-f]+", "TRACE"),
        (r";Lineage=[0-9a-f]{8}:", ";Lineage=FUNCTION:"),
        (r"\b0x[0-9a-f]+", "ADDRESS"),
        (r"(Duration:) \d+\.\d\d ms", r"\1 TIME"),
        (r"(Billed Duration:) \d+ ms", r"\1 TIME"),
        (r"(Max Memory Used:) \d+ MB", r"\1 SIZE"),
    ]:
        text = re.sub(pattern, word, text)
    return text


# Frames of clients and of Node itself, which are in every trace below the function's own.
FRAME = r"(aws-lambda-ric|dist/index\.mjs|/runtime/[0-9a-f]+/node|node:|<anonymous>|\[eval)"


def node_comparable(text):
    """The same without the frames of the client, and how it names those it calls."""
    text = re.sub(rf',?"    at [^"]*?{FRAME}[^"]*"', "", text)
    text = re.sub(rf'(\\n|\r|\n) +at [^"\r\n\\]*?{FRAME}[^"\r\n\\]*', "", text)
    text = re.sub(r'(\\n|\r|",")- [^"\s]*(index\.mjs|\w+\.cjs)(?=\\n|\r|")', "", text)
    text = text.replace("file://", "")
    return re.sub(
        r'at (?:async )?(?:[\w.<>]+ )?(?:\[as \w+\] )?\(?([^"()\s]*\.m?js:\d+(?::\d+)?)\)?',
        r"at \1",
        text,
    )


class Outcome:
    """What the caller sees of one invocation."""

    def __init__(self, family, name, event, context):
        more = {"LogType": "Tail"}
        if context:
            more["ClientContext"] = base64.b64encode(json.dumps(context).encode()).decode()
        more["Payload"] = event if isinstance(event, bytes) else compact(event)
        reply = server.invoke(name, **more)
        log = base64.b64decode(reply["LogResult"])
        if len(log) >= 4096:
            log = CUT + log.split(b"\n", 1)[1]
        node = not family.is_python

        def plain(data):
            text = comparable(data.decode(errors="backslashreplace"), name, reply["RequestId"])
            return node_comparable(text) if node else text

        self.parts = {
            "status": reply["StatusCode"],
            "error": reply.get("FunctionError"),
            "payload": plain(reply["Payload"]),
            "log": plain(log),
        }


# Stands for the beginning of a log that was longer than a tail is. How much is lost depends on the
# length of figures and frames.
CUT = b"...\n"


def common(one, other):
    """What both have of a log: the end, if one is cut off."""
    lines = [text.split("\n") for text in (one, other)]
    starts = [text.startswith(CUT.decode()) for text in (one, other)]
    if any(starts):
        length = min(len(of) - cut for of, cut in zip(lines, starts))
        lines = [of[len(of) - length :] for of in lines]
    return ["\n".join(of) for of in lines]


def difference(ours, theirs):
    """What differs, shortly."""
    lines = []
    for part, value in ours.parts.items():
        other = theirs.parts[part]
        if part == "log":
            value, other = common(value, other)
        if value != other:
            told = difflib.unified_diff(str(other).split("\n"), str(value).split("\n"), n=1)
            lines += [f"{part}:", *(line[:1500] for line in list(told)[2:])]
    return "\n".join(lines)


class Same:
    """Mixed into the case of each family."""

    family = None

    @classmethod
    def setUpClass(cls):
        start(cls.family)

    @classmethod
    def tearDownClass(cls):
        server.stop()

    def compare(self, number):
        family, case = self.family, self.family.cases[number]
        reason = cases.DIFFERENT.get((family.listed, case.name))
        found = {}
        for at, event in enumerate(case.events):
            with concurrent.futures.ThreadPoolExecutor() as threads:
                calls = {
                    way: threads.submit(
                        Outcome, family, family.function(way, number), event, case.context
                    )
                    for way in family.ways
                }
                outcomes = {way: call.result() for way, call in calls.items()}
            for way in family.bundled:
                told = difference(outcomes[way], outcomes["reference"])
                if told:
                    shown = str(event)[:40]
                    found.setdefault(way, []).append(f"event {at}: {shown}\n{told}")
        rows.append((family, case.name, f"different: {reason}" if found else "same"))
        text = "\n".join(f"== {way}\n" + "\n".join(lines) for way, lines in found.items())
        if reason is None and found:
            self.fail(f"different, for no reason that is listed:\n{text}")
        if reason is not None and not found:
            self.fail(f"not different any more: {reason}")


def case_of(family):
    """A TestCase with a test for each case of a family."""
    tests = {}
    for number, case in enumerate(family.cases):
        name = re.sub(r"\W+", "_", f"test_{number:02}_{case.name}")
        tests[name] = lambda self, number=number: self.compare(number)
    more = {"family": family, "__module__": __name__, **tests}
    return type(f"Same_{family.name}", (Same, unittest.TestCase), more)


class Listed(unittest.TestCase):
    def test_every_listed_difference_is_one_of_a_case(self):
        known = {(family.listed, case.name) for family in FAMILIES for case in family.cases}
        self.assertLessEqual(set(cases.DIFFERENT), known)


for _family in FAMILIES:
    globals()[f"Same_{_family.name}"] = case_of(_family)
