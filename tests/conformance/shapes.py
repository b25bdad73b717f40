"""Answers compared in shape with botocore's own model of the API: every member known to it, of its
type, within its bounds and sets of values, and all that must be there.

botocore itself is lenient: it drops what it does not know, and leaves out what is missing.
"""

import json
import re


# Sets of values that Lambda's recorded answers go beyond, and those of a board, which has more
# destinations.
BEYOND = {"LastUpdateStatusReasonCode", "Runtime", "Architecture", "DestinationArn"}
# Lambda leaves this out of its answer where there is none.
ABSENT = {"GetFunctionCodeSigningConfig.CodeSigningConfigArn"}

checked = set()


def watch(client):
    """Compares every answer that this client gets, but for payloads."""
    client.meta.events.register("after-call.lambda", after_call)


def after_call(http_response, parsed, model, **_):
    if http_response.status_code >= 300:
        return
    shape = model.output_shape
    payload = shape.serialization.get("payload") if shape else None
    if payload:
        return
    wanted = model.http.get("responseCode", 200)
    # Lambda's model says 200 for DeleteFunction, and Lambda says 204.
    allowed = {wanted, 204} if model.name == "DeleteFunction" else {wanted}
    problems = []
    if http_response.status_code not in allowed:
        problems.append(f"status {http_response.status_code}, not {wanted}")
    if not http_response.headers.get("x-amzn-RequestId"):
        problems.append("no x-amzn-RequestId")
    body = http_response.content
    if http_response.status_code == 204:
        if body:
            problems.append("a body")
    else:
        if http_response.headers.get("Content-Type") != "application/json":
            problems.append(f"content type {http_response.headers.get('Content-Type')}")
        if shape:
            problems += compare(model.name, shape, json.loads(body))
    checked.add(model.name)
    if problems:
        raise AssertionError("; ".join(problems))


def compare(place, shape, value):
    """What is wrong with a value, in words."""
    kind = shape.type_name
    if kind == "structure":
        return structure(place, shape, value)
    if kind == "list":
        if not isinstance(value, list):
            return [f"{place} is {value!r}, not a list"]
        problems = bounds(place, shape, len(value))
        for item in value:
            problems += compare(f"{place}[]", shape.member, item)
        return problems
    if kind == "map":
        if not isinstance(value, dict):
            return [f"{place} is {value!r}, not a map"]
        problems = []
        for key, item in value.items():
            problems += compare(f"{place} key", shape.key, key)
            problems += compare(f"{place}.{key}", shape.value, item)
        return problems
    types = {
        "string": str,
        "integer": int,
        "long": int,
        "double": (int, float),
        "timestamp": (int, float),
        "boolean": bool,
    }
    wanted = types[kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{place} is {value!r}, not a {kind}"]
    problems = bounds(place, shape, len(value) if kind == "string" else value)
    enum = getattr(shape, "enum", None)
    if enum and value not in enum and shape.name not in BEYOND:
        problems.append(f"{place} is {value!r}, none of {enum}")
    pattern = shape.metadata.get("pattern")
    if pattern and kind == "string" and not matches(pattern, value) and shape.name not in BEYOND:
        problems.append(f"{place} is {value!r}, which does not match {pattern}")
    return problems


def structure(place, shape, value):
    if not isinstance(value, dict):
        return [f"{place} is {value!r}, not a structure"]
    members = {
        member.serialization.get("name", name): member for name, member in shape.members.items()
    }
    located = {name for name, member in shape.members.items() if member.serialization.get("location")}
    needed = [name for name in shape.required_members if f"{place}.{name}" not in ABSENT]
    problems = [f"{place}.{name} is missing" for name in needed if name not in value]
    for name, item in value.items():
        if name not in members or name in located:
            problems.append(f"{place}.{name} is not in the model")
        elif item is None:
            problems.append(f"{place}.{name} is null")
        else:
            problems += compare(f"{place}.{name}", members[name], item)
    return problems


def bounds(place, shape, size):
    if not isinstance(size, (int, float)) or isinstance(size, bool):
        return []
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        return [f"{place} has {size}, at least {low}"]
    if high is not None and size > high:
        return [f"{place} has {size}, at most {high}"]
    return []


def matches(pattern, value):
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        # Written for another language.
        return True
