"""A Python function, as it would be written for AWS. It keeps what it likes between invocations."""

import logging

logging.getLogger().setLevel("INFO")
count = 0


def handler(event, context):
    global count
    count += 1
    logging.info("invocation %d has %d ms", count, context.get_remaining_time_in_millis())
    return {"hello": "python", "count": count, "event": event}
