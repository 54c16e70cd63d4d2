"""A file that somebody else changes meanwhile: the commit is refused as a conflict, and the work is kept."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tentative

#: Somebody else: changes the file when it is told to, and ends.
SOMEBODY = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
open(sys.argv[1], "w").write("theirs")
"""
EXECUTABLE = Path(sys.prefix) / "bin" / "tentative"


class Somebody:
    """A process outside that writes to a path when `act` is called, which only a transaction with `allow` can do."""

    def __init__(self, path):
        command = [sys.executable, "-c", SOMEBODY, str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"
        self.allow = [f"signal:{self.process.pid}"]

    def act(self):
        os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(1)  # its end cannot be seen from inside

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def tentative_command(*words):
    return subprocess.run([str(EXECUTABLE), *words], capture_output=True, text=True)


def test_at_the_end_of_the_block_the_work_is_kept_and_can_be_committed(everything, tmp_path):
    path, state = tmp_path / "contested", []
    with Somebody(path) as somebody, pytest.raises(tentative.Conflict) as caught:
        with tentative.transaction(allow=somebody.allow) as tx:
            path.write_text("ours")
            state.append("lost")
            somebody.act()
    conflict = caught.value
    assert isinstance(conflict, tentative.CommitRefused)
    assert conflict.paths == (str(path),) and conflict.reasons == (f"{path} was made by others meanwhile",)
    assert state == [] and path.read_text() == "theirs"
    assert tx.outcome.exception is conflict and not tx.outcome.committed
    assert f"tentative commit {conflict.pending_id}" in str(conflict)
    refused = tentative_command("commit", conflict.pending_id)
    assert refused.returncode == 120 and str(path) in refused.stderr
    path.unlink()
    assert tentative_command("commit", conflict.pending_id).returncode == 0
    assert path.read_text() == "ours"


def test_in_the_middle_the_branch_goes_on(everything, tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    paths[0].write_text("base")
    with Somebody(paths[0]) as somebody, tentative.transaction(allow=somebody.allow) as tx:
        paths[0].write_text("ours")
        paths[1].write_text("ours too")
        somebody.act()
        try:
            tx.commit()
        except tentative.Conflict as conflict:
            tx.rollback((conflict, [path.read_text() for path in paths]))
    conflict, inside = tx.outcome.value
    assert inside == ["ours", "ours too"]
    assert conflict.paths == (str(paths[0]),) and conflict.pending_id is None
    assert paths[0].read_text() == "theirs" and not paths[1].exists()


def test_another_refusal_is_no_conflict(options):
    with tentative.transaction(**options) as tx:
        child = subprocess.Popen(["sleep", "30"])
        with pytest.raises(tentative.CommitRefused) as caught:
            tx.commit()
        child.kill()
        child.wait()
    assert not isinstance(caught.value, tentative.Conflict)


def test_a_conflict_survives_pickling():
    conflict = pickle.loads(pickle.dumps(tentative.Conflict(["why"], "0123abcd", ["/a"])))
    assert (conflict.reasons, conflict.pending_id, conflict.paths) == (("why",), "0123abcd", ("/a",))
