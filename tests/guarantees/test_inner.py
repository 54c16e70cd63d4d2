"""A transaction inside a transaction leaves what its code did, and nothing of its own."""

import json
import os
import sys

from conftest import EXECUTABLE

PROGRAM = """
import tentative
with tentative.transaction():
    open("made", "w").close()
"""


def test_a_program_that_is_a_transaction_leaves_nothing_of_its_own(tentative):
    """The keeper and its sessions end after the program, and what they made is no change."""
    for mode in ["--rollback", "--commit"]:
        document = tentative.directory / "document.json"
        done = tentative("run", mode, f"--json={document}", "--", sys.executable, "-B", "-c", PROGRAM)
        assert done.returncode == 0, done.stderr
        changes = [change["path"] for change in json.loads(document.read_text())["changes"]]
        assert changes == [str(tentative.work / "made")], changes
        assert "left running" not in done.stderr, done.stderr
    assert os.listdir(tentative.work) == ["made"]
    assert not [name for name in os.listdir(tentative.directory) if name.startswith(".tentative-")]


def test_what_a_program_inside_keeps_is_said_to_be_inside(tentative):
    done = tentative("run", "--rollback", "--", EXECUTABLE, "run", "--keep", "touch", "made")
    assert done.returncode == 0, done.stderr
    told = "discards them\nit is inside another transaction: decide before that ends\n"
    assert told in done.stderr, done.stderr
    assert tentative("list").stdout == ""
