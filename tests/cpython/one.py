"""Runs one module of CPython's test suite, plainly or inside a committing transaction, and prints each test's result.

    one.py MODULE plainly|inside LAYER,… [TEST…]

Goes without the layers; does not run the tests that are named. Invariant: the last line printed is the results as JSON.
"""

import importlib
import io
import json
import os
import random
import sys
import time
import unittest
import warnings

#: How long a commit waits for processes that tests left behind (`sleep 3` of a shell that was killed), seconds.
PATIENCE = 10


class Results(unittest.TestResult):
    """Notes how each test ended."""

    def __init__(self):
        super().__init__()
        self.ended = {}

    def note(self, test, how):
        if self.ended.get(test.id()) in (None, "ok"):
            self.ended[test.id()] = how

    def addSuccess(self, test):
        self.note(test, "ok")

    def addFailure(self, test, error):
        self.note(test, "failure")
        self.detail(test, error)

    def addError(self, test, error):
        self.note(test, "error")
        self.detail(test, error)

    def detail(self, test, error):
        print(f"{test.id()}: {error[1]!r}", file=sys.__stderr__)

    def addSkip(self, test, reason):
        self.note(test, "skipped")

    def addExpectedFailure(self, test, error):
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        self.note(test, "unexpected success")

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.note(test, "failure")
            self.detail(test, error)


def leave_out(suite, unwanted):
    """The same suite without the tests of these names."""
    if not isinstance(suite, unittest.BaseTestSuite):
        return suite
    kept = [leave_out(part, unwanted) for part in suite if getattr(part, "id", str)() not in unwanted]
    return type(suite)(kept)


def wait_for_orphans():
    """Waits for processes that are nobody's children any more: a commit is refused while one of the branch runs."""
    known = {"1", str(os.getpid())}
    end = time.monotonic() + PATIENCE
    while any(name.isdigit() and name not in known for name in os.listdir("/proc")):
        if time.monotonic() > end:
            return
        time.sleep(0.05)


def run(name, unwanted):
    """Runs the module's tests and gives how each ended."""
    import test.support

    test.support.verbose = 0
    test.support.use_resources = []
    test.support.junit_xml_list = None
    warnings.simplefilter("ignore")
    random.seed(1)
    results = Results()
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        module = importlib.import_module(f"test.{name}")
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        leave_out(suite, unwanted).run(results)
        getattr(unittest, "doModuleCleanups", lambda: None)()
    except unittest.SkipTest as skip:
        results.ended[name] = f"skipped: {skip}"
    finally:
        sys.stdout = out
    test.support.reap_children()
    return results.ended


def main():
    """Runs it where it was asked for."""
    name, mode, without, *unwanted = sys.argv[1:]
    directory = os.getcwd()
    if mode == "plainly":
        ended = run(name, unwanted)
    else:
        import tentative

        with tentative.transaction(without=without) as tx:
            ended = run(name, unwanted)
            if "kin" not in without.split(","):
                wait_for_orphans()
        assert tx.outcome.committed
    os.chdir(directory)
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
