"""What test_same runs: functions, their events, and every difference that there may be."""

import importlib.util
import json
import pathlib
import sys
from collections import namedtuple

TESTS = pathlib.Path(__file__).parent.parent

# A function and its events: values, or bytes that are sent as they are.
Case = namedtuple("Case", "name handler events variables settings context")


def case(name, handler, *events, variables=None, context=None, **settings):
    return Case(name, handler, events, variables or {}, settings, context)


def values():
    """Names of the values that the Python tests return."""
    place = TESTS / "python" / "functions" / "values.py"
    spec = importlib.util.spec_from_file_location("values", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.VALUES)


JSON_LOG = {"AWS_LAMBDA_LOG_FORMAT": "JSON"}
PAYLOADS = [
    b"{}",
    b' {"a" : [ ] }\n',
    b'"\\ud83d\\ude00 \xc3\xa9 \\u2028"',
    b"[1, -0, 0.1, 1e5, 123456789012345678901234567890]",
    b'{"a":{"a":{"a":[[[null,true,false]]]}}}',
    b'{"k":1,"k":2}',
    b'"' + b"x" * 3_000_000 + b'"',
]
CLIENT_CONTEXT = {
    "custom": {"k": "é"},
    "env": {"locale": "de"},
    "client": {"installation_id": "i", "app_title": "t"},
}
# Those of the client, of the shell that starts AWS's, and of the function's own name.
OWN_VARIABLES = (
    "AWS_LAMBDA_FUNCTION_NAME AWS_LAMBDA_LOG_GROUP_NAME AWS_LAMBDA_RUNTIME_API LAMBDA_RUNTIME_DIR "
    "HOB_WIRE HOB_CACHE NODE_PATH OPENBLAS_NUM_THREADS PWD OLDPWD SHLVL _"
).split()
FAILURES = (
    "boom empty odd deep chained library sourceless call repeated multi logged wrong_number".split()
)

PYTHON = [
    case("interpreter", "aws.program", 1),
    case("values of every kind", "values.handler", *values()),
    case("events of every kind", "values.echo", *PAYLOADS),
    case("exceptions", "failing.handler", *FAILURES),
    case("exceptions, JSON log", "failing.handler", *FAILURES, variables=JSON_LOG),
    case("causes", "aws.caused", "x"),
    case("exception groups", "aws.group", 1),
    case("notes of exceptions", "aws.noted", 1),
    case("too deep a recursion", "aws.recursion", 1),
    case("sys.exit", "failing.handler", "leave", "leave_well", "leave_with_words", "boom"),
    case("_exit, abort", "aws.ending", "_exit", "abort", "alive"),
    case("KeyboardInterrupt", "aws.ending", "interrupt", "alive"),
    case("a timeout", "aws.slow", 9, 0, timeout_s=1),
    case("logging", "talking.handler", "one", "args"),
    case("logging, JSON", "talking.handler", "one", "args", variables=JSON_LOG),
    *(
        case(f"logging, level {level}", "aws.levels", 1, variables=variables)
        for level in ["TRACE", "INFO", "ERROR", "nothing"]
        for variables in [{"AWS_LAMBDA_LOG_LEVEL": level}]
    ),
    case("logging, levels, JSON", "aws.levels", 1, variables=JSON_LOG),
    case("logging, set up by the function", "aws.configured", 1, 2),
    case("print, stderr, traceback", "aws.printing", 1, 2),
    case("print, stderr, JSON log", "aws.printing", 1, variables=JSON_LOG),
    case("context", "talking.context", 1, 2),
    case("context of a client", "talking.context", 1, context=CLIENT_CONTEXT),
    case("time that is left", "aws.deadline", 1),
    case("environment", "aws.environment", OWN_VARIABLES),
    case("environment, of the client", "aws.environment", {"only": OWN_VARIABLES}),
    case("argv", "aws.arguments", 1),
    case("stdin, path, logging", "aws.surroundings", 1),
    case("boto3", "calling.invoking", {"n": 1}, 2),
    case("boto3, an error", "calling.invoking_none", 1),
    case("boto3, an error that is caught", "calling.invoking_caught", 1),
    case("a method", "aws.method", 1, 2),
    case("an object", "aws.orders", 0),
    case("asyncio", "aws.with_asyncio", [1, 2, 3], [4]),
    case("asyncio, an exception", "aws.failing_asyncio", 1),
    case("an async handler", "aws.coroutine", 1, 2),
    case("a generator", "aws.generator", 1),
]

