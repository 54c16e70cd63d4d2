"""What the tests of the Python API share."""

import os
from pathlib import Path

import pytest
import tentative

#: Layers 1 to 4 alone: what a test of the interpreter's own state needs.
MEMORY = {"without": ("files", "kin", "world")}


@pytest.fixture
def memory():
    """Options of a transaction that contains memory, threads, objects and process state."""
    return dict(MEMORY)


@pytest.fixture
def everything():
    """Options of a transaction that contains every layer."""
    outcome = tentative.run(int)
    if outcome.containment.extent != "full" or outcome.exception is not None:
        pytest.fail(f"this machine cannot contain everything: {outcome.containment}, {outcome.exception}")
    return {}


def children():
    """Process ids of this process's children, by the kernel's list."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Every test ends with the descriptors, children and directory that it began with."""
    before = sorted(os.listdir("/proc/self/fd")), children(), os.getcwd()
    yield
    after = sorted(os.listdir("/proc/self/fd")), children(), os.getcwd()
    assert after == before
