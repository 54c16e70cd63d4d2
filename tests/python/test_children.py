"""Who may end a transaction: children of its process, threads, and transactions inside may not, and never hang."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import tentative


def fork(child):
    """Runs a function in a forked child that ends with what it returns; returns its status, or fails after 10 s."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = child()
        finally:
            os._exit(status)
    return wait(pid)


def wait(pid):
    """The exit status of a child; one that stops or hangs is killed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def refusal(ask):
    """What a call is refused with."""
    try:
        ask()
    except tentative.Error as error:
        return str(error)
    return "not refused"


@pytest.fixture
def script(tmp_path):
    """Runs a program of its own, since what goes wrong here stops or hangs a whole process."""

    def run(options, body):
        file = tmp_path / "script.py"
        head = f"import os, sys, threading\nimport tentative\nOPTIONS = {options!r}\n"
        file.write_text(head + textwrap.dedent(body))
        command = ["timeout", "-k", "1", "30", sys.executable, file]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("how", ("commit", "rollback"))
def test_an_outer_transaction_is_not_ended_from_an_inner_one(options, memory, how):
    found = []
    with tentative.transaction(**options) as outer:
        with tentative.transaction(**memory) as inner:
            found.append(refusal(getattr(outer, how)))
            found.append(refusal(lambda: outer.verdict))
        found.append(inner.outcome.committed)
    assert outer.outcome.committed
    assert found == ["this is inside another transaction; end that one first"] * 2 + [True]


def test_an_outer_transaction_is_not_ended_from_a_fully_contained_inner_one(everything):
    found = []
    with tentative.transaction() as outer:
        with tentative.transaction() as inner:
            found.append(refusal(outer.rollback))
        found.append(inner.outcome.committed)
    assert outer.outcome.committed and found == [
        "this is inside another transaction; end that one first",
        True,
    ]


def test_what_ends_an_outer_one_from_inside_unhandled_takes_both_back(options, memory):
    steps = []
    with pytest.raises(tentative.Error, match="end that one first"):
        with tentative.transaction(**options) as outer:
            with tentative.transaction(**memory):
                steps.append("inner")
                outer.rollback(1)
    assert steps == [] and not outer.outcome.committed


def test_a_generator_does_not_leave_the_outer_block_inside_an_inner_one(options, memory):
    def block():
        with tentative.transaction(**options) as tx:
            yield tx
        yield "left"

    running = block()
    outer = next(running)
    with pytest.raises(tentative.Error, match="end that one first"):
        with tentative.transaction(**memory):
            next(running)
    # In the branch of the outer one, whose memory is as it was before the inner one.
    assert next(running) == "left" and outer.outcome.committed


@pytest.mark.parametrize("how", ("commit", "rollback"))
def test_a_child_does_not_end_its_parents_transaction(options, how):
    found = []
    with tentative.transaction(**options) as tx:
        reader, writer = os.pipe()

        def child():
            os.write(writer, refusal(getattr(tx, how)).encode())
            return 7

        found.append(fork(child))
        found.append(os.read(reader, 1000).decode())
        os.close(reader)
        os.close(writer)
    assert tx.outcome.committed
    assert found[0] == 7 and "child of the transaction's process" in found[1]


@pytest.mark.parametrize("look", ("changes", "effects", "verdict"))
def test_a_child_does_not_look_at_its_parents_transaction(options, look):
    def child():
        return 5 if "child" in refusal(lambda: getattr(tx, look) and list(tx.changes)) else 6

    with tentative.transaction(**options) as tx:
        status = fork(child)
    assert status == 5


@pytest.mark.parametrize("form", ("with", "run", "exec", "transactional"))
def test_a_child_ends_where_the_block_does(memory, script, form):
    forms = {
        "with": """
            with tentative.transaction(**OPTIONS) as tx:
                pid = os.fork()
                if pid:
                    status = os.waitpid(pid, 0)[1]
        """,
        "run": """
            def body():
                global status
                pid = os.fork()
                if pid:
                    status = os.waitpid(pid, 0)[1]
            tentative.transaction(**OPTIONS).run(body).result()
        """,
        "exec": """
            tentative.exec("pid = os.fork()\\nif pid: status = os.waitpid(pid, 0)[1]", **OPTIONS)
        """,
        "transactional": """
            @tentative.transactional(**OPTIONS)
            def body():
                global status
                pid = os.fork()
                if pid:
                    status = os.waitpid(pid, 0)[1]
            body()
        """,
    }
    for options in (memory, {}):
        body = textwrap.dedent(forms[form]) + 'print("after", os.waitstatus_to_exitcode(status))\n'
        done = script(options, body)
        assert (done.returncode, done.stdout) == (0, "after 1\n"), done.stderr
        assert "is a child of a transaction's process" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_child_that_raises_or_exits_ends_where_the_block_does(memory, script):
    body = """
        found = []
        for how in ("raise KeyError('why')", "sys.exit(3)", "sys.exit()", "print('said'); sys.exit(0)"):
            with tentative.transaction(**OPTIONS):
                pid = os.fork()
                if pid == 0:
                    exec(how)
                found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(found)
    """
    for options in (memory, {}):
        done = script(options, body)
        assert (done.returncode, done.stdout) == (0, "said\n[1, 3, 0, 0]\n"), done.stderr
        assert "KeyError: 'why'" in done.stderr
        assert done.stderr.count("is a child of a transaction's process") == 1


def test_a_child_may_have_a_transaction_of_its_own(options, memory):
    def child():
        numbers = []
        with tentative.transaction(**memory):
            numbers.append(1)
        with tentative.transaction(**memory) as own:
            numbers.append(2)
            own.rollback(4)
        return 10 * len(numbers) + own.outcome.value

    with tentative.transaction(**options) as tx:
        status = fork(child)
    assert tx.outcome.committed and status == 14


def test_processes_of_multiprocessing_end_inside(options):
    import multiprocessing

    with tentative.transaction(**options) as tx:
        context = multiprocessing.get_context("fork")
        reader, writer = context.Pipe()
        worker = context.Process(target=writer.send, args=("said",))
        worker.start()
        said = reader.recv()
        worker.join()
        code = worker.exitcode
        worker.close()
        reader.close()
        writer.close()
    assert tx.outcome.committed and (said, code) == ("said", 0)


@pytest.mark.parametrize("how", ("commit", "rollback"))
def test_another_thread_does_not_end_the_transaction(options, how):
    found = []
    with tentative.transaction(**options) as tx:
        thread = threading.Thread(target=lambda: found.append(refusal(getattr(tx, how))))
        thread.start()
        thread.join()
        found.append(refusal(lambda: tentative.transaction().commit()))
    assert tx.outcome.committed
    assert "another thread than the one that began" in found[0] and "not begun" in found[1]


def test_a_thread_may_let_the_last_reference_go(memory):
    with tentative.transaction(**memory) as tx:
        kept = [tx._branch]
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()
    assert tx.outcome.committed