PYTHON_STARTS = [
    case("threads", "aws.threads", [1, 2, 3]),
    case("programs", "aws.programs", 1),
    case("/tmp", "aws.scratch", "a", "b"),
    case("a handler in a folder", "folder/inside.handler", 1),
    case("lone surrogates", "aws.surrogate", 1),
    *(
        case(f"import: {handler}{kind}", f"{handler}.handler", 1, 2, variables=variables)
        for handler in ["missing", "init/syntax", "init/indented", "init/missing"]
        + ["init/missing_name", "init/raising", "init/outer"]
        for kind, variables in [("", {}), (", JSON log", JSON_LOG)]
    ),
    case("import: no such name", "values.missing", 1),
    case("import: a module of Python's own", "sys.exit", 1),
    case("import: no module", "values", 1),
    case("import: sys.exit", "init/leaving.handler", 1),
    case("import: sys.exit without a status", "init/leaving_well.handler", 1),
]

VALUES = (
    "undefined null number text list date big circle function symbol json brokenJson nan map bytes"
).split()
ERRORS = (
    "error type named cause aggregate text number object alike undefined stackless circle big "
    "multiline nameless other"
).split()

NODE = [
    case("interpreter", "aws.program", 1),
    case("values of every kind", "all.value", *VALUES),
    case("values without a promise", "all.syncValue", *VALUES),
    case("events of every kind", "all.echo", *PAYLOADS),
    case("errors", "all.fail", *ERRORS, "null"),
    case("errors thrown at once", "all.syncFail", *ERRORS),
    case("errors, JSON log", "all.fail", *ERRORS, variables=JSON_LOG),
    case("errors of an ES module", "modern.fail", 1),
    case("an error of a static method", "aws.find", {}),
    case("exit, abort", "aws.ending", "exit", "abort", "code", "alive"),
    case("a rejection that nobody handles", "all.reject", 1, 2),
    case("a rejection of text", "all.rejectText", 1),
    case("an error that nobody catches", "all.uncaught", 1, 2),
    case("a timeout", "aws.slow", 9, 0, timeout_s=1),
    case("console", "all.log", 1, 2),
    case("console, JSON", "all.log", 1, variables=JSON_LOG),
    *(
        case(f"console, level {level}", "all.log", 1, variables={"AWS_LAMBDA_LOG_LEVEL": level})
        for level in ["trace", "INFO", "ERROR", "nonsense"]
    ),
    case("console, stdout, stderr", "aws.printing", 1, 2),
    case("console, stdout, stderr, JSON", "aws.printing", 1, variables=JSON_LOG),
    case("context", "all.context", 1, 2),
    case("context of a client", "all.context", 1, context=CLIENT_CONTEXT),
    case("time that is left", "aws.deadline", 1),
    case("environment", "aws.environment", OWN_VARIABLES),
    case("environment, of the client", "aws.environment", {"only": OWN_VARIABLES}),
    case("awslambda, require, zone", "aws.surroundings", 1),
    case("listeners of the process", "aws.listeners", 1),
    case("stdin", "aws.stdin", 1),
    case("InvokeStore", "aws.store", 1, 2),
    case("fetch of another function", "aws.invoking", {"n": 1}, 2),
    case("fetch, an error with a cause", "aws.invokingNone", 1),
    case("a method", "aws.method", 1, 2),
    case("async", "aws.together", [1, 2, 3], [4]),
    case("an ES module that awaits", "modern.handler", 1, 2),
    case("globals from event to event", "aws.eventNumbers", 1, 2, 3),
    case("timers after the reply", "aws.later", 1, 2),
    case("a thenable", "all.thenable", 1),
    case("a nested export", "all.deep.inner.handler", 1),
    case("programs", "aws.programs", 1),
    case("/tmp", "aws.scratch", "a", "b"),
    case("a stream", "all.stream", "a", "b"),
    case("a stream with a head", "all.http", {"text": "body"}),
    case("a pipeline", "all.pipe", 1),
    case("a stream that fails", "all.streamFail", "error", "named", "text"),
    case("a stream that is not async", "all.streamSync", 1),
    *(
        case(f"import: {handler}", f"{handler}.handler", 1, 2)
        for handler in "syntax missing throws throwsText empty value nowhere folder/up".split()
    ),
    case("import: an ES module's syntax", "syntaxModule.handler", 1),
    case("import: an ES module's import", "missingModule.handler", 1),
    case("import: JSON log", "throws.handler", 1, variables=JSON_LOG),
    case("import: no name", "nohandler", 1),
]

