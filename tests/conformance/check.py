"""Runs every test of this folder: check.py HOB CLIENTS [TEST...]

A test that did not run has failed: what counts is how many passed of those that there are. A
server that did not end well, or that logged an error, counts as one more that failed.
"""

import pathlib
import re
import sys
import unittest

import serving
import shapes

# Operations that a board never answers but with an error, or whose answer is not JSON.
NEVER_COMPARED = {
    "CreateEventSourceMapping",
    "DeleteEventSourceMapping",
    "GetEventSourceMapping",
    "PutFunctionCodeSigningConfig",
    "UpdateEventSourceMapping",
}


class Result(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        self.passed += 1
        super().addSuccess(test)


def operations(here):
    """The operations of the control plane that hob has."""
    text = (here / "../../src/api/route/control.rs").read_text()
    listed = text.split("pub enum What {", 1)[1].split("\n}\n", 1)[0]
    return set(re.findall(r"^    ([A-Z]\w+),$", listed, re.MULTILINE))


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
    if not names:
        missing = operations(here) - shapes.checked - NEVER_COMPARED
        for name in sorted(missing):
            print(f"no answer of {name} was compared with botocore's model")
        failed += len(missing)
    if not result.wasSuccessful() or count == 0:
        failed = max(failed, 1)
    print(f"conformance: {result.passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
