"""Takes money, once for each order: {"order", "amount_cents", "card"} -> {"paid", "detail"}.

Nothing here but Python's own library: the same file runs on AWS. In place of a bank it has test
cards, as payment providers do.
"""

import functools
import hashlib
import os
import sqlite3
import time

# Cards that make trouble, by their last digits. Of the others, odd ones are refused.
BANK_IS_DOWN = "0500"
BANK_IS_SLOW = "0502"
ANSWER_IS_LOST = "0504"

SCHEMA = """
create table if not exists charges (
    id text primary key, amount_cents integer not null, paid integer not null, detail text not null
)
"""


class BankDown(Exception):
    pass


@functools.cache
def database():
    """This worker's connection, opened by its first payment."""
    connection = sqlite3.connect(os.environ["DATABASE"], timeout=5, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute(SCHEMA)
    return connection


def handler(event, context):
    order, amount, card = event["order"], event["amount_cents"], event["card"]
    known = find(order)
    if known:
        say(order, "known already:", known["detail"])
        return known
    if card.endswith(BANK_IS_DOWN):
        raise BankDown("the bank does not answer")
    if card.endswith(BANK_IS_SLOW):
        time.sleep(2)
    reason = refusal(amount, card)
    detail = reason or "receipt " + hashlib.sha256(order.encode()).hexdigest()[:8]
    # Of two at the same time one is first, and both answer what that one has written.
    database().execute(
        "insert into charges values (?, ?, ?, ?) on conflict do nothing",
        (order, amount, not reason, detail),
    )
    say(order, amount, detail)
    if card.endswith(ANSWER_IS_LOST):
        # The money is taken, and nobody hears of it: longer than `timeout_s`.
        time.sleep(60)
    return find(order)


def refusal(amount, card):
    """Why the bank refuses; None if it does not."""
    if int(card[-1]) % 2:
        return "the card is refused"
    if amount > int(os.environ["LIMIT_CENTS"]):
        return "the amount is over the limit"
    return None


def find(order):
    row = database().execute("select paid, detail from charges where id = ?", (order,)).fetchone()
    return row and {"paid": bool(row[0]), "detail": row[1]}


def say(*what):
    print(os.environ.get("_X_AMZN_TRACE_ID", "-").split(";")[0], *what)
