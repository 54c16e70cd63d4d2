"""What the tests of the Python API share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tentative
from processes import children

#: Layers 1 to 4 alone: what a test of the interpreter's own state needs.
MEMORY = {"without": ("files", "kin", "world")}


@pytest.fixture
def memory():
    """Options of a transaction that contains memory, threads, objects and process state."""
    return dict(MEMORY)


@pytest.fixture(scope="session", autouse=True)
def store(tmp_path_factory):
    """A store of the tests' own, and a keeper that is already running when descriptors are counted.

    What tests have kept is rolled back at the end, and what they have killed is recovered: it has places on other file
    systems as well.
    """
    home = tmp_path_factory.mktemp("store")
    os.environ["TENTATIVE_HOME"] = str(home)
    tentative.run(int)
    yield
    executable = Path(sys.executable).with_name("tentative")
    for kept in home.glob("*/record.json"):
        subprocess.run([executable, "rollback", kept.parent.name], stderr=subprocess.DEVNULL)
    subprocess.run([executable, "recover"], stderr=subprocess.DEVNULL)


@pytest.fixture
def everything():
    """Options of a transaction that contains every layer."""
    outcome = tentative.run(int)
    if outcome.containment.extent != "full" or outcome.exception is not None:
        pytest.fail(f"this machine cannot contain everything: {outcome.containment}, {outcome.exception}")
    return {}


@pytest.fixture(params=("memory", "everything"))
def options(request):
    """Both kinds of transaction, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Every test ends with the descriptors, children and directory that it began with."""
    before = sorted(os.listdir("/proc/self/fd")), children(), os.getcwd()
    yield
    after = sorted(os.listdir("/proc/self/fd")), children(), os.getcwd()
    assert after == before
