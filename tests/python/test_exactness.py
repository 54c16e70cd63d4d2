"""A commit brings everything as it was in the branch, a rollback leaves everything as it was in the origin."""

import array
import collections
import contextvars
import ctypes
import decimal
import gc
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import weakref

import pytest
import tentative
from processes import ran


def committed(options, function):
    """Runs it in a transaction that commits; gives what it returned."""
    outcome = tentative.transaction(**options).run(function)
    assert outcome.committed, outcome.exception
    return outcome.value


def rolled_back(options, function):
    """Runs it in a transaction that is rolled back."""
    with tentative.transaction(**options) as tx:
        function()
        tx.rollback()
    assert not tx.outcome.committed and tx.outcome.exception is None


class Node:
    def __init__(self, value):
        self.value, self.others = value, []


def test_aliases_cycles_and_identities(options):
    one, two = Node(1), Node(2)
    one.others.append(two)
    shared = {"node": one, "list": one.others}

    def change():
        two.others.append(one)
        shared["new"] = Node(3)
        shared["new"].others = one.others
        one.others.append(shared)
        return shared

    rolled_back(options, change)
    assert one.others == [two] and two.others == [] and set(shared) == {"node", "list"}
    assert committed(options, change) is shared
    assert (
        two.others[0] is one
        and shared["new"].others is shared["list"] is one.others
        and one.others[1] is shared
    )


def test_closures_generators_and_iterators(options):
    def make():
        count = 0

        def step():
            nonlocal count
            count += 1
            return count

        return step

    step, numbers, letters = make(), (number for number in range(9)), iter("abc")
    step(), next(numbers), next(letters)
    rolled_back(options, lambda: (step(), next(numbers), list(letters)))
    assert (step(), next(numbers), next(letters)) == (2, 1, "b")
    made = committed(
        options, lambda: (step(), next(numbers), next(letters), make(), (i * i for i in range(9)))
    )
    assert made[:3] == (3, 2, "c") and next(letters, None) is None
    assert (step(), next(numbers), made[3](), list(made[4])[:3]) == (4, 3, 1, [0, 1, 4])


def test_a_coroutine_and_an_exception_with_its_traceback(options):
    async def wait():
        value = await Awaitable()
        return value * 2

    class Awaitable:
        def __await__(self):
            return (yield "asked")

    def inside():
        running = wait()
        assert running.send(None) == "asked"
        try:
            raise ValueError("kept")
        except ValueError as error:
            return running, error

    running, error = committed(options, inside)
    with pytest.raises(StopIteration) as stop:
        running.send(21)
    assert stop.value.value == 42 and error.__traceback__.tb_frame.f_locals["running"] is running


def test_classes_weak_references_and_finalisers(options):
    log = []

    def inside():
        class Made:
            def __del__(self):
                log.append("finalised")

        made = Made()
        return made, weakref.ref(made), weakref.finalize(made, log.append, "weakref")

    made, reference, finalizer = committed(options, inside)
    assert reference() is made and finalizer.alive
    del made
    gc.collect()
    assert sorted(log) == ["finalised", "weakref"] and reference() is None


def test_modules_imported_inside(options):
    names = ("_elementtree", "xml.etree.ElementTree", "_lsprof", "_asyncio", "_testcapi")
    present = [name for name in names if name not in sys.modules]

    def load():
        import _lsprof
        import xml.etree.ElementTree as tree

        return tree, _lsprof

    rolled_back(options, load)
    assert [name for name in names if name not in sys.modules] == present
    tree, profiler = committed(options, load)
    assert tree.fromstring("<a><b/></a>")[0].tag == "b" and sys.modules["_lsprof"] is profiler
    assert tree is __import__("xml.etree.ElementTree").etree.ElementTree


