"""Transactions under pytest's own capture of output, which holds deleted files at 1, 2 and elsewhere."""

import os
import subprocess
import sys
import tempfile

import pytest
import tentative
from processes import ran

#: What a user of pytest would write; run by a pytest of its own, with its defaults.
INNER = """
import os
import subprocess
import sys

import pytest
import tentative


def test_commit(tmp_path, capfd):
    print("outside before")
    state = []

    def inside():
        state.append(os.getpid())
        print("printed inside")
        os.write(2, b"written inside\\\\n")
        (tmp_path / "made").write_text("inside")
        subprocess.run(["sh", "-c", "echo by a child"], check=True)
        return "value"

    outcome = tentative.run(inside)
    assert outcome.result() == "value" and outcome.committed, outcome
    assert outcome.containment.extent == "full"
    assert state == [os.getpid()] and (tmp_path / "made").read_text() == "inside"
    print("outside after")
    captured = capfd.readouterr()
    assert captured.out == "outside before\\\\nprinted inside\\\\nby a child\\\\noutside after\\\\n"
    assert captured.err == "written inside\\\\n"


def test_rollback(tmp_path, capfd):
    print("outside before")

    def inside():
        print("printed inside")
        (tmp_path / "made").write_text("inside")
        raise ValueError("on purpose")

    outcome = tentative.run(inside)
    assert not outcome.committed and isinstance(outcome.exception, ValueError), outcome
    assert not (tmp_path / "made").exists()
    print("outside after")
    assert capfd.readouterr().out == "outside before\\\\noutside after\\\\n"


def test_block_is_shown_when_it_fails(tmp_path):
    print("outside before")
    with tentative.transaction():
        print("printed inside")
    with pytest.raises(ZeroDivisionError):
        with tentative.transaction():
            print("rolled back")
            1 / 0
    assert os.environ.get("FAIL") is None


def test_captured_apart(capfd):
    outcome = tentative.transaction(output="capture").run(print, "apart")
    assert outcome.stdout == b"apart\\\\n"
    assert capfd.readouterr().out == ""
""".replace("\\\\", "\\")


def run_pytest(tmp_path, **variables):
    """A pytest with its defaults: no configuration, capture by descriptor."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_inner.py").write_text(INNER)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_inner.py")
    return ran(*command, cwd=tmp_path, PYTEST_ADDOPTS="", **variables)


def test_pytest_with_its_default_capture(tmp_path):
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_pytest_shows_what_was_committed(tmp_path):
    done = run_pytest(tmp_path, FAIL="1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 3 passed" in done.stdout
    shown = done.stdout[done.stdout.index("Captured stdout call") :]
    assert "outside before\nprinted inside\n" in shown and "rolled back" not in shown


#: Writes to its standard output before, in and after a transaction that rolls back.
SHOWN = """
import sys
import tentative

print("before", flush=True)
tentative.transaction(without=sys.argv[1:]).run(lambda: (print("inside", flush=True), 1 / 0))
print("after", flush=True)
"""


@pytest.mark.parametrize("without", ((), ("files", "kin", "world")))
def test_output_into_a_file_is_shown_and_not_overwritten(tmp_path, without):
    with open(tmp_path / "output", "wb") as output:
        subprocess.run([sys.executable, "-c", SHOWN, *without], stdout=output, check=True, timeout=60)
    assert (tmp_path / "output").read_text() == "before\ninside\nafter\n"


@pytest.mark.parametrize("commits", (True, False))
def test_a_temporary_file_without_a_name(everything, commits):
    with tempfile.TemporaryFile("w+") as file:
        file.write("before\n")
        file.flush()
        identity = os.fstat(file.fileno()).st_ino

        def inside():
            file.write("inside\n")
            file.flush()
            if not commits:
                raise ValueError("on purpose")

        outcome = tentative.run(inside)
        assert outcome.committed is commits, outcome
        assert os.fstat(file.fileno()).st_ino == identity
        file.write("after\n")
        file.seek(0)
        assert file.read() == ("before\ninside\nafter\n" if commits else "before\nafter\n")
