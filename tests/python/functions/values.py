"""Returns values of every kind: the event names one."""

import collections
import decimal
import enum

D = decimal.Decimal
Pair = collections.namedtuple("Pair", "a b")


class Color(enum.IntEnum):
    RED = 3


class Name(str, enum.Enum):
    X = "x"


class Text(str):
    pass


class Odd(int):
    __str__ = __repr__ = lambda self: "odd"


class Real(float):
    __str__ = __repr__ = lambda self: "real"


class AsDict:
    def __init__(self, fields):
        self.fields = fields

    def _asdict(self):
        return self.fields


class AsDictFails:
    def _asdict(self):
        raise TypeError("no")


class ListAsDict(list):
    def _asdict(self):
        return {"q": 1}


class DictAsDict(dict):
    def _asdict(self):
        return {"q": 1}


class ForJson:
    def for_json(self):
        return 1


circle = []
circle.append(circle)
ring = {}
ring["a"] = [ring]

VALUES = {
    "text": "\u2028\u2029é😀\x7f\x00\x1f\"\\/",
    "empty": ["", {}, [], (), None, True, False],
    "numbers": [0, -0.0, 1.5, 1e16, 1e-7, 10**30, -5, 1e400, -1e400, float("nan")],
    "keys": {1: 1, 1.5: 2, True: 3, None: 4, float("nan"): 5, "é": 6, Odd(7): 7, Name.X: 8},
    "bytes in": {"a": b"\xc3\xa9", "b": [b"abc"]},
    "bytes bad": {"a": b"\xff"},
    "bytes key": {b"\xc3\xa9": 1},
    "bytes key bad": {b"\xff": 1},
    "bytes": b"\x00\xffraw",
    "bytearray": bytearray(b"x"),
    "decimals": [D("1.10"), D("1E+5"), D("-0"), D("Infinity"), {"a": D("0.10")}],
    "decimal": D("12345678901234567890.123456789"),
    "decimal nan": [D("NaN"), D("-NaN"), D("sNaN")],
    "decimal key": {D("1"): 1},
    "pair": Pair(1, Pair("x", [Pair(None, D("1.0"))])),
    "pairs": {"rows": [Pair(n, {"n": Pair(n, n)}) for n in range(3)]},
    "pair deep": [[{"a": ({"b": Pair(1, 2)},)}]],
    "pair empty": [[], [collections.namedtuple("Nothing", "")()]],
    "pair type": [Pair],
    "enum": [Color.RED, Name.X, {Color.RED: 1}],
    "subclasses": [Text("q"), Odd(5), Real(1.5), {Text("k"): Real("nan")}],
    "as dict": [AsDict({"x": AsDict({})}), AsDict(collections.OrderedDict(y=1))],
    "as dict wrong": AsDict([1]),
    "as dict fails": AsDictFails(),
    "list as dict": {"l": ListAsDict([1]), "e": ListAsDict()},
    "dict as dict": {"a": {"b": DictAsDict()}},
    "for json": ForJson(),
    "ordered": collections.OrderedDict(b=1, a=2),
    "default": collections.defaultdict(int, a=1),
    "counter": collections.Counter("abca"),
    "user dict": collections.UserDict(a=1),
    "set": {1},
    "set in": {"a": [1, {2}]},
    "object": object,
    "range": range(3),
    "generator": (n for n in ()),
    "circle": circle,
    "ring": ring,
    "key tuple": {(1, 2): 3},
    "key object": [{"ok": 1}, {len: 1}],
    "twice": [[1]] * 3 + [Pair(1, 2)] * 2,
    "table": [{"id": n, "name": f"row {n}", "on": n % 2 == 0} for n in range(200)],
    "long": "x" * 300000,
    "wide": ["é" * 100] * 1000,
}


def handler(event, context):
    return VALUES[event]


def echo(event, context):
    return event
