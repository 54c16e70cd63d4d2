"""Fully contained transactions inside a fully contained one: one filter and one monitor serve both."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
import tentative


def others():
    """The processes of this pid namespace besides its first one and this one."""
    return [name for name in os.listdir("/proc") if name.isdigit() and name not in ("1", str(os.getpid()))]


def test_files_and_memory_of_inner_transactions_arrive_one_level_at_a_time(everything, tmp_path):
    seen, log = {}, []
    with tentative.transaction() as outer:
        (tmp_path / "outer").write_text("outer")
        with tentative.transaction() as inner:
            log.append("lost")
            (tmp_path / "lost").write_text("lost")
            (tmp_path / "outer").unlink()
            inner.rollback("handed over")
        seen["rolled back"] = (inner.outcome.value, sorted(os.listdir(tmp_path)))
        with tentative.transaction() as inner:
            log.append("kept")
            (tmp_path / "kept").write_text("kept")
        seen["committed"] = (inner.outcome.committed, sorted(os.listdir(tmp_path)))
        seen["changes"] = [change.name for change in inner.changes.files]
    assert seen == {
        "rolled back": ("handed over", ["outer"]),
        "committed": (True, ["kept", "outer"]),
        "changes": [str(tmp_path / "kept")],
    }
    assert log == ["kept"] and outer.outcome.committed and outer.outcome.containment.extent == "full"
    assert (tmp_path / "kept").read_text() == "kept" and not (tmp_path / "lost").exists()


def test_rolling_the_outer_one_back_takes_a_committed_inner_one_back(everything, tmp_path):
    log = []
    with tentative.transaction() as outer:
        with tentative.transaction():
            log.append("inner")
            (tmp_path / "inner").write_text("inner")
        outer.rollback(list(log))
    assert outer.outcome.value == ["inner"] and log == [] and os.listdir(tmp_path) == []


def test_each_has_its_own_record_and_endings_are_outcomes(everything):
    pid, parent, found = os.getpid(), os.getppid(), []
    with tentative.transaction() as outer:
        with tentative.transaction() as inner:
            assert (os.getpid(), os.getppid()) == (pid, parent)
            with contextlib.suppress(PermissionError):
                os.kill(parent, signal.SIGTERM)
        found.append([effect.operation for effect in inner.effects])
        crashed = tentative.run(os.kill, pid, signal.SIGSEGV)
        found.append(type(crashed.exception).__name__)
        hung = tentative.transaction(timeout=0.2).run(signal.pause)
        found.append(type(hung.exception).__name__)
        captured = tentative.transaction(output="capture").run(os.write, 1, b"text")
        found.append(captured.stdout)
    assert found == [["kill"], "Crashed", "TimedOut", b"text"]
    assert outer.outcome.committed and outer.effects == ()


def test_what_an_inner_one_has_kept_is_not_named_outside(everything, tmp_path):
    """It is gone with the outer one's files; without files it is in the store of both."""
    for without in ((), ("files", "kin", "world")):
        with pytest.raises(tentative.CommitRefused) as refused:
            with tentative.transaction(without=without):
                with tentative.transaction():
                    (tmp_path / "made").touch()
                    child = os.fork()
                    if child == 0:
                        signal.pause()
        assert "child process" in refused.value.reasons[0]
        assert bool(refused.value.pending_id) == bool(without), refused.value
        assert ("kept as" in str(refused.value)) == bool(without)
        assert refused.value.args[1] == refused.value.pending_id


def test_what_both_allow_escapes_and_is_in_both_records(everything):
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            allow = [f"signal:{child.pid}"]
            found = []

            def attempt():
                try:
                    os.kill(child.pid, signal.SIGCONT)
                except PermissionError:
                    return "refused"

            with tentative.transaction() as outer:
                inner = tentative.transaction(allow=allow)
                found.append((inner.run(attempt).value, inner.effects[0].effect_class))
            assert found == [("refused", "blocked")] and outer.effects == ()
            with tentative.transaction(allow=allow) as outer:
                inner = tentative.transaction(allow=allow)
                found.append((inner.run(attempt).value, inner.effects[0].effect_class))
            assert found[1] == (None, "escaped")
            assert [effect.effect_class for effect in outer.effects] == ["escaped"]
            assert not outer.verdict.rollback.safe
        finally:
            child.kill()


def test_children_of_the_outer_branch_are_not_the_inner_ones(everything):
    with tentative.transaction() as outer:
        child = subprocess.Popen(["sleep", "60"])
        with tentative.transaction():
            assert child.poll() is None
        assert child.poll() is None
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert outer.outcome.committed


def test_twenty_in_a_row_leave_nothing_that_keeps_the_outer_one_from_its_commit(everything):
    numbers = []
    with tentative.transaction() as outer:
        for number in range(20):
            with tentative.transaction() as inner:
                numbers.append(number)
                if number % 2:
                    inner.rollback()
        deadline = time.monotonic() + 2  # the last process may be in its last call
        while (left := others()) and time.monotonic() < deadline:
            time.sleep(0.01)
        numbers.append(left)
    assert outer.outcome.committed and numbers == [*range(0, 20, 2), []]


def test_a_third_level_is_refused_before_anything_happens(everything, memory):
    steps = []
    with tentative.transaction():
        with tentative.transaction():
            steps.append("second")
            with pytest.raises(tentative.Unsupported, match="nest two deep") as caught:
                with tentative.transaction():
                    steps.append("never")
            steps.append(caught.value.layer)
            with tentative.transaction(**memory):
                steps.append("memory only")
    assert steps == ["second", "kin", "memory only"] and caught.value.remedy


def test_without_kin_alone_an_inner_one_is_refused(everything):
    with tentative.transaction() as outer:
        with pytest.raises(tentative.Unsupported, match="inside another transaction") as caught:
            tentative.transaction(without="kin").run(int)
        assert "contain kin" in caught.value.remedy
    assert outer.outcome.committed
