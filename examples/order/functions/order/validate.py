"""Says what is wrong with an order, field by field. Knows nothing of HTTP or databases."""

import json
import re

_ID = re.compile(r"[A-Za-z0-9-]{1,40}")
_CARD = re.compile(r"[0-9]{12,19}")


def parse(body):
    """The order in the text `body`, and what is wrong with it: of the two one is empty."""
    try:
        told = json.loads(body)
    except ValueError as error:
        return {}, {"body": f"is not JSON: {error}"}
    if not isinstance(told, dict):
        return {}, {"body": "must be an object"}
    wrong = {}
    for field, check in _CHECKS.items():
        if field not in told:
            wrong[field] = "is missing"
        else:
            check(field, told[field], wrong)
    for field in told.keys() - _CHECKS.keys():
        wrong[field] = "is not a field of an order"
    return ({}, wrong) if wrong else (told, {})


def total_cents(order):
    return sum(item["quantity"] * item["price_cents"] for item in order["items"])


def _id(field, value, wrong):
    if not isinstance(value, str) or not _ID.fullmatch(value):
        wrong[field] = "must be 1 to 40 letters, digits and -"


def _customer(field, value, wrong):
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 100:
        wrong[field] = "must be a name of 1 to 100 characters"


def _card(field, value, wrong):
    if not isinstance(value, str) or not _CARD.fullmatch(value):
        wrong[field] = "must be 12 to 19 digits, as text"


def _items(field, value, wrong):
    if not isinstance(value, list) or not 1 <= len(value) <= 50:
        wrong[field] = "must be a list of 1 to 50 items"
        return
    for n, item in enumerate(value):
        place = f"{field}[{n}]"
        if not isinstance(item, dict) or item.keys() != {"sku", "quantity", "price_cents"}:
            wrong[place] = "must have sku, quantity and price_cents"
            continue
        if not isinstance(item["sku"], str) or not item["sku"]:
            wrong[f"{place}.sku"] = "must be a text"
        _number(f"{place}.quantity", item["quantity"], 1000, wrong)
        _number(f"{place}.price_cents", item["price_cents"], 10_000_000, wrong)


def _number(place, value, most, wrong):
    # `type`, since True is an int as well.
    if type(value) is not int or not 1 <= value <= most:
        wrong[place] = f"must be a whole number, 1 to {most}"


_CHECKS = {"id": _id, "customer": _customer, "card": _card, "items": _items}
