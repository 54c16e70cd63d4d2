"""kill -9 of any process of a run at any moment: outside nothing changed, and nothing is left after `recover`."""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

#: Changes files, starts children that would outlive it, and goes on until it is killed.
PROGRAM = """
echo changed > kept; rm removed; mkdir -p made/deep; mv renamed other
(setsid sleep 600 &) ; sleep 600 &
echo ready
while :; do echo x >> growing; sleep 0.01; done
"""


def lay_out(work):
    """The files that the program changes."""
    for name in ("kept", "removed", "renamed"):
        (work / name).write_text(f"{name} as it was")


def as_it_was(work):
    """Whether the files are as they were laid out."""
    names = sorted(path.name for path in work.iterdir())
    contents = all((work / name).read_text() == f"{name} as it was" for name in names)
    return names == ["kept", "removed", "renamed"] and contents


def tree_of(pid):
    """A process and everything below it."""
    children = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
        except (OSError, IndexError):
            continue
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(children.get(found[-1], ()))
    return found


def start(tentative):
    """Starts the program in a transaction and waits until it has changed everything."""
    running = tentative.start("run", "--rollback", "--", "sh", "-c", PROGRAM)
    assert running.stdout.readline() == "ready\n", running.communicate()
    return running


def nothing_is_left(tentative):
    """Checks that the store has nothing after `recover`, and that no process is there."""
    assert tentative("recover").returncode == 0
    listed = tentative("list", "--json")
    assert listed.returncode == 0 and "running" not in listed.stdout, listed.stdout
    assert not tentative.leaks()


@pytest.mark.parametrize("number", range(5))
def test_any_process_of_a_run_may_be_killed(number, tentative):
    lay_out(tentative.work)
    running = start(tentative)
    processes = tree_of(running.pid)
    victim = processes[min(number, len(processes) - 1)]
    os.kill(victim, signal.SIGKILL)
    if victim not in (running.pid, *processes[:2]):
        # Only a child of the program: the run goes on until the runner is asked to end.
        running.send_signal(signal.SIGTERM)
    running.communicate(timeout=20)
    assert as_it_was(tentative.work)
    nothing_is_left(tentative)


def test_a_run_may_be_killed_at_any_moment(tentative):
    lay_out(tentative.work)
    rounds = 60 if os.environ.get("TENTATIVE_THOROUGH") else 15
    chance = random.Random(20)
    for _ in range(rounds):
        running = tentative.start("run", "--rollback", "--", "sh", "-c", PROGRAM)
        time.sleep(chance.uniform(0, 0.08))
        # Who was there a moment ago may have ended by himself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(tree_of(running.pid)), signal.SIGKILL)
        time.sleep(0.05)
        running.kill()
        running.communicate(timeout=20)
        assert as_it_was(tentative.work)
    nothing_is_left(tentative)


def test_many_runs_leave_nothing(tentative):
    lay_out(tentative.work)
    for _ in range(100 if os.environ.get("TENTATIVE_THOROUGH") else 25):
        ended = tentative("run", "--rollback", "--", "sh", "-c", "rm kept; mkdir new; exit 7")
        assert ended.returncode == 7, ended.stderr
    assert as_it_was(tentative.work)
    nothing_is_left(tentative)


#: Daemons that nothing ties to the run: forked twice, in sessions of their own, without its environment.
DAEMONS = """
import os, sys, time
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
        os._exit(0)
if len(sys.argv) > 2:
    os.execv("/usr/bin/unshare", ["unshare", "--user", "/bin/sh", "-c", f"sleep {sys.argv[1]} & echo ready; wait"])
print("ready", flush=True)
time.sleep(600)
"""


def sleeping(seconds):
    """The processes that sleep for a time for which nobody else sleeps."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes() == b"sleep\0" + seconds.encode() + b"\0":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("victim", ["runner", "init"])
@pytest.mark.parametrize("without", [("kin",), ("kin", "files"), ("kin", "files", "world")])
@pytest.mark.parametrize("nested", [(), ("namespace",)])
def test_without_kin_nobody_outlives_a_killed_run(victim, without, nested, tentative):
    seconds = f"6{os.getpid()}.5"
    options = [word for layer in without for word in ("--without", layer)]
    command = ["run", "--rollback", *options, "--", sys.executable, "-c", DAEMONS, seconds, *nested]
    running = tentative.start(*command)
    assert running.stdout.readline() == "ready\n", running.communicate()
    deadline = time.monotonic() + 5
    while len(sleeping(seconds)) < 3 + len(nested) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(sleeping(seconds)) == 3 + len(nested)
    # Init is the runner's first child.
    init = min(child for child in tree_of(running.pid) if child != running.pid)
    os.kill(running.pid if victim == "runner" else init, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while sleeping(seconds) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = sleeping(seconds)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    running.communicate(timeout=20)
    nothing_is_left(tentative)
