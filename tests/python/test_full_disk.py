"""A live transaction whose disk is full by the time of its commit: it goes on in the room that was set aside, or is
refused, and the work is kept."""

import os
import shutil
import sys

import pytest
from processes import ran

PROGRAM = """
import subprocess
import sys

import tentative

state = []
try:
    with tentative.transaction():
        state.append("inside")
        with open(sys.argv[1], "r+b") as file:
            file.write(b"new")
            file.truncate(int(sys.argv[2]))
            file.write(b"n" * int(sys.argv[2]))
        for number in range(int(sys.argv[3])):
            with open(f"made-with-a-long-name-{number}", "w") as file:
                file.write("made")
        # The one outside fills the disk meanwhile.
        subprocess.run(["sleep", "3"])
except tentative.CommitRefused as refused:
    assert state == [], state
    print("refused", *refused.reasons)
    print("pending", refused.pending_id)
else:
    print("committed", state)
"""


def run(tmp_path, script, **variables):
    """Runs a shell script in a mount namespace of its own, where it may mount small disks."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = ran("unshare", "-m", "sh", "-ec", script, cwd=tmp_path, PATH=path, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def may_mount():
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root")


#: Fills the store's own disk while the branch runs, FREE bytes excepted, then empties it and decides again.
FULL_STORE = """
    mkdir store; mount -t tmpfs -o size=2m tmpfs store; export TENTATIVE_HOME=$PWD/store
    (sleep 1; cat /dev/zero > store/filler 2> /dev/null || truncate -s -$FREE store/filler) &
    python program.py file 10 $COUNT
    wait; cat file; echo; rm store/filler
    tentative list; tentative commit || echo nothing to commit
    cat file; echo; ls | grep -c made
"""


def test_the_store_is_full(tmp_path):
    (tmp_path / "file").write_text("old")
    printed = run(tmp_path, FULL_STORE, COUNT="3000", FREE="0")
    assert "refused" in printed and "No space left" in printed, printed
    assert "pending None" not in printed and "\nold\n" in printed, printed
    assert "\nnewnnnnnnnnnn\n3000\n" in printed, printed
    assert "error:" not in printed and "nothing to commit" not in printed, printed


@pytest.mark.parametrize("free", (0, 4096, 8192, 16384))
def test_the_store_is_full_and_what_was_set_aside_is_enough(tmp_path, free):
    (tmp_path / "file").write_text("old")
    printed = run(tmp_path, FULL_STORE, COUNT="100", FREE=str(free))
    assert printed.startswith("committed ['inside']\nnewnnnnnnnnnn\n"), printed
    assert "\nnothing to commit\nnewnnnnnnnnnn\n100\n" in printed, printed


def test_the_destination_is_full(tmp_path):
    # A file with two names is written in place, which needs room for what it grows by.
    printed = run(
        tmp_path,
        """
        mkdir store small; export TENTATIVE_HOME=$PWD/store
        mount -t tmpfs -o size=2m tmpfs small
        cp program.py small; cd small
        head -c 400000 /dev/zero > file; ln file twin
        (sleep 1; cat /dev/zero > filler 2> /dev/null || true) &
        python program.py file 400000 200
        wait; stat -c %s file; rm filler
        tentative commit
        stat -c %s twin; ls | grep -c made
        """,
    )
    assert "refused" in printed and "pending None" not in printed, printed
    assert "\n400000\n" in printed, printed
    assert "\n400003\n200\n" in printed, printed
