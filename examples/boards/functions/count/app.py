"""Counts what its worker has been asked: 1 is a cold start."""

count = 0


def handler(event, context):
    global count
    count += 1
    return {"count": count}
