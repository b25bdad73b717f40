"""The same in Python: a WSGI application, and a Lambda handler."""

import json
import os
import signal
import time


def handler(event, context):
    what = event.get("do")
    if what == "crash":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        signal.pause()
    if what == "wait":
        time.sleep(event["ms"] / 1000)
    event["added"] = 1
    return event


def application(environment, start_response):
    length = int(environment.get("CONTENT_LENGTH") or 0)
    reply = json.dumps(handler(json.loads(environment["wsgi.input"].read(length)), None)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(reply)))])
    return [reply]
