"""Writes to the log in every way, and shows the context."""

import logging
import os
import sys

logging.getLogger("early").warning("at import")
print("import")


class Unprintable:
    def __repr__(self):
        return "<unprintable>"


def handler(event, context):
    log = logging.getLogger()
    print("printed", 1, "é")
    sys.stderr.write("to stderr\n")
    context.log("by context")
    context.log(5)
    print()
    log.debug("debug")
    log.info("info %s", "x")
    log.warning("warning\nof two lines")
    logging.getLogger("a.b").error("error")
    log.critical({"a": 1, "b": Unprintable()}, extra={"own": {1, 2}, "location": "here"})
    log.log(35, {"a": 1})
    log.error({"x": "%s"}, "args") if event == "args" else None
    kinds = [type(handler).__name__ for handler in log.handlers]
    return {"kinds": kinds, "level": log.level}


def context(event, context):
    left = context.get_remaining_time_in_millis()
    assert 0 < left <= 60_000, left
    attributes = {name: str(value) for name, value in vars(context).items()}
    attributes["_epoch_deadline_time_in_ms"] = type(context._epoch_deadline_time_in_ms).__name__
    identity = context.identity
    client = context.client_context
    return {
        "attributes": attributes,
        "repr": repr(context),
        "kind": f"{type(context).__module__}.{type(context).__qualname__}",
        "w3c": context.w3c(),
        "identity": [identity.cognito_identity_id, identity.cognito_identity_pool_id],
        "client": client and [client.custom, client.env, client.client and repr(client.client)],
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "stdin": sys.stdin.read(),
    }