@pytest.mark.parametrize("before", (True, False), ids=("imported before", "imported inside"))
def test_numpy(options, before, tmp_path):
    program = f"""
import sys, os, tentative
options = {options!r}
if {before}:
    import numpy
    numpy.ones((300, 300)) @ numpy.ones((300, 300))
state = {{}}
def work():
    import numpy
    state["array"] = numpy.arange(90000.0).reshape(300, 300)
    state["view"] = state["array"][1:3]
    state["product"] = state["array"] @ state["array"]
    numpy.random.seed(5)
with tentative.transaction(**options) as tx:
    work(); tx.rollback()
assert state == {{}} and ("numpy" in sys.modules) == {before}
for _ in range(3):
    with tentative.transaction(**options):
        work()
import numpy
assert state["view"].base is not None and numpy.shares_memory(state["view"], state["array"])
assert (state["array"] @ state["array"] == state["product"]).all() and numpy.random.random() == 0.22199317108973948
with tentative.transaction(**options) as tx:
    state["view"][:] = 0; state["array"] @ state["array"]; tx.rollback()
assert state["array"][1, 1] == 301
print("ok")
"""
    done = ran(sys.executable, "-c", program)
    assert done.returncode == 0 and done.stdout == "ok\n", done.stdout + done.stderr


def test_large_and_small_memory(options):
    kept = [bytes([n % 256]) * 1000 for n in range(1000)]
    arrays = [array.array("d", [n]) * 125_000 for n in range(10)]

    def change():
        del kept[::2], arrays[3:]
        arrays.extend(array.array("d", [n]) * 125_000 for n in range(50, 60))
        kept.append(bytearray(30_000_000))
        return sum(each[-1] for each in arrays)

    rolled_back(options, change)
    assert len(kept) == 1000 and [each[0] for each in arrays] == list(range(10))
    assert committed(options, change) == 0 + 1 + 2 + sum(range(50, 60))
    assert len(kept) == 501 and len(kept[-1]) == 30_000_000 and kept[0][0] == 1 and arrays[-1][124_999] == 59
    assert [each[0] for each in arrays] == [0, 1, 2, *range(50, 60)]
    arrays.append(array.array("d", [1]) * 1_000_000)


def test_state_of_standard_modules(options):
    random.seed(1)
    variable = contextvars.ContextVar("variable", default=0)
    counter, precision = collections.Counter("aab"), decimal.getcontext().prec

    def change():
        decimal.getcontext().prec = 11
        variable.set(5)
        counter.update("bbb")
        return random.random(), str(decimal.Decimal(1) / 3)

    rolled_back(options, change)
    assert decimal.getcontext().prec == precision and variable.get() == 0 and counter["b"] == 1
    drawn = committed(options, change)
    assert decimal.getcontext().prec == 11 and str(decimal.Decimal(1) / 3) == drawn[1] == "0.33333333333"
    assert variable.get() == 5 and counter == {"a": 2, "b": 4}
    random.seed(1)
    assert random.random() == drawn[0], "the generators that programs seed keep their state"
    decimal.getcontext().prec = precision


def test_environment_directory_and_umask(options, tmp_path):
    here, mask = os.getcwd(), os.umask(0o022)
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p

    def change():
        os.environ["TENTATIVE_TEST"] = "inside"
        os.environ.pop("HOME", None)
        os.chdir(tmp_path)
        os.umask(0o077)

    home = os.environ.get("HOME")
    rolled_back(options, change)
    assert os.getcwd() == here and "TENTATIVE_TEST" not in os.environ and getenv(b"TENTATIVE_TEST") is None
    assert os.umask(0o022) == 0o022 and os.environ.get("HOME") == home
    committed(options, change)
    try:
        assert (
            os.getcwd() == str(tmp_path)
            and getenv(b"TENTATIVE_TEST") == b"inside"
            and "HOME" not in os.environ
        )
        assert os.umask(mask) == 0o077
    finally:
        os.chdir(here)
        del os.environ["TENTATIVE_TEST"]
        if home is not None:
            os.environ["HOME"] = home


def test_signal_handlers_and_timers(options):
    log = []

    def change():
        signal.signal(signal.SIGUSR1, lambda *_: log.append("committed handler"))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        return signal.getsignal(signal.SIGUSR1)

    rolled_back(options, change)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    handler = committed(options, change)
    try:
        assert (
            signal.getsignal(signal.SIGUSR1) is handler and signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
        )
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert log == ["committed handler"]
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_open_files_keep_their_offset(options, tmp_path):
    path = tmp_path / "file"
    path.write_text("0123456789")
    with path.open() as file:
        assert file.read(2) == "01"
        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        rolled_back(options, lambda: (file.seek(0), file.read(5), file.seek(9)))
        assert file.tell() == 2 and os.lseek(file.fileno(), 0, os.SEEK_CUR) == position
        committed(options, lambda: file.seek(7))
        assert file.read() == "789"
    opened = committed(options, path.open)
    assert opened.read() == "0123456789"
    opened.close()
    number = os.open(path, os.O_RDONLY)

    def close():
        os.close(number)

    rolled_back(options, close)
    assert os.read(number, 1) == b"0"
    committed(options, close)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(number, 1)


