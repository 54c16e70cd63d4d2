"""The example of `make run`: every proof holds, and fails when something of a layer was really changed."""

import sys
from pathlib import Path

import pytest
from processes import ran

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "build_script.py"
LAYERS = ("memory", "threads", "objects", "process", "files", "kin", "world")

ROLLBACK = "after the rollback nothing is different"
COMMIT = "after the commit everything is as after a plain run"
SAME = "its objects are the same ones, in the same process, and nobody outside noticed"
SHELL = (
    "after the shell's rollback nothing is different",
    "after the shell's commit the files have changed, and nothing else",
)


def run(*arguments):
    return ran(sys.executable, EXAMPLE, *arguments, timeout=300, cwd="/")


def test_every_proof_holds():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    for proof in (ROLLBACK, COMMIT, SAME, *SHELL):
        assert f"\nPROVED: {proof}\n" in done.stdout
    assert "connect tcp 127.0.0.1" in done.stdout and "signal 15" in done.stdout
    assert "json.dumps changed: from <function json.dumps>" in done.stdout
    assert "containment: full" in done.stdout and "verdict: safe to roll back, safe to commit" in done.stdout


@pytest.mark.parametrize("layer", LAYERS)
def test_sabotage_makes_the_proofs_fail(layer):
    done = run("--sabotage", layer)
    assert done.returncode == 1, done.stdout + done.stderr
    for proof in (ROLLBACK, *SHELL):
        assert f"NOT PROVED: {proof}\n" in done.stdout, done.stdout
    # What a plain run does outside is no part of the comparison with it, but of the proof after it.
    assert f"NOT PROVED: {SAME if layer in ('kin', 'world') else COMMIT}\n" in done.stdout, done.stdout
