"""A transaction at a terminal has its foreground from its first instruction on, and its settings while it runs."""

import os
import pty
import select
import subprocess
import sys
import textwrap
import time

import pytest

READS = """
    import sys
    import tentative

    options = eval(sys.argv[1])
    for number in range(15):
        outcome = tentative.transaction(**options).run(sys.stdin.readline)
        assert outcome.value == f"line {number}\\n", outcome
    with tentative.transaction(**options):
        assert input() == "line 15"
    print("read", number + 2)
"""


@pytest.mark.parametrize("chosen", ({"without": ("files", "kin", "world")}, {}), ids=("memory", "all"))
def test_code_that_reads_at_once_is_not_stopped(chosen):
    pid, controller = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(READS), repr(chosen)])
    try:
        os.write(controller, b"".join(b"line %d\n" % number for number in range(16)))
        told, until = b"", time.monotonic() + 60
        while b"read 16" not in told and time.monotonic() < until:
            if select.select([controller], [], [], 0.5)[0]:
                try:
                    told += os.read(controller, 4096)
                except OSError:  # the other side is closed
                    break
            if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
                raise AssertionError(f"it was stopped: {told.decode()}")
        assert b"read 16" in told, told.decode()
    finally:
        os.close(controller)
        ended, until = False, time.monotonic() + 10
        while not ended and time.monotonic() < until:
            ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            time.sleep(0.01)
        if not ended:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


SETS = """
    import os, sys, termios, tty
    import tentative

    options = eval(sys.argv[1])
    before = termios.tcgetattr(0)

    def changes(dies):
        tty.setraw(0)
        if dies:
            os._exit(3)
        raise KeyError

    for dies, kind in ((False, KeyError), (True, tentative.Exited)):
        outcome = tentative.transaction(**options).run(changes, dies)
        assert isinstance(outcome.exception, kind), outcome
        assert termios.tcgetattr(0) == before
    assert tentative.transaction(**options).run(tty.setraw, 0).committed
    assert termios.tcgetattr(0) != before
"""


@pytest.mark.parametrize("chosen", ({"without": ("files", "kin", "world")}, {}), ids=("memory", "all"))
def test_settings_are_as_before_after_a_rollback(chosen):
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SETS), repr(chosen)],
            stdin=terminal,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
