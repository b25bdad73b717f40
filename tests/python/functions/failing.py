"""Fails in every way: the event names one."""

import json
import logging
import sys


class Odd(Exception):
    def __str__(self):
        return "odd – ünïcode 😀\nsecond line"


def boom():
    raise Exception("Handler fails")


def empty():
    raise ValueError


def odd():
    raise Odd()


def deep(n=3):
    if n:
        return deep(n - 1)
    return [][1]


def chained():
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("chained") from error


def library():
    return json.loads("{")


def sourceless():
    exec(compile("def f():\n  raise OSError(2, 'gone')\nf()", "nowhere.py", "exec"), {})


def call():
    return (lambda: None)(1)


def repeated(n=12):
    if n:
        return repeated(n - 1)
    raise LookupError("end")


def multi():
    return boom(
        # too many
        1,
        2,
    )


def logged():
    try:
        boom()
    except Exception:
        logging.exception("caught %s", "it", extra={"more": [1]})
    return "fine"


def leave():
    sys.exit(3)


def leave_well():
    sys.exit()


def leave_with_words():
    raise SystemExit("words")


def handler(event, context):
    return globals()[event]()


def wrong_number():
    return "never"
