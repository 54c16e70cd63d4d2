"""Files with several names: a transaction that commits leaves what running plainly leaves, or refuses and says why."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
from hypothesis import strategies

PROGRAMS = Path(__file__).parent.parent / "programs"
sys.path.insert(0, str(PROGRAMS))
import links  # noqa: E402

THOROUGH = bool(os.environ.get("TENTATIVE_THOROUGH"))
SETTINGS = hypothesis.settings(
    max_examples=1000 if THOROUGH else 60,
    deadline=None,
    derandomize=not THOROUGH,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
NAME = strategies.integers(0, len(links.NAMES) - 1)
#: Of this nobody is told, and when the name is removed then, nobody finds out.
UNSEEN = "times by descriptor"
STEP = strategies.tuples(
    strategies.sampled_from(sorted(links.OPERATIONS.keys() - {UNSEEN})),
    NAME,
    NAME,
    strategies.integers(0, 200),
)
CANNOT_TELL = ("another name of the same file", "it cannot be told whether")


def lay_out(directory):
    """The files in a directory of their own, older than any transaction."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    subprocess.run(
        [sys.executable, "-c", "import links; links.lay_out()"], cwd=directory, check=True, env=PATHS
    )
    time.sleep(0.02)


PATHS = {**os.environ, "PYTHONPATH": str(PROGRAMS), "PYTHONDONTWRITEBYTECODE": "1"}


def check(tentative, program):
    """Runs a program plainly and in a transaction; whether the transaction was refused."""
    command = [sys.executable, "-B", str(PROGRAMS / "links.py"), json.dumps(program)]
    inside = tentative.work / "ground"
    with tempfile.TemporaryDirectory(dir=tentative.directory) as outside:
        plain = Path(outside) / "ground"
        lay_out(plain)
        subprocess.run(command, cwd=plain, check=True)
        wanted = links.look(plain)
    lay_out(inside)
    before = links.look(inside)
    done = tentative("run", "--commit", "--", *command, cwd=inside)
    if done.returncode == 0:
        assert links.look(inside) == wanted, (program, done.stderr)
        return False
    # Nothing is lost, and the file is named.
    assert os.geteuid() != 0, (program, done.stderr)
    named = [line for line in done.stderr.splitlines() if any(words in line for words in CANNOT_TELL)]
    assert any(str(inside) in line for line in named), (program, done.stderr)
    assert links.look(inside) == before, (program, done.stderr)
    pending = json.loads(tentative("list", "--json").stdout)["transactions"]
    assert len(pending) == 1, (program, pending)
    assert tentative("rollback", pending[0]["id"]).returncode == 0
    return True


def test_model_of_hard_links(tentative):
    """Random programs."""

    @SETTINGS
    @hypothesis.given(strategies.lists(STEP, min_size=1, max_size=12))
    def model(program):
        check(tentative, program)

    model()


def test_what_is_done_to_hard_links_is_committed(tentative):
    """Nothing of this is refused."""
    a, a2, a3, b, b2, c, n = range(7)
    for program in [
        [("append", a, a, 1)],
        [("append", a, a, 1), ("append", a2, a, 2), ("rewrite", a3, a, 3)],
        [("append", a, a, 1), ("unlink", a, a, 0)],
        [("mode", a, a, 1), ("unlink", a, a, 0)],
        [("rename", a, n, 0), ("append", n, a, 1), ("append", a2, a, 2)],
        [("link", a, n, 0), ("unlink", a, a, 0), ("append", n, a, 1)],
        [("replace", a, a, 1)],
        [("unlink", a, a, 0), ("append or make", a, a, 1), ("touch", a, a, 1)],
        [("make again", b, b, 7)],
        [("rename", b, b2, 0)],
        [("rename", a, c, 0), ("rename", a2, c, 0)],
        [("rename", a, c, 0), ("rename", a2, n, 0), ("rename", c, n, 0), ("rename", n, a3, 0)],
        [("append", a, a, 1), ("rename", a, n, 0), ("exchange", n, a2, 0), ("append", a3, a, 3)],
        [("exchange", a, b, 0), ("append", a, a, 1), ("append", b, b, 2)],
        [("rename directory", a, a, 0), ("append", 8, a, 3)],
        [("rename directory", a, a, 0), ("rename directory back", a, a, 0), ("append", a3, a, 3)],
        [("touch", a, a, 0), ("times", b, b, 5), ("attribute", a2, a, 2)],
    ]:
        assert not check(tentative, program), program


def test_what_cannot_be_told_is_refused(tentative):
    """Root is refused nothing."""
    refused = os.geteuid() != 0
    for program in [
        [(UNSEEN, 0, 0, 5)],
        [("append", 0, 0, 1), ("unlink", 0, 0, 0), ("append", 1, 0, 2)],
        [("forge", 0, 0, 1)],
    ]:
        assert check(tentative, program) == refused, program
