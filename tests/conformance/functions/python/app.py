"""Does what its event says, on awslambdaric."""

import json
import os
import signal
import sys
import time

count = 0


def clean(*_):
    with open(os.environ["CLEANUP"], "w") as file:
        file.write(str(os.getpid()))
    sys.exit(0)


if "CLEANUP" in os.environ:
    signal.signal(signal.SIGTERM, clean)


def handler(event, context):
    if not isinstance(event, dict) or "do" not in event:
        return event
    return DEEDS[event["do"]](event, context)


def nothing(event, context):
    return None


def big(event, context):
    return "x" * event["size"]


def tell_context(event, context):
    client = context.client_context
    return {
        "request": context.aws_request_id,
        "function": context.function_name,
        "version": context.function_version,
        "memory": context.memory_limit_in_mb,
        "arn": context.invoked_function_arn,
        "remaining": context.get_remaining_time_in_millis(),
        "group": context.log_group_name,
        "stream": context.log_stream_name,
        "identity": context.identity and context.identity.cognito_identity_id,
        "client": client
        and {"installation": client.client.installation_id, "custom": client.custom},
    }


def environment(event, context):
    return {"directory": os.getcwd(), "variables": dict(os.environ)}


def tell_count(event, context):
    global count
    count += 1
    return {"count": count, "pid": os.getpid()}


def say(event, context):
    print(event["text"], "out", flush=True)
    print(event["text"], "err", file=sys.stderr, flush=True)


def fail(event, context):
    raise ValueError(event["message"])


def leave(event, context):
    sys.exit(event["status"])


def kill(event, context):
    os.kill(os.getpid(), signal.SIGKILL)
    # The signal may take a moment; no answer may come before it.
    time.sleep(60)


def sleep(event, context):
    time.sleep(event["seconds"])


def meet(event, context):
    open(os.path.join(event["place"], context.aws_request_id), "w").close()
    while len(os.listdir(event["place"])) < event["count"]:
        time.sleep(0.01)
    return {"pid": os.getpid()}


def chain(event, context):
    # Here, since it would slow every other cold start.
    import boto3

    reply = boto3.client("lambda").invoke(
        FunctionName=event["function"], Payload=json.dumps(event["event"])
    )
    return {
        "request": reply["ResponseMetadata"]["RequestId"],
        "trace": os.environ["_X_AMZN_TRACE_ID"],
        "reply": json.load(reply["Payload"]),
    }


DEEDS = {
    "nothing": nothing,
    "big": big,
    "context": tell_context,
    "environment": environment,
    "count": tell_count,
    "say": say,
    "fail": fail,
    "exit": leave,
    "kill": kill,
    "sleep": sleep,
    "meet": meet,
    "chain": chain,
}
