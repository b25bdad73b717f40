"""Says hello: by its event, or by the query of its URL."""

import importlib
import time


def handler(event, context):
    if "import" in event:
        return importlib.import_module(event["import"]).NAME
    time.sleep(event.get("seconds", 0))
    name = event.get("queryStringParameters", event).get("name", "world")
    return {"greeting": f"hello, {name}", "version": context.function_version}
