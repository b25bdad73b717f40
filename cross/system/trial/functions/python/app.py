"""Says which worker answers, and how many invocations it has had. Sleeps as long as it is told."""

import os
import time

count = 0


def handler(event, context):
    global count
    count += 1
    time.sleep(event.get("sleep_s", 0))
    return {"pid": os.getpid(), "count": count}
