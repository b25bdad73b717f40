"""What a worker's process looks like to a function."""

import os
import sys

at_import = set(sys.modules)


def handler(event, context):
    return {
        "argv": sys.argv,
        "path": sys.path,
        "stdin": sys.stdin.read(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "hob": [name for name in os.environ if name.startswith("HOB_OPT")],
        "modules": sorted(at_import),
        "cwd": os.getcwd(),
    }


def echo(event, context):
    return event


def traced(event, context):
    """The trace id as Python has it and as programs inherit it, and this process's size in KiB. The
    event says what the function does with it itself."""
    name = "_X_AMZN_TRACE_ID"
    seen = {"python": os.environ.get(name)}
    if event.get("program"):
        seen["program"] = os.popen("printenv " + name).read().strip()
    if "set" in event:
        os.environ[name] = event["set"]
    if event.get("remove"):
        del os.environ[name]
    with open("/proc/self/statm") as file:
        seen["kib"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return seen


def surrogate(event, context):
    if event == "raise":
        raise ValueError("\ud800 bad")
    return {"a": "\ud800"}


def shadowed(event, context):
    import json
    import logging

    import layered
    import mine

    return [json.__file__, logging.__file__, layered.__file__, mine.__file__]


def waits(event, context):
    import signal

    def on_term(number, frame):
        os.write(1, b"term\n")

    signal.signal(signal.SIGTERM, on_term)
    return "set"


def kinds(event, context):
    from awslambdaric.lambda_context import LambdaContext
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    own = LambdaContext("id", None, None, 5)
    return [
        isinstance(context, LambdaContext),
        register_after_restore(kinds) is kinds,
        register_before_snapshot(kinds) is kinds,
        own.aws_request_id,
        own.get_remaining_time_in_millis(),
    ]