def test_sqlite_connections(options, tmp_path):
    with_memory = sqlite3.connect(":memory:")
    with_memory.execute("create table t (n)")

    def change():
        with_memory.execute("insert into t values (1)")
        made = sqlite3.connect(":memory:")
        made.execute("create table u as select 7 as n")
        return made

    rolled_back(options, change)
    assert with_memory.execute("select count(*) from t").fetchone() == (0,)
    made = committed(options, change)
    assert with_memory.execute("select count(*) from t").fetchone() == (1,)
    assert made.execute("select n from u").fetchone() == (7,)
    made.close()
    with_memory.close()


def test_locks_and_thread_locals(options):
    lock, local = threading.RLock(), threading.local()
    local.value = 1

    def change():
        local.value = 2
        return lock.acquire()

    rolled_back(options, change)
    assert local.value == 1 and lock.acquire(blocking=False)
    lock.release()
    assert committed(options, change) and local.value == 2
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()
    thread = threading.Thread(target=lambda: setattr(local, "value", 3))
    thread.start()
    thread.join()
    assert local.value == 2


def test_c_memory_and_callbacks(options):
    buffer = ctypes.create_string_buffer(b"before", 32)
    kept = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)

    def change():
        ctypes.memmove(buffer, b"after!", 6)
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n * 10)
        return callback

    rolled_back(options, change)
    assert buffer.value == b"before" and kept(1) == 2
    callback = committed(options, change)
    assert buffer.value == b"after!" and (callback(4), kept(1)) == (40, 2)


def test_fork_handlers_run_as_for_a_parent(options):
    program = f"""
import os, tentative
log = []
os.register_at_fork(before=lambda: log.append("before"), after_in_parent=lambda: log.append("parent"),
                    after_in_child=lambda: log.append("child"))
with tentative.transaction(**{options!r}) as tx:
    tx.rollback(list(log))
assert tx.outcome.value == ["before", "parent"] and log == ["before", "parent"], (tx.outcome.value, log)
with tentative.transaction(**{options!r}):
    inside = list(log)
assert inside == ["before", "parent"] * 2 and log == ["before", "parent"] * 3, (inside, log)
"""
    done = ran(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def test_subprocesses_and_forks_inside(options):
    def inside():
        ran = subprocess.run(["sh", "-c", "echo inside; exit 3"], capture_output=True, text=True)
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        return ran.stdout, ran.returncode, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert committed(options, inside) == ("inside\n", 3, 5)


def test_the_origins_own_children_stay_its_own(options):
    child = subprocess.Popen(["sleep", "60"])
    try:
        rolled_back(options, lambda: None)
        committed(options, lambda: None)
        assert child.poll() is None
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL


def test_a_process_outside_is_there_and_not_to_be_looked_at(everything):
    parent, found = os.getppid(), []
    with tentative.transaction() as tx:
        assert os.getppid() == parent
        for look in (
            os.sched_getscheduler,
            os.sched_getparam,
            os.sched_getaffinity,
            os.sched_rr_get_interval,
        ):
            with pytest.raises(PermissionError):
                look(parent)
            look(0), look(os.getpid())
        with pytest.raises(PermissionError):
            os.getpriority(os.PRIO_PROCESS, parent)
        with pytest.raises(ProcessLookupError):
            os.sched_getscheduler(4_000_000)
        found = [effect.operation for effect in tx.effects]
    assert sorted(found) == sorted(
        ["getpriority", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval"]
    )


def test_a_process_that_is_just_ending_does_not_refuse_the_commit(everything):
    for _ in range(5):
        with tentative.transaction() as tx:
            shell = ["sh", "-c", "sleep 60 >/dev/null & echo $!"]
            orphan = int(subprocess.run(shell, stdout=subprocess.PIPE, check=True).stdout)
            os.kill(orphan, signal.SIGKILL)
        assert tx.outcome.committed