# Since nodejs24.x: there are promises only.
MODERN = [
    case("a handler with a callback", "all.three", 1),
]

# Until nodejs22.x.
CLASSIC = [
    case("callback", "all.callback", {"a": 1}, {"later": 5}, {"error": "named"}, {"again": True}),
    case("callback that does not wait", "all.callback", {"waits": False}),
    case("callback with what is not JSON", "all.callback", {"value": "circle"}),
    case("no promise and no callback", "all.noAnswer", 1, 2),
    case("a promise that stays", "all.neverResolves", 1, 2),
    case("succeed", "all.succeed", 1, 2),
    case("fail", "all.failed", None, "named", "text"),
    case("done", "all.done", {"value": 1}, {"error": "e"}, {}),
    case("done later", "all.doneLater", 1, 2),
]

# Modules that cannot be loaded.
BROKEN = {
    "syntax.js": "exports.handler = async () => {\n  return 1 +;\n};\n",
    "syntaxModule.mjs": "export const handler = ;\n",
    "missing.js": "require('no-such-package');\n",
    "missingModule.mjs": "import 'no-such-package';\n",
    "throws.js": "throw new TypeError('while it loads');\n",
    "throwsText.js": "throw 'only text';\n",
    "empty.js": "",
    "value.js": "exports.handler = 5;\n",
}

# Runtime and name of a case, and why the payload or the log is another. One that is the same all
# the same fails the test, as one does that differs and is not here.
DIFFERENT = {}


def different(runtimes, name, reason):
    for runtime in runtimes.split():
        DIFFERENT[runtime, name] = reason


different(
    "python",
    "too deep a recursion",
    "fewer of our frames are above the handler: the line is repeated more often",
)
different(
    "python",
    "KeyboardInterrupt",
    "the trace of what ends the process begins in the client's own files",
)
different(
    "python",
    "an async handler",
    "Python says that nothing awaits the coroutine when it is dropped: here before the answer, and "
    "so in this log; with AWS's client after it",
)
different(
    "python nodejs24.x nodejs22.x",
    "environment, of the client",
    "no Runtime API, the runtime's own directory, HOB_WIRE and the like, in a Python zygote one "
    "thread for OpenBLAS; a shell starts AWS's client here",
)
different("python", "argv", "the program that Python runs is another")
if sys.version_info >= (3, 12):
    # Until then what a function returns is escaped.
    different("python", "lone surrogates", "a Runtime.MarshalError; AWS's client dies of it")
different(
    "nodejs24.x",
    "listeners of the process",
    "it listens for errors that nobody handles, as AWS's client until nodejs22.x does",
)
for _name in [
    "a rejection that nobody handles",
    "a rejection of text",
    "an error that nobody catches",
]:
    different(
        "nodejs24.x",
        _name,
        "the caller is told the error, as by AWS's client until nodejs22.x; that of nodejs24.x lets "
        "Node end the process, and the caller gets Runtime.ExitError",
    )
