"""Runs every test of this folder: check.py HOB CLIENTS [TEST...]

A test that did not run has failed: what counts is how many passed of those that there are. A
server that did not end well, or that logged an error, counts as one more that failed.
"""

import pathlib
import sys
import unittest

import serving


class Result(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        self.passed += 1
        super().addSuccess(test)


def main():
    hob, clients, *names = sys.argv[1:]
    here = pathlib.Path(__file__).parent
    serving.use(pathlib.Path(hob), pathlib.Path(clients), here / "functions")
    loader = unittest.TestLoader()
    if names:
        suite = loader.loadTestsFromNames(names)
    else:
        suite = loader.discover(str(here), pattern="test_*.py")
    count = suite.countTestCases()
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result)
    try:
        result = runner.run(suite)
    finally:
        serving.stop_all()
    failed = count - result.passed + len(serving.ended_badly)
    if not result.wasSuccessful() or count == 0:
        failed = max(failed, 1)
    print(f"conformance: {result.passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
