"""The root logger's handler as on AWS Lambda: what `_logs` sets up once `logging` is imported."""

import logging
import os
import time

from . import _logs

# Attributes of a record that are not the user's.
_OWN = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno"
    " funcName created msecs relativeCreated thread threadName processName process aws_request_id"
    " tenant_id _frame_type".split()
)
# Keys of a line that an attribute of the user's never replaces, even where they are left out.
_RAISED = frozenset(("stackTrace", "errorType", "errorMessage", "location"))


class LambdaLoggerFilter(logging.Filter):
    def filter(self, record):
        record.aws_request_id = _logs.REQUEST or ""
        record.tenant_id = None
        return True


class LambdaLoggerHandler(logging.Handler):
    def __init__(self, log_sink):
        logging.Handler.__init__(self)
        self.log_sink = log_sink

    def emit(self, record):
        self.log_sink.log(self.format(record))


class LambdaLoggerHandlerWithFrameType(LambdaLoggerHandler):
    """The name that AWS's client has for it when a level or JSON is asked for."""


class JsonFormatter(logging.Formatter):
    def __init__(self):
        super().__init__(datefmt=_logs.TIME)
        from json import JSONEncoder

        # What is no JSON is written as text: a log line is worth more than its types.
        self._encode = JSONEncoder(ensure_ascii=False, default=str).encode

    def format(self, record):
        record.levelno = min(50, max(0, record.levelno)) // 10 * 10
        record.levelname = logging.getLevelName(record.levelno)
        plain = isinstance(record.msg, dict) and not record.args
        line = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "message": record.msg if plain else record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            import traceback

            kind, value, trace = record.exc_info
            line["stackTrace"] = traceback.format_tb(trace)
            line["errorType"] = kind.__name__
            line["errorMessage"] = str(value)
        line["requestId"] = getattr(record, "aws_request_id", None)
        if record.exc_info:
            line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        for name, value in record.__dict__.items():
            if name not in _OWN and name not in _RAISED and name not in line:
                line[name] = value
        line = {name: value for name, value in line.items() if value is not None}
        return self._encode(line) + "\n"


def set_up():
    logging.Formatter.converter = time.gmtime
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL") or ""
    level = "DEBUG" if level == "TRACE" else level.upper()
    kind = LambdaLoggerHandlerWithFrameType if _logs.JSON or level else LambdaLoggerHandler
    handler = kind(_logs.SINK)
    if _logs.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter(
                "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n",
                "%Y-%m-%dT%H:%M:%S",
            )
        )
    root = logging.getLogger()
    if level in logging._nameToLevel:
        root.setLevel(level)
    handler.addFilter(LambdaLoggerFilter())
    root.addHandler(handler)
