"""pytest plugin: writes every skipped test with its reason to the file that TENTATIVE_SKIP_LOG names.

The harness compares that file with tests/allowed-skips.txt; the Rust tests write to it through the testkit.
"""

from __future__ import annotations

import os


def pytest_runtest_logreport(report):
    """Records a test or a fixture that was skipped."""
    log = os.environ.get("TENTATIVE_SKIP_LOG")
    if report.skipped and log and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{report.nodeid}\t{reason.removeprefix('Skipped: ')}\n")


def pytest_collectreport(report):
    """Records a whole file that was skipped while it was read."""
    log = os.environ.get("TENTATIVE_SKIP_LOG")
    if report.skipped and log:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{report.nodeid}\t{reason.removeprefix('Skipped: ')}\n")
