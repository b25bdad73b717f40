"""Random values, written by our encoder and by the one of AWS's client."""

import collections
import decimal
import importlib
import os
import random
import sys
import unittest

import host
import reference
from functions import values

SEEDS = int(os.environ.get("ENCODE_SEEDS", "3000"))
Pair = collections.namedtuple("Pair", "first second")


def scalar(choose):
    kind = choose.randrange(14)
    if kind < 3:
        return "".join(chr(choose.choice((9, 34, 65, 127, 233, 8232, 128512))) for _ in range(3))
    if kind < 6:
        return choose.choice((None, True, False, 0, -1, 10**20, 2.5, 1e300, -0.0))
    return (
        values.Text("t"),
        values.Odd(4),
        values.Color.RED,
        values.Name.X,
        decimal.Decimal("1.50"),
        float("nan"),
        b"\xc3\xa9" if choose.random() < 0.9 else b"\xff",
        {1} if choose.random() < 0.2 else 1,
    )[kind - 6]


def value(choose, depth):
    kind = choose.randrange(10) if depth else 0
    size = choose.randrange(4)
    if kind < 3:
        return scalar(choose)
    inner = [value(choose, depth - 1) for _ in range(size)]
    keys = [choose.choice(("a", "é", 1, 2.5, None, True, values.Name.X)) for _ in inner]
    if choose.random() < 0.02:
        keys = [choose.choice((b"k", (1,), decimal.Decimal(1))) for _ in inner]
    if kind < 5:
        return inner
    if kind < 8:
        return dict(zip(keys, inner))
    if kind == 8:
        return choose.choice((tuple, values.ListAsDict))(inner)
    pair = Pair(inner, value(choose, depth - 1))
    return choose.choice((pair, values.AsDict(dict(zip(keys, inner))), values.DictAsDict(a=1)))


def outcome(encode, what):
    try:
        return encode(what)
    except Exception as error:
        return type(error).__name__, str(error)


@unittest.skipUnless(reference.site_packages(), "CLIENTS names no AWS client")
class Encode(unittest.TestCase):
    def test_random_values(self):
        sys.path[:0] = [reference.site_packages(), host.runtime()]
        ours = importlib.import_module("hob._encode")
        theirs = importlib.import_module("awslambdaric.lambda_runtime_marshaller")
        kept = os.environ.get("AWS_EXECUTION_ENV")
        failed = 0
        for runtime in ("AWS_Lambda_python3.11", "AWS_Lambda_python3.12"):
            os.environ["AWS_EXECUTION_ENV"] = runtime
            mine, slow, other = ours.Encoder(), ours.Encoder(), theirs.Encoder()
            self.assertIsNotNone(mine._fast)
            slow._fast = None
            for seed in range(SEEDS):
                what = value(random.Random(seed), 4)
                expected = outcome(other.encode, what)
                self.assertEqual(outcome(mine.encode, what), expected, f"seed {seed}")
                self.assertEqual(outcome(slow.encode, what), expected, f"seed {seed}, slow")
                failed += isinstance(expected, tuple)
        if kept is None:
            del os.environ["AWS_EXECUTION_ENV"]
        else:
            os.environ["AWS_EXECUTION_ENV"] = kept
        # Both kinds of outcome have been seen.
        self.assertTrue(SEEDS / 100 < failed < SEEDS)


if __name__ == "__main__":
    unittest.main()
