"""Orders by HTTP: POST / places one, GET /ID tells what became of it.

The client chooses the order's id, so it may repeat a POST whose answer it did not get: an order
that was paid or refused is answered as the first time; one whose payment failed is tried again.
"""

import atexit
import base64
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time

import boto3
import hob
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import validate

# Longer than `timeout_s`: an order that is `paying` since then has lost its worker.
LEASE_S = 20

# Of one order; the statuses are told apart by who may touch the order next:
# `paying` only its worker, `unpaid` whoever posts it again, `paid` and `refused` nobody.
SCHEMA = """
create table if not exists orders (
    id text primary key, customer text not null, items text not null, total_cents integer not null,
    card text not null, status text not null, detail text not null, since real not null
)
"""

# The endpoint and its credentials are in every worker's environment. A payment is not repeated
# behind our back: the client of the order decides that.
payments = boto3.client("lambda", config=Config(retries={"total_max_attempts": 1}))


class Unpaid(Exception):
    """The payment did not come about: an HTTP status, and why."""


def open_database():
    # Every statement is a transaction of its own, and on the disk when it returns.
    return sqlite3.connect(os.environ["DATABASE"], timeout=5, isolation_level=None)


# Made once, before there are workers: they would be in each other's way.
with contextlib.closing(open_database()) as first:
    first.execute("pragma journal_mode = wal")
    first.execute(SCHEMA)


@hob.on_fork
def connect():
    """Opens the worker's own connection: SQLite's must not be shared with a fork."""
    global database
    database = open_database()
    database.row_factory = sqlite3.Row
    # A worker that is not needed any more gets SIGTERM, and with it the time to tidy up.
    atexit.register(close)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def close():
    """Brings what is in SQLite's log into the database. Who is killed before it loses nothing."""
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()


def handler(event, context):
    method = event["requestContext"]["http"]["method"]
    order_id = event["rawPath"].strip("/")
    if "/" in order_id:
        return answer(404, {"error": "no such page"})
    allowed = "GET" if order_id else "POST"
    if method != allowed:
        return answer(405, {"error": f"{method} is not possible here"}, Allow=allowed)
    if order_id:
        return show(order_id)
    body = event.get("body", "")
    if event["isBase64Encoded"]:
        body = base64.b64decode(body)
    return place(body)


def show(order_id):
    row = find(order_id)
    if row is None:
        return answer(404, {"error": "no such order", "id": order_id})
    return answer(200, public(row) | {"items": json.loads(row["items"])})


def place(body):
    order, wrong = validate.parse(body)
    if wrong:
        say("an invalid order", *wrong)
        return answer(400, {"error": "the order is not valid", "fields": wrong})
    row, is_ours = claim(order)
    if not is_ours:
        return repeated(row, order)
    try:
        status, detail = pay(row, order["card"])
    except Unpaid as failure:
        code, detail = failure.args
        row = settle(row, "unpaid", detail)
        return answer(code, {"error": "not paid, try again"} | public(row), **{"Retry-After": "1"})
    return first_answer(settle(row, status, detail))


def claim(order):
    """The order's row, and whether its payment is ours to bring about."""
    now = time.time()
    facts = facts_of(order)
    made = database.execute(
        "insert into orders values (?, ?, ?, ?, ?, 'paying', '', ?) on conflict do nothing",
        (order["id"], *facts, now),
    )
    if made.rowcount:
        return find(order["id"]), True
    taken = database.execute(
        "update orders set status = 'paying', detail = '', since = ?"
        " where id = ? and (customer, items, total_cents, card) = (?, ?, ?, ?)"
        " and (status = 'unpaid' or status = 'paying' and since < ?)",
        (now, order["id"], *facts, now - LEASE_S),
    )
    return find(order["id"]), taken.rowcount == 1


def facts_of(order):
    """What is kept of an order; of the card only what a customer knows it by."""
    items = json.dumps(order["items"], sort_keys=True)
    return order["customer"], items, validate.total_cents(order), order["card"][-4:]


def repeated(row, order):
    """The answer to an order that somebody has posted before."""
    if facts_of(order) != (row["customer"], row["items"], row["total_cents"], row["card"]):
        return answer(409, {"error": "another order has this id", "id": row["id"]})
    if row["status"] in ("paid", "refused"):
        say(row["id"], "again, as before:", row["status"])
        return first_answer(row)
    return answer(409, {"error": "the payment is under way"} | public(row), **{"Retry-After": "1"})


def first_answer(row):
    return answer(201 if row["status"] == "paid" else 402, public(row))


def pay(row, card):
    """Has the money taken; the order's new status, and the receipt or the reason."""
    request = {"order": row["id"], "amount_cents": row["total_cents"], "card": card}
    try:
        reply = payments.invoke(FunctionName="pay", Payload=json.dumps(request))
    except payments.exceptions.TooManyRequestsException:
        raise Unpaid(503, "too many payments at once") from None
    except (BotoCoreError, ClientError) as error:
        say(row["id"], "pay cannot be called:", error)
        raise Unpaid(503, "no payments at the moment") from None
    told = json.load(reply["Payload"])
    if "FunctionError" in reply:
        # Whether the money was taken is not known; `pay` knows when it is asked again.
        say(row["id"], "pay failed:", told["errorType"], told["errorMessage"])
        raise Unpaid(502, "the payment failed")
    return ("paid" if told["paid"] else "refused"), told["detail"]


def settle(row, status, detail):
    database.execute(
        "update orders set status = ?, detail = ? where id = ?", (status, detail, row["id"])
    )
    say(row["id"], status, f"({detail})")
    return find(row["id"])


def find(order_id):
    return database.execute("select * from orders where id = ?", (order_id,)).fetchone()


def public(row):
    return {key: row[key] for key in ("id", "status", "total_cents", "detail")}


def answer(code, body, **headers):
    headers["Content-Type"] = "application/json"
    return {"statusCode": code, "headers": headers, "body": json.dumps(body, separators=(",", ":"))}


def say(*what):
    """A line in the log, found again by the trace id that `pay` writes as well."""
    print(os.environ.get("_X_AMZN_TRACE_ID", "-").split(";")[0], *what)
