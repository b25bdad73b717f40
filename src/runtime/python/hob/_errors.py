"""Errors as AWS's runtime client words them: in the reply, and in the log."""

import os
import sys

from . import _logs
from ._encode import Encoder

MALFORMED_HANDLER_NAME = "Runtime.MalformedHandlerName"
IMPORT_MODULE_ERROR = "Runtime.ImportModuleError"
USER_CODE_SYNTAX_ERROR = "Runtime.UserCodeSyntaxError"
HANDLER_NOT_FOUND = "Runtime.HandlerNotFound"
BUILT_IN_MODULE_CONFLICT = "Runtime.BuiltInModuleConflict"
UNMARSHAL_ERROR = "Runtime.UnmarshalError"
MARSHAL_ERROR = "Runtime.MarshalError"
CONTEXT_UNMARSHAL_ERROR = "Runtime.LambdaContextUnmarshalError"

# Where our own code is: `bootstrap.py` and this package.
_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OURS = (_HOME + "bootstrap.py", _HOME + "hob" + os.sep)


class Fault(Exception):
    """An error that is told to the caller without the place it came from."""

    def __init__(self, kind, message, trace=None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace


def to_json(error):
    return Encoder().encode(error)


def payload(error):
    """The bytes of an error. Text that is no UTF-8 is escaped."""
    try:
        return to_json(error).encode("utf-8")
    except UnicodeEncodeError:
        return Encoder(ascii_only=True).encode(error).encode("utf-8")


def describe(request_id=""):
    """The error of the exception being handled: a dictionary, keys in AWS's order."""
    kind, value, trace = sys.exc_info()
    if kind is Fault:
        kind, message, stack = value.kind, value.message, value.trace
    else:
        kind, message, stack = kind.__name__, str(value), _stack(trace)
    return {
        "errorMessage": message or "",
        "errorType": kind or "",
        "requestId": request_id,
        "stackTrace": stack or [],
    }


def _stack(trace):
    import traceback

    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OURS):
        first = first.tb_next
    # Four-part entries: no carets below the lines, as on AWS.
    entries = [
        (entry.filename, entry.lineno, entry.name, entry.line)
        for entry in traceback.extract_tb(first or trace)
    ]
    return traceback.format_list(entries)


def report_init():
    """Logs the exception being handled as an init error, and gives its bytes for the host."""
    error = describe()
    _logs.warn_of_init_error()
    _logs.log_error(error)
    return payload(error)


def report(request_id):
    """Logs the exception being handled as an invocation's error; its bytes for the host."""
    error = describe(request_id)
    _logs.log_error(error)
    return payload(error)
