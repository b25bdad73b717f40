"""JSON as AWS's runtime client reads and writes it, which is simplejson's idea of it.

The fast ways are the standard library's C scanner and encoder, without its `json` package, whose
import costs more than Python's own start. Where the two ideas differ (named tuples, decimals, bytes
as keys) the slow way, in Python, takes over.
"""

import os
import sys

try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    # A Python without the C half: the same, slower.
    from json.encoder import py_encode_basestring as encode_basestring
    from json.encoder import py_encode_basestring_ascii as encode_basestring_ascii
    from json.scanner import py_make_scanner as make_scanner

    make_encoder = None

# Managed runtimes from 3.12 on leave non-ASCII text as it is.
_UNESCAPED = {f"AWS_Lambda_python3.{minor}" for minor in range(12, 16)}
_PLAIN = frozenset((str, int, float, bool, type(None), bytes))
_INFINITY = float("inf")


class _Slow(Exception):
    """The fast way cannot: it met a value that it has no notion of."""


def _unknown(value):
    if isinstance(value, bytes):
        return str(value, "utf-8")
    raise _Slow


class Encoder:
    """Turns values into JSON text. Not for two threads at once."""

    def __init__(self, ascii_only=None):
        if ascii_only is None:
            ascii_only = os.environ.get("AWS_EXECUTION_ENV") not in _UNESCAPED
        self._quote = encode_basestring_ascii if ascii_only else encode_basestring
        # Containers on the way down to the value at hand, by identity: what finds circles.
        self._above = {}
        self._fast = None
        if make_encoder is not None:
            form = (None, ": ", ", ", False, False, True)
            try:
                self._fast = make_encoder(self._above, _unknown, self._quote, *form)
            except TypeError:
                # A later Python whose encoder wants other arguments: the slow way does.
                pass

    def encode(self, value):
        if self._fast is None:
            return self._slow(value)
        try:
            text = "".join(self._fast(value, 0))
        except RecursionError:
            self._above.clear()
            raise
        except Exception:
            # What it fails of may lie below something that is written as an object instead.
            self._above.clear()
            return self._slow(value)
        kind = type(value)
        if kind in _PLAIN or not _has_asdict(value.values() if kind is dict else (value,)):
            return text
        return self._slow(value)

    def _slow(self, value):
        parts = []
        try:
            self._walk(value, parts.append)
        finally:
            self._above.clear()
        return "".join(parts)

    def _walk(self, value, add):
        if isinstance(value, str):
            add(self._quote(value))
        elif isinstance(value, bytes):
            add(self._quote(str(value, "utf-8")))
        elif value is None:
            add("null")
        elif value is True:
            add("true")
        elif value is False:
            add("false")
        elif isinstance(value, int):
            add(int.__repr__(value))
        elif isinstance(value, float):
            add(_float(value))
        else:
            self._walk_other(value, add)

    def _walk_other(self, value, add):
        fields = None
        as_dict = getattr(value, "_asdict", None)
        if callable(as_dict):
            try:
                fields = (as_dict(),)
            except TypeError:
                pass
        if fields is not None:
            if not isinstance(fields[0], dict):
                kind = type(fields[0]).__name__
                raise TypeError(f"_asdict() must return a dict, not {kind}")
            self._enter(value)
            self._walk_dict(fields[0], add)
            del self._above[id(value)]
        elif isinstance(value, (list, tuple)):
            self._walk_list(value, add)
        elif isinstance(value, dict):
            self._walk_dict(value, add)
        else:
            # A Decimal can only be one if somebody has imported the module.
            decimal = sys.modules.get("decimal")
            if decimal is None or not isinstance(value, decimal.Decimal):
                kind = value.__class__.__name__
                raise TypeError(f"Object of type {kind} is not JSON serializable")
            add("NaN" if value.is_nan() else str(value))

    def _enter(self, value):
        if id(value) in self._above:
            raise ValueError("Circular reference detected")
        self._above[id(value)] = value

    def _walk_list(self, values, add):
        if not values:
            add("[]")
            return
        self._enter(values)
        before = "["
        for value in values:
            add(before)
            before = ", "
            self._walk(value, add)
        add("]")
        del self._above[id(values)]

    def _walk_dict(self, fields, add):
        if not fields:
            add("{}")
            return
        self._enter(fields)
        before = "{"
        for key, value in fields.items():
            add(before)
            before = ", "
            add(self._quote(_key(key)))
            add(": ")
            self._walk(value, add)
        add("}")
        del self._above[id(fields)]


def _float(value):
    if value != value:
        return "NaN"
    if value in (_INFINITY, -_INFINITY):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


def _key(key):
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return str(key, "utf-8")
    if isinstance(key, float):
        return _float(key)
    if key is True:
        return "true"
    if key is False:
        return "false"
    if key is None:
        return "null"
    if isinstance(key, int):
        return int.__repr__(key)
    kind = key.__class__.__name__
    raise TypeError(f"keys must be str, int, float, bool or None, not {kind}")


def _has_asdict(values):
    """Whether a list, tuple or dict in or below the values is to be written as an object instead.

    Goes down level by level, so that C code sees the bulk, which is plain. Only for values that
    have been encoded: they have an end.
    """
    while not _PLAIN.issuperset(map(type, values)):
        below = []
        for value in values:
            kind = type(value)
            if kind in _PLAIN:
                continue
            if kind is dict:
                below += value.values()
            elif kind is list or kind is tuple:
                below += value
            elif isinstance(value, (dict, list, tuple)):
                if hasattr(kind, "_asdict"):
                    return True
                below += value.values() if isinstance(value, dict) else value
        values = below
    return False


class _Scanning:
    """What the scanner wants to know."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo = {}

    @staticmethod
    def parse_constant(name):
        raise ValueError(f"{name} is no JSON")

    @staticmethod
    def parse_object(*arguments):
        from json.decoder import JSONObject

        return JSONObject(*arguments)

    @staticmethod
    def parse_array(*arguments):
        from json.decoder import JSONArray

        return JSONArray(*arguments)

    @staticmethod
    def parse_string(*arguments):
        from json.decoder import scanstring

        return scanstring(*arguments)


_scan = make_scanner(_Scanning)


def decode(payload):
    """The value of an event, which is bytes."""
    text = str(payload, "utf-8")
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _decode_at_leisure(text)


def _decode_at_leisure(text):
    """White space around the value, or no value at all, which the exception then says."""
    from json.decoder import JSONDecoder

    if text.startswith("\ufeff"):
        text = text[1:]
    return JSONDecoder(parse_constant=_Scanning.parse_constant).decode(text)
