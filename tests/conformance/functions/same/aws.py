"""Handlers as people write them for AWS, with nothing that knows of hob."""

import asyncio
import concurrent.futures
import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
import warnings

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


class Orders:
    """A handler that is a method, and one that is an object."""

    def __init__(self):
        self.seen = []

    def handle(self, event, context):
        self.seen.append(event)
        return {"seen": self.seen, "function": context.function_name}

    def __call__(self, event, context):
        return self.find(event)

    def find(self, event):
        return self.seen[event]


orders = Orders()
method = orders.handle


async def fetch(number):
    await asyncio.sleep(0)
    return number * 2


async def fetch_all(event):
    return await asyncio.gather(*(fetch(number) for number in event))


async def refuse():
    await asyncio.sleep(0)
    raise ConnectionRefusedError(111, "nobody listens")


def with_asyncio(event, context):
    return asyncio.run(fetch_all(event))


def failing_asyncio(event, context):
    return asyncio.run(refuse())


async def coroutine(event, context):
    return "never"


def generator(event, context):
    yield "never"


def group(event, context):
    raise ExceptionGroup("both", [ValueError(1), KeyError("two")])


def noted(event, context):
    error = ValueError("noted")
    error.add_note("by the way")
    raise error


class ServiceError(Exception):
    """One of the function's own, with a cause and an empty text."""

    def __str__(self):
        return ""


def caused(event, context):
    try:
        int(event)
    except ValueError as error:
        raise ServiceError(event) from error


def configured(event, context):
    """What people do to the root logger, since `basicConfig` alone does nothing there."""
    root = logging.getLogger()
    logging.basicConfig(level=logging.DEBUG, format="not %(message)s")
    root.warning("basicConfig changed nothing")
    for handler in root.handlers:
        handler.setFormatter(logging.Formatter("%(levelname)s in %(funcName)s: %(message)s\n"))
    root.error("a format of one's own")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s", stream=sys.stdout)
    logger.info("a handler of one's own")


def printing(event, context):
    print("a", "b", sep="\t", end="")
    print(" of one line", file=sys.stderr)
    print({"as": ["JSON", None]})
    print(json.dumps({"level": "INFO", "message": "structured: é 世界 🚀"}))
    sys.stdout.write("no end of line")
    sys.stdout.flush()
    os.write(2, b"\nbytes \xff that are no text\n")
    traceback.print_stack(limit=1)
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    try:
        {}["missing"]
    except KeyError:
        traceback.print_exc()


def levels(event, context):
    for level in ["debug", "info", "warning", "error", "critical"]:
        getattr(logger, level)("at %s", level, extra={"order": 42})
    logger.info({"message": "a dictionary"})


def threads(event, context):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        doubled = list(pool.map(lambda number: number * 2, event))
    failing = threading.Thread(target=lambda: doubled[99], name="worker-1")
    failing.start()
    failing.join()
    return doubled


def programs(event, context):
    done = subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], stdout=subprocess.PIPE)
    print(done.stdout.decode(), end="")
    return done.returncode


def scratch(event, context):
    with open("/tmp/scratch", "a+") as file:
        file.write(event)
        file.seek(0)
        return {"text": file.read(), "directory": os.getcwd(), "names": os.listdir("/tmp")}


def recursion(event, context):
    return recursion(event, context)


def surrogate(event, context):
    return "\ud800"


def ending(event, context):
    if event == "_exit":
        os._exit(7)
    if event == "abort":
        os.abort()
    if event == "interrupt":
        raise KeyboardInterrupt
    return event


def slow(event, context):
    print("asleep")
    time.sleep(event)


def deadline(event, context):
    left = context.get_remaining_time_in_millis()
    return {"type": type(left).__name__, "in time": 0 < left <= 20_000}


def environment(event, context):
    """All variables but these, or these alone."""
    pairs = sorted(os.environ.items())
    if isinstance(event, list):
        return {name: value for name, value in pairs if name not in event}
    return {name: value for name, value in pairs if name in event["only"]}


def program(event, context):
    return [sys.version, os.path.realpath(sys.executable), sys.flags.optimize]


def arguments(event, context):
    return sys.argv


def surroundings(event, context):
    return {
        "stdin": sys.stdin.read(),
        "path": sys.path[0],
        "main": sys.modules["__main__"].__name__,
        "thread": threading.current_thread().name,
        "handlers": len(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "times": time.tzname,
    }
