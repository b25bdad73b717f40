"""The log, which is standard output, and Python's `logging` set up as on AWS Lambda.

`logging` and what it imports cost more than Python's own start, and many functions print. So it is
set up at its first import: a finder waits for the name.
"""

import os
import sys
import time
from _frozen_importlib_external import PathFinder

# The request id of the invocation at hand, for log lines.
REQUEST = None

# One event in the log: lines are joined, and their indentation must survive.
_LINE_END = "\r"
_INDENT = "\u00a0"
TIME = "%Y-%m-%dT%H:%M:%SZ"

# What AWS's client has imported before it imports the handler, and what we import after that. A
# file of the function with such a name does not hide the standard library's module.
_STANDARD = frozenset(
    "__future__ _collections _ctypes _decimal _functools _heapq _json _locale _operator _socket"
    " _string atexit collections contextlib copyreg ctypes decimal enum errno functools gc heapq"
    " importlib itertools json keyword linecache logging math numbers operator re reprlib"
    " sre_compile sre_constants sre_parse stat string struct textwrap threading token tokenize"
    " traceback types warnings weakref".split()
)


class _Finder:
    """Finds the standard library's modules where they are, and sets up `logging` when it comes."""

    def __init__(self, path):
        self._path = path
        self._found_logging = False

    def find_spec(self, name, path=None, target=None):
        if name not in _STANDARD:
            return None
        spec = PathFinder.find_spec(name, self._path)
        if name == "logging" and spec is not None and not self._found_logging:
            # Once: who reloads it starts afresh.
            self._found_logging = True
            loader = spec.loader
            run = loader.exec_module

            def exec_module(module):
                run(module)
                from . import _logging

                _logging.set_up()

            loader.exec_module = exec_module
        return spec


def prepare(path):
    """Before anything of the function is imported; `path` is where the standard library is."""
    sys.meta_path.insert(0, _Finder(path))


class StandardLogSink:
    """Where log lines go."""

    def log(self, msg, frame_type=None):
        sys.stdout.write(msg)

    def log_error(self, message_lines):
        text = _LINE_END.join(message_lines) + "\n"
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))


SINK = StandardLogSink()


# Read once: a handler that changes the variable changes nothing.
JSON = (os.environ.get("AWS_LAMBDA_LOG_FORMAT") or "").upper() == "JSON"


def warn_of_init_error():
    import logging

    logging.warning(_UNHANDLED)


# The line that people know from AWS, word by word.
_UNHANDLED = (
    "LAMBDA_WARNING: Unhandled exception. "
    "The most likely cause is an issue in the function code. "
    "However, in rare cases, a Lambda runtime update can cause unexpected function behavior. "
    "For functions using managed runtimes, runtime updates can be triggered by a function change, "
    "or can be applied automatically. "
    "To determine if the runtime has been updated, check the runtime version in the INIT_START "
    "log entry. If this error correlates with a change in the runtime version, you may be able to "
    "mitigate this error by temporarily rolling back to the previous runtime version. "
    "For more information, see "
    "https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


def log_error(error):
    """Logs an error as made by `_errors`, in one event."""
    if JSON:
        from ._errors import to_json

        logging = sys.modules.get("logging")
        convert = logging.Formatter.converter if logging else time.gmtime
        when = time.strftime(TIME, convert(time.time()))
        SINK.log_error([to_json({"timestamp": when, "level": "ERROR", **error})])
        return
    first = "[ERROR]"
    kind, message = error["errorType"], error["errorMessage"]
    if kind:
        first += " " + kind
    if message:
        first += (": " if kind else " ") + message
    lines = [first, "Traceback (most recent call last):"]
    for entry in error["stackTrace"]:
        for line in entry.splitlines() if entry else [""]:
            text = line.lstrip(" ")
            lines.append(_INDENT * (len(line) - len(text)) + text)
    SINK.log_error(lines)
