"""A quick part of CPython's own test suite gives the same results inside a committing transaction."""

import sys
from pathlib import Path

import pytest
from processes import ran

RUN = Path(__file__).resolve().parents[1] / "cpython" / "run.py"


def test_some_of_cpythons_own_tests():
    done = ran(sys.executable, RUN, "--few", timeout=600)
    if done.stdout.startswith("NOT RUN"):
        pytest.skip("this interpreter came without CPython's test suite")
    assert done.returncode == 0 and ": 8 modules the same, 0" in done.stdout, done.stdout + done.stderr
