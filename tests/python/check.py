"""Runs tests as `python -m unittest` does, but a test that was skipped has failed if CLIENTS says
that there is something to compare with."""

import os
import sys
import unittest


def main():
    tests = sys.argv[1:] or ["discover"]
    result = unittest.main(module=None, argv=["tests", *tests], exit=False).result
    failed = not result.wasSuccessful() or result.testsRun == 0
    if result.skipped and os.environ.get("CLIENTS"):
        print(f"{len(result.skipped)} tests were skipped: what is to be compared with is not there")
        failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
