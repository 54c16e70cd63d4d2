"""The example of `make run`: every proof holds, and fails when something of a layer was really changed."""

import sys
from pathlib import Path

import pytest
from processes import ran

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "build_script.py"
LAYERS = ("memory", "threads", "objects", "process", "files", "kin", "world")

ROLLBACK = "after the rollback nothing is different"
COMMIT = "after the commit everything is as after a plain run, in the same objects, unnoticed outside"
SHELL_ROLLBACK = "after the shell's rollback nothing is different"
SHELL_COMMIT = "after the shell's commit the files have changed, and nothing else"
PROOFS = (ROLLBACK, COMMIT, SHELL_ROLLBACK, SHELL_COMMIT)


def run(*arguments):
    return ran(sys.executable, EXAMPLE, *arguments, timeout=300, cwd="/")


def test_every_proof_holds():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    proved = [line for line in done.stdout.splitlines() if line.startswith(("PROVED", "NOT PROVED"))]
    assert proved == [f"PROVED: {proof}" for proof in PROOFS]
    assert "connect tcp 127.0.0.1" in done.stdout and "signal 15" in done.stdout
    assert "json.dumps changed: from <function json.dumps>" in done.stdout
    assert "/manual/guide.md was renamed from " in done.stdout
    assert "containment: full" in done.stdout and "verdict: safe to roll back, safe to commit" in done.stdout


@pytest.mark.parametrize("layer", LAYERS)
def test_sabotage_makes_every_proof_fail(layer):
    done = run("--sabotage", layer)
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("PROVED", "NOT PROVED"))]
    assert told == [f"NOT PROVED: {proof}" for proof in PROOFS], done.stdout
